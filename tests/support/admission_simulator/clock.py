"""Virtual time: the clock of a ledger's host since its boot, a wall clock that can be set, and chances from one seeded source."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


@dataclass(slots=True)
class Clock:
    """Milliseconds since boot, which only go forward; the wall clock starts at `started` and may be stepped both ways."""

    random: random.Random
    started: datetime = datetime(2026, 11, 2, tzinfo=UTC)
    ms: int = 0
    step_ms: int = 0

    def boot_ms(self) -> int:
        return self.ms

    def now(self) -> datetime:
        return self.started + timedelta(milliseconds=self.ms + self.step_ms)

    def chance(self) -> float:
        return self.random.random()
