"""The wall clock of this host, which is only written down, and how far it was seen to be off: nothing waits by it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

MOST = timedelta(minutes=1)
"""A clock that is off by more than this is told to people: signatures of S3 hold for a quarter of an hour, months begin to the second."""
logger = logging.getLogger("soundcheck.clock")


@dataclass(slots=True)
class WallClock:
    """Gives the instant (UTC) when it is called, and looks each time whether the clock was set meanwhile.

    boot_ms gives milliseconds of a clock that nobody sets, which goes on while the host sleeps, wall the instant as it is. skew is the most
    that was seen, positive where this host is ahead: by steps since the first look, and against the clocks of others.
    """

    boot_ms: Callable[[], int]
    wall: Callable[[], datetime]
    skew: timedelta = timedelta()
    _booted: datetime | None = None
    _told: timedelta = timedelta()

    def __call__(self) -> datetime:
        """This instant."""
        at = self.wall()
        booted = at - timedelta(milliseconds=self.boot_ms())
        if self._booted is None:
            self._booted = booted
        self._saw(booted - self._booted, "was set: by the time that has passed it is {seconds:+.0f} s off")
        return at

    def compare(self, other: datetime, whose: str) -> None:
        """Hold the clock against somebody else's, who has just said what it shows."""
        self._saw(self.wall() - other, f"is {{seconds:+.0f}} s off {whose}")

    @property
    def is_off(self) -> bool:
        """Whether people are to know of it."""
        return abs(self.skew) > MOST

    def _saw(self, skew: timedelta, what: str) -> None:
        if abs(skew) > abs(self.skew):
            self.skew = skew
        if abs(skew) > self._told + MOST:
            self._told = abs(skew)
            said = what.format(seconds=skew.total_seconds())
            logger.warning("clock skew: this host's clock %s; stamps and months follow it, so set it", said)
