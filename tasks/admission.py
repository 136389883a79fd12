"""Admission of sessions in this process: waits its turn, asks the ledger, keeps the leases, and drops what it no longer holds."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from connectors.ledger import LEASE_MS, Ledger
from moderation.admission import Claim, Denial
from moderation.errors import LeaseLost, SoundcheckError
from moderation.outcomes import Reason, StopCause

RENEWALS_PER_LEASE = 4
RETRY_SECONDS = (0.5, 1.5)
"""The bounds of the random pause before the ledger is asked again for a slot that another process has."""
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


class NotAdmitted(Exception):
    """A session that will not start: the ledger's denial, or a stopped run (None)."""

    def __init__(self, denial: Denial | None) -> None:
        super().__init__(denial)
        self.denial = denial


@dataclass(slots=True)
class Admission:
    """The way into the ledger for all sessions of a run in this process.

    ceilings bounds the sessions at once per endpoint (it equals the ledger's gate: waiting here in line is cheaper than asking there).
    sleep and chance (random in [0, 1)) are arguments for tests.
    """

    ledger: Ledger
    worker: str
    ceilings: dict[str, int]
    stop: Stop
    chance: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _places: dict[str, asyncio.Semaphore] = field(default_factory=dict)
    _held: dict[str, asyncio.Task[object]] = field(default_factory=dict)
    _lost: set[str] = field(default_factory=set)
    _dropping: bool = False

    def __post_init__(self) -> None:
        self._places = {endpoint: asyncio.Semaphore(ceiling) for endpoint, ceiling in self.ceilings.items()}

    @asynccontextmanager
    async def slot(self, claim: Claim) -> AsyncIterator[None]:
        """Hold a slot for one session, which the body must `finish` or `fail` in the ledger.

        Raises NotAdmitted when it is not to start, and LeaseLost out of the body when the ledger has given the slot away.
        """
        async with self._places[claim.endpoint]:
            await self._admit(claim)
            if self._dropping:
                await self.ledger.fail(claim.session_id, sent_ms=0, outcome="cancelled")
                raise NotAdmitted(None)
            task = asyncio.current_task()
            assert task is not None
            self._held[claim.session_id] = task
            try:
                yield
            except asyncio.CancelledError:
                if claim.session_id not in self._lost and not self._dropping:
                    raise
                task.uncancel()
                if self._dropping:
                    raise NotAdmitted(None) from None
                raise LeaseLost(f"session {claim.session_id} was not renewed in time: its object is tried again") from None
            finally:
                del self._held[claim.session_id]

    async def _admit(self, claim: Claim) -> None:
        while not self.stop:
            answer = await self.ledger.admit(claim)
            if not isinstance(answer, Denial):
                return
            waits_for_ours = answer is Denial.BUDGET and self._held
            if answer not in PASSING and not waits_for_ours:
                raise NotAdmitted(answer)
            low, high = RETRY_SECONDS
            await self.sleep(low + (high - low) * self.chance())
        raise NotAdmitted(None)

    async def keep_leases(self) -> None:
        """Renew the leases of this worker for ever; sessions that the ledger no longer knows, or cannot be asked about, are dropped."""
        silence_ms = 0
        pause_ms = LEASE_MS // RENEWALS_PER_LEASE
        while True:
            await self.sleep(pause_ms / 1000)
            try:
                held = await self.ledger.renew(self.worker)
            except SoundcheckError:
                silence_ms += pause_ms
                if silence_ms < LEASE_MS // 2:
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
