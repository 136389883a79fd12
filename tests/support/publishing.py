"""What a run leaves to a publisher: a ledger, a spool and a lake, which any process can open."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from connectors.lake.names import SPOOL_FOLDER
from connectors.lake.store import ResultStore
from connectors.ledger import LEASE_MS, Ledger
from connectors.spool import SharedSpool, Spool
from crashing import Calls
from ended_sessions import PARAMS, a_package, a_session
from ledger_facts import Clock, claim_of, set_gate
from listed_runs import write_runs
from moderation.admission import EVERY_ENDPOINT, Claim, Grant
from moderation.endpoints import ENDPOINTS
from moderation.errors import Phase
from moderation.judgement import Failure
from moderation.refusals import CANCELLED
from moderation.results import SpooledSession
from tasks.publish import Publisher, run_date

LAKE = "lake"
OTHER_RUN = "20260302T080000Z-0a1b2c"
NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
BEGUN_MS, EXPIRED_MS = 1_000_000, 1_000_001 + LEASE_MS

OF_RUN = a_package()[:-1]
"""All but a second scan of an object that the run has done."""
EVERY_DONE = {session.session_id for session in OF_RUN if session.summary is not None} | {
    a_session(number).session_id for number in (40, 41)
}
"""What `leave_all` leaves results of."""


@dataclass(frozen=True)
class Place:
    """Where a ledger, a spool and a lake lie; shared is whether the spool lies with the results."""

    folder: Path
    store: ResultStore
    shared: bool

    def spool(self, store: Any) -> Spool:
        """The spool, over a store that may count its calls."""
        return SharedSpool(store, SPOOL_FOLDER, LAKE) if self.shared else Spool(self.folder / "spool")

    @asynccontextmanager
    async def publisher(self, calls: Calls | None = None, clock_ms: int = EXPIRED_MS) -> AsyncIterator[Publisher]:
        """One of its publishers, whose calls may count."""
        async with Ledger.open(self.folder / "ledger.db", clock_ms=Clock(clock_ms), now=lambda: NOW) as ledger:
            store: Any = self.store
            if calls is None:
                yield Publisher(ledger, self.spool(store), store, LAKE)
                return
            counted = calls.of("store", store)
            spool: Any = self.spool(counted) if self.shared else calls.of("spool", self.spool(store))
            yield Publisher(calls.of("ledger", ledger), spool, counted, LAKE)

    def recover(self, calls: Calls | None = None) -> int:
        """What a run does at its start, in a thread of its own."""
        return asyncio.run(self.recover_async(calls))

    async def recover_async(self, calls: Calls | None = None) -> int:
        """The same."""
        async with self.publisher(calls) as publisher:
            return await publisher.recover()


async def admit(ledger: Ledger, session: SpooledSession) -> Claim:
    """Let a session stream that ends as this one."""
    names = {name: getattr(session, name) for name in ("session_id", "endpoint", "object_id", "run_id")}
    claim = claim_of(0, lake=LAKE, org="acme", params_hash=PARAMS, **names)
    answer = await ledger.admit(claim)
    assert isinstance(answer, Grant), answer
    return claim


async def end(ledger: Ledger, spool: Spool, session: SpooledSession) -> None:
    """End a session that streams, as its worker does: the spool, then the ledger."""
    spool.put(session)
    if session.summary is not None:
        await ledger.finish(session.session_id, session.booked_ms)
    else:
        outcome = session.attempt["outcome"]
        await ledger.fail(Failure(session.session_id, Phase.STREAMING, CANCELLED), sent_ms=session.sent_ms, outcome=outcome)


async def open_gates(ledger: Ledger) -> None:
    """Let many sessions stream."""
    for endpoint in ENDPOINTS:
        await set_gate(ledger, "acme", endpoint, 900)
    await ledger.set_gate("acme", EVERY_ENDPOINT, None)


async def leave(place: Place, sessions: Iterable[SpooledSession]) -> None:
    """Sessions that have ended and are in no package."""
    async with place.publisher(clock_ms=BEGUN_MS) as publisher:
        await open_gates(publisher.ledger)
        for session in sessions:
            await admit(publisher.ledger, session)
            await end(publisher.ledger, publisher.spool, session)


def of_other_run(session: SpooledSession) -> SpooledSession:
    """The same session, of a run of the day after."""
    summary = session.summary and session.summary | {"run_id": OTHER_RUN}
    attempt = session.attempt | {"run_id": OTHER_RUN}
    return msgspec.structs.replace(session, run_id=OTHER_RUN, summary=summary, attempt=attempt)


async def leave_all(place: Place) -> None:
    """A run without a package, one with a package that nobody has published, a result that was never booked, and two dead workers."""
    await leave(place, OF_RUN)
    waiting, unbooked, gone, late = (of_other_run(a_session(number, items=4)) for number in (40, 41, 42, 43))
    async with place.publisher(clock_ms=BEGUN_MS) as publisher:
        ledger = publisher.ledger
        for session in (waiting, unbooked, gone, late):
            await admit(ledger, session)
        await end(ledger, publisher.spool, waiting)
        assert await ledger.assign_package(LAKE, OTHER_RUN, run_date(OTHER_RUN), max_sessions=1)
        publisher.spool.put(unbooked)
    async with place.publisher() as publisher:
        await publisher.ledger.recover(late.session_id, None)
        publisher.spool.put(late)  # its worker was asleep
    write_runs(place.store, [*OF_RUN, waiting, unbooked, gone, late])
