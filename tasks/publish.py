"""Publishes ended sessions in packages, and takes up what a crash left: expired sessions, unpublished packages, lonely spool entries."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime

from connectors.lake.packages import write_package
from connectors.lake.store import ResultStore
from connectors.ledger import Ledger
from connectors.spool import Spool
from moderation.admission import DONE, Package
from moderation.errors import ConfigurationError
from moderation.results import SpooledSession

PACKAGE_SESSIONS = 2000
"""Sessions of one package: of a minute each some 15 MB of Parquet, of an hour each about the 128 MB of design.md section 7."""


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
        """Settle expired sessions by what the spool has of them, and publish what earlier runs left; returns the sessions published."""
        for session_id in await self.ledger.expired():
            await self.ledger.recover(session_id, await asyncio.to_thread(self.spool.get, session_id))
        sessions = 0
        for package in await self.ledger.unpublished(self.lake):
            await self._publish(package)
            sessions += len(package.members)
        for run in await self.ledger.runs_with_unpackaged(self.lake):
            sessions += await self.publish_run(run.run_id, run_date(run.run_id))
        return sessions

    async def _publish(self, package: Package) -> None:
        """Files first, then the ledger, then the spool: every step can be repeated."""
        members = [member.session_id for member in package.members]
        found = await asyncio.to_thread(self._spooled, members)
        missing = {m.session_id for m in package.members if m.state in DONE} - {spooled.session_id for spooled in found}
        if missing:
            raise ConfigurationError(
                f"the spool has lost {len(missing)} paid results of package {package.package} ({', '.join(sorted(missing)[:3])}): "
                f"restore the state directory, then run again"
            )
        await asyncio.to_thread(write_package, self.results, package.package, package.run_id, package.scan_date, found)
        await self.ledger.mark_published(package.package)
        await asyncio.to_thread(self.spool.remove, members)

    def _spooled(self, session_ids: Iterable[str]) -> list[SpooledSession]:
        """The spool's entries; a session whose worker died before it wrote one left nothing but its row in the ledger."""
        return [spooled for session_id in session_ids if (spooled := self.spool.get(session_id)) is not None]


def run_date(run_id: str) -> date:
    """The UTC date of a run's start, which its name begins with."""
    return datetime.strptime(run_id.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).date()
