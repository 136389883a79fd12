"""Fair turns: which of several waiting workers gets a slot that has become free. Times are milliseconds of the ledger's clock."""

from collections.abc import Iterable
from dataclasses import dataclass

FRESH_MS = 3_000
"""A worker that has not asked for so long waits no more: it has ended, or was stopped."""
PATIENCE_MS = 5_000
"""How long a worker without any session waits before it goes before those that have just had one."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A worker that wants a slot: how many sessions it has live there, since when it waits and when it asked last."""

    worker: str
    priority: int
    live: int
    since_ms: int
    seen_ms: int

    def is_there(self, now_ms: int) -> bool:
        """Whether it has asked lately: who has ended, or was stopped, waits no more."""
        return now_ms - self.seen_ms < FRESH_MS


def yields(me: Waiting, others: Iterable[Waiting], now_ms: int) -> bool:
    """Whether a free slot is somebody else's: of a run that is more urgent, or of a worker that has fewer sessions.

    A worker that has just ended a session takes its slot again where all have their share: handing it over leaves it empty until the other
    one asks.
    """
    return any(_goes_before(other, me) for other in others if other.worker != me.worker and other.is_there(now_ms))


def _goes_before(other: Waiting, me: Waiting) -> bool:
    if other.priority != me.priority:
        return other.priority > me.priority
    starves = other.live == me.live == 0 and me.since_ms - other.since_ms >= PATIENCE_MS
    return other.live < me.live or starves
