"""Ending a run well from outside: SIGTERM, Ctrl-C, and whoever cancels it in Prefect."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from flows.console import stderr

if TYPE_CHECKING:
    from flows.watch import Watch

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAME_SIGNAL_SECONDS = 0.1
"""Signals closer together than this are one: timeout(1) sends its own to the process, and then to the whole group."""


class Drain:
    """The end of a run that is wanted before its time: nothing more starts, and what streams has a grace period to finish in."""

    def __init__(self, watch: "Watch", grace_seconds: float) -> None:
        self._watch = watch
        self._grace_seconds = grace_seconds
        self._timer: asyncio.TimerHandle | None = None
        self._signalled_at: float | None = None

    def begin(self, wanted_by: str, ago_s: float = 0.0) -> None:
        """Start nothing more, and end every session after the grace period, some seconds of which may be over. The earliest end holds."""
        loop = asyncio.get_running_loop()
        left_s = self._grace_seconds - min(max(ago_s, 0.0), self._grace_seconds)
        if self._timer is None:
            self._watch.terminate(wanted_by)
            stderr.print(f"stopping: running sessions have {left_s:.0f} s to finish (again to end them now)", highlight=False)
        elif self._timer.when() <= loop.time() + left_s:
            return
        else:
            self._timer.cancel()
        self._timer = loop.call_later(left_s, self._watch.drop)

    def signalled(self) -> None:
        """Take a signal: the first one drains, another ends every session now."""
        now = asyncio.get_running_loop().time()
        before, self._signalled_at = self._signalled_at, now
        if before is None:
            self.begin("a signal")
        elif now - before > SAME_SIGNAL_SECONDS:
            self._watch.drop()

    def over(self) -> None:
        """Forget the grace period: there is nothing left to end."""
        if self._timer is not None:
            self._timer.cancel()


@asynccontextmanager
async def stoppable(watch: "Watch", grace_seconds: float) -> AsyncIterator[Drain]:
    """While the block runs, signals drain the run; so can the block itself.

    Within a flow this goes inside it: Prefect's own handler, which would break off at once, is put there by then. Outside the main
    thread no signal arrives, and none is asked for.
    """
    drain = Drain(watch, grace_seconds)
    signals = SIGNALS if threading.current_thread() is threading.main_thread() else ()
    loop = asyncio.get_running_loop()
    before = {name: signal.getsignal(name) for name in signals}
    for name in signals:
        loop.add_signal_handler(name, drain.signalled)
    try:
        yield drain
    finally:
        drain.over()
        for name, handler in before.items():
            loop.remove_signal_handler(name)
            signal.signal(name, handler)
