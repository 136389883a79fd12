"""What the worker of a shard leaves in the run's folder: that it lives, how far it is, and at the end what became of each object."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Self

import msgspec

from connectors.lake.packages import run_file
from connectors.lake.store import ResultStore
from moderation.errors import SoundcheckError
from moderation.outcomes import Reason, StopCause
from tasks.admission import Stop
from tasks.alive import BEAT_S, LIFE
from tasks.progress import EndpointProgress, Outcome

logger = logging.getLogger("soundcheck.shards")


class Counts(msgspec.Struct, frozen=True):
    """How much a worker has done of a shard; each field is one of `EndpointProgress`."""

    live: int = 0
    sessions: int = 0
    audio_ms: int = 0
    at_risk_ms: int = 0
    streamed_estimate_ms: int = 0
    refusals: int = 0
    claimed: int = 0

    @classmethod
    def of(cls, progress: EndpointProgress) -> Self:
        """The counts of an endpoint now."""
        return cls(*(getattr(progress, name) for name in cls.__struct_fields__))

    def replace_in(self, progress: EndpointProgress, before: Self) -> None:
        """Count these in place of those that were counted before."""
        for name in self.__struct_fields__:
            setattr(progress, name, getattr(progress, name) + getattr(self, name) - getattr(before, name))


class Told(msgspec.Struct, frozen=True):
    """Why a worker starts nothing more."""

    cause: StopCause
    reason: Reason
    message: str


class ShardReport(msgspec.Struct, frozen=True):
    """One shard as its worker knows it at an instant (UTC). flow_run_id tells one try from another; outcomes come with its end."""

    flow_run_id: str
    at: datetime
    counts: Counts = Counts()
    ended: bool = False
    outcomes: tuple[Outcome, ...] = ()
    told: Told | None = None

    def is_fresh(self, now: datetime) -> bool:
        """Whether its worker lives, by the wall clocks of two hosts."""
        return abs(now - self.at) < LIFE


def read_report(results: ResultStore, run_id: str, shard: int, flow_run_id: str) -> ShardReport | None:
    """The newest report of one try at a shard; None before it began. Raises what the store raises."""
    data = results.get(_name(run_id, shard, flow_run_id))
    return None if data is None else msgspec.json.decode(data, type=ShardReport)


def was_tried(results: ResultStore, run_id: str, shard: int) -> bool:
    """Whether a worker has begun with a shard already."""
    return any(True for _ in results.list(_prefix(run_id, shard)))


def forget_reports(results: ResultStore, run_id: str, shard: int) -> None:
    """Take the reports of a shard away once it has been counted. A store that does not let them go ends no run."""
    try:
        for name in list(results.list(_prefix(run_id, shard))):
            results.delete(name)
    except SoundcheckError as error:
        logger.warning("reports of shard %d stay: %s", shard, error)


class Reporter:
    """Writes the reports of one try at a shard: again and again while it streams, and a last one."""

    def __init__(
        self, results: ResultStore, run_id: str, shard: int, flow_run_id: str, counts: EndpointProgress, now: Callable[[], datetime]
    ) -> None:
        self._results = results
        self._name = _name(run_id, shard, flow_run_id)
        self._flow_run_id = flow_run_id
        self._counts = counts
        self._now = now

    @asynccontextmanager
    async def reporting(self) -> AsyncIterator[None]:
        """Report while the block runs. A store that does not take it ends no session."""
        over = asyncio.Event()
        keeping = asyncio.create_task(self._keep(over))
        try:
            yield
        finally:
            over.set()
            await keeping

    async def end(self, outcomes: Iterable[Outcome], stop: Stop) -> None:
        """Report the end. Raises what the store raises: without it somebody else takes the shard up."""
        told = Told(stop.cause, stop.reason, stop.message) if stop.cause else None
        last = ShardReport(self._flow_run_id, self._now(), Counts.of(self._counts), ended=True, outcomes=tuple(outcomes), told=told)
        await asyncio.to_thread(self._put, last)

    async def _keep(self, over: asyncio.Event) -> None:
        while not over.is_set():
            try:
                await asyncio.to_thread(self._put, ShardReport(self._flow_run_id, self._now(), Counts.of(self._counts)))
            except SoundcheckError as error:
                logger.warning("this shard's report is not written, so another worker may take it up: %s", error)
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), BEAT_S)

    def _put(self, report: ShardReport) -> None:
        self._results.put(self._name, msgspec.json.encode(report))


def _prefix(run_id: str, shard: int) -> str:
    return run_file(run_id, f"shards/{shard}/")


def _name(run_id: str, shard: int, flow_run_id: str) -> str:
    """Each try has its own: a worker that was written off and is only slow must not speak for its successor."""
    return f"{_prefix(run_id, shard)}{flow_run_id}.json"
