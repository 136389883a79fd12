"""Publishing and recovery over the real ledger, spool and a folder."""

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from connectors.lake.query import connect
from connectors.lake.store import open_store
from connectors.ledger import LEASE_MS, Ledger
from connectors.spool import Spool
from ledger_facts import set_gate
from moderation.admission import EVERY_ENDPOINT, Claim, Grant
from moderation.errors import ConfigurationError, Phase
from moderation.judgement import Failure
from moderation.refusals import INCOMPLETE
from moderation.results import SpooledSession
from tasks.publish import Publisher, run_date

RUN = "20261104T101112Z-0a1b2c"
NOW = datetime(2026, 11, 4, 10, 11, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.ms = 1_000_000

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
async def house(tmp_path):
    """A publisher, and a way to open sessions of it."""
    clock = Clock()
    async with Ledger.open(tmp_path / "ledger.db", clock_ms=clock, now=lambda: NOW) as ledger:
        await set_gate(ledger, "org", "music", 50)
        await ledger.set_gate("org", EVERY_ENDPOINT, None)
        publisher = Publisher(ledger, Spool(tmp_path / "spool"), open_store(str(tmp_path / "results")), "lake")

        async def begin(object_id: str) -> str:
            session_id = str(uuid4())
            claim = Claim(session_id, "lake", "org", "music", object_id, "place", "params", RUN, 0, "worker", 1, "2026-11", 5_000)
            assert isinstance(await ledger.admit(claim), Grant)
            return session_id

        yield publisher, begin, clock, str(tmp_path / "results")


def failed(session_id: str, object_id: str) -> SpooledSession:
    row = {
        "session_id": session_id,
        "run_id": RUN,
        "org": "org",
        "endpoint": "music",
        "object_id": object_id,
        "attempt": 1,
        "worker": "worker",
        "started_at": NOW,
        "finished_at": NOW,
        "phase": "streaming",
        "outcome": "failed",
        "bytes_sent": 10,
        "audio_sent_ms": 700,
        "items_received": 0,
    }
    return SpooledSession(session_id=session_id, run_id=RUN, endpoint="music", object_id=object_id, attempt=row, booked_ms=0, sent_ms=700)


def attempts(results: str) -> list[tuple[object, ...]]:
    with connect(results) as lake:
        return lake.execute("SELECT object_id, outcome, cause, audio_sent_ms FROM attempts ORDER BY object_id").fetchall()


async def test_a_worker_that_died_leaves_an_attempt_that_counts_its_whole_reservation(house):
    publisher, begin, clock, results = house
    await begin("a")
    clock.ms += LEASE_MS + 1
    assert await publisher.recover() == 1
    assert attempts(results) == [("a", "failed", "worker_died", 5_000)]
    await begin("a")


async def test_a_spooled_failure_of_a_dead_worker_is_booked_by_its_facts(house):
    publisher, begin, clock, results = house
    session_id = await begin("a")
    publisher.spool.put(failed(session_id, "a"))
    clock.ms += LEASE_MS + 1
    assert await publisher.recover() == 1
    assert attempts(results) == [("a", "failed", None, 700)]
    assert publisher.spool.ids() == []
    [everywhere, music] = await publisher.ledger.usage("org", "2026-11")
    assert (everywhere.at_risk_ms, everywhere.reserved_ms, music.live) == (700, 0, 0)


async def test_a_paid_result_that_the_spool_has_lost_stops_publishing(house):
    publisher, begin, _, results = house
    session_id = await begin("a")
    await publisher.ledger.finish(session_id, 1_000)
    with pytest.raises(ConfigurationError, match="waits for 1 paid results.*session .* of worker worker.*give-up"):
        await publisher.publish_run(RUN, run_date(RUN))
    assert attempts(results) == []


async def test_two_publishers_at_once_publish_every_session_once(house):
    publisher, begin, _, results = house
    for object_id in "abcdefgh":
        session_id = await begin(object_id)
        publisher.spool.put(failed(session_id, object_id))
        await publisher.ledger.fail(Failure(session_id, Phase.STREAMING, INCOMPLETE), sent_ms=700, outcome="failed")
    package = await publisher.ledger.assign_package("lake", RUN, run_date(RUN), max_sessions=8)
    assert package is not None
    await asyncio.gather(*(publisher.recover() for _ in range(4)))
    assert [row[0] for row in attempts(results)] == list("abcdefgh")
    assert await publisher.ledger.unpublished("lake") == []


def test_a_runs_name_begins_with_its_date():
    assert run_date(RUN) == NOW.date()
