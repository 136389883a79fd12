"""The ledger of one installation: every method is one transaction, kept whole or not at all."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from connectors.ledger import admission, corrections, erasures, gates, leases, notices, packages, reading, restoring, settlement, turns
from connectors.ledger.database import Database
from connectors.ledger.leases import LEASE_MS, Moment
from moderation.admission import (
    EVERY_ENDPOINT,
    Adjustment,
    Claim,
    Grant,
    Package,
    Refusal,
    Remains,
    SessionRecord,
    SessionState,
    Suspect,
    UnpackagedRun,
)
from moderation.errors import SoundcheckError
from moderation.gate import GateRules
from moderation.judgement import Failure
from moderation.refusals import Cause
from moderation.results import SpooledSession
from moderation.turns import Waiting
from moderation.usage import Usage

T = TypeVar("T")


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Ledger:
    """Who may stream, what it cost and what is published: sessions, gates, budgets and packages in one database.

    All `_ms` are milliseconds of audio. Every method raises ResultsNotWritable when the database takes no writes (disk full, read-only)
    and UnreachableError when it was locked for 30 s, does not answer or is damaged. A cancelled caller waits until its transaction has
    ended. lease_ms is how long a session is held without a renewal.
    """

    def __init__(
        self, database: Database, rules: GateRules, lease_ms: int, now: Callable[[], datetime], chance: Callable[[], float]
    ) -> None:
        self._database = database
        self._rules = rules
        self._now = now
        self._chance = chance
        self.lease_ms = lease_ms

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path_or_url: Path | str,
        *,
        rules: GateRules | None = None,
        lease_ms: int = LEASE_MS,
        clock_ms: Callable[[], int] | None = None,
        now: Callable[[], datetime] = _utc_now,
        chance: Callable[[], float] = random.random,
    ) -> AsyncIterator[Self]:
        """The ledger in a file (made when missing, with its folder), or at a `sqlite://` or `postgresql://` URL.

        All processes of an installation must use the same rules and lease. Leases and breakers run by the host's boot clock on SQLite, by
        the database's own on PostgreSQL, or by clock_ms, in milliseconds; now gives the instants that are written down. Raises
        ConfigurationError for a ledger of a newer schema version.
        """
        async with Database.open(path_or_url, clock_ms) as database:
            yield cls(database, rules or GateRules(), lease_ms, now, chance)

    async def restore(self, remains: AsyncIterator[Remains]) -> None:
        """Forget all but what was erased by request, and write what is known without this ledger. ConfigurationError where it is used."""
        known, packed = await self._transact(restoring.refuse_while_used), await restoring.packed(remains)
        await self._transact(lambda c, moment: restoring.restore(c, packed, known, moment))

    async def _transact(self, step: Callable[[AsyncConnection, Moment], Awaitable[T]]) -> T:
        async def at_its_moment(connection: AsyncConnection) -> T:
            now_ms = await self._database.now_ms(connection)
            return await step(connection, Moment(now_ms, self._now(), self._chance(), self.lease_ms, self._rules, self._database.restarts))

        return await self._database.transact(at_its_moment)

    async def set_gate(self, org: str, endpoint: str, ceiling: int | None) -> None:
        """Write how many sessions may be live at once; endpoint "*" means all of the organisation's, None no limit there. Repeatable."""
        await self._transact(lambda c, _: gates.set_ceiling(c, org, endpoint, ceiling))

    async def reopen(self, org: str, endpoints: Iterable[str]) -> None:
        """Begin a run: where nothing is live one session goes first, and an open breaker may be probed at once."""
        await self._transact(lambda c, moment: gates.reopen(c, org, endpoints, moment))

    async def set_cap(self, org: str, endpoint: str, cap_ms: int | None, cap_micros: int | None = None) -> None:
        """Write what any month may cost at most, in audio and in millionths of the currency; None is no limit. Repeatable.

        Endpoint "*" means the organisation's in all. Raises ConfigurationError where `set_gate` has not been called before.
        """
        await self._transact(lambda c, _: gates.change_gate(c, org, endpoint, cap_ms=cap_ms, cap_micros=cap_micros))

    async def set_price(self, org: str, endpoint: str, price_micros: int | None) -> None:
        """Write the price of an audio-hour in millionths of the currency, None where it is not known: it re-values the month.

        Raises ConfigurationError where `set_gate` has not been called before, and ValueError for what is no endpoint's price.
        """
        if endpoint == EVERY_ENDPOINT or (price_micros or 0) < 0:
            raise ValueError(f"a price of {price_micros} millionths for endpoint {endpoint!r} is none")
        await self._transact(lambda c, _: gates.change_gate(c, org, endpoint, price_micros=price_micros))

    async def pause(self, org: str) -> None:
        """Admit nothing of an organisation until `resume`; what streams goes on. Raises ConfigurationError for an unknown one."""
        await self._transact(lambda c, _: gates.change_gate(c, org, EVERY_ENDPOINT, paused=True))

    async def resume(self, org: str) -> None:
        """End a pause. Raises ConfigurationError for an unknown organisation."""
        await self._transact(lambda c, _: gates.change_gate(c, org, EVERY_ENDPOINT, paused=False))

    async def admit(self, claim: Claim, closed: Collection[str] = ()) -> Grant | Refusal:
        """Grant a slot and a reservation for one session, or say why not (`moderation.usage.decide` has the rule).

        closed are sessions of the caller that hold no slot from now on, though they are not booked yet: their connections have closed.
        A granted session streams until `finish` or `fail`, as long as `renew` comes at least once in a lease. When the caller is
        cancelled meanwhile, the session is released. Raises ConfigurationError when a gate is missing.
        """
        try:
            return await self._transact(lambda c, moment: admission.admit(c, claim, closed, moment))
        except asyncio.CancelledError:
            with suppress(SoundcheckError):  # then `renew` names it to a worker that does not know it
                await self._transact(lambda c, moment: settlement.withdraw(c, claim.session_id, moment))
            raise

    async def note_result(self, session_id: str, beside: Collection[str] = (), closed: Collection[str] = ()) -> None:
        """Say that a session has its first result: key, organisation and service are fine, and one more may start. Repeatable.

        beside are others of which that is not known yet: how many the service admits together is learned from all of its endpoint. closed
        as with `admit`.
        """
        await self._transact(lambda c, moment: admission.note_result(c, session_id, beside, closed, moment))

    async def renew(self, worker: str) -> frozenset[str]:
        """Renew the leases of a worker; the ids of the sessions that it still holds.

        It must drop any other at once, and `fail` with nothing sent any that it does not know: a cancelled admission whose release failed.
        """
        return await self._transact(lambda c, moment: leases.renew(c, worker, moment))

    async def extend(self, session_id: str, more_ms: int) -> bool:
        """Reserve more for a session that outlives its estimate, before it sends on. False when a cap forbids it; raises LeaseLost."""
        return await self._transact(lambda c, moment: settlement.extend(c, session_id, more_ms, moment))

    async def finish(self, session_id: str, booked_ms: int, close_code: int | None = None) -> None:
        """Settle a session that ended with a valid done and lies in the spool.

        Raises LeaseLost when its lease ran out: then the sweeper settles it from the spool.
        """
        await self._transact(lambda c, moment: settlement.finish(c, session_id, booked_ms, close_code, moment))

    async def fail(
        self, failure: Failure, *, sent_ms: int, outcome: str, close_code: int | None = None, error_text: str | None = None
    ) -> Cause:
        """Book a failed attempt, and say what it means.

        It is AT_RISK with what was sent, or RELEASED when no audio was, and its object is free again. outcome is a word of datasets.md
        (attempts); a cause of scope OBJECT spends one of the object's attempts; error_text is redacted.
        Raises LeaseLost when the session has been swept; an expired lease alone does not matter.
        """
        ending = settlement.failure(sent_ms, outcome, failure.cause.scope, close_code, error_text)
        return await self._transact(lambda c, moment: settlement.fail(c, ending, failure, moment))

    async def expired(self, lake: str | None = None) -> tuple[str, ...]:
        """The ids of sessions whose lease ran out, of one lake or of all: `recover` each with what the spool has of it."""
        return await self._transact(lambda c, moment: leases.expired_sessions(c, lake, moment))

    async def recover(self, session_id: str, spooled: SpooledSession | None) -> SessionState | None:
        """End an expired session by what the spool has of it.

        A result makes it FINISHED, a failure AT_RISK or RELEASED by its facts, nothing AT_RISK with its whole reservation.
        None when there is nothing to recover: any number of sweepers may run at once.
        """
        return await self._transact(lambda c, moment: settlement.recover(c, session_id, spooled, moment))

    async def assign_package(self, lake: str, run_id: str, scan_date: date, *, max_sessions: int) -> Package | None:
        """Fix the membership of the run's next package: its oldest ended sessions without one. None when there are none."""
        return await self._transact(lambda c, moment: packages.assign_package(c, lake, run_id, scan_date, max_sessions, moment.at))

    async def unpublished(self, lake: str) -> list[Package]:
        """The packages of a lake that are not confirmed as published, oldest first, with their members."""
        return await self._database.transact(lambda c: packages.unpublished(c, lake))

    async def runs_with_unpackaged(self, lake: str) -> list[UnpackagedRun]:
        """The runs of a lake with ended sessions that no package holds."""
        return await self._database.transact(lambda c: packages.runs_with_unpackaged(c, lake))

    async def mark_published(self, package: str) -> bool:
        """Confirm that every file of a package lies in the lake: its finished sessions become published. Repeatable.

        False for a package that was given up meanwhile.
        """
        return await self._transact(lambda c, moment: packages.mark_published(c, package, moment.at))

    async def bury(self, erased_id: str, receipt: str, lakes: Collection[str], object_ids: Collection[str]) -> tuple[str, ...]:
        """Admit a key, or one version of it, never again, and publish nothing more of these objects' sessions; the sessions' ids.

        Repeatable. Raises ConfigurationError, and changes nothing, while one of them streams.
        """
        return await self._transact(lambda c, moment: erasures.bury(c, erased_id, receipt, lakes, object_ids, moment.at))

    async def buried(self) -> frozenset[str]:
        """The object_key_ids, and object_ids of single versions, that were erased by request."""
        return await self._database.transact(erasures.buried)

    async def erased(self, session_ids: Collection[str]) -> frozenset[str]:
        """Those of these sessions whose results were erased by request."""
        return await self._database.transact(lambda c: erasures.erased(c, session_ids))

    def sessions_of(self, lake: str) -> AsyncIterator[list[Any]]:
        """Every session of a lake, some thousands at a time: (session_id, endpoint, object_id, params_hash, run_id, state, booked_ms)."""
        return reading.sessions_of(self._database.transact, lake)

    async def confirmed(self, session_ids: Collection[str]) -> frozenset[str]:
        """Which of these sessions have a package that is confirmed as published: nobody needs their spool entries any more."""
        return await self._database.transact(lambda c: packages.confirmed(c, session_ids))

    async def give_up(self, package: str, lost: Collection[str]) -> None:
        """Undo a package of which these sessions' results are lost: their objects are free, and its files are to go.

        What else it has waits for another package. Raises ConfigurationError where it is published, or not of this ledger.
        """
        await self._transact(lambda c, _: packages.give_up(c, package, lost))

    async def is_given_up(self, package: str) -> bool:
        """Whether a package was undone."""
        return await self._database.transact(lambda c: packages.is_given_up(c, package))

    async def usage(self, org: str, month: str) -> list[Usage]:
        """Where every gate of an organisation and its budget of the month stand, "*" first; empty for an unknown organisation."""
        return await self._transact(lambda c, moment: gates.usage(c, org, month, moment))

    async def adjust(self, adjustment_id: str, adjustment: Adjustment) -> None:
        """Correct what a month has cost. Raises ConfigurationError where less than nothing would be spent."""
        await self._transact(lambda c, moment: corrections.adjust(c, adjustment_id, adjustment, moment))

    async def adjustments(self, org: str, month: str) -> list[Adjustment]:
        """The corrections of a month, oldest first."""
        return await self._database.transact(lambda c: corrections.adjustments_of(c, org, month))

    async def waiting(self, org: str) -> dict[str, list[Waiting]]:
        """The workers that wait for a slot, by endpoint, the longest first: who has asked within the last seconds and got none."""
        return await self._transact(lambda c, moment: turns.in_line(c, org, moment))

    async def first_notice(self, org: str, cause: str) -> bool:
        """Whether people are to be told of a cause: True once for all processes and hosts, until `clear_notices`."""
        return await self._transact(lambda c, moment: notices.first_notice(c, org, cause, moment))

    async def clear_notices(self, org: str, causes: Collection[str] | None = None) -> None:
        """Let people be told again of these causes, or of all: they are over."""
        await self._transact(lambda c, _: notices.clear_notices(c, org, causes))

    async def suspects(self, org: str, lake: str) -> frozenset[Suspect]:
        """The objects of an organisation over which the last two workers have died, or more."""
        return await self._database.transact(lambda c: reading.suspects(c, org, lake))

    async def streaming(self, org: str) -> list[SessionRecord]:
        """The sessions of an organisation that stream, or whose worker has died while they did; oldest first."""
        return await self._database.transact(lambda c: reading.streaming(c, org))

    async def now_ms(self) -> int:
        """The ledger's clock, to which its gates refer."""
        return await self._database.transact(self._database.now_ms)

    async def organisations(self) -> list[str]:
        """Every organisation that the ledger knows."""
        return await self._database.transact(reading.organisations)

    async def attempts_of(self, lake: str, object_id: str, endpoint: str, params_hash: str) -> int:
        """How many attempts an object has spent: its failures under scope OBJECT."""
        return await self._database.transact(lambda c: settlement.attempts_of(c, lake, object_id, endpoint, params_hash))

    async def session(self, session_id: str) -> SessionRecord | None:
        """A session as it stands; None when it was never admitted."""
        return await self._database.transact(lambda c: reading.session(c, session_id))
