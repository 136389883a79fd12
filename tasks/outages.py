"""An absence of the ledger that this process outlasts: what must be said is said again until its leases are given up anyway."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from moderation.errors import UnreachableError

PAUSES_PER_LEASE = 16
"""How often in a lease a ledger that is away is tried again, at least."""
T = TypeVar("T")
logger = logging.getLogger("soundcheck.ledger")


@dataclass(slots=True)
class Outages:
    """Outlasts absences of half a lease (design.md section 5). clock_ms, sleep and chance, a random number in [0, 1), are for tests."""

    lease_ms: int
    clock_ms: Callable[[], int]
    sleep: Callable[[float], Awaitable[None]]
    chance: Callable[[], float]
    _away_since_ms: int | None = None

    async def outlast(self, step: Callable[[], Awaitable[T]]) -> T:
        """Take a step that may be repeated, until the ledger answers. Raises UnreachableError when it has been away for half a lease."""
        while True:
            try:
                answer = await step()
            except UnreachableError as error:
                await self.wait(error)
            else:
                self.answered()
                return answer

    def answered(self) -> None:
        """Note that the ledger is there: an absence from now on is another one."""
        self._away_since_ms = None

    async def wait(self, error: UnreachableError) -> None:
        """Pause after a question that got no answer; raises the error when that has been so for half a lease."""
        now_ms = self.clock_ms()
        if self._away_since_ms is None:
            self._away_since_ms = now_ms
            logger.warning("%s: what is live goes on, and the ledger is tried again for half a lease", error)
        if now_ms - self._away_since_ms >= self.lease_ms // 2:
            raise error
        await self.sleep(self.lease_ms / PAUSES_PER_LEASE / 1000 * (1 + self.chance()) / 2)
