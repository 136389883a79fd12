"""The shards of a run on other workers: so many submitted at once, watched by what they report, and submitted again where one is lost."""

import asyncio
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from flows.streaming import Wanted
from flows.submitted import UNSEEN, Seen, ShardRuns, ShardState
from flows.watch import Watch
from flows.wiring import Wired
from moderation.errors import UnreachableError
from moderation.outcomes import Reason, StopCause
from tasks.progress import Outcome
from tasks.records import Run
from tasks.shard_reports import Counts, ShardReport, forget_reports, read_report
from tasks.shards import PlannedShards, Shard

LOOK_S = 2.0
"""How often the reports are read and Prefect is asked."""
DRAINING_LOOK_S = 0.5
"""The same once the run is stopped."""
LAST_WORD_S = 8.0
"""How long workers are waited for behind the grace period: theirs began later, and then they publish."""
TRIES = 5
"""How often a shard is submitted before its workers are at fault, and not their hosts."""
SILENCE_S = 300.0
"""How long a worker may have a shard without a first report: a pod may wait for a node so long, a dead worker says nothing for ever."""
logger = logging.getLogger("soundcheck.shards")


@dataclass(slots=True)
class _Flight:
    """A shard that is submitted: how often it was, its id, and what has been counted of it."""

    shard: Shard
    number: int
    submitted: str
    seen: Seen = UNSEEN
    counts: Counts = field(default_factory=Counts)
    taken_at: datetime | None = None

    def is_silent(self, now: datetime) -> bool:
        """Whether its worker has had it for too long without a report: there is none yet."""
        if self.seen.state is ShardState.WAITING:
            self.taken_at = None
        elif self.taken_at is None:
            self.taken_at = now
        return self.taken_at is not None and now - self.taken_at > timedelta(seconds=SILENCE_S)


