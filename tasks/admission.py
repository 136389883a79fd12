"""Admission of sessions in this process: waits its turn, asks the ledger, and holds what it is granted."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from connectors.ledger import Ledger
from moderation.admission import EVERY_ENDPOINT, Claim, Denial, Grant, Refusal
from moderation.errors import LeaseLost, Phase, UnreachableError
from moderation.judgement import Failure
from moderation.outcomes import Reason, StopCause
from moderation.refusals import CANCELLED, why
from tasks.leases import Leases
from tasks.line import Line
from tasks.outages import Outages
from tasks.own_slots import OwnSlots, Taken
from tasks.room import Room

SLOT_SECONDS = (0.2, 0.5)
"""The bounds of the random pause before the ledger is asked again for a slot that another process has."""
OWN_SECONDS = (1.0, 2.0)
"""How long this process asks for nothing that it has all of itself: it hears of each that ends, and a limit rarely rises meanwhile."""
DOOR_SECONDS = (0.5, 1.5)
"""The same while a breaker is open, whose next probe is half a minute away or more, or an operator has paused the organisation."""
SHORTEST_FIRST = {Denial.BREAKER, Denial.BUDGET}
"""Denials after which the shortest session asks next."""
POLLED = {Denial.FULL: SLOT_SECONDS, Denial.BREAKER: DOOR_SECONDS, Denial.PAUSED: DOOR_SECONDS}
"""Denials that another moment may lift."""


@dataclass(slots=True)
class Stop:
    """The one reason why a run starts nothing more; the first cause stays."""

    cause: StopCause | None = None
    reason: Reason = Reason.NOT_REACHED
    message: str = ""
    requested: asyncio.Event = field(default_factory=asyncio.Event)

    def __bool__(self) -> bool:
        return self.cause is not None

    def request(self, cause: StopCause, reason: Reason, message: str) -> None:
        """Start nothing more; what waits is left pending for this reason."""
        if self.cause is None:
            self.cause, self.reason, self.message = cause, reason, message
            self.requested.set()

    def give_up(self, cause: StopCause) -> None:
        """Stop because a breaker has given up; a session that was refused by it has mostly said why before."""
        meaning = why(cause)
        self.request(cause, meaning.reason, meaning.advice)


class NotAdmitted(Exception):
    """A session that will not start: the ledger's denial, or a stopped run (None); of a budget the endpoint of its cap ("*" for all)."""

    def __init__(self, denial: Denial | None, cap: str | None = None) -> None:
        super().__init__(denial)
        self.denial = denial
        self.cap = cap


