"""Admission of sessions in this process: waits its turn, asks the ledger, keeps the leases, and drops what it no longer holds."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from connectors.ledger import Ledger
from moderation.admission import Claim, Denial, Grant, Refusal
from moderation.errors import LeaseLost, Phase, SoundcheckError
from moderation.judgement import Failure
from moderation.outcomes import Reason, StopCause
from moderation.refusals import CANCELLED, why

RENEWALS_PER_LEASE = 4
POLL_SECONDS = (0.2, 0.5)
"""The bounds of the random pause before the ledger is asked again for a slot that another process has."""
BREAKER_SECONDS = (0.5, 1.5)
"""The same while a breaker is open: its next probe is half a minute away, or minutes."""
PASSING = frozenset({Denial.FULL, Denial.BREAKER})
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


class Line:
    """The sessions of this process that wait for a slot at one endpoint: one of them asks the ledger, the others wait for it to move on.

    In order of arrival; while a breaker is open the shortest is first, since it is the one to probe with (rules.md).
    """

    def __init__(self) -> None:
        self._waiting: list[Claim] = []
        self._probing = False
        self._moved = asyncio.Event()

    @contextmanager
    def place(self, claim: Claim) -> Iterator[None]:
        """Stand in line."""
        self._waiting.append(claim)
        try:
            yield
        finally:
            self._waiting.remove(claim)
            self.move()

    def is_first(self, claim: Claim) -> bool:
        """Whether this one asks."""
        first = min(self._waiting, key=lambda waiting: waiting.estimate_ms) if self._probing else self._waiting[0]
        return first is claim

    def probing(self, probing: bool) -> None:  # noqa: FBT001 - it is the fact itself
        """Note whether a breaker is open."""
        if probing != self._probing:
            self._probing = probing
            self.move()

    def move(self) -> None:
        """Let everybody look again: somebody left, or a slot has become free."""
        self._moved.set()
        self._moved = asyncio.Event()

    @property
    def moved(self) -> asyncio.Event:
        """Set when the line moves next."""
        return self._moved


@dataclass(slots=True)
class Admission:
    """The way into the ledger for all sessions of a run in this process. sleep and chance (random in [0, 1)) are arguments for tests."""

    ledger: Ledger
    worker: str
    stop: Stop
    chance: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _lines: defaultdict[str, Line] = field(default_factory=lambda: defaultdict(Line))
    _held: dict[str, asyncio.Task[object]] = field(default_factory=dict)
    _lost: set[str] = field(default_factory=set)
    _dropping: bool = False

    @asynccontextmanager
    async def slot(self, claim: Claim) -> AsyncIterator[Grant]:
        """Hold a slot for one session, which the body must `finish` or `fail` in the ledger.

        Raises NotAdmitted when it is not to start, and LeaseLost out of the body when the ledger has given the slot away.
        """
        line = self._lines[claim.endpoint]
        with line.place(claim):
            grant = await self._admit(claim, line)
        if self._dropping:
            await self.ledger.fail(Failure(claim.session_id, Phase.PREFLIGHT, CANCELLED), sent_ms=0, outcome="cancelled")
            raise NotAdmitted(None)
        task = asyncio.current_task()
        assert task is not None
        self._held[claim.session_id] = task
        try:
            yield grant
        except asyncio.CancelledError:
            if claim.session_id not in self._lost and not self._dropping:
                raise
            task.uncancel()
            if self._dropping:
                raise NotAdmitted(None) from None
            raise LeaseLost(f"session {claim.session_id} was not renewed in time: its object is tried again") from None
        finally:
            del self._held[claim.session_id]
            line.move()

    async def _admit(self, claim: Claim, line: Line) -> Grant:
        """Wait for the first place in line, then ask until the ledger grants it."""
        while not self.stop:
            moved = line.moved
            if not line.is_first(claim):
                await self._until({moved, self.stop.requested})
                continue
            answer = await self.ledger.admit(claim)
            line.probing(isinstance(answer, Refusal) and answer.denial is Denial.BREAKER)
            if isinstance(answer, Grant):
                return answer
            if answer.stop is not None:
                self.stop.give_up(answer.stop)
            elif answer.denial in PASSING or (answer.denial is Denial.BUDGET and self._held):
                await self._until({moved, self.stop.requested}, *(BREAKER_SECONDS if answer.denial is Denial.BREAKER else POLL_SECONDS))
            else:
                raise NotAdmitted(answer.denial)
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

    async def keep_leases(self) -> None:
        """Renew the leases of this worker for ever; sessions that the ledger no longer knows, or cannot be asked about, are dropped."""
        silence_ms = 0
        pause_ms = self.ledger.lease_ms // RENEWALS_PER_LEASE
        while True:
            await self.sleep(pause_ms / 1000)
            try:
                held = await self.ledger.renew(self.worker)
            except SoundcheckError:
                silence_ms += pause_ms
                if silence_ms < self.ledger.lease_ms // 2:
                    continue
                held = frozenset()
            else:
                silence_ms = 0
            self._drop(self._held.keys() - held)

    def drop_all(self) -> None:
        """End every session of this process now, as cancelled: its object stays pending. The run must have been stopped before."""
        assert self.stop, "sessions are dropped only once nothing more starts"
        if self._dropping:
            return
        self._dropping = True
        for task in self._held.values():
            task.cancel()

    def _drop(self, sessions: set[str]) -> None:
        for session_id in sessions:
            self._lost.add(session_id)
            self._held[session_id].cancel()
