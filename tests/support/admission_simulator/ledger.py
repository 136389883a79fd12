"""What the simulator asks of a ledger, and a model of one in memory that follows the same rules."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Protocol

from admission_simulator.clock import Clock
from moderation.admission import EVERY_ENDPOINT, Claim, Denial, SessionKind, SessionState
from moderation.budget import Allowance
from moderation.errors import LeaseLost
from moderation.gate import Crowd, Gate, GateRules, Gates, admitted, entry, left, started
from moderation.judgement import Failure, given_up, judge
from moderation.outcomes import StopCause
from moderation.refusals import Cause
from moderation.usage import Usage

LEASE_MS = 60_000
ORG = "acme"


class SimulatedLedger(Protocol):
    """A ledger of one organisation. Every method is one transaction; an adapter of a real one may suspend in any of them."""

    async def open_run(self) -> None:
        """A run begins."""

    async def admit(self, claim: Claim, closed: Collection[str] = ()) -> SessionKind | Denial | StopCause:
        """A slot and a reservation, as what; or why not; or why the run ends. closed are sessions that have given their slots back.

        A claim of kind OBJECT is denied with BREAKER where only a probe may go out: ask again with the shortest object and kind PROBE.
        """

    async def first_result(self, session_id: str, beside: Collection[str] = (), closed: Collection[str] = ()) -> None:
        """The service has given a session its first result; beside have had theirs, which was not told yet; closed as with `admit`."""

    async def finish(self, session_id: str, booked_ms: int) -> None:
        """Settle a session that is done. Raises LeaseLost when its lease ran out."""

    async def fail(self, failure: Failure, sent_ms: int) -> Cause:
        """Book a failed session; what that means for its object and the run. Raises LeaseLost when it was swept."""

    async def cancel(self, session_id: str, sent_ms: int) -> None:
        """Book a session that was given up here. Raises LeaseLost when it was swept."""

    async def renew(self, worker: str) -> frozenset[str]:
        """Renew the leases of a worker; the ids of the sessions that it still holds."""

    async def expired(self) -> tuple[str, ...]:
        """The ids of sessions whose lease ran out."""

    async def recover(self, session_id: str, done_ms: int | None) -> SessionState | None:
        """End an expired session: finished where the spool has its result of done_ms, else at risk with its whole reservation."""

    async def usage(self, month: str) -> list[Usage]:
        """Every gate with its budget of the month."""

    async def gates(self, endpoint: str) -> Gates:
        """The two gates of an endpoint as they stand."""

    async def set_ceiling(self, endpoint: str, ceiling: int | None) -> None:
        """Write how many sessions may be live at once."""

    async def set_cap(self, endpoint: str, cap_ms: int | None) -> None:
        """Write the audio that any month may cost at most."""

    async def set_paused(self, *, paused: bool) -> None:
        """Admit nothing until the pause ends."""


@dataclass(slots=True)
class Row:
    """A session of the model."""

    claim: Claim
    lease_until: int
    admitted: bool = False
    closed: bool = False


@dataclass(slots=True)
class Account:
    """A budget of the model: milliseconds of audio."""

    settled_ms: int = 0
    at_risk_ms: int = 0
    reserved_ms: int = 0


@dataclass(slots=True)
class ModelLedger:
    """The ledger as the rules have it, without a database: its methods never suspend."""

    clock: Clock
    rules: GateRules = field(default_factory=GateRules)
    rows: dict[str, Row] = field(default_factory=dict)
    """The sessions that stream."""
    standing: dict[str, Gate] = field(default_factory=lambda: {EVERY_ENDPOINT: Gate()})
    accounts: dict[tuple[str, str], Account] = field(default_factory=dict)
    paid: set[str] = field(default_factory=set)

    def chance(self) -> float:
        """A random number in [0, 1)."""
        return self.clock.chance()

    async def open_run(self) -> None:
        now = self.clock.ms
        for endpoint, gate in self.standing.items():
            self.standing[endpoint] = gate.reopened(now, self._live_at(endpoint))

    async def admit(self, claim: Claim, closed: Collection[str] = ()) -> SessionKind | Denial | StopCause:
        now = self.clock.ms
        self._close(closed)
        if claim.object_id in self.paid:
            return Denial.DONE
        if any(row.claim.object_id == claim.object_id for row in self.rows.values()):
            return Denial.CLAIMED
        gates = self._gates(claim.endpoint)
        answer = entry(gates, self._crowd(claim.endpoint, claim.session_id), now, self.rules)
        if isinstance(answer, Denial):
            return (given_up(gates, now, self.rules) if answer is Denial.BREAKER else None) or answer
        if answer.kind is SessionKind.PROBE and claim.kind is SessionKind.OBJECT:
            return Denial.BREAKER
        accounts = self._accounts(claim)
        for gate, account in zip(gates, accounts, strict=True):
            taken_ms = account.settled_ms + account.at_risk_ms + account.reserved_ms
            if not Allowance(gate.cap_ms, taken_ms).fits(claim.estimate_ms):
                return Denial.BUDGET
        for account in accounts:
            account.reserved_ms += claim.estimate_ms
        self._keep(claim.endpoint, started(gates, claim.session_id, answer, now, self.rules))
        self.rows[claim.session_id] = Row(claim, now + LEASE_MS)
        return answer.kind

    async def first_result(self, session_id: str, beside: Collection[str] = (), closed: Collection[str] = ()) -> None:
        now = self.clock.ms
        self._close(closed)
        row = self.rows.get(session_id)
        if row is None or row.admitted or row.lease_until <= now:
            return
        row.admitted = True
        for other in (self.rows[other_id] for other_id in self.rows.keys() & beside):
            other.admitted |= other.lease_until > now and other.claim.endpoint == row.claim.endpoint
        self._admitted(row, counted=row.closed)

    async def finish(self, session_id: str, booked_ms: int) -> None:
        row = self._row(session_id)
        if row.lease_until <= self.clock.ms:
            raise LeaseLost(session_id)
        if not row.admitted:
            self._admitted(row, counted=row.closed)
        self._settle(row, booked_ms)

    async def fail(self, failure: Failure, sent_ms: int) -> Cause:
        row = self._row(failure.session_id)
        endpoint = row.claim.endpoint
        gates, crowd = self._gates(endpoint), self._crowd(endpoint, failure.session_id)
        after, cause = judge(gates, crowd, failure, self.clock.ms, self.chance(), self.rules)
        self._keep(endpoint, after)
        self._risk(row, sent_ms)
        return cause

    async def cancel(self, session_id: str, sent_ms: int) -> None:
        row = self._row(session_id)
        self._leave(row)
        self._risk(row, sent_ms)

    async def renew(self, worker: str) -> frozenset[str]:
        now = self.clock.ms
        held = []
        for session_id, row in self.rows.items():
            if row.claim.worker == worker and row.lease_until > now:
                row.lease_until = now + LEASE_MS
                held.append(session_id)
        return frozenset(held)

    async def expired(self) -> tuple[str, ...]:
        now = self.clock.ms
        return tuple(session_id for session_id, row in self.rows.items() if row.lease_until <= now)

    async def recover(self, session_id: str, done_ms: int | None) -> SessionState | None:
        row = self.rows.get(session_id)
        if row is None or row.lease_until > self.clock.ms:
            return None
        self._leave(row)
        if done_ms is None:
            self._risk(row, row.claim.estimate_ms)
            return SessionState.AT_RISK
        self._settle(row, done_ms)
        return SessionState.FINISHED

    async def usage(self, month: str) -> list[Usage]:
        empty = Account()
        usages = []
        for endpoint, gate in self.standing.items():
            account = self.accounts.get((endpoint, month), empty)
            usages.append(
                Usage(
                    ORG,
                    endpoint,
                    month,
                    gate,
                    self._live_at(endpoint),
                    self._live_at(endpoint, admitted=True),
                    account.settled_ms,
                    account.at_risk_ms,
                    account.reserved_ms,
                )
            )
        return usages

    async def gates(self, endpoint: str) -> Gates:
        return self._gates(endpoint)

    async def set_ceiling(self, endpoint: str, ceiling: int | None) -> None:
        self.standing[endpoint] = replace(self.standing.get(endpoint, Gate()), ceiling=ceiling)

    async def set_cap(self, endpoint: str, cap_ms: int | None) -> None:
        self.standing[endpoint] = replace(self.standing[endpoint], cap_ms=cap_ms)

    async def set_paused(self, *, paused: bool) -> None:
        self.standing[EVERY_ENDPOINT] = replace(self.standing[EVERY_ENDPOINT], paused=paused)

    def _close(self, closed: Collection[str]) -> None:
        for session_id in self.rows.keys() & closed:
            self.rows[session_id].closed = True

    def _row(self, session_id: str) -> Row:
        if session_id not in self.rows:
            raise LeaseLost(session_id)
        return self.rows[session_id]

    def _gates(self, endpoint: str) -> Gates:
        return Gates(self.standing[endpoint], self.standing[EVERY_ENDPOINT])

    def _keep(self, endpoint: str, gates: Gates) -> None:
        self.standing[endpoint], self.standing[EVERY_ENDPOINT] = gates

    def _crowd(self, endpoint: str, session_id: str) -> Crowd:
        now, live, with_result, whole, whole_with_result = self.clock.ms, 0, 0, 0, 0
        for other_id, row in self.rows.items():
            if row.lease_until > now and not row.closed and other_id != session_id:
                whole += 1
                whole_with_result += row.admitted
                if row.claim.endpoint == endpoint:
                    live += 1
                    with_result += row.admitted
        return Crowd(live, with_result, whole, whole_with_result)

    def _live_at(self, endpoint: str, *, admitted: bool = False) -> int:
        now = self.clock.ms
        live = 0
        for row in self.rows.values():
            held = row.lease_until > now and not row.closed
            live += held and endpoint in {EVERY_ENDPOINT, row.claim.endpoint} and (row.admitted or not admitted)
        return live

    def _admitted(self, row: Row, *, counted: bool = False) -> None:
        endpoint, session_id = row.claim.endpoint, row.claim.session_id
        crowd, now = self._crowd(endpoint, session_id), self.clock.ms
        if counted:
            crowd = crowd.without_one()
        self._keep(endpoint, admitted(self._gates(endpoint), crowd, session_id, now, self.chance(), self.rules))

    def _leave(self, row: Row) -> None:
        endpoint = row.claim.endpoint
        self._keep(endpoint, left(self._gates(endpoint), row.claim.session_id, self.clock.ms, self.chance(), self.rules))

    def _account(self, endpoint: str, month: str) -> Account:
        return self.accounts.setdefault((endpoint, month), Account())

    def _accounts(self, claim: Claim) -> tuple[Account, Account]:
        return self._account(claim.endpoint, claim.month), self._account(EVERY_ENDPOINT, claim.month)

    def _end(self, row: Row) -> tuple[Account, Account]:
        del self.rows[row.claim.session_id]
        accounts = self._accounts(row.claim)
        for account in accounts:
            account.reserved_ms -= row.claim.estimate_ms
        return accounts

    def _settle(self, row: Row, booked_ms: int) -> None:
        self.paid.add(row.claim.object_id)
        for account in self._end(row):
            account.settled_ms += booked_ms

    def _risk(self, row: Row, sent_ms: int) -> None:
        for account in self._end(row):
            account.at_risk_ms += sent_ms
