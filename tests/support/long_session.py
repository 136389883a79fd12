"""The two ends of a long session as programs, so that each has a process, and so memory and CPU, of its own.

    python tests/support/long_session.py server SPEED              the local server, at so many times real time (0: as fast as it can)
    python tests/support/long_session.py ours|sample URL SECONDS   a session of silence: of our client, or in the manner of the seed page

All their TCP sockets have small buffers, so that no kernel hides for minutes that nobody reads. They talk in lines of JSON.
"""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect

from connectors.local_velma.organisation import Organisation
from connectors.local_velma.server import local_velma
from connectors.local_velma.switches import Switches
from connectors.velma import ApiKey, VelmaClient, VelmaSettings
from moderation.endpoints import ENDPOINTS
from moderation.formats import AudioFormat, StreamParameters
from moderation.pacing import Deadlines
from moderation.session import ClientSession

KEY = "a-key-of-the-torture"
MUSIC = ENDPOINTS["music"]
RAW = StreamParameters(AudioFormat.S16LE, 16_000, 1)
BYTES_PER_SECOND = 32_000
BUFFER_BYTES = 64 * 1024
SAMPLE_SECONDS = 0.5
PIECE_BYTES = 256 * 1024
PROGRESS_SECONDS = 60.0
"""Half of what four hours take at 120 times real time: who is slow all the time must not look dead."""


class SmallBuffers(asyncio.SelectorEventLoop):
    """An event loop whose TCP sockets hold BUFFER_BYTES in each direction, those that it accepts included."""

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        _shrink(sock)
        await super().sock_connect(sock, address)

    async def create_server(self, *args: Any, **options: Any) -> asyncio.Server:
        server = await super().create_server(*args, **options)
        for listening in server.sockets:  # what is accepted inherits it
            _shrink(listening)
        return server


def _shrink(sock: Any) -> None:
    for direction in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, direction, BUFFER_BYTES)


async def silence(seconds: int) -> AsyncIterator[bytes]:
    """So many seconds of RAW, made as they are asked for."""
    left = seconds * BYTES_PER_SECOND
    while left > 0:
        yield b"\0" * min(left, PIECE_BYTES)
        left -= PIECE_BYTES


def say(**facts: Any) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def memory() -> dict[str, int]:
    """KiB that this process holds now, and the most that it ever held."""
    said = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return {"rss_kib": int(said["VmRSS"].split()[0]), "peak_kib": int(said["VmHWM"].split()[0])}


async def serve(speed: str) -> None:
    """The local server at so many times real time, with the stub detector, until standard input ends."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    async with local_velma(Organisation(frozenset({KEY})), detector="stub", switches=Switches(speed=float(speed) or None)) as server:
        say(url=server.url)
        await ended.wait()


class Progress:
    """How far a client has come, said twice a second with what its process holds."""

    def __init__(self) -> None:
        self.sent_bytes = 0
        self.session: ClientSession | None = None

    def facts(self) -> dict[str, int]:
        sent = self.session.bytes_sent if self.session else self.sent_bytes
        items = len(self.session.columns) if self.session else 0
        return {"sent_s": sent // BYTES_PER_SECOND, "items": items, **memory()}

    async def tell(self) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        while True:
            say(at=round(clock() - began, 1), **self.facts())
            await asyncio.sleep(SAMPLE_SECONDS)


async def ours(progress: Progress, url: str, seconds: int) -> dict[str, Any]:
    """The session of our client; what it was worth."""
    client = VelmaClient(ApiKey(KEY), VelmaSettings(hosts={MUSIC.name: url}, deadlines=Deadlines(progress_s=PROGRESS_SECONDS)))

    def note(session: ClientSession) -> None:
        progress.session = session

    result = await client.analyse(MUSIC, RAW, silence(seconds), expected_ms=seconds * 1000, on_session=note)
    return {"ended": "done", "flags": sorted(result.flags), "duration_ms": result.done.duration_ms, "close_code": result.close_code}


async def sample(progress: Progress, url: str, seconds: int) -> dict[str, Any]:
    """What a client in the manner of the seed page's sample does, with the library's defaults: it sends all, and only then reads."""
    query = "&".join(f"{name}={value}" for name, value in {"api_key": KEY, **RAW.query()}.items())
    async with connect(f"{url}{MUSIC.path}?{query}", proxy=None) as connection:
        async for piece in silence(seconds):
            for start in range(0, len(piece), 16_000):
                await connection.send(piece[start : start + 16_000])
                progress.sent_bytes += len(piece[start : start + 16_000])
        await connection.send("")
        async for message in connection:
            if json.loads(message)["type"] == "done":
                return {"ended": "done"}
    return {"ended": "without done"}


async def stream(client: str, url: str, seconds: str) -> None:
    """One session; its progress, and then how it ended."""
    progress = Progress()
    telling = asyncio.create_task(progress.tell())
    try:
        end = await {"ours": ours, "sample": sample}[client](progress, url, int(seconds))
    except Exception as error:  # noqa: BLE001 - whatever ended it is what is asked
        end = {"ended": type(error).__name__, "error": str(error)}
    telling.cancel()
    say(**end, **progress.facts())


if __name__ == "__main__":
    role, *rest = sys.argv[1:]
    with asyncio.Runner(loop_factory=SmallBuffers) as runner:
        runner.run(serve(*rest) if role == "server" else stream(role, *rest))
