"""The ledger of one installation: every method is one transaction, kept whole or not at all."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Self

from sqlalchemy import select

from connectors.ledger import admission, leases, packages, settlement
from connectors.ledger.database import Database, host_boot_ms
from connectors.ledger.schema import sessions
from moderation.admission import Claim, Denial, Grant, Package, SessionRecord, SessionState, UnpackagedRun, Usage
from moderation.errors import Scope, SoundcheckError
from moderation.results import SpooledSession


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Ledger:
    """Who may stream, what it cost and what is published: sessions, gates, budgets and packages in one database.

    All `_ms` are milliseconds of audio. Every method raises ResultsNotWritable when the database takes no writes (disk full, read-only)
    and UnreachableError when it was locked for 30 s or is damaged. A cancelled caller waits until its transaction has ended.
    """

    def __init__(self, database: Database, boot_ms: Callable[[], int], now: Callable[[], datetime]) -> None:
        self._database = database
        self._boot_ms = boot_ms
        self._now = now

    @classmethod
    @asynccontextmanager
    async def open(
        cls, path_or_url: Path | str, *, boot_ms: Callable[[], int] = host_boot_ms, now: Callable[[], datetime] = _utc_now
    ) -> AsyncIterator[Self]:
        """The ledger in a file (made when missing, with its folder) or at a `sqlite+aiosqlite://` URL.

        boot_ms gives the milliseconds since the host booted, by which leases run; now the instants that are written down.
        Raises ConfigurationError for a ledger of another schema version.
        """
        async with Database.open(path_or_url) as database:
            yield cls(database, boot_ms, now)

    async def set_gate(self, org: str, endpoint: str, ceiling: int | None) -> None:
        """Write how many sessions may be live at once; endpoint "*" means all of the organisation's, None no limit there. Repeatable."""
        await self._database.transact(lambda c: admission.set_gate(c, org, endpoint, ceiling))

    async def set_cap(self, org: str, endpoint: str, month: str, cap_ms: int | None) -> None:
        """Write the audio that a month may cost at most; endpoint "*" means the organisation's in all, None no limit. Repeatable."""
        await self._database.transact(lambda c: admission.set_cap(c, org, endpoint, month, cap_ms))

    async def pause(self, org: str) -> None:
        """Admit nothing of an organisation until `resume`; what streams goes on. Raises ConfigurationError for an unknown one."""
        await self._database.transact(lambda c: admission.set_paused(c, org, paused=True))

    async def resume(self, org: str) -> None:
        """End a pause. Raises ConfigurationError for an unknown organisation."""
        await self._database.transact(lambda c: admission.set_paused(c, org, paused=False))

    async def admit(self, claim: Claim) -> Grant | Denial:
        """Grant a slot and a reservation for one session, or say why not (`moderation.admission.denial_of` has the rule).

        A granted session streams until `finish` or `fail`, as long as `renew` comes at least once in a lease. When the caller is
        cancelled meanwhile, the session is released. Raises ConfigurationError when a gate is missing.
        """
        try:
            return await self._database.transact(lambda c: admission.admit(c, claim, self._boot_ms(), self._now()))
        except asyncio.CancelledError:
            with suppress(SoundcheckError):  # then `renew` names it to a worker that does not know it
                await self._database.transact(lambda c: settlement.withdraw(c, claim.session_id))
            raise

    async def renew(self, worker: str) -> frozenset[str]:
        """Renew the leases of a worker; the ids of the sessions that it still holds.

        It must drop any other at once, and `fail` with nothing sent any that it does not know: a cancelled admission whose release failed.
        """
        return await self._database.transact(lambda c: leases.renew(c, worker, self._boot_ms()))

    async def extend(self, session_id: str, more_ms: int) -> bool:
        """Reserve more for a session that outlives its estimate, before it sends on. False when a cap forbids it; raises LeaseLost."""
        return await self._database.transact(lambda c: settlement.extend(c, session_id, more_ms, self._boot_ms()))

    async def finish(self, session_id: str, booked_ms: int, close_code: int | None = None) -> None:
        """Settle a session that ended with a valid done and lies in the spool.

        Raises LeaseLost when its lease ran out: then the sweeper settles it from the spool.
        """
        await self._database.transact(lambda c: settlement.finish(c, session_id, booked_ms, close_code, self._boot_ms()))

    async def fail(
        self,
        session_id: str,
        *,
        sent_ms: int,
        outcome: str,
        scope: Scope | None = None,
        close_code: int | None = None,
        error_text: str | None = None,
    ) -> SessionState:
        """Book a failed attempt: AT_RISK with what was sent, or RELEASED when no audio was; its object is free again.

        outcome is a word of datasets.md (attempts); scope OBJECT spends one of the object's attempts; error_text is redacted.
        Raises LeaseLost when the session has been swept; an expired lease alone does not matter.
        """
        ending = settlement.failure(sent_ms, outcome, scope, close_code, error_text)
        await self._database.transact(lambda c: settlement.fail(c, session_id, ending))
        return ending.state

    async def expired(self) -> tuple[str, ...]:
        """The ids of sessions whose lease ran out: `recover` each with what the spool has of it."""
        return await self._database.transact(lambda c: leases.expired_sessions(c, self._boot_ms()))

    async def recover(self, session_id: str, spooled: SpooledSession | None) -> SessionState | None:
        """End an expired session by what the spool has of it.

        A result makes it FINISHED, a failure AT_RISK or RELEASED by its facts, nothing AT_RISK with its whole reservation.
        None when there is nothing to recover: any number of sweepers may run at once.
        """
        return await self._database.transact(lambda c: settlement.recover(c, session_id, spooled, self._boot_ms()))

    async def assign_package(self, lake: str, run_id: str, scan_date: date, *, max_sessions: int) -> Package | None:
        """Fix the membership of the run's next package: its oldest ended sessions without one. None when there are none."""
        return await self._database.transact(lambda c: packages.assign_package(c, lake, run_id, scan_date, max_sessions, self._now()))

    async def unpublished(self, lake: str) -> list[Package]:
        """The packages of a lake that are not confirmed as published, oldest first, with their members."""
        return await self._database.transact(lambda c: packages.unpublished(c, lake))

    async def runs_with_unpackaged(self, lake: str) -> list[UnpackagedRun]:
        """The runs of a lake with ended sessions that no package holds."""
        return await self._database.transact(lambda c: packages.runs_with_unpackaged(c, lake))

    async def mark_published(self, package: str) -> None:
        """Confirm that every file of a package lies in the lake: its finished sessions become published. Repeatable."""
        await self._database.transact(lambda c: packages.mark_published(c, package, self._now()))

    async def usage(self, org: str, month: str) -> list[Usage]:
        """Where every gate of an organisation and its budget of the month stand, "*" first; empty for an unknown organisation."""
        return await self._database.transact(lambda c: admission.usage(c, org, month, self._boot_ms()))

    async def attempts_of(self, lake: str, object_id: str, endpoint: str, params_hash: str) -> int:
        """How many attempts an object has spent: its failures under scope OBJECT."""
        return await self._database.transact(lambda c: settlement.attempts_of(c, lake, object_id, endpoint, params_hash))

    async def session(self, session_id: str) -> SessionRecord | None:
        """A session as it stands; None when it was never admitted."""
        query = select(sessions).where(sessions.c.session_id == session_id)
        row = (await self._database.transact(lambda c: c.execute(query))).one_or_none()
        return None if row is None else SessionRecord(*row)
