"""Time that tests advance: sleepers wake in order, and everything that they set off has happened before time goes on."""

import asyncio
import heapq
from itertools import count

TURNS = 20
"""Of the event loop: more than a chain of callbacks of ours has."""
PATIENCE = 20_000
"""Milliseconds that somebody may take until he sleeps again: what he does is real."""


class Ticking:
    """A sleep over a clock set by hand (an object with `ms`), for so many who sleep most of the time."""

    def __init__(self, clock, sleepers: int) -> None:
        self.clock = clock
        self.expected = sleepers
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = count()

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.clock.ms + round(1000 * seconds), next(self._numbers), woken))
        await woken

    async def advance(self, ms: int) -> None:
        """Let so much time pass."""
        until = self.clock.ms + ms
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= until:
            at_ms, _, woken = heapq.heappop(self._sleepers)
            self.clock.ms = max(self.clock.ms, at_ms)
            if not woken.done():
                woken.set_result(None)
                await self.settle()
        self.clock.ms = max(self.clock.ms, until)
        await self.settle()

    async def settle(self) -> None:
        """Wait until everybody sleeps again."""
        for _ in range(TURNS):
            await asyncio.sleep(0)
        for _ in range(PATIENCE):
            if sum(not woken.done() for _, _, woken in self._sleepers) >= self.expected:
                break
            await asyncio.sleep(0.001)
        else:
            raise AssertionError("somebody does not sleep again")
        for _ in range(TURNS):
            await asyncio.sleep(0)
