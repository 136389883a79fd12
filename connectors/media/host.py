"""The parent's half of the media children: one zygote process, and a forked child of it for every piece of media."""

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, cast

from moderation.errors import Scope, SoundcheckError

CLOSE_SECONDS = 5.0
"""How long a closing zygote gets to end its children before all of them are killed."""
LINE_BYTES = 1 << 20
"""The longest line that a reader takes."""
FULL_QUEUE_SECONDS = 0.005
"""The pause before a child is asked for again, when a few hundred requests wait: about the time of one fork."""
INHERITED = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
"""The only environment variables that children see: no key or credential is within reach of what decodes untrusted bytes."""


class MediaHostDown(SoundcheckError):
    """The zygote did not start, or has died: no media can be decoded until the host is opened anew."""

    scope = Scope.CONFIG


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may use before the kernel ends it, and how long it may be still before its parent does.

    Decoding and the default detector take about 0.5 % of the audio's length in CPU time, so ten minutes are some thirty hours of audio.
    wall_seconds is the time without a sign of life from a child that has something to do: one that only waits, for audio that is still
    to come or for a parent that does not read, may wait for ever. It is ended after one to two times that.
    """

    cpu_seconds: int = 600
    address_space_bytes: int = 2 << 30
    wall_seconds: float = 60.0


DEFAULT_LIMITS = Limits()


class MediaHost:
    """The owner of a zygote: a process with PyAV, numpy and the preloaded modules imported, from which a child is forked in milliseconds.

    preload names the modules to import before forking, limits hold for every child. The zygote ends when this process does, however
    that ends, and takes its children along. Raises MediaHostDown on entry if it does not start.
    """

    def __init__(self, preload: Sequence[str] = (), limits: Limits = DEFAULT_LIMITS) -> None:
        self._preload = tuple(preload)
        self._limits = limits
        self._control: socket.socket | None = None
        self._zygote: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self._control, theirs = socket.socketpair()
        self._control.setblocking(False)
        with theirs:
            self._zygote = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "connectors.media",
                *self._preload,
                stdin=theirs.fileno(),
                stdout=asyncio.subprocess.DEVNULL,
                env=_environment(),
                start_new_session=True,  # a terminal's Ctrl-C is this process's to handle; and a group of their own can be ended as one
            )
        try:
            ready = await asyncio.get_running_loop().sock_recv(self._control, 1)
        except BaseException:
            await self._close()
            raise
        if not ready:
            await self._close()
            raise MediaHostDown("the media process did not start: its error output has the reason")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._close()

    @property
    def pid(self) -> int | None:
        """The zygote's process id while the host is open; it is also the process group of all its children."""
        return self._zygote.pid if self._zygote else None

    @asynccontextmanager
    async def open(
        self, entry: str, options: Mapping[str, Any] | None = None, limits: Limits | None = None
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A child that runs entry ("connectors.module:function") as function(source, sink, **options), as the two ends of its stream.

        What is written reaches source, `writer.write_eof()` ends it; what the child writes to sink is read until EOF, which comes when
        the child ends, in whatever way: only its own last line can tell success. Leaving the context ends the child. limits are those
        of the host, unless given. Raises MediaHostDown without a zygote.
        """
        limits = limits or self._limits
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                await self._hand_over(theirs)
            reader, child = await _connect(ours)
        except BaseException:
            ours.close()
            raise
        watch = None
        try:
            child.pid = int(await reader.readline() or 0)
            kernels = {"cpu_seconds": limits.cpu_seconds, "address_space_bytes": limits.address_space_bytes}
            child.write(json.dumps({"entry": entry, "options": dict(options or {}), "limits": kernels}).encode() + b"\n")
            watch = asyncio.create_task(child.watch(limits.wall_seconds))
            yield reader, child
        finally:
            if watch is not None:
                watch.cancel()
            child.kill()
            child.transport.abort()
            with contextlib.suppress(OSError):
                await child.wait_closed()

    async def _hand_over(self, connection: socket.socket) -> None:
        if self._control is None:
            raise MediaHostDown("the media host is not open")
        while True:
            try:
                socket.send_fds(self._control, [b"+"], [connection.fileno()])
            except BlockingIOError:
                await asyncio.sleep(FULL_QUEUE_SECONDS)
            except OSError as error:
                raise MediaHostDown("the media process has died") from error
            else:
                return

    async def _close(self) -> None:
        control, zygote, self._control, self._zygote = self._control, self._zygote, None, None
        if control is not None:
            control.close()  # its EOF tells the zygote to end
        if zygote is None:
            return
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await zygote.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(zygote.pid, signal.SIGKILL)


class _Stream(asyncio.StreamReaderProtocol):
    """A child's stream as it moves: signs counts what the child said and took, full is while it takes nothing."""

    signs = 0
    full = False

    def data_received(self, data: bytes) -> None:
        self.signs += 1
        super().data_received(data)

    def pause_writing(self) -> None:
        self.signs += 1
        self.full = True
        super().pause_writing()

    def resume_writing(self) -> None:
        self.signs += 1
        self.full = False
        super().resume_writing()


class _Child(asyncio.StreamWriter):
    """The writing end of a child's stream, and the child's own end."""

    def __init__(self, transport: asyncio.WriteTransport, stream: _Stream, reader: asyncio.StreamReader) -> None:
        super().__init__(transport, stream, reader, asyncio.get_running_loop())
        self._stream = stream
        self._complete = False
        self.pid = 0
        """Of the child, once it has said so, which is before it reads a byte of what it is to run or to decode."""

    def write_eof(self) -> None:
        self._stream.signs += 1
        self._complete = True
        super().write_eof()

    async def watch(self, wall_seconds: float) -> None:
        """Kill the child when it gave no sign of life for so long although it had something to do."""
        while True:
            before = self._stream.signs
            await asyncio.sleep(wall_seconds)
            if self._stream.signs == before and self._owes():
                self.kill()
                return

    def kill(self) -> None:
        """Kill the child, if its end of the stream is still open: the pid of one that is gone may be somebody else's by now."""
        if self.pid and not self.transport.is_closing():
            hung_up = select.poll()
            hung_up.register(self.get_extra_info("socket"), 0)
            if not hung_up.poll(0):
                with contextlib.suppress(ProcessLookupError):  # it ended just now
                    os.kill(self.pid, signal.SIGKILL)

    def _owes(self) -> bool:
        """Whether it is the child's turn: audio waits for it, or all of it was sent, and what it says is being read."""
        reading = cast("asyncio.ReadTransport", self.transport).is_reading()
        return reading and (self._stream.full or self._complete)


async def _connect(ours: socket.socket) -> tuple[asyncio.StreamReader, _Child]:
    reader = asyncio.StreamReader(limit=LINE_BYTES)
    stream = _Stream(reader)
    transport, _ = await asyncio.get_running_loop().create_unix_connection(lambda: stream, sock=ours)
    return reader, _Child(transport, stream, reader)


def _environment() -> dict[str, str]:
    # one thread each: children are the parallelism, and a process with threads must not fork
    fixed = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return {name: os.environ[name] for name in INHERITED if name in os.environ} | fixed
