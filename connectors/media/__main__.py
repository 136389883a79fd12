"""The zygote: `python -m connectors.media [module to preload]...`, started by `MediaHost` and of no use to a person.

Standard input is a unix socket. Every file descriptor that arrives on it is the stream of one piece of media, for which a child is
forked; its end means that the parent is gone, and everything here ends too.
"""

import contextlib
import gc
import importlib
import json
import os
import resource
import signal
import socket
import sys
import traceback
from typing import Any

ENTRY_PREFIX = "connectors."
"""Only our own connectors may be run in a child."""
HEADER_BYTES = 1 << 20
"""The longest request: a script of the local server may name thousands of objects."""
OPEN_FILES = 64
NICENESS = 5
"""Children give way to the process that has the sockets: a busy machine decodes later, but answers at once."""
PRELOADED = ("av", "numpy", "connectors.media.decoding")


def main(preload: list[str]) -> None:
    """Import what children need, tell the parent, and fork a child for each stream it sends, until it is gone."""
    for module in (*PRELOADED, *preload):
        importlib.import_module(module)
    gc.freeze()  # a collection in a child would copy every page that it shares with the others
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps: no zombies
    control = socket.socket(fileno=os.dup(0))
    control.sendall(b"+")
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            break
        for descriptor in descriptors:
            with socket.socket(fileno=descriptor) as connection:
                if os.fork() == 0:
                    control.close()
                    os._exit(_serve(connection))
    _end_children()


def _serve(connection: socket.socket) -> int:
    """A child's whole life; its exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.nice(NICENESS)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        with connection.makefile("rb") as source, connection.makefile("wb") as sink:
            sink.write(b"%d\n" % os.getpid())
            sink.flush()
            if not (line := source.readline(HEADER_BYTES)):
                return 1
            request = json.loads(line)
            _limit(**request["limits"])
            _entry(request["entry"])(source, sink, **request["options"])
    except ConnectionError:
        return 1  # the parent has lost interest
    except BaseException:  # noqa: BLE001 - the end of the process: nothing is above this but the exit status
        with contextlib.suppress(OSError):
            traceback.print_exc()
        return 1
    return 0


def _limit(*, cpu_seconds: int, address_space_bytes: int) -> None:
    for kind, most in (
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_AS, address_space_bytes),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_FSIZE, 0),  # a decoder has nothing to write to a file
        (resource.RLIMIT_CORE, 0),
    ):
        hardest = resource.getrlimit(kind)[1]
        most = most if hardest == resource.RLIM_INFINITY else min(most, hardest)  # noqa: PLW2901
        resource.setrlimit(kind, (most, most))


def _entry(dotted: str) -> Any:
    if not dotted.startswith(ENTRY_PREFIX):
        raise PermissionError(f"{dotted!r} is not one of {ENTRY_PREFIX}*")
    module, _, function = dotted.partition(":")
    return getattr(importlib.import_module(module), function)


def _end_children() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    os.killpg(0, signal.SIGCONT)  # one that was stopped would never hear of it
    with contextlib.suppress(ChildProcessError):  # raised when the last one has ended, since nothing is left to wait for
        while True:
            os.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
