"""The parent's half of the media children: one zygote process, and a forked child of it for every piece of media."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

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
    """What a child may use before the kernel ends it. A limit on wall time is the caller's: leaving `open` ends the child.

    Decoding and detection take well under 1 % of an hour's audio in CPU time, so ten minutes are about a thousand hours of audio.
    """

    cpu_seconds: int = 600
    address_space_bytes: int = 2 << 30


DEFAULT_LIMITS = Limits()


class MediaHost:
    """The owner of a zygote: a process with PyAV, numpy and the preloaded modules imported, from which a child is forked in milliseconds.

    preload names the modules to import before forking. The zygote ends when this process does, however that ends, and takes its
    children along. Raises MediaHostDown on entry if it does not start.
    """

    def __init__(self, preload: Sequence[str] = ()) -> None:
        self._preload = tuple(preload)
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
        self, entry: str, options: Mapping[str, Any] | None = None, limits: Limits = DEFAULT_LIMITS
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A child that runs entry ("connectors.module:function") as function(source, sink, **options), as the two ends of its stream.

        What is written reaches source, `writer.write_eof()` ends it; what the child writes to sink is read until EOF, which comes when
        the child ends, in whatever way: only its own last line can tell success. Leaving the context closes the stream, and the child
        ends at its next read or write (a busy one at its CPU limit). Raises MediaHostDown without a zygote.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                await self._hand_over(theirs)
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=LINE_BYTES)
        except BaseException:
            ours.close()
            raise
        try:
            writer.write(json.dumps({"entry": entry, "options": dict(options or {}), "limits": asdict(limits)}).encode() + b"\n")
            yield reader, writer
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

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


def _environment() -> dict[str, str]:
    # one thread each: children are the parallelism, and a process with threads must not fork
    fixed = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return {name: os.environ[name] for name in INHERITED if name in os.environ} | fixed
