"""Reading the audio: it fails, it ends, it is closed."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.server import ServerConnection

from connectors.velma.chunks import SourceFailure, whole_frames
from moderation.errors import SessionError, SourceGone
from velma_faults import FAULTS
from velma_services import (
    MUSIC,
    RAW,
    SECOND,
    breaking,
    client_of,
    error,
    pieces,
    service,
)

pytestmark = pytest.mark.net


@pytest.mark.parametrize("failure", [SourceGone("deleted"), OSError(5, "I/O error"), TimeoutError()])
async def test_a_source_that_breaks(failure):
    received: list[str | bytes] = []

    async def handler(connection: ServerConnection) -> None:
        received.extend([message async for message in connection])

    async with service(handler) as host:
        with pytest.raises(type(failure)) as raised:
            await client_of(host).analyse(MUSIC, RAW, breaking(SECOND * 3, failure))
    assert raised.value is failure
    assert received
    assert "" not in received


async def test_a_source_that_breaks_while_much_is_said():
    """News from the service do not put off the end."""

    async def handler(connection: ServerConnection) -> None:
        with contextlib.suppress(Exception):
            while True:
                await connection.send(json.dumps({"type": "progress"}))
                await asyncio.sleep(0)

    async with service(handler) as host:
        for _ in range(10):
            with pytest.raises(SourceGone):
                await client_of(host).analyse(MUSIC, RAW, breaking(10, SourceGone("deleted")))


async def test_a_source_that_breaks_after_the_refusal():
    """The service's verdict is known: it counts."""
    refused = asyncio.Event()

    async def handler(connection: ServerConnection) -> None:
        await connection.send(error("Insufficient credits."))
        await connection.recv()
        refused.set()
        await asyncio.sleep(0.05)
        await connection.close(4029)

    async def audio() -> AsyncIterator[bytes]:
        yield bytes(1 << 16)
        await refused.wait()
        raise SourceGone("deleted")

    async with service(handler) as host:
        with pytest.raises(SessionError, match="Insufficient credits"):
            await client_of(host).analyse(MUSIC, RAW, audio())


class Tape:
    """Audio whose end is noted, however it comes."""

    def __init__(self) -> None:
        self.closed = False

    async def play(self) -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(1 << 16)
        finally:
            self.closed = True


@pytest.mark.parametrize("name", ["closed while uploading", "reset in mid-stream", "done too early", "an unknown code"])
async def test_the_source_is_closed_when_the_session_ends(velma, name):
    tape = Tape()
    async with FAULTS[name].host(velma) as host:
        with pytest.raises(SessionError):
            await client_of(host).analyse(MUSIC, RAW, tape.play())
        assert tape.closed


async def test_whole_frames_of_any_pieces():
    data = bytes(range(256)) * 40
    for piece, chunk, frame in [(1, 10, 3), (7, 64, 6), (10_000, 64, 16), (100, 1, 8), (333, 1000, None)]:
        chunks = [part async for part in whole_frames(pieces(data, piece), chunk, frame)]
        assert b"".join(chunks) == data[: len(data) - len(data) % (frame or 1)]
        assert {len(part) % (frame or 1) for part in chunks} == {0}
        assert max(len(part) for part in chunks) <= max(chunk, frame or 1)
        assert len({len(part) for part in chunks[:-1]}) == 1  # the last one alone may be smaller


async def test_whole_frames_tell_the_sources_failure_apart():
    failure = ValueError("broken")
    with pytest.raises(SourceFailure) as raised:
        [part async for part in whole_frames(breaking(10, failure), 4, 2)]
    assert raised.value.cause is failure


async def test_any_iterator_will_do(velma):
    class Once:
        def __init__(self) -> None:
            self.left = [bytes(SECOND)]

        def __aiter__(self):
            return self

        async def __anext__(self) -> bytes:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop()

    assert len((await client_of(velma.url).analyse(MUSIC, RAW, Once())).columns) == 5
