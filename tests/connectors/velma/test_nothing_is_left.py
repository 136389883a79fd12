"""However a session ends, no task, socket or thread of it is left."""

import asyncio
import contextlib
import os
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha1
from pathlib import Path
from typing import Self

import pytest
from websockets.frames import Close, Frame, Opcode

from connectors.velma import client as client_module
from moderation.errors import Phase, SessionError
from moderation.pacing import Deadlines
from velma_faults import FAULTS
from velma_services import (
    MUSIC,
    RAW,
    SECOND,
    SOON,
    client_of,
    done,
    pieces,
)

pytestmark = pytest.mark.net

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
END_OF_STREAM = b"\x81\x80"
"""How the frame of a client's empty text begins."""


class Peer:
    """A service in a thread, on a plain socket: it takes one connection, says `ends` at its end, and notes when the client has gone."""

    def __init__(self, *, answer: bytes | None = None, reads: bool = True, ends: bytes = b"", leaves: bool = False) -> None:
        self._answer, self._reads, self._ends, self._leaves = answer, reads, ends, leaves
        self.reached, self.gone, self.read_on = threading.Event(), threading.Event(), threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(20)
        self.host = f"ws://127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.read_on.set()
        self._thread.join()
        self._server.close()

    def _serve(self) -> None:
        connection, _ = self._server.accept()
        with connection, contextlib.suppress(ConnectionError):
            connection.settimeout(20)
            request = b""
            while b"\r\n\r\n" not in request and (data := connection.recv(4096)):
                request += data
            connection.sendall(upgrade(request) if self._answer is None else self._answer)
            if not self._ends:
                self.reached.set()
            if not self._reads:
                self.read_on.wait(20)
            while data := connection.recv(1 << 16):
                if self._ends and data.startswith(END_OF_STREAM):
                    connection.sendall(self._ends)
                    self.reached.set()
                    if self._leaves:
                        self.read_on.wait(20)
                        break
        self.gone.set()


def upgrade(request: bytes) -> bytes:
    key = request.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
    accept = b64encode(sha1(key + GUID, usedforsecurity=False).digest())
    return b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"


DONE_FRAME = Frame(Opcode.TEXT, done().encode()).serialize(mask=False)
CLOSE_FRAME = Frame(Opcode.CLOSE, Close(4029, "").serialize()).serialize(mask=False)


async def happens(event: threading.Event) -> None:
    """Polled, since a thread that waited would be one more that is left."""
    async with asyncio.timeout(20):
        while not event.is_set():
            await asyncio.sleep(0.005)


@contextlib.contextmanager
def nothing_left(host: str) -> Iterator[None]:
    """What the block starts is over when it ends: at once, not some turns of the loop later. Sockets are those to the host."""
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    yield
    assert asyncio.all_tasks() == tasks
    assert set(threading.enumerate()) <= threads
    assert sockets_to(int(host.rpartition(":")[2])) == []


