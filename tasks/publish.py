"""Publishes ended sessions in packages, and takes up what a crash left: expired sessions, unpublished packages, lonely spool entries."""

import asyncio
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from msgspec.structs import replace

from connectors.lake.packages import package_names, write_package
from connectors.lake.store import ResultStore
from connectors.ledger import Ledger
from connectors.spool import Spool
from moderation.admission import DONE, Member, Package
from moderation.errors import ConfigurationError
from moderation.results import SpooledSession
from tasks.records import lost_attempt_row

PACKAGE_SESSIONS = 2000
"""Sessions of one package: of a minute each some 15 MB of Parquet, of an hour each about the 128 MB of design.md section 7."""


class _NotSpooledAnyMore(ConfigurationError):
    """A session that was in the spool a moment ago is not there."""


@dataclass(frozen=True, slots=True)
class Publisher:
    """Where finished sessions come from and go to. lake is the id of the result lake."""

    ledger: Ledger
    spool: Spool
    results: ResultStore
    lake: str

    async def publish_run(self, run_id: str, scan_date: date) -> int:
        """Publish everything of a run that has ended, and return how many sessions that was. May be repeated, by anyone."""
        sessions = 0
        while package := await self.ledger.assign_package(self.lake, run_id, scan_date, max_sessions=PACKAGE_SESSIONS):
            await self._publish(package)
            sessions += len(package.members)
        return sessions

    async def recover(self) -> int:
        """Settle expired sessions by what the spool has of them, and publish what earlier runs left; returns the sessions published.

        What was erased by request from another host is forgotten here.
        """
        await settle_expired(self.ledger, self.spool)
        if (spooled := await asyncio.to_thread(self.spool.ids)) and (erased := await self.ledger.erased(spooled)):
            await asyncio.to_thread(self.spool.remove, erased)
        sessions = 0
        for package in await self.ledger.unpublished(self.lake):
            await self._publish(package)
            sessions += len(package.members)
        for run in await self.ledger.runs_with_unpackaged(self.lake):
            sessions += await self.publish_run(run.run_id, run_date(run.run_id))
        return sessions

    async def _publish(self, package: Package) -> None:
        """Files first, then the ledger, then the spool: every step can be repeated, and by several at once."""
        members = [member.session_id for member in package.members]
        found = await asyncio.to_thread(self._spooled, members)
        if not await self._is_waiting(package):
            return  # somebody else has published it meanwhile, and may have cleared the spool under our eyes
        if left := set(members) - {session.session_id for session in found}:
            left -= await self.ledger.erased(left)
            found += [await self._without_a_trace(member) for member in package.members if member.session_id in left]
        try:
            await asyncio.to_thread(self._write, package, found)
        except _NotSpooledAnyMore:
            if not await self._is_waiting(package):
                return  # as above
            if not await self.ledger.erased(members):
                raise
        if erased := await self.ledger.erased(members):  # by request, while it was written
            kept = [session for session in found if session.session_id not in erased]
            await asyncio.to_thread(self._write, package, kept, anew=True)
        await self.ledger.mark_published(package.package)
        await asyncio.to_thread(self.spool.remove, members)

    async def _is_waiting(self, package: Package) -> bool:
        """Whether nobody has published it yet."""
        return package.package in {waiting.package for waiting in await self.ledger.unpublished(self.lake)}

    def _write(self, package: Package, sessions: Sequence[SpooledSession], *, anew: bool = False) -> None:
        """Write the files of a package; anew those that it has no rows for any more go."""
        named = (package.package, package.run_id, package.scan_date)
        written = write_package(self.results, *named, sessions, self._items)
        if anew:
            for name in package_names(package.package, package.scan_date):
                if name not in written:
                    self.results.delete(name)

    def _spooled(self, session_ids: Iterable[str]) -> list[SpooledSession]:
        """What the spool has of them, without their items: of 2,000 sessions of an hour these are 1.2 GB."""
        spooled = (self.spool.get(session_id) for session_id in session_ids)
        return [replace(session, items={}) for session in spooled if session is not None]

    def _items(self, session: SpooledSession) -> dict[str, bytes]:
        """The items of a session, read from the spool when they are needed."""
        spooled = self.spool.get(session.session_id)
        if spooled is None:
            raise _NotSpooledAnyMore(f"the spool has lost session {session.session_id} while its package was published: run the scan again")
        return spooled.items

    async def _without_a_trace(self, member: Member) -> SpooledSession:
        """What the ledger knows of a session whose worker died before it spooled anything. Raises ConfigurationError for a paid result."""
        record = await self.ledger.session(member.session_id)
        if record is None or member.state in DONE:
            raise ConfigurationError(
                f"the spool has lost the paid result of session {member.session_id}: restore the state folder, then run the scan again"
            )
        return SpooledSession(
            session_id=record.session_id,
            run_id=record.run_id,
            endpoint=record.endpoint,
            object_id=record.object_id,
            attempt=lost_attempt_row(record),
            booked_ms=0,
            sent_ms=record.booked_ms or 0,
        )


async def settle_expired(ledger: Ledger, spool: Spool, *, held: Container[str] = ()) -> None:
    """End the sessions whose workers have died by what the spool has of them: their objects are free again, or done; but for those held."""
    for session_id in await ledger.expired():
        if session_id in held:
            continue
        await ledger.recover(session_id, await asyncio.to_thread(spool.get, session_id))


def run_date(run_id: str) -> date:
    """The UTC date of a run's start, which its name begins with."""
    return datetime.strptime(run_id.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).date()
