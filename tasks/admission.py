"""Admission of sessions in this process: waits its turn, asks the ledger, and holds what it is granted."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from connectors.ledger import Ledger
from moderation.admission import Claim, Denial, Grant, Refusal
from moderation.errors import Phase
from moderation.judgement import Failure
from moderation.outcomes import Reason, StopCause
from moderation.refusals import CANCELLED, why
from tasks.leases import Leases
from tasks.line import Line

SLOT_SECONDS = (0.2, 0.5)
"""The bounds of the random pause before the ledger is asked again for a slot that another process has."""
DOOR_SECONDS = (0.5, 1.5)
"""The same while a breaker is open, whose next probe is half a minute away or more, or an operator has paused the organisation."""
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
    """A session that will not start: the ledger's denial, or a stopped run (None)."""

    def __init__(self, denial: Denial | None) -> None:
        super().__init__(denial)
        self.denial = denial


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
    refusals: dict[str, Refusal] = field(default_factory=dict)
    _lines: defaultdict[str, Line] = field(default_factory=lambda: defaultdict(Line))
    _dropping: bool = False

    @asynccontextmanager
    async def slot(self, claim: Claim) -> AsyncIterator[Grant]:
        """Hold a slot for one session, which the body must `finish` or `fail` in the ledger.

        Raises NotAdmitted when it is not to start, and LeaseLost out of the body when the ledger has given the slot away.
        """
        line = self._lines[claim.endpoint]
        with line.place(claim):
            grant, granted_ms = await self._admit(claim, line)
        if self._is_dropping():
            await self.ledger.fail(Failure(claim.session_id, Phase.PREFLIGHT, CANCELLED), sent_ms=0, outcome="cancelled")
            raise NotAdmitted(None)
        try:
            with self.leases.hold(claim.session_id, granted_ms):
                yield grant
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not self._is_dropping():
                raise
            task.uncancel()
            raise NotAdmitted(None) from None
        finally:
            line.move()

    async def _admit(self, claim: Claim, line: Line) -> tuple[Grant, int]:
        """Wait for the first place in line, then ask until the ledger grants it, and when that was asked.

        Who waited over the end of a month is paid for from the next one.
        """
        while not self.stop:
            moved = line.moved
            if not line.is_first(claim):
                await self._until({moved, self.stop.requested})
                continue
            asked_ms = self.leases.clock_ms()
            asked = replace(claim, month=self.month())
            answer = await self.ledger.admit(asked)
            line.probing(isinstance(answer, Refusal) and answer.denial is Denial.BREAKER)
            if isinstance(answer, Grant):
                self.refusals.pop(claim.endpoint, None)
                self.on_grant(asked, answer)
                return answer, asked_ms
            self.refusals[claim.endpoint] = answer
            if answer.stop is not None:
                self.stop.give_up(answer.stop)
            elif answer.denial in POLLED or (answer.denial is Denial.BUDGET and self.leases):
                await self._until({moved, self.stop.requested}, *POLLED.get(answer.denial, SLOT_SECONDS))
            else:
                del self.refusals[claim.endpoint]
                raise NotAdmitted(answer.denial)
        self.refusals.pop(claim.endpoint, None)
        raise NotAdmitted(None)

    async def _until(self, events: set[asyncio.Event], low: float | None = None, high: float = 0.0) -> None:
        """Wait for one of the events, or for a random time between low and high seconds."""
        waits: set[asyncio.Future[Any]] = {asyncio.ensure_future(event.wait()) for event in events}
        if low is not None:
            waits.add(asyncio.ensure_future(self.sleep(low + (high - low) * self.chance())))
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
