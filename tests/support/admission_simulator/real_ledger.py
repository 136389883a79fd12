"""The ledger itself in the simulator: its databases under the world's clocks, alone or answer by answer beside the model."""

from collections.abc import AsyncIterator, Awaitable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from admission_simulator.clock import Clock
from admission_simulator.ledger import LEASE_MS, ORG, ModelLedger
from connectors.ledger import Ledger, admission, turns
from connectors.ledger.gates import usages_of
from connectors.ledger.leases import Moment
from moderation.admission import EVERY_ENDPOINT, Claim, Denial, Grant, Refusal, SessionKind, SessionState
from moderation.breaker import BreakerState
from moderation.errors import LeaseLost, Phase
from moderation.gate import Gates
from moderation.judgement import Failure
from moderation.outcomes import StopCause
from moderation.refusals import CANCELLED, Cause
from moderation.results import SpooledSession
from moderation.usage import Usage

T = TypeVar("T")


def chance_of(clock: Clock, seed: int) -> float:
    """A random number of an instant: the same for all who ask in it, however often."""
    drawn = blake2b(f"{seed}/{clock.ms}".encode(), digest_size=8).digest()
    return int.from_bytes(drawn) / 2**64


@asynccontextmanager
async def real(place: Path | str, seed: int, clock: Clock) -> AsyncIterator["RealLedger"]:
    """The ledger at a place with the world's clocks."""

    def chance() -> float:
        return chance_of(clock, seed)

    async with Ledger.open(place, lease_ms=LEASE_MS, clock_ms=clock.boot_ms, now=clock.now, chance=chance) as ledger:
        yield RealLedger(ledger, clock)


@asynccontextmanager
async def compared(place: Path | str, seed: int, clock: Clock) -> AsyncIterator["Compared"]:
    """The same beside a model."""
    async with real(place, seed, clock) as ledger:
        yield Compared(FixedModel(clock, seed=seed), ledger)


class _ForAProbe(Exception):
    """Only a probe may go out, and this claim is for none: what was granted is taken back with its transaction."""


@dataclass(slots=True)
class RealLedger:
    """An adapter of connectors.ledger.Ledger."""

    ledger: Ledger
    clock: Clock
    claims: dict[str, Claim] = field(default_factory=dict)
    _seen: tuple[tuple[str, int], list[Usage]] | None = None
    """The last reading, until something is written or time goes by: the watch reads much more often than anything changes."""

    async def open_run(self) -> None:
        self._seen = None
        endpoints = [usage.endpoint for usage in await self._usages()]
        self._seen = None
        await self.ledger.reopen(ORG, [endpoint for endpoint in endpoints if endpoint != EVERY_ENDPOINT])

    async def admit(self, claim: Claim, closed: Collection[str] = ()) -> SessionKind | Denial | StopCause:
        self._seen = None
        try:
            answer, kind = await self.ledger._transact(lambda connection, moment: _ask(connection, claim, closed, moment))
        except _ForAProbe:
            return Denial.BREAKER
        if isinstance(answer, Grant):
            self.claims[claim.session_id] = claim
            return kind
        return answer.stop or answer.denial

    async def first_result(self, session_id: str, beside: Collection[str] = (), closed: Collection[str] = ()) -> None:
        self._seen = None
        await self.ledger.note_result(session_id, beside, closed)

    async def finish(self, session_id: str, booked_ms: int) -> None:
        self._seen = None
        await self.ledger.finish(session_id, booked_ms)

    async def fail(self, failure: Failure, sent_ms: int) -> Cause:
        self._seen = None
        return await self.ledger.fail(failure, sent_ms=sent_ms, outcome="failed")

    async def cancel(self, session_id: str, sent_ms: int) -> None:
        self._seen = None
        await self.ledger.fail(Failure(session_id, Phase.ADMITTED, CANCELLED), sent_ms=sent_ms, outcome="cancelled")

    async def renew(self, worker: str) -> frozenset[str]:
        self._seen = None
        return await self.ledger.renew(worker)

    async def expired(self) -> tuple[str, ...]:
        return await self.ledger.expired()

    async def recover(self, session_id: str, done_ms: int | None) -> SessionState | None:
        self._seen = None
        return await self.ledger.recover(session_id, None if done_ms is None else _spooled(self.claims[session_id], done_ms))

    async def usage(self, month: str) -> list[Usage]:
        key = (month, self.clock.ms)
        if self._seen is None or self._seen[0] != key:
            usages = await self.ledger.usage(ORG, month)
            self._seen = (key, [replace(usage, endpoints=()) for usage in usages])
        return self._seen[1]

    async def gates(self, endpoint: str) -> Gates:
        found = {usage.endpoint: usage.gate for usage in await self._usages()}
        return Gates(found[endpoint], found[EVERY_ENDPOINT])

    async def set_ceiling(self, endpoint: str, ceiling: int | None) -> None:
        self._seen = None
        await self.ledger.set_gate(ORG, endpoint, ceiling)

    async def set_cap(self, endpoint: str, cap_ms: int | None) -> None:
        self._seen = None
        await self.ledger.set_cap(ORG, endpoint, cap_ms)

    async def set_paused(self, *, paused: bool) -> None:
        self._seen = None
        await (self.ledger.pause(ORG) if paused else self.ledger.resume(ORG))

    async def _usages(self) -> list[Usage]:
        if self._seen is not None and self._seen[0][1] == self.clock.ms:
            return self._seen[1]
        return await self.usage(f"{self.clock.now():%Y-%m}")


