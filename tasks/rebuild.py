"""The ledger from the lake: the lake is the truth about what is published, and the spool about what this host has still to publish."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from connectors.lake.published import PackageFiles, PackageReader, Planned, Row, package_files, planned_for, runs_of
from connectors.lake.receipts import receipt_name, receipts_in
from connectors.lake.store import ResultStore
from connectors.ledger import Ledger
from connectors.spool import Spool, SpoolDamaged
from moderation.admission import Remains, SessionKind, SessionRecord, SessionState
from moderation.budget import month_of
from moderation.results import SpooledSession
from tasks.publish import run_date

UNKNOWN = "unknown"
"""The parameters of a failed attempt whose run has left no plan, and the worker of a session that left a summary alone."""


@dataclass(frozen=True, slots=True)
class Lake:
    """A result lake: where it lies, and its id."""

    store: ResultStore
    lake: str
    month: Callable[[datetime], str] = month_of
    """The budget month of an instant."""


@dataclass(slots=True)
class Rebuilt:
    """What a rebuild has found, in sessions.

    published ones and failed attempts; spooled ones, to be published by the next run; lost ones, whose results neither lake nor spool has;
    unknown ones, which have left items in the lake and nothing that says what they cost. damaged is what cannot be read in the spool;
    erased counts tombstones.
    """

    packages: int = 0
    published: int = 0
    failed: int = 0
    spooled: int = 0
    lost: int = 0
    unknown: int = 0
    erased: int = 0
    damaged: list[str] = field(default_factory=list)

    def count(self, sessions: Iterable[SessionRecord]) -> None:
        """Add the sessions of a package, or of a run's spool."""
        for session in sessions:
            self.published += session.state == SessionState.PUBLISHED
            self.failed += session.state in {SessionState.AT_RISK, SessionState.RELEASED}
            self.spooled += session.state == SessionState.FINISHED
            self.lost += session.state == SessionState.LOST


class Rebuild:
    """One rebuild from these lakes and the spools that this host sees. tell hears after each package how many of how many were read."""

    def __init__(self, lakes: Sequence[Lake], spools: Sequence[Spool], tell: Callable[[int, int], None]) -> None:
        self.lakes = lakes
        self.spools = spools
        self.tell = tell
        self.found = Rebuilt()
        self._spooled: dict[str, SpooledSession] = {}
        self._published: list[str] = []

    async def run(self, ledger: Ledger) -> Rebuilt:
        """Restore a ledger. Raises what lake, spool and ledger raise."""
        self._spooled = await asyncio.to_thread(self._read_spool)
        await ledger.restore(self._remains())
        for lake in self.lakes:
            for receipt in await asyncio.to_thread(receipts_in, lake.store):
                await ledger.bury(receipt.erased_id, receipt_name(receipt.erased_id), [lake.lake], receipt.object_ids)
                self.found.erased += 1
        return self.found

    async def clear_spool(self) -> None:
        """Forget what the spool has of sessions that lie in the lake whole, once the ledger stands."""
        for spool in self.spools:
            await asyncio.to_thread(spool.remove, self._published)

    def _read_spool(self) -> dict[str, SpooledSession]:
        found = {}
        for spool in self.spools:
            for session_id in spool.ids():
                try:
                    spooled = spool.get(session_id)
                except SpoolDamaged as damaged:
                    self.found.damaged.append(str(damaged))
                else:
                    if spooled is not None:
                        found[session_id] = spooled
        return found

    async def _remains(self) -> AsyncIterator[Remains]:
        found = [(lake, await asyncio.to_thread(package_files, lake.store)) for lake in self.lakes]
        packages = sum(len(files) for _, files in found)
        for lake, files in found:
            reader = PackageReader(lake.store)
            for each in files:
                remains = await asyncio.to_thread(self._of_package, lake, each, reader)
                self.found.packages += 1
                self.found.count(remains.sessions)
                yield remains
                self.tell(self.found.packages, packages)
        for lake in self.lakes:
            for remains in await asyncio.to_thread(self._of_spool, lake):
                self.found.count(remains.sessions)
                yield remains

    def _of_package(self, lake: Lake, files: PackageFiles, reader: PackageReader) -> Remains:
        """A package as it lies in the lake, or as it is to be published again.

        Its sessions leave the spool once it is published: while the spool has all of them nobody knows whether that was done to its end.
        Else it stays as it is, and what it lacks is published with another one, or is lost.
        """
        package = reader.read(files)
        rows = {**package.attempts, **package.summaries}
        facts = {session_id: {**package.attempts.get(session_id, {}), **row} for session_id, row in rows.items()}
        known = facts.keys() | package.items_alone
        if known and known <= self._spooled.keys():
            members = [self._spooled.pop(session_id) for session_id in sorted(known)]
            sessions = self._from_spool(lake, files.run_id, members)
            return Remains(files.run_id, lake.lake, sessions[0].org, files.scan_date, sessions, files.package)
        failed = {row["object_id"] for session_id, row in facts.items() if session_id not in package.summaries}
        planned = planned_for(lake.store, files.run_id, failed) if failed else {}
        sessions = tuple(
            _from_lake(lake, files.run_id, row, planned)
            for session_id, row in facts.items()
            if session_id in package.summaries or row["outcome"] != "done" or session_id not in self._spooled
        )
        self._published += [session.session_id for session in sessions if self._spooled.pop(session.session_id, None)]
        self.found.unknown += len(package.items_alone - self._spooled.keys())
        org = sessions[0].org if sessions else UNKNOWN
        return Remains(files.run_id, lake.lake, org, files.scan_date, sessions, files.package, published=True)

    def _of_spool(self, lake: Lake) -> list[Remains]:
        """What no package holds, by the runs of this lake; the spool may also have sessions of others."""
        runs = runs_of(lake.store)
        members: defaultdict[str, list[SpooledSession]] = defaultdict(list)
        for spooled in self._spooled.values():
            if spooled.run_id in runs:
                members[spooled.run_id].append(spooled)
        found = []
        for run_id, of_run in members.items():
            sessions = self._from_spool(lake, run_id, of_run)
            found.append(Remains(run_id, lake.lake, sessions[0].org, run_date(run_id), sessions))
        return found

    def _from_spool(self, lake: Lake, run_id: str, members: Sequence[SpooledSession]) -> tuple[SessionRecord, ...]:
        failed = {spooled.object_id for spooled in members if spooled.summary is None}
        planned = planned_for(lake.store, run_id, failed) if failed else {}
        return tuple(_from_entry(lake, spooled, planned) for spooled in members)


