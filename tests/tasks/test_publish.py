"""Publishing and recovery over the real ledger, spool and a folder."""

import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from msgspec.structs import replace

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
from smooth_frames import smooth_session
from tasks.publish import Publisher, run_date

RUN = "20261104T101112Z-0a1b2c"
NOW = datetime(2026, 11, 4, 10, 11, 12, tzinfo=UTC)
PUBLISHING = str(Path(__file__).parents[1] / "support" / "publishing_process.py")
PUBLISHING_MIB = 200
"""What publishing may add: a row group being written, the file, and a session."""


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
    with pytest.raises(ConfigurationError, match="lost the paid result"):
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


async def test_a_spool_that_another_publisher_clears_meanwhile_is_no_loss(house, monkeypatch):
    publisher, begin, _, results = house
    session_id = await begin("a")
    done = replace(smooth_session(1, 10), session_id=session_id, run_id=RUN)
    publisher.spool.put(done)
    await publisher.ledger.finish(session_id, done.booked_ms)
    items, others = publisher.spool.get, Publisher(publisher.ledger, Spool(publisher.spool.folder), publisher.results, "lake")
    asked = 0

    def get(asked_for: str) -> SpooledSession | None:
        nonlocal asked
        asked += 1
        if asked == 2:
            asyncio.run_coroutine_threadsafe(others.recover(), loop).result()
        return items(asked_for)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(publisher.spool, "get", get)
    await publisher.publish_run(RUN, run_date(RUN))
    assert asked >= 2
    with connect(results) as lake:
        assert lake.execute("SELECT count(*), count(DISTINCT session_id) FROM music_frames").fetchall() == [(10, 1)]


async def test_items_that_vanish_while_nobody_published_stop_it(house, monkeypatch):
    publisher, begin, _, results = house
    session_id = await begin("a")
    done = replace(smooth_session(1, 10), session_id=session_id, run_id=RUN)
    publisher.spool.put(done)
    await publisher.ledger.finish(session_id, done.booked_ms)
    read = iter([done, None])
    monkeypatch.setattr(publisher.spool, "get", lambda _: next(read))
    with pytest.raises(ConfigurationError, match="the spool has lost session"):
        await publisher.publish_run(RUN, run_date(RUN))
    assert attempts(results) == []


@pytest.mark.parametrize("sessions", [pytest.param(count, marks=pytest.mark.torture) for count in (25, 250)])
async def test_memory_is_bounded_however_many_sessions_of_an_hour_there_are(house, tmp_path, sessions, record_property):
    publisher, _, _, results = house
    for seed in range(sessions):
        done = smooth_session(seed)
        claim = Claim(done.session_id, "lake", "org", "music", done.object_id, "place", "params", RUN, 0, "worker", 1, "2026-11", 5_000)
        assert isinstance(await publisher.ledger.admit(claim), Grant)
        publisher.spool.put(replace(done, run_id=RUN))
        await publisher.ledger.finish(done.session_id, done.booked_ms)
    arguments = [tmp_path / "ledger.db", tmp_path / "spool", results, RUN]
    process = await asyncio.create_subprocess_exec(sys.executable, PUBLISHING, *map(str, arguments), stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    told = json.loads(said)
    record_property("memory", told)
    assert told["sessions"] == sessions
    assert told["peak_mib"] - told["before_mib"] <= PUBLISHING_MIB, told


def test_a_runs_name_begins_with_its_date():
    assert run_date(RUN) == NOW.date()
