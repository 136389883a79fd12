"""A TCP proxy that does to a connection what networks do: delays, trickles, cuts, swallows and resets. It knows nothing of what it carries.

    python tests/support/fault_proxy.py --to 127.0.0.1:8765 --listen 9000 --up latency_s=0.2 jitter_s=0.1 --down reset_after=4096

`up` is what the client sends, `down` what the server does.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import random
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self, TypeAlias

READ_BYTES = 16 * 1024
LINE_CHUNKS = 64
"""Reads that a delay holds at most: a network, too, takes no more than fits into it."""
TICK_S = 0.02
"""A bandwidth is kept by sleeps of about this length."""


@dataclass(frozen=True)
class Toxics:
    """What happens to one direction of every connection. Bytes are counted from the connection's start; all of these can be combined."""

    latency_s: float = 0.0
    jitter_s: float = 0.0
    """Added to the latency or taken from it, at random; the order of bytes stays."""
    bytes_per_second: float | None = None
    slice_bytes: int | None = None
    """Bytes of one write, each of which the other side can read by itself."""
    stall_after: int | None = None
    """Bytes after which nothing is forwarded or read any more, while the connection stays."""
    limit: int | None = None
    """Bytes after which both sides are closed."""
    reset_after: int | None = None
    """Bytes after which both sides are reset; 0 resets the client before the server hears of it."""
    slow_close_s: float = 0.0
    """How long the end of the stream is withheld."""

    def __post_init__(self) -> None:
        if self.jitter_s > self.latency_s:
            raise ValueError("a jitter larger than the latency would deliver before sending")

    @classmethod
    def parse(cls, words: list[str]) -> Self:
        """Toxics of words such as `latency_s=0.2`. Raises ValueError or TypeError for what is none."""
        pairs = (word.partition("=")[::2] for word in words)
        return cls(**{name: float(value) if name.endswith(("_s", "_second")) else int(value) for name, value in pairs})

    @property
    def write_bytes(self) -> int:
        """Bytes of one write at most."""
        by_rate = max(1, int(self.bytes_per_second * TICK_S)) if self.bytes_per_second else READ_BYTES
        return min(self.slice_bytes or READ_BYTES, by_rate)


CLEAN = Toxics()
Delivery: TypeAlias = tuple[float, bytes | None]
"""When it is due, and what: b"" is the end of the stream, None a reset, which no data overtakes and which overtakes none."""