async def _ask(connection: AsyncConnection, claim: Claim, closed: Collection[str], moment: Moment) -> tuple[Grant | Refusal, SessionKind]:
    """Ask as the model is asked: a probe is for claims of kind PROBE alone, and nobody waits in line, since nobody asks again by itself."""
    answer = await admission.admit(connection, claim, closed, moment)
    if isinstance(answer, Refusal) and answer.denial is not Denial.BUDGET:
        await turns.leave(connection, claim, await turns.line_at(connection, claim, moment))
        return answer, claim.kind
    gates = (await usages_of(connection, claim.org, claim.endpoint, claim.month, moment)).gates
    probing = any(gate.breaker.state is not BreakerState.CLOSED for gate in gates)
    if probing and claim.kind is SessionKind.OBJECT:
        raise _ForAProbe
    return answer, SessionKind.PROBE if probing else SessionKind.OBJECT


def _spooled(claim: Claim, done_ms: int) -> SpooledSession:
    attempt = {"outcome": "done", "scope": None, "close_code": 1000, "error_text": None}
    ids = {name: getattr(claim, name) for name in ("session_id", "run_id", "endpoint", "object_id")}
    return SpooledSession(**ids, attempt=attempt, booked_ms=done_ms, sent_ms=done_ms, summary={})


@dataclass(slots=True)
class FixedModel(ModelLedger):
    """The model with the chances of a real ledger."""

    seed: int = 0

    def chance(self) -> float:
        return chance_of(self.clock, self.seed)


@dataclass(slots=True)
class Compared:
    """Model and ledger side by side: both get every question, and an answer of one that is not the other's is an AssertionError."""

    model: ModelLedger
    real: RealLedger

    async def open_run(self) -> None:
        await self._both("open_run")

    async def admit(self, claim: Claim, closed: Collection[str] = ()) -> SessionKind | Denial | StopCause:
        return await self._both("admit", claim, closed)

    async def first_result(self, session_id: str, beside: Collection[str] = (), closed: Collection[str] = ()) -> None:
        await self._both("first_result", session_id, beside, closed)

    async def finish(self, session_id: str, booked_ms: int) -> None:
        await self._both("finish", session_id, booked_ms)

    async def fail(self, failure: Failure, sent_ms: int) -> Cause:
        return await self._both("fail", failure, sent_ms)

    async def cancel(self, session_id: str, sent_ms: int) -> None:
        await self._both("cancel", session_id, sent_ms)

    async def renew(self, worker: str) -> frozenset[str]:
        return await self._both("renew", worker)

    async def expired(self) -> tuple[str, ...]:
        return await self._both("expired")

    async def recover(self, session_id: str, done_ms: int | None) -> SessionState | None:
        return await self._both("recover", session_id, done_ms)

    async def usage(self, month: str) -> list[Usage]:
        return await self._both("usage", month)

    async def gates(self, endpoint: str) -> Gates:
        return await self._both("gates", endpoint)

    async def set_ceiling(self, endpoint: str, ceiling: int | None) -> None:
        await self._both("set_ceiling", endpoint, ceiling)

    async def set_cap(self, endpoint: str, cap_ms: int | None) -> None:
        await self._both("set_cap", endpoint, cap_ms)

    async def set_paused(self, *, paused: bool) -> None:
        await self._both("set_paused", paused=paused)

    async def _both(self, name: str, *arguments: Any, **named: Any) -> Any:
        said, lost = await _told(getattr(self.model, name)(*arguments, **named))
        really, really_lost = await _told(getattr(self.real, name)(*arguments, **named))
        assert (_plain(said), lost) == (_plain(really), really_lost), f"{name}{arguments}: the model says {said}, the ledger {really}"
        if lost:
            raise LeaseLost(str(arguments))
        return said


async def _told(answer: Awaitable[T]) -> tuple[T | None, bool]:
    try:
        return await answer, False
    except LeaseLost:
        return None, True


def _plain(answer: object) -> object:
    """An answer without an order that means nothing."""
    return sorted(answer, key=str) if isinstance(answer, (list, tuple)) and not isinstance(answer, Gates) else answer
