"""Publishes ended sessions in packages, and takes up what a crash left: expired sessions, unpublished packages, lonely spool entries."""

import asyncio
import logging
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from msgspec.structs import replace

from connectors.lake.compaction import merged_datasets
from connectors.lake.current_files import forget_current
from connectors.lake.packages import package_names, remove_package, write_package
from connectors.lake.store import ResultStore
from connectors.ledger import Ledger
from connectors.spool import Spool, SpoolDamaged
from moderation.admission import DONE, Member, Package
from moderation.errors import ConfigurationError
from moderation.packaging import MAX_SESSIONS
from moderation.results import SpooledSession
from tasks.records import lost_attempt_row

logger = logging.getLogger("soundcheck.publish")


class ResultsMissing(ConfigurationError):
    """Paid results of a package are not in the spool that this process sees: the package waits for whoever has them."""


class NotSpooledAnyMore(ResultsMissing):
    """A session that was in the spool a moment ago is not there."""


@dataclass(frozen=True, slots=True)
class Publisher:
    """Where finished sessions come from and go to. lake is the id of the result lake."""

    ledger: Ledger
    spool: Spool
    results: ResultStore
    lake: str
    before: Spool | None = None
    """This host's own spool, where all hosts share another one: what waits there is from before the setting was changed."""
    max_sessions: int = MAX_SESSIONS
    """Of a package."""

    async def publish_run(self, run_id: str, scan_date: date) -> int:
        """Publish everything of a run that has ended, and return how many sessions that was. May be repeated, by anyone.

        Raises ResultsMissing once all is published that can be, and what spool, store and ledger raise.
        """
        missing: list[ResultsMissing] = []
        sessions = await self._publish_rest(run_id, scan_date, missing)
        _raise_first(missing)
        return sessions

    async def recover(self) -> int:
        """Settle expired sessions by what the spool has of them, and publish what earlier runs left; returns the sessions published.

        What was erased by request from another host is forgotten here. Raises as `publish_run`.
        """
        await self._take_over()
        await settle_expired(self.ledger, self.spool)
        if (spooled := await asyncio.to_thread(self.spool.ids)) and (erased := await self.ledger.erased(spooled)):
            await asyncio.to_thread(self.spool.remove, erased)
        sessions, missing = 0, list[ResultsMissing]()
        for package in await self.ledger.unpublished(self.lake):
            sessions += await self._publish_or_note(package, missing)
        for run in await self.ledger.runs_with_unpackaged(self.lake):
            sessions += await self._publish_rest(run.run_id, run_date(run.run_id), missing)
        await self._clear_spool()
        _raise_first(missing)
        return sessions

    async def _take_over(self) -> None:
        """Move what this lake's sessions have left in the spool of before."""
        if self.before is None:
            return
        for session_id in await asyncio.to_thread(self.before.ids):
            record = await self.ledger.session(session_id)
            if record is None or record.lake != self.lake:
                continue
            if (entry := await asyncio.to_thread(take, self.before, session_id)) is not None:
                await asyncio.to_thread(self.spool.put, entry)
                await asyncio.to_thread(self.before.remove, [session_id])

    async def give_up(self, name: str) -> int:
        """Undo a package whose results are lost for good, and return how many those are: their objects are free, and may be paid for again.

        The ledger is told first, so that a publisher that has the results after all takes its files away again; then its files go,
        summaries before items. What the spool still has of it waits for another package. Where it breaks off, the same again finishes
        it. Raises ConfigurationError for a package that does not wait, or of which nothing is lost.
        """
        package = next((each for each in await self.ledger.unpublished(self.lake) if each.package == name), None)
        if package is None and await self.ledger.is_given_up(name):
            await asyncio.to_thread(remove_package, self.results, name, run_date(name))
            return 0
        if package is None:
            raise ConfigurationError(f"no package {name} waits to be published in {self.results.url}: nothing was given up")
        if await asyncio.to_thread(merged_datasets, self.results, package.package, package.scan_date):
            raise ConfigurationError(f"package {name} is in the merged files of its day: it is published, and the next run confirms it")
        lost = await asyncio.to_thread(self._missing, package)
        if not lost:
            raise ConfigurationError(f"nothing of package {name} is lost: the next run publishes it")
        await self.ledger.give_up(name, lost)
        await asyncio.to_thread(remove_package, self.results, package.package, package.scan_date)
        return len(lost)

    async def _publish_rest(self, run_id: str, scan_date: date, missing: list[ResultsMissing]) -> int:
        """Publish what no package of a run has yet. What ends meanwhile waits for the next time: a run that streams on always has more."""
        sessions = 0
        while package := await self.ledger.assign_package(self.lake, run_id, scan_date, max_sessions=self.max_sessions):
            sessions += await self._publish_or_note(package, missing)
            if len(package.members) < self.max_sessions:
                break
        return sessions

    async def _publish_or_note(self, package: Package, missing: list[ResultsMissing]) -> int:
        """Publish a package and return how many sessions it has; one that has to wait for its results is noted, and holds up no other."""
        try:
            await self._publish(package)
        except ResultsMissing as error:
            missing.append(error)
            return 0
        return len(package.members)

    async def _publish(self, package: Package) -> None:
        """Files first, then the ledger, then the spool: every step can be repeated, and by several at once."""
        members = [member.session_id for member in package.members]
        found = await asyncio.to_thread(self._spooled, package.members)
        if not await self._is_waiting(package):
            return  # somebody else has published it meanwhile, and may have cleared the spool under our eyes
        absent = [member for member in package.members if member.session_id not in found]
        if absent and (erased := await self.ledger.erased([member.session_id for member in absent])):
            absent = [member for member in absent if member.session_id not in erased]
        if lost := [member for member in absent if member.state in DONE]:
            raise await self._results_missing(package, lost)
        sessions = [*found.values(), *[await self._without_a_trace(member) for member in absent]]
        try:
            await asyncio.to_thread(self._write, package, sessions)
        except NotSpooledAnyMore:
            if not await self._is_waiting(package):
                return  # as above
            if not await self.ledger.erased(members):
                raise
        if erased := await self.ledger.erased(members):  # by request, while it was written
            kept = [session for session in sessions if session.session_id not in erased]
            await asyncio.to_thread(self._write_rest, package, kept)
        if not await self.ledger.mark_published(package.package):
            logger.warning("package %s was given up while it was published: its files are taken away again", package.package)
            await asyncio.to_thread(remove_package, self.results, package.package, package.scan_date)
            return
        await asyncio.to_thread(self.spool.remove, [member.session_id for member in package.members])

    async def _is_waiting(self, package: Package) -> bool:
        """Whether nobody has published it yet."""
        return package.package in {waiting.package for waiting in await self.ledger.unpublished(self.lake)}

    def _write_rest(self, package: Package, sessions: Sequence[SpooledSession]) -> None:
        """Write what is left of a package. A `current` that was made of what had been there has the same name."""
        forget_current(self.results)
        self._write(package, sessions)
        forget_current(self.results)

    def _write(self, package: Package, sessions: Sequence[SpooledSession]) -> None:
        """Write the files of a package; those that it has no rows for any more, which a publisher before an erasure left, go."""
        merged = merged_datasets(self.results, package.package, package.scan_date)
        named = (package.package, package.run_id, package.scan_date)
        written = write_package(self.results, *named, sessions, self._items, merged)
        for name in reversed(package_names(package.package, package.scan_date, merged)):
            if name not in written:
                self.results.delete(name)

    def _spooled(self, members: Iterable[Member]) -> dict[str, SpooledSession]:
        """What the spool has of some members, as far as the ledger has heard of it: so every publisher finds the same.

        Without their items: of 2,000 sessions of an hour these are 1.2 GB.
        """
        found: dict[str, SpooledSession] = {}
        for member in members:
            entry = None if member.outcome is None else take(self.spool, member.session_id)
            if entry is not None and (entry.summary is not None) == (member.state in DONE):
                found[member.session_id] = replace(entry, items={})
        return found

    def _items(self, session: SpooledSession) -> dict[str, bytes]:
        """The items of a session, read from the spool when they are needed."""
        spooled = take(self.spool, session.session_id)
        if spooled is None:
            raise NotSpooledAnyMore(f"the spool has lost session {session.session_id} while its package was published: run the scan again")
        return spooled.items

    def _missing(self, package: Package) -> list[str]:
        found = self._spooled(package.members)
        return [member.session_id for member in package.members if member.state in DONE and member.session_id not in found]

    async def _results_missing(self, package: Package, lost: Sequence[Member]) -> ResultsMissing:
        first = await self.ledger.session(lost[0].session_id)
        worker = first.worker if first else "unknown"
        return ResultsMissing(
            f"package {package.package} waits for {len(lost)} paid results that the spool {self.spool} does not have, such as session "
            f"{lost[0].session_id} of worker {worker}: where another host has them, run a scan there, and from then on set "
            f'spool = "results" on every host; else restore the spool; where they are lost for good, '
            f"`soundcheck ledger give-up {package.package}` frees their objects, which are paid for again then"
        )

    async def _without_a_trace(self, member: Member) -> SpooledSession:
        """What the ledger knows of a session whose worker died before it spooled anything."""
        record = await self.ledger.session(member.session_id)
        assert record is not None, "it is in a package"
        return SpooledSession(
            session_id=record.session_id,
            run_id=record.run_id,
            endpoint=record.endpoint,
            object_id=record.object_id,
            attempt=lost_attempt_row(record),
            booked_ms=0,
            sent_ms=record.booked_ms or 0,
        )

    async def _clear_spool(self) -> None:
        """Forget entries of published sessions: a crash came before that, or their worker spoke up after it was given up."""
        if waiting := await asyncio.to_thread(self.spool.ids):
            lonely = await self.ledger.confirmed(waiting)
            await asyncio.to_thread(self.spool.remove, sorted(lonely))


async def settle_expired(ledger: Ledger, spool: Spool, *, held: Container[str] = ()) -> None:
    """End the sessions whose workers have died by what the spool has of them: their objects are free again, or done; but for those held.

    Raises ConfigurationError for an entry that cannot be read, once the others are settled.
    """
    unreadable = []
    for session_id in await ledger.expired(spool.lake):
        if session_id in held:
            continue
        try:
            spooled = await asyncio.to_thread(take, spool, session_id)
        except ConfigurationError as error:
            unreadable.append(error)
        else:
            await ledger.recover(session_id, spooled)
    _raise_first(unreadable)


def take(spool: Spool, session_id: str) -> SpooledSession | None:
    """What the spool has of a session; a damaged entry is told and set aside, as it must not hold up the others."""
    try:
        return spool.get(session_id)
    except SpoolDamaged as damaged:
        logger.error("%s It is kept as %s.", damaged, spool.set_aside(session_id))  # noqa: TRY400 - the sentence says it all
        return None


def _raise_first(errors: Sequence[Exception]) -> None:
    for error in errors:
        raise error


def run_date(run_id: str) -> date:
    """The UTC date of a run's start, which its name begins with."""
    return datetime.strptime(run_id.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).date()
