"""Streams the objects of a shard: admission, session, spool, ledger, and what an error means for the object and for the run.

One attempt is: a slot, a session, its record in the spool (durable), then its booking. A slot is never held while waiting.
"""

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from connectors.ledger import Ledger
from connectors.spool import Spool
from connectors.velma import VelmaClient
from moderation.admission import EVERY_ENDPOINT, Denial, Suspect
from moderation.errors import LeaseLost, SoundcheckError
from moderation.outcomes import Reason
from moderation.refusals import TextPatterns
from moderation.repeats import Repeats
from moderation.retry import GiveUp, RetryBudget, RetryRules
from moderation.segments import SegmentRules
from tasks.about import about
from tasks.admission import Admission, NotAdmitted, Stop
from tasks.outgoing import Outlet
from tasks.progress import Outcome, Progress
from tasks.publish import settle_expired
from tasks.records import PlannedObject
from tasks.spans import span
from tasks.trial import Trial

logger = logging.getLogger("soundcheck.stream")
CLAIM_PAUSE_S = 5.0
"""The longest pause before an object is asked for again that another session claims; a quarter of a lease is enough."""
DENIED: dict[Denial, Reason | None] = {
    Denial.DONE: None,
    Denial.TOMBSTONE: Reason.FILTERED,
}
"""What becomes of an object that is not admitted; None: somebody else has paid for its result."""


@dataclass(slots=True)
class Candidate:
    """An object on its way to its outcome: its shard, the number of its next attempt, and its failures by what they count as."""

    shard: int
    planned: PlannedObject
    number: int = 1
    tries: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Streaming:
    """What all sessions of a run share.

    places is how many sessions of a shard are prepared at once, one more than may stream, so that no slot waits: the ledger decides how
    many do. now gives the wall clock (UTC), chance a random number in [0, 1), entropy random bytes.
    """

    run_id: str
    org: str
    lake: str
    worker: str
    client: VelmaClient
    outlet: Outlet
    ledger: Ledger
    spool: Spool
    admission: Admission
    stop: Stop
    progress: Progress
    now: Callable[[], datetime]
    chance: Callable[[], float]
    entropy: Callable[[int], bytes]
    places: int
    renewed_client: Callable[[VelmaClient], Awaitable[VelmaClient | None]]
    """A client with the key as it is now; None where it has not changed."""
    priority: int = 0
    force: bool = False
    """Also objects that have a result are streamed."""
    segments: SegmentRules = field(default_factory=SegmentRules)
    retries: RetryRules = field(default_factory=RetryRules)
    texts: TextPatterns = ()
    """Texts of the service that the installation knows besides those of the table."""
    repeats: Repeats = field(default_factory=Repeats)
    retried: RetryBudget = field(default_factory=lambda: RetryBudget(0))
    chunk_bytes: int | None = None
    """Bytes of a message where the service takes none as large as the client's own."""
    claimed: defaultdict[str, list[Candidate]] = field(default_factory=lambda: defaultdict(list))
    """By endpoint, what other sessions stream, or did when it was asked for: it goes to the back of the run and holds no place."""
    has_result: defaultdict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    """By endpoint, whether a session has had one."""
    takes_key: defaultdict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    """By endpoint, whether a session has shown that the key is taken there: by a result, or by what else was said to it."""
    suspects: frozenset[Suspect] = frozenset()
    """What may be killing workers: one at a time in this process, so that not all that streams beside it is taken for the culprit."""
    one_suspect: asyncio.Lock = field(default_factory=asyncio.Lock)
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    on_outcome: Callable[[Outcome], object] = lambda _: None
    """Is told what became of each object; must return at once. None is kept here: a run may have millions."""

    def suspects_it(self, planned: PlannedObject) -> bool:
        """Whether an object is to be streamed beside no other such one."""
        return Suspect(planned.endpoint.name, planned.item.object_id, planned.params_hash) in self.suspects

    @asynccontextmanager
    async def turn_of(self, planned: PlannedObject) -> AsyncIterator[None]:
        """Wait until no other suspect streams here, where the object is one."""
        async with self.one_suspect if self.suspects_it(planned) else nullcontext():
            yield

    async def find_suspects(self) -> None:
        """Learn over what workers have died."""
        self.suspects = await self.admission.outages.outlast(lambda: self.ledger.suspects(self.org, self.lake))

    async def renew_key(self) -> None:
        """After a refusal of the key: take the one that is there now, if somebody has changed it since."""
        try:
            client = await self.renewed_client(self.client)
        except SoundcheckError as error:
            logger.warning("the key could not be read again: %s", error)
            return
        if client is not None:
            self.client = client
            logger.warning("the key was changed meanwhile: the next session goes out with the new one")

    async def settle_expired(self) -> None:
        """End the sessions whose workers have died."""
        await self.admission.outages.outlast(lambda: settle_expired(self.ledger, self.spool))

    async def pause(self, seconds: float) -> None:
        """Sleep, but no longer than until the run is stopped."""
        waits = {asyncio.ensure_future(self.sleep(seconds)), asyncio.ensure_future(self.stop.requested.wait())}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)