def _from_lake(lake: Lake, run_id: str, row: Row, planned: Mapping[tuple[str, str], Planned]) -> SessionRecord:
    """A session by its attempt and, where it has one, its summary: a good attempt without a summary has lost its result."""
    if "params_hash" in row:
        booked_ms = max(row["duration_ms"] or 0, row["covered_ms"])
        return _record(lake, run_id, row, row["params_hash"], SessionState.PUBLISHED, booked_ms)
    plan = planned.get((row["object_id"], row["endpoint"]))
    sent_ms = _sent_ms(row, plan)
    failed = SessionState.AT_RISK if sent_ms else SessionState.RELEASED
    state = SessionState.LOST if row["outcome"] == "done" else failed
    return _record(lake, run_id, row, plan.params_hash if plan else UNKNOWN, state, sent_ms, sent_ms)


def _from_entry(lake: Lake, spooled: SpooledSession, planned: Mapping[tuple[str, str], Planned]) -> SessionRecord:
    row, plan = spooled.attempt, planned.get((spooled.object_id, spooled.endpoint))
    if spooled.summary is not None:
        return _record(lake, spooled.run_id, row, spooled.summary["params_hash"], SessionState.FINISHED, spooled.booked_ms, spooled.sent_ms)
    state = SessionState.AT_RISK if spooled.sent_ms else SessionState.RELEASED
    params_hash = plan.params_hash if plan else UNKNOWN
    return _record(lake, spooled.run_id, row, params_hash, state, spooled.sent_ms, spooled.sent_ms)


def _sent_ms(row: Row, plan: Planned | None) -> int:
    """Milliseconds of audio that a failed attempt sent, as its trial booked it: of containers the share of the estimate that went out."""
    guess = 0
    if plan is not None and not plan.is_raw and plan.size_bytes:
        guess = round(row["bytes_sent"] / plan.size_bytes * plan.estimate_ms)
    return max(int(row["audio_sent_ms"]), guess)


def _record(
    lake: Lake, run_id: str, row: Mapping[str, Any], params_hash: str, state: SessionState, booked_ms: int, sent_ms: int | None = None
) -> SessionRecord:
    """What the ledger is to know of an ended session: what it had reserved, in which shard and whether as a probe, is forgotten."""
    return SessionRecord(
        session_id=row["session_id"],
        lake=lake.lake,
        org=row["org"],
        endpoint=row["endpoint"],
        object_id=row["object_id"],
        params_hash=params_hash,
        run_id=run_id,
        shard=0,
        worker=row.get("worker", UNKNOWN),
        kind=SessionKind.OBJECT,
        attempt=row["attempt"],
        month=lake.month(row["started_at"]),
        reserved_ms=booked_ms,
        sent_ms=sent_ms,
        booked_ms=booked_ms,
        state=state,
        package=None,
        started_at=row["started_at"],
        lease_until=None,
        admitted=bool(row["items_received"]) or row.get("outcome", "done") == "done",
        closed=False,
        outcome=row.get("outcome", "done"),
        scope=row.get("scope"),
        close_code=row["close_code"],
        error_text=row.get("error_text"),
    )