@dataclass(slots=True)
class Admission:
    """The way into the ledger for all sessions of a run in this process.

    month gives the budget month of this moment; chance a random number in [0, 1); both and sleep are arguments for tests. refusals has what
    every endpoint waits for now.
    """

    ledger: Ledger
    leases: Leases
    stop: Stop
    month: Callable[[], str]
    chance: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    on_grant: Callable[[Claim, Grant], object] = lambda _claim, _grant: None
    """Is told of every session that is admitted; must return at once."""
    on_refusal: Callable[[Refusal], object] = lambda _refusal: None
    """The same of every answer that lets nobody in."""
    room: Room | None = None
    """What must stay free where the sessions go."""
    refusals: dict[str, Refusal] = field(default_factory=dict)
    held_back: set[str] = field(default_factory=set)
    """Sessions with a first result of which the ledger is to be told later (`tasks.first_result`)."""
    outages: Outages = field(init=False)
    _full: dict[tuple[str, str], tuple[int, str | None]] = field(default_factory=dict)
    """By endpoint and month, the shortest session that a cap has refused for good, and whose cap: none as long need ask any more."""
    _own: OwnSlots = field(init=False)
    _awaited: set[str] = field(default_factory=set)
    """Sessions for whose first result others may start."""
    _lines: defaultdict[str, Line] = field(default_factory=lambda: defaultdict(Line))
    _dropping: bool = False

    def __post_init__(self) -> None:
        self.outages = Outages(self.ledger.lease_ms, self.leases.clock_ms, self.sleep, self.chance)
        self._own = OwnSlots(self.leases.clock_ms)

    @asynccontextmanager
    async def slot(self, claim: Claim) -> AsyncIterator[Grant]:
        """Hold a slot for one session, which the body must `finish` or `fail` in the ledger.

        Raises NotAdmitted when it is not to start, and LeaseLost out of the body when the ledger has given the slot away.
        """
        line = self._lines[claim.endpoint]
        with line.place(claim):
            grant, granted_ms = await self._admit(claim, line)
        if self._is_dropping():
            await self._take_back(claim)
            raise NotAdmitted(None)
        try:
            self._own.take(claim)
            if grant.awaited:
                self._awaited.add(claim.session_id)
            with self.leases.hold(claim.session_id, granted_ms):
                yield grant
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not self._is_dropping():
                raise
            task.uncancel()
            raise NotAdmitted(None) from None
        finally:
            self._awaited.discard(claim.session_id)
            self._own.end(claim)
            self._move(line)

    def give_back(self, claim: Claim) -> None:
        """Give a slot back whose connection has closed: the first in line asks for it while this session is spooled and booked."""
        self._own.give_back(claim)
        self._move(self._lines[claim.endpoint])

    def _move(self, line: Line) -> None:
        """A session has ended: who waits there asks at once; where nobody does, who waits elsewhere: the slot may be the organisation's."""
        for each in self._lines.values() if line.is_empty else (line,):
            each.move()

    async def note_result(self, claim: Claim) -> None:
        """Tell the ledger of a session's first result; where others may start for it, the first in line asks at once."""
        is_awaited = claim.session_id in self._awaited
        await self.ledger.note_result(claim.session_id, tuple(self.held_back) if is_awaited else (), self._own.given_back)
        if is_awaited:
            self._own.may_be_more(claim.endpoint)
            self._lines[claim.endpoint].move()

    async def _admit(self, claim: Claim, line: Line) -> tuple[Grant, int]:
        """Wait for the first place in line, then ask until the ledger grants it, and when that was asked.

        Who waited over the end of a month is paid for from the next one.
        """
        while not self.stop:
            moved = line.moved
            if not line.is_first(claim):
                await self._until({moved, self.stop.requested})
                continue
            if all_for_s := self._own.all_for_s(claim.endpoint):
                await self._until({moved, self.stop.requested}, all_for_s)
                continue
            if self.room is not None and (full := await asyncio.to_thread(self.room.full)):
                self.stop.request(StopCause.RESULTS_NOT_WRITABLE, Reason.NOT_REACHED, full)
                continue
            asked_ms = self.leases.clock_ms()
            asked = replace(claim, month=self.month())
            self._check_cap(asked)
            taken = self._own.taken(claim.endpoint)
            answer = await self._ask(asked)
            if answer is None:
                continue
            line.prefer_shortest(isinstance(answer, Refusal) and answer.denial in SHORTEST_FIRST)
            if isinstance(answer, Grant):
                self.refusals.pop(claim.endpoint, None)
                self.on_grant(asked, answer)
                return answer, asked_ms
            await self._refused(asked, answer, taken, moved)
        self.refusals.pop(claim.endpoint, None)
        raise NotAdmitted(None)

    async def _refused(self, claim: Claim, answer: Refusal, taken: Taken, moved: asyncio.Event) -> None:
        """Wait until the ledger may say something else, or note for how long it will not. Raises NotAdmitted where that is for good."""
        self.refusals[claim.endpoint] = answer
        self.on_refusal(answer)
        if answer.stop is not None:
            self.stop.give_up(answer.stop)
        elif answer.live and answer.live <= taken.whole:
            if not moved.is_set():
                self._own.are_all(claim.endpoint, taken, self._between(*OWN_SECONDS))
        elif answer.denial in POLLED or (answer.denial is Denial.BUDGET and self._may_fit_later(answer.cap)):
            await self._until({moved, self.stop.requested}, self._between(*POLLED.get(answer.denial, SLOT_SECONDS)))
        else:
            del self.refusals[claim.endpoint]
            if answer.denial is Denial.BUDGET:
                self._full[claim.endpoint, claim.month] = claim.estimate_ms, answer.cap
            raise NotAdmitted(answer.denial, answer.cap)

    async def _ask(self, claim: Claim) -> Grant | Refusal | None:
        """The ledger's answer; None where it was away. Raises LeaseLost where it had granted what nobody heard of."""
        try:
            answer = await self.ledger.admit(claim, self._own.given_back)
        except UnreachableError as error:
            try:
                await self._take_back(claim)
            except LeaseLost:  # it had not
                await self.outages.wait(error)
                return None
            raise LeaseLost(
                f"session {claim.session_id} was granted while the ledger went away ({error}): its object is tried again"
            ) from None
        self.outages.answered()
        return answer

    async def _take_back(self, claim: Claim) -> None:
        """End a session that never began."""
        failure = Failure(claim.session_id, Phase.PREFLIGHT, CANCELLED)
        await self.outages.outlast(lambda: self.ledger.fail(failure, sent_ms=0, outcome="cancelled"))

    def _check_cap(self, claim: Claim) -> None:
        """Raise NotAdmitted where a shorter session has been refused for good."""
        known = self._full.get((claim.endpoint, claim.month))
        if known is not None and claim.estimate_ms >= known[0]:
            self.refusals.pop(claim.endpoint, None)
            raise NotAdmitted(Denial.BUDGET, known[1])

    def _may_fit_later(self, cap: str | None) -> bool:
        """Whether sessions of ours count against this cap, which may end with less than they reserved."""
        return bool(self.leases) if cap is None or cap == EVERY_ENDPOINT else self._own.has_sessions(cap)

    def _between(self, low: float, high: float) -> float:
        return low + (high - low) * self.chance()

    async def _until(self, events: set[asyncio.Event], seconds: float | None = None) -> None:
        """Wait for one of the events, or for so long."""
        waits: set[asyncio.Future[Any]] = {asyncio.ensure_future(event.wait()) for event in events}
        if seconds is not None:
            waits.add(asyncio.ensure_future(self.sleep(seconds)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    def _is_dropping(self) -> bool:
        return self._dropping

    def drop_all(self) -> None:
        """End every session of this process now, as cancelled: its object stays pending. The run must have been stopped before."""
        assert self.stop, "sessions are dropped only once nothing more starts"
        if not self._dropping:
            self._dropping = True
            self.leases.cancel_all()
