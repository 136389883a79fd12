"""Ending a run well from outside: SIGTERM and Ctrl-C."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from flows.console import stderr

if TYPE_CHECKING:
    from flows.run import Watch

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@asynccontextmanager
async def stoppable(watch: "Watch", grace_seconds: float) -> AsyncIterator[None]:
    """While the block runs, a signal starts nothing more, and after the grace period (or a second signal) ends every session.

    Within a flow this goes inside it: Prefect's own handler, which would break off at once, is put there by then. Outside the main
    thread no signal arrives, and none is asked for.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {name: signal.getsignal(name) for name in SIGNALS}

    def stop() -> None:
        if watch.stop:
            watch.drop()
            return
        watch.terminate()
        stderr.print(f"stopping: running sessions have {grace_seconds:.0f} s to finish (again to end them now)", highlight=False)
        loop.call_later(grace_seconds, watch.drop)

    for name in SIGNALS:
        loop.add_signal_handler(name, stop)
    try:
        yield
    finally:
        for name, handler in before.items():
            loop.remove_signal_handler(name)
            signal.signal(name, handler)