async def stream_shard(streaming: Streaming, shard: int, objects: Sequence[PlannedObject]) -> None:
    """Stream every object of a shard, as many at once as there are slots; each ends in exactly one outcome.

    But for those that other sessions claim, of this or earlier shards: they are asked for once more at its end, and wait in `claimed`.
    What may kill this process comes last.
    """
    with about(shard=shard), span("shard"):
        trusted = [Candidate(shard, planned) for planned in objects if not streaming.suspects_it(planned)]
        suspects = [Candidate(shard, planned) for planned in objects if streaming.suspects_it(planned)]
        await _stream_each(streaming, trusted, streaming.places)
        endpoints = {planned.endpoint.name for planned in objects}
        again = [candidate for endpoint in endpoints for candidate in streaming.claimed.pop(endpoint, [])]
        await _stream_each(streaming, again, streaming.places)
        await _stream_each(streaming, suspects, 1)


async def stream_claimed(streaming: Streaming) -> None:
    """Wait for what other sessions claim, each object for as long as its claim lives: it is done then, or ours to stream."""
    pause_s = min(CLAIM_PAUSE_S, streaming.ledger.lease_ms / 4000)

    async def wait_for(candidate: Candidate) -> None:
        waits = streaming.progress.of(candidate.planned.endpoint.name)
        waits.claimed += 1
        while (outcome := await stream_object(streaming, candidate)) is None:
            await streaming.pause(pause_s)
            await streaming.settle_expired()
            await streaming.find_suspects()
        waits.claimed -= 1
        _count(streaming, candidate, outcome)

    claimed = [candidate for candidates in streaming.claimed.values() for candidate in candidates]
    streaming.claimed.clear()
    async with asyncio.TaskGroup() as group:
        for candidate in claimed:
            group.create_task(wait_for(candidate))


async def _stream_each(streaming: Streaming, candidates: Sequence[Candidate], places: int) -> None:
    """Stream these, so many at a time; what another session claims has no outcome yet."""
    waiting = iter(candidates)

    async def work() -> None:
        for candidate in waiting:
            outcome = await stream_object(streaming, candidate)
            if outcome is None:
                streaming.claimed[candidate.planned.endpoint.name].append(candidate)
            else:
                _count(streaming, candidate, outcome)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(places, len(candidates))):
            group.create_task(work())


def _count(streaming: Streaming, candidate: Candidate, outcome: Outcome) -> None:
    streaming.progress.of(outcome.endpoint).streamed_estimate_ms += candidate.planned.estimate_ms
    streaming.progress.add(outcome)
    streaming.on_outcome(outcome)


async def stream_object(streaming: Streaming, candidate: Candidate) -> Outcome | None:
    """One object until its outcome: done, quarantined, skipped, or pending when the run stops. None while another session claims it."""
    async with streaming.turn_of(candidate.planned):
        return await _stream_object(streaming, candidate)


async def _stream_object(streaming: Streaming, candidate: Candidate) -> Outcome | None:
    planned = candidate.planned
    ends_with = partial(Outcome, planned.item.object_id, planned.item.key, planned.endpoint.name)
    while True:
        trial = Trial(streaming, candidate.shard, planned, candidate.number, candidate.tries)
        try:
            with about(object=planned.item.object_id, session=trial.session_id):
                ended = await trial.run()
        except NotAdmitted as refused:
            return None if refused.denial is Denial.CLAIMED else ends_with(*_why_not(streaming, refused))
        except LeaseLost as lost:
            ended = trial.lost_its_lease(lost)
        if ended is None:
            streaming.repeats.done()
            return ends_with(streamed=True)
        if isinstance(ended, GiveUp):
            if ended.stop is not None:
                streaming.stop.request(ended.stop, ended.reason, f"{trial.story}: {trial.advice}" if trial.advice else trial.story)
            return ends_with(ended.reason, trial.story, streamed=True, new=True)
        if trial.sent_ms and not streaming.retried.allows(planned.estimate_ms):
            return ends_with(Reason.DEFERRED_RETRY, f"{trial.story}: the run has streamed enough audio twice", streamed=True)
        candidate.number += 1
        candidate.planned = planned = trial.planned_again
        await streaming.pause(ended.seconds)


def _why_not(streaming: Streaming, refused: NotAdmitted) -> tuple[Reason | None, str]:
    """The reason of an object that was not admitted, and what is said of it."""
    match refused.denial:
        case None:
            return streaming.stop.reason, streaming.stop.message
        case Denial.BUDGET:
            whose = streaming.org if refused.cap in {None, EVERY_ENDPOINT} else f"{streaming.org} for {refused.cap}"
            message = f"the month's cap of {whose} does not hold what is left: raise it, or wait for the next month"
            return Reason.DEFERRED_QUOTA, message
        case denial:
            return DENIED[denial], f"{denial} in the ledger"