def sockets_to(port: int) -> list[int]:
    """The descriptors of this process that are connected to this port."""
    found = []
    for descriptor in Path("/dev/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile, or connected to nobody
            if descriptor.is_socket():
                with socket.socket(fileno=os.dup(int(descriptor.name))) as copy:
                    found += [int(descriptor.name)] if copy.family == socket.AF_INET and copy.getpeername()[1] == port else []
    return found


@pytest.mark.parametrize(
    ("peer", "audio"),
    [({"answer": b""}, SECOND), ({"reads": False}, SECOND * 3600), ({}, SECOND)],
    ids=["connecting", "uploading", "draining"],
)
async def test_a_cancelled_session_leaves_nothing(peer, audio, monkeypatch):
    """Pings are due all the time, so that one waits behind an upload that nobody takes."""
    monkeypatch.setattr(client_module, "PING_SECONDS", 0.01)
    with Peer(**peer) as service_:
        client = client_of(service_.host, deadlines=Deadlines(close_s=0.1), window_ms=1 << 30)
        with nothing_left(service_.host):
            session = asyncio.create_task(client.analyse(MUSIC, RAW, pieces(bytes(audio), 1 << 18)))
            await happens(service_.reached)
            await asyncio.sleep(0.2)
            session.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(session, 10)
        service_.read_on.set()
        await happens(service_.gone)


async def test_cancelled_while_closing_takes_the_transport_down():
    """The close would have waited for half a minute."""
    with Peer(ends=DONE_FRAME) as service_:
        client = client_of(service_.host, deadlines=Deadlines(close_s=30))
        with nothing_left(service_.host):
            session = asyncio.create_task(client.analyse(MUSIC, RAW, pieces(b"")))
            await happens(service_.reached)
            await asyncio.sleep(0.05)
            session.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(session, 10)
        await happens(service_.gone)


async def test_a_session_cancelled_at_any_moment_leaves_nothing(velma):
    """After so many turns of the loop, whatever the session is about to do then."""
    client = client_of(velma.url)
    for turns in [*range(12), *range(12, 60, 5)]:
        with nothing_left(velma.url):
            session = asyncio.create_task(client.analyse(MUSIC, RAW, pieces(bytes(SECOND))))
            for _ in range(turns):
                await asyncio.sleep(0)
            session.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(session, 10)


async def test_a_service_that_does_not_close_costs_no_result():
    with Peer(ends=DONE_FRAME) as service_:
        with nothing_left(service_.host):
            result = await client_of(service_.host, deadlines=Deadlines(close_s=0.1)).analyse(MUSIC, RAW, pieces(b""))
        await happens(service_.gone)
    assert (result.flags, result.close_code) == (frozenset(), 1006)


async def test_a_service_that_leaves_when_it_is_left_leaves_nothing():
    """The deadline of the close and the end of the connection come in one turn of a loop that was busy: the keepalive ends after both."""
    with Peer(ends=DONE_FRAME, leaves=True) as service_:

        def busy() -> None:
            service_.read_on.set()
            service_.gone.wait(20)
            time.sleep(0.2)

        async def when_closing() -> None:
            await happens(service_.reached)
            await asyncio.sleep(0.02)
            busy()

        with nothing_left(service_.host):
            closing = asyncio.create_task(when_closing())
            await client_of(service_.host, deadlines=Deadlines(close_s=0.1)).analyse(MUSIC, RAW, pieces(b""))
            if not closing.done():  # on a machine that is too slow the two do not come together
                await closing


async def test_a_service_that_reads_nothing_is_left():
    deadlines = Deadlines(progress_s=0.3, close_s=0.2)
    with Peer(reads=False) as service_:
        with nothing_left(service_.host), pytest.raises(SessionError, match="nothing moved at 0 ms") as raised:
            await client_of(service_.host, deadlines=deadlines, window_ms=1 << 30).analyse(
                MUSIC, RAW, pieces(bytes(SECOND * 3600), 1 << 18)
            )
        service_.read_on.set()
        await happens(service_.gone)
    assert (raised.value.phase, raised.value.close_code) == (Phase.ADMITTED, None)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"], ids=["none", "a refusal"])
async def test_an_answer_that_is_no_upgrade_leaves_nothing(answer):
    with Peer(answer=answer) as service_:
        with nothing_left(service_.host), pytest.raises(SessionError):
            await client_of(service_.host, deadlines=Deadlines(connect_s=1.0)).analyse(MUSIC, RAW, pieces(bytes(SECOND)))
        await happens(service_.gone)


@pytest.mark.parametrize("name", ["wrong key", "undecodable while uploading", "credits used up"])
async def test_a_failed_session_leaves_nothing(velma, name):
    fault = FAULTS[name]
    async with fault.host(velma) as host:
        with nothing_left(host), pytest.raises(SessionError):
            await client_of(host, deadlines=fault.deadlines).analyse(MUSIC, fault.parameters, pieces(fault.audio))


async def test_a_good_session_leaves_nothing(velma):
    with nothing_left(velma.url):
        await client_of(velma.url).analyse(MUSIC, RAW, pieces(bytes(SECOND)))


async def test_a_close_frame_of_a_service_that_stays_keeps_its_code():
    with Peer(ends=CLOSE_FRAME) as service_:
        with nothing_left(service_.host), pytest.raises(SessionError, match="closed before a done message") as raised:
            await client_of(service_.host, deadlines=SOON).analyse(MUSIC, RAW, pieces(b""))
        await happens(service_.gone)
    assert raised.value.close_code == 4029
