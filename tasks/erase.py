"""Erases an object from the lakes and the spool of an installation, for good: what `soundcheck erase` does.

The tombstone comes first, then a receipt of everything that is to go, then the spool, then the files one by one, until a look through all
of it finds nothing any more. Whatever breaks off, the same again finishes it: the receipt knows the versions of a key of which no file may
be left by then that has the key.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import msgspec
import pyarrow as pa

from connectors.lake.current_files import forget_current
from connectors.lake.erasing import LakeFile, NotErased, Target, erase_from, files_of, forget_pages, forget_reports, ids_in, rows_in
from connectors.lake.packages import RUNS_FOLDER
from connectors.lake.receipts import Receipt, Scope, find_receipt, keep_receipt, receipt_name
from connectors.lake.store import ResultStore
from connectors.ledger import Ledger
from connectors.spool import Spool, SpoolDamaged
from moderation.errors import ConfigurationError
from moderation.identity import object_key_id
from moderation.results import SpooledSession
from tasks.alive import is_alive
from tasks.rebuild import Lake
from tasks.refresh import FEW_FILES, keep_current

LOOKS = 4
"""Looks through the lakes: one to find it, one to see that nothing is left, and two more where runs at work write of it meanwhile."""
Tell = Callable[[int, int], None]
"""Hears how many files of how many were looked at."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be erased, who wants it and why. scope is None where it is not known whether the id is a key's or a version's."""

    erased_id: str
    scope: Scope | None
    who: str
    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of it: sessions in the spool; by the place of each lake, its files with their rows; files that nobody can read."""

    target: Target
    spooled: tuple[str, ...]
    files: tuple[dict[LakeFile, int], ...]
    unreadable: tuple[str, ...]

    @property
    def is_nothing(self) -> bool:
        """Whether nothing is left that can be read."""
        return not self.spooled and not any(self.files)


@dataclass(frozen=True, slots=True)
class Erased:
    """What was erased from a lake, or would be; at_work are runs that may still write down what they have planned."""

    results: str
    receipt: Receipt
    at_work: tuple[str, ...]


class Erasure:
    """One erasure. at is its instant (UTC); tell hears after every file that is looked at."""

    def __init__(self, lakes: Sequence[Lake], ledger: Ledger, spools: Sequence[Spool], wish: Wish, at: datetime, tell: Tell) -> None:
        self._lakes = lakes
        self._stores = [lake.store for lake in lakes]
        self._ledger = ledger
        self._spools = spools
        self._wish = wish
        self._at = at
        self._tell = tell

    async def run(self, *, dry: bool = False) -> list[Erased]:
        """Erase, and say what was; dry changes nothing, and says what would be.

        Raises ConfigurationError for an id of which nothing is known, and while a run streams or lists the object; NotErased where files
        cannot be read, once all else is erased; and what stores, ledger and spool raise.
        """
        receipts = await asyncio.to_thread(self._receipts)
        found = await asyncio.to_thread(self._look, _target(receipts))
        at_work = [_at_work(store, self._at) for store in self._stores]
        if dry:
            receipts = self._with_found(receipts, found, 0)
        else:
            receipts = await self._erase(receipts, found)
        results = [store.url for store in self._stores]
        return [Erased(*each) for each in zip(results, receipts, at_work, strict=True)]

    async def _erase(self, receipts: list[Receipt], found: Found) -> list[Receipt]:
        """Take away what was found, and look again, until nothing is."""
        for _ in range(LOOKS - 1):
            self._refuse_listed(found)
            sessions = await self._bury(found.target)
            receipts = self._with_found(receipts, found, len(sessions))
            await asyncio.to_thread(self._take_away, receipts, found, sessions)
            found = await asyncio.to_thread(self._look, found.target)
            if found.is_nothing:
                break
        if not found.is_nothing:
            raise ConfigurationError("others write it again meanwhile: end every run and compaction, then erase it again")
        if found.unreadable:
            raise NotErased(f"{', '.join(found.unreadable)}: not to be read, all else is erased; see soundcheck verify, then erase again")
        receipts = [msgspec.structs.replace(receipt, finished_at=self._at) for receipt in receipts]
        await asyncio.to_thread(self._keep, receipts)
        return receipts

    async def _bury(self, target: Target) -> tuple[str, ...]:
        """Set the tombstone: from now on nobody is admitted, and nothing that ended before is published."""
        lakes = [lake.lake for lake in self._lakes]
        return await self._ledger.bury(target.erased_id, receipt_name(target.erased_id), lakes, target.object_ids)

    def _receipts(self) -> list[Receipt]:
        """The receipt of each lake: that of an earlier erasure, or a new one."""
        wish = self._wish
        earlier = [find_receipt(store, wish.erased_id) for store in self._stores]
        scopes = (receipt.scope for receipt in earlier if receipt is not None)
        scope = wish.scope or next(scopes, None) or self._scope()
        new = Receipt(wish.erased_id, scope, wish.who, wish.reason, self._at)
        return [receipt or new for receipt in earlier]

    def _scope(self) -> Scope:
        """Whether the id is that of a key or of a version. Raises ConfigurationError where nothing has it."""
        for ids in self._every_id():
            for column, scope in (("object_key_id", Scope.KEY), ("object_id", Scope.VERSION)):
                if column in ids.column_names and self._wish.erased_id in ids[column].to_pylist():
                    return scope
        raise ConfigurationError(f"nothing in the results has the id {self._wish.erased_id}: give the object by its address")

    def _every_id(self) -> Iterator[pa.Table]:
        for store in self._stores:
            for file in files_of(store):
                if file.names_keys:
                    yield from ids_in(store, file)

    def _look(self, target: Target) -> Found:
        """Look through spool and lakes, first through what has keys."""
        spooled = [session for session in self._spool_entries() if target.covers(*_ids_of(session))]
        target = target.with_versions(frozenset(session.object_id for session in spooled))
        every = [(place, store, file) for place, store in enumerate(self._stores) for file in files_of(store)]
        files: tuple[dict[LakeFile, int], ...] = tuple({} for _ in self._stores)
        unreadable = []
        for number, (place, store, file) in enumerate(sorted(every, key=lambda each: not each[2].names_keys), 1):
            try:
                rows, versions = rows_in(store, file, target)
            except NotErased as error:
                unreadable.append(str(error))
            else:
                target = target.with_versions(versions)
                if rows:
                    files[place][file] = rows
            self._tell(number, len(every))
        return Found(target, tuple(session.session_id for session in spooled), files, tuple(unreadable))

    def _spool_entries(self) -> Iterator[SpooledSession]:
        """What can be read of the spool: an entry that is damaged is published by nobody."""
        for spool in self._spools:
            for session_id in spool.ids():
                with suppress(SpoolDamaged):
                    if (session := spool.get(session_id)) is not None:
                        yield session

    def _refuse_listed(self, found: Found) -> None:
        """Raise ConfigurationError while a run lists the object: it keeps count of what it has written."""
        for store, files in zip(self._stores, found.files, strict=True):
            for file in files:
                run_id = file.name.split("/")[1]
                if file.is_part and is_alive(store, run_id, self._at):
                    raise ConfigurationError(f"run {run_id} is listing it: wait until that has listed all, or stop it, then erase again")

    def _with_found(self, receipts: Sequence[Receipt], found: Found, sessions: int) -> list[Receipt]:
        """The receipts with what is to go now."""
        return [
            receipt.with_found(
                found.target.object_ids, {file.name: (file.word, rows) for file, rows in files.items()}, sessions, found.spooled
            )
            for receipt, files in zip(receipts, found.files, strict=True)
        ]

    def _take_away(self, receipts: Sequence[Receipt], found: Found, sessions: Sequence[str]) -> None:
        """The receipts, then the spools with what was set aside there, then the files in their order."""
        self._keep(receipts)
        for spool in self._spools:
            spool.remove(found.spooled)
            spool.remove_aside(sessions)
        for store, files in zip(self._stores, found.files, strict=True):
            forget_reports(store, found.target)
            forget_pages(store, found.target)
            if files:
                forget_current(store)  # its name would still be that of the files, which are others then
            for file in files:
                erase_from(store, file, found.target)
            if files:
                forget_current(store)  # a run at work may have made it again meanwhile
                keep_current(store, few_files=FEW_FILES)

    def _keep(self, receipts: Sequence[Receipt]) -> None:
        for store, receipt in zip(self._stores, receipts, strict=True):
            keep_receipt(store, receipt)


def _target(receipts: Sequence[Receipt]) -> Target:
    """What is to be erased, as far as earlier erasures tell."""
    known = frozenset(version for receipt in receipts for version in receipt.object_ids)
    return Target.of(receipts[0].erased_id, receipts[0].scope).with_versions(known)


def _ids_of(session: SpooledSession) -> tuple[str, str | None]:
    """The object and the key of a spooled session; a failed attempt that quarantined nothing does not know its key."""
    if session.summary is not None:
        return session.object_id, session.summary["object_key_id"]
    held = session.quarantine
    return session.object_id, None if held is None else object_key_id(held["bucket"], held["key"])


def _at_work(store: ResultStore, at: datetime) -> tuple[str, ...]:
    """The runs that give a sign of life."""
    signs = (name.split("/") for name in store.list(f"{RUNS_FOLDER}/") if name.endswith("/alive"))
    return tuple(run_id for _, run_id, _ in signs if is_alive(store, run_id, at))
