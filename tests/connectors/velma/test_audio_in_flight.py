"""How much audio is on its way at once, and that nobody waits for the other for ever."""

import asyncio
import contextlib
import json
from functools import partial

import pytest
from websockets.asyncio.server import ServerConnection

from connectors.velma import exchange
from moderation.pacing import AckWindow
from moderation.results import Flag
from velma_services import (
    MUSIC,
    RAW,
    SECOND,
    WAV,
    all_audio,
    client_of,
    done,
    item,
    pieces,
    service,
)

pytestmark = pytest.mark.net


async def test_audio_in_flight_is_bounded():
    """The server answers only when no more comes: one second of audio is on its way then, and no less."""
    bursts = []

    async def handler(connection: ServerConnection) -> None:
        size = answered = 0
        for _ in range(3):
            with contextlib.suppress(TimeoutError):
                while True:
                    size += len(await asyncio.wait_for(connection.recv(), 0.2))
            bursts.append(size)
            while (answered + 1) * 192 * 32 <= size:
                await connection.send(item(answered * 192))
                answered += 1
        await all_audio(connection)
        await connection.send(done(answered))

    async with service(handler) as host:
        client = client_of(host, window_ms=1000, chunk_bytes=3200)
        result = await client.analyse(MUSIC, RAW, pieces(bytes(SECOND * 7 // 2)))
    assert bursts == [32_000, 64_000, 96_000]  # 1000 ms, then 1000 ms more than the 960 and 1920 ms that were answered, in whole chunks
    assert len(result.columns) == 15


async def test_containers_are_bounded_in_bytes():
    burst = []

    async def handler(connection: ServerConnection) -> None:
        size = 0
        with contextlib.suppress(TimeoutError):
            while True:
                size += len(await asyncio.wait_for(connection.recv(), 0.2))
        burst.append(size)
        await connection.send(item())
        await all_audio(connection)
        await connection.send(done(1))

    async with service(handler) as host:
        client = client_of(host, window_bytes=10_000, chunk_bytes=1000)
        assert len((await client.analyse(MUSIC, WAV, pieces(bytes(15_000)))).columns) == 1
    assert burst == [10_000]


async def test_a_server_that_waits_for_more_than_the_window_is_not_starved(monkeypatch):
    monkeypatch.setattr(exchange, "AckWindow", partial(AckWindow, patience_s=0.01))
    received = []

    async def handler(connection: ServerConnection) -> None:
        received.append(await all_audio(connection))
        await connection.send(done())

    async with service(handler) as host:
        await client_of(host, window_ms=1000, chunk_bytes=3200).analyse(MUSIC, RAW, pieces(bytes(SECOND * 2)))
    assert received == [SECOND * 2]


async def test_a_server_that_answers_late():
    """Ten minutes of audio, answered 20 s behind, while the server reads nothing as long as it writes."""

    async def handler(connection: ServerConnection) -> None:
        size = answered = 0
        while message := await connection.recv():
            size += len(message)
            while (answered + 1) * 192 * 32 <= size - 20 * SECOND:
                await connection.send(item(answered * 192))
                answered += 1
        for frame in range(answered, 3125):
            await connection.send(item(frame * 192))
        await connection.send(done(3125))

    async with service(handler) as host:
        result = await client_of(host).analyse(MUSIC, RAW, pieces(bytes(SECOND * 600), 1 << 18))
    assert (len(result.columns), result.flags) == (3125, frozenset())


async def test_a_server_that_says_more_than_it_hears():
    """A client that sends everything before it reads would wait for this server, which waits for the client."""
    chatter = json.dumps({"type": "progress", "note": "x" * 10_000})

    async def handler(connection: ServerConnection) -> None:
        while await connection.recv():
            for _ in range(20):
                await connection.send(chatter)
        await connection.send(done())

    async with service(handler, max_queue=1) as host:
        result = await client_of(host).analyse(MUSIC, RAW, pieces(bytes(SECOND * 50), 1 << 18))
    assert result.flags == {Flag.SHAPE}