class _Cut(Exception):
    """The connection ends here, with a reset or without."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__()
        self.reset = reset


class FaultProxy:
    """A proxy on loopback for as long as the block runs. accepted counts its connections, forwarded the bytes of all by direction.

    tripped is set when the first connection was stalled, closed or reset by a toxic. Jitter comes from the seed alone. receive_buffer is
    the size of the kernel's, which would otherwise swallow megabytes before a client feels a slow server.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        up: Toxics = CLEAN,
        down: Toxics = CLEAN,
        seed: int = 0,
        listen: int = 0,
        receive_buffer: int | None = None,
    ) -> None:
        self.up, self.down = up, down
        self._receive_buffer = receive_buffer
        self.accepted = 0
        self.forwarded = {"up": 0, "down": 0}
        self.tripped = asyncio.Event()
        self._target = (host, port)
        self._listen = listen
        self._seed = seed
        self._links: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None, "it listens only inside its block"
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", self._listen))
        if self._receive_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        self._server = await asyncio.start_server(self._accept, sock=listener)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)
        await self._server.wait_closed()
        await asyncio.sleep(0)  # aborted transports close in the next turn of the loop

    def reset(self) -> None:
        """Reset every connection now, on both sides."""
        for writers in self._links.values():
            for writer in writers:
                _reset(writer)

    async def serve_forever(self) -> None:
        """Serve until cancelled."""
        assert self._server is not None
        await self._server.serve_forever()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = asyncio.get_running_loop().create_task(self._link(reader, writer, random.Random(self._seed + self.accepted)))
        self._links[link] = [writer]
        link.add_done_callback(self._links.pop)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, chance: random.Random) -> None:
        """One connection, until both directions have ended or one is cut."""
        writers = self._links[asyncio.current_task()]
        with contextlib.ExitStack() as stack:
            stack.callback(lambda: [each.transport.abort() for each in writers])
            try:
                if self.up.reset_after == 0 or self.down.reset_after == 0:
                    self._cut(reset=True)
                server_reader, server_writer = await asyncio.open_connection(*self._target)
                writers.append(server_writer)
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._direction("up", reader, server_writer, self.up, chance))
                    both.create_task(self._direction("down", server_reader, writer, self.down, chance))
            except* _Cut as cuts:
                for each in writers if any(cut.reset for cut in _leaves(cuts)) else []:
                    _reset(each)
            except* OSError:  # there is no server
                _reset(writer)
            for each in writers:
                each.close()
            for each in writers:
                with contextlib.suppress(OSError):
                    await each.wait_closed()

    def _cut(self, *, reset: bool) -> None:
        self.tripped.set()
        raise _Cut(reset=reset)

    async def _direction(
        self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, toxics: Toxics, chance: random.Random
    ) -> None:
        line: asyncio.Queue[Delivery] = asyncio.Queue(LINE_CHUNKS)
        async with asyncio.TaskGroup() as ends:
            ends.create_task(_read(reader, line, toxics, chance))
            ends.create_task(self._write(name, line, writer, toxics))

    async def _write(self, name: str, line: asyncio.Queue[Delivery], writer: asyncio.StreamWriter, toxics: Toxics) -> None:
        clock, sent = asyncio.get_running_loop().time, 0
        await self._trip(toxics, sent)
        while True:
            due, data = await line.get()
            await asyncio.sleep(max(0.0, due - clock()))
            if data is None:
                raise _Cut(reset=True)
            if not data:
                break
            while data:
                piece = data[: min(toxics.write_bytes, _room(toxics, sent))]
                data = data[len(piece) :]
                with contextlib.suppress(OSError):  # who has gone says so in the other direction, behind what it had sent
                    writer.write(piece)
                    await writer.drain()
                sent += len(piece)
                self.forwarded[name] += len(piece)
                await self._trip(toxics, sent)
                await asyncio.sleep(len(piece) / toxics.bytes_per_second if toxics.bytes_per_second else 0)
        if writer.can_write_eof():
            writer.write_eof()

    async def _trip(self, toxics: Toxics, sent: int) -> None:
        """Do what is due after so many bytes."""
        if sent == toxics.reset_after:
            self._cut(reset=True)
        if sent == toxics.limit:
            self._cut(reset=False)
        if sent == toxics.stall_after:
            self.tripped.set()
            await asyncio.Event().wait()


async def _read(reader: asyncio.StreamReader, line: asyncio.Queue[Delivery], toxics: Toxics, chance: random.Random) -> None:
    """Take what comes, each read with the time at which it is due, until the end of the stream (a read of nothing) or a reset (None)."""
    clock = asyncio.get_running_loop().time
    due, data = 0.0, b"."
    while data:
        try:
            data = await reader.read(READ_BYTES)
        except OSError:
            data = None
        due = max(due, clock() + delay_s(toxics, chance) + (0.0 if data else toxics.slow_close_s))
        await line.put((due, data))


def delay_s(toxics: Toxics, chance: random.Random) -> float:
    """How long one read is held."""
    return toxics.latency_s + chance.uniform(-toxics.jitter_s, toxics.jitter_s)


def _room(toxics: Toxics, sent: int) -> int:
    """Bytes until the next thing that happens."""
    marks = [mark - sent for mark in (toxics.stall_after, toxics.limit, toxics.reset_after) if mark is not None and mark > sent]
    return min(marks, default=READ_BYTES)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the other side gets RST, whatever is under way."""
    connection = writer.get_extra_info("socket")
    if not writer.transport.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _leaves(group: BaseExceptionGroup[_Cut]) -> Iterator[_Cut]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _arguments() -> argparse.Namespace:
    names = ", ".join(field.name for field in dataclasses.fields(Toxics))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", required=True, metavar="HOST:PORT", help="where connections go")
    parser.add_argument("--listen", type=int, default=0, metavar="PORT", help="on loopback; any free port by default")
    parser.add_argument("--seed", type=int, default=0, help="of the jitter")
    parser.add_argument("--up", nargs="+", default=[], metavar="TOXIC=VALUE", help=f"any of {names}")
    parser.add_argument("--down", nargs="+", default=[], metavar="TOXIC=VALUE", help="the same for what the server sends")
    return parser.parse_args()


async def _main(arguments: argparse.Namespace) -> None:
    host, _, port = arguments.to.rpartition(":")
    up, down = Toxics.parse(arguments.up), Toxics.parse(arguments.down)
    async with FaultProxy(host, int(port), up=up, down=down, seed=arguments.seed, listen=arguments.listen) as proxy:
        sys.stdout.write(f"127.0.0.1:{proxy.port} -> {arguments.to}\n")
        sys.stdout.flush()
        await proxy.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(_arguments()))