class FanOut:
    """The way of one run's shards over workers.

    wanted tells which (endpoint, object_id) count; lost how many shards were submitted again.
    """

    def __init__(self, wired: Wired, run: Run, watch: Watch, runs: ShardRuns, at_once: int) -> None:
        self._wired = wired
        self._run = run
        self._watch = watch
        self._runs = runs
        self._at_once = at_once
        self._flights: list[_Flight] = []
        self._waits_until = math.inf
        self.lost = 0

    def drop_all(self) -> None:
        """Wait no longer than a moment for workers, whose own grace period is over by then. The run must have been stopped before."""
        self._waits_until = min(self._waits_until, asyncio.get_running_loop().time() + LAST_WORD_S)

    async def stream(self, shards: Sequence[Shard], wanted: Wanted) -> None:
        """Stream shards: the first ones one after the other, then all others.

        Raises UnreachableError where one is lost again and again, and what `ShardRuns` raises for a deployment that is not there.
        """
        self._planned = PlannedShards(self._wired.results, self._run.run_id)  # the second stage of a cascade has a plan of its own
        try:
            for first in (shard for shard in shards if shard.first):
                await self._fly([first], wanted)
            await self._fly([shard for shard in shards if not shard.first], wanted)
        except BaseException:  # nobody streams on for a run that has failed
            await self._end(self._flights)
            raise

    async def _fly(self, shards: Sequence[Shard], wanted: Wanted) -> None:
        waiting = [(shard, 1) for shard in reversed(shards)]
        draining = False
        while waiting or self._flights:
            if self._watch.stop:
                draining = draining or await self._end(self._flights)
                await self._leave((shard for shard, _ in waiting), wanted)
                waiting.clear()
            while waiting and len(self._flights) < self._at_once:
                shard, number = waiting[-1]
                if not await self._submit(shard, number):
                    break
                waiting.pop()
            if self._flights:
                waiting += await self._look(wanted)
                if asyncio.get_running_loop().time() > self._waits_until:
                    await self._give_up(wanted)
            self._say()
            if waiting or self._flights:
                await self._pause()

    async def _submit(self, shard: Shard, number: int) -> bool:
        """Whether it could be: while Prefect is away, workers go on, and their reports are read."""
        try:
            submitted = await self._runs.submit(self._run.run_id, shard.number, number)
        except UnreachableError as error:
            logger.warning("%s", error)
            return False
        self._flights.append(_Flight(shard, number, submitted))
        return True

    async def _end(self, flights: Sequence[_Flight], *, lost: bool = False) -> bool:
        """Whether these could be told to end."""
        try:
            await self._runs.end([flight.submitted for flight in flights], lost=lost)
        except UnreachableError as error:
            logger.warning("%s", error)
            return False
        return True

    async def _ask(self) -> Mapping[str, Seen]:
        """What Prefect knows of all that is submitted; nothing while it is away."""
        try:
            return await self._runs.look([flight.submitted for flight in self._flights])
        except UnreachableError as error:
            logger.warning("%s", error)
            return {}

    async def _look(self, wanted: Wanted) -> list[tuple[Shard, int]]:
        """Count what is reported, and let go of what is over; the shards to be submitted again."""
        found = await self._ask()
        again: list[tuple[Shard, int]] = []
        for flight in list(self._flights):
            flight.seen = found.get(flight.submitted, flight.seen)
            try:
                report = await asyncio.to_thread(read_report, self._wired.results, self._run.run_id, flight.shard.number, flight.submitted)
            except UnreachableError as error:
                logger.warning("the report of shard %d is not read: %s", flight.shard.number, error)
                continue
            self._count(flight, report)
            if report is not None and report.ended:
                self._flights.remove(flight)
                if report.told is not None and report.told.cause is StopCause.TERMINATED and not self._watch.stop:
                    again.append((flight.shard, flight.number + 1))  # its host was taken away: that is the worker's end, not the run's
                    continue
                self._count_end(report, wanted)
                await asyncio.to_thread(forget_reports, self._wired.results, self._run.run_id, flight.shard.number)
            elif flight.seen.stop is not None:
                self._flights.remove(flight)
                self._watch.stop.request(flight.seen.stop, Reason.NOT_REACHED, flight.seen.message)
            elif flight.seen.state is ShardState.OVER or self._says_nothing(flight, report):
                self._flights.remove(flight)
                again += await self._lose(flight, wanted)
        return again

    def _count(self, flight: _Flight, report: ShardReport | None) -> None:
        if report is not None:
            report.counts.replace_in(self._watch.progress.of(flight.shard.endpoint), flight.counts)
            flight.counts = report.counts

    def _count_end(self, report: ShardReport, wanted: Wanted) -> None:
        for outcome in report.outcomes:
            if wanted(outcome.endpoint, outcome.object_id):
                self._watch.progress.add(outcome)
        if report.told is not None:
            self._watch.stop.request(report.told.cause, report.told.reason, report.told.message)

    async def _lose(self, flight: _Flight, wanted: Wanted) -> list[tuple[Shard, int]]:
        """Write a worker off, with what it had live. Its sessions end with their leases, and what it had spooled is published."""
        if self._watch.stop and flight.seen.state is ShardState.OVER:  # it had not begun
            await self._leave([flight.shard], wanted)
            return []
        self.lost += 1
        logger.warning("shard %d (%s): its worker is lost: %s", flight.shard.number, flight.submitted, flight.seen.message)
        self._forget_live(flight)
        await self._end([flight], lost=True)
        if self._watch.stop:
            await self._leave([flight.shard], wanted)
            return []
        return self._again(flight)

    def _says_nothing(self, flight: _Flight, report: ShardReport | None) -> bool:
        now = self._wired.now()
        return flight.is_silent(now) if report is None else not report.is_fresh(now)

    def _again(self, flight: _Flight) -> list[tuple[Shard, int]]:
        """The shard for another worker, which counts each of its objects."""
        if flight.number >= TRIES:
            raise UnreachableError(
                f"shard {flight.shard.number} of run {self._run.run_id} was lost by {TRIES} workers ({flight.seen.message or 'no word'}): "
                f"look into their logs"
            )
        return [(flight.shard, flight.number + 1)]

    async def _give_up(self, wanted: Wanted) -> None:
        """Leave the shards that still have not reported: their workers end by themselves, and what they bring is published all the same."""
        logger.warning("%d shards have not reported their end: it is not waited for", len(self._flights))
        for flight in self._flights:
            self._forget_live(flight)
        await self._leave([flight.shard for flight in self._flights], wanted)
        self._flights.clear()

    async def _leave(self, shards: Iterable[Shard], wanted: Wanted) -> None:
        """Count what a stopped run leaves as pending."""
        stop, numbers = self._watch.stop, [shard.number for shard in shards]
        if not numbers:
            return
        for endpoint, object_id, key in await asyncio.to_thread(self._planned.names, numbers):
            if wanted(endpoint, object_id):
                self._watch.progress.add(Outcome(object_id, key, endpoint, stop.reason, stop.message))

    def _forget_live(self, flight: _Flight) -> None:
        counted = self._watch.progress.of(flight.shard.endpoint)
        counted.live -= flight.counts.live
        counted.claimed -= flight.counts.claimed

    def _say(self) -> None:
        waits = sum(flight.seen.state in {ShardState.WAITING, ShardState.TAKEN} for flight in self._flights)
        self._watch.progress.step = f"streaming ({waits} shards wait for a worker)" if waits else "streaming"

    async def _pause(self) -> None:
        """Until the next look; a stop is looked after at once."""
        if self._watch.stop:
            await asyncio.sleep(DRAINING_LOOK_S)
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._watch.stop.requested.wait(), LOOK_S)
