"""Publishing and recovery over the real ledger, spool and a folder."""

import asyncio
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from bare_globs import seen
from connectors.lake.names import SPOOL_FOLDER
from connectors.lake.query import connect
from connectors.lake.store import open_store
from connectors.ledger import LEASE_MS, Ledger
from connectors.spool import SharedSpool, Spool
from ended_sessions import a_session
from ledger_facts import set_gate
from moderation.admission import EVERY_ENDPOINT, Claim, Grant, SessionState
from moderation.errors import ConfigurationError, Phase, UnreachableError
from moderation.judgement import Failure
from moderation.refusals import CANCELLED, INCOMPLETE
from moderation.results import SpooledSession
from publishing import LAKE, Place, leave
from smooth_frames import smooth_session
from tasks.compact import compact_days
from tasks.publish import Publisher, ResultsMissing, run_date, settle_expired

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


@pytest.mark.fault(63)
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
    with pytest.raises(ConfigurationError, match=r"waits for 1 paid results.*session .* of worker worker.*give-up"):
        await publisher.publish_run(RUN, run_date(RUN))
    assert attempts(results) == []


def damage(spool: Spool, session_id: str) -> None:
    entry = spool.folder / session_id
    entry.write_bytes(entry.read_bytes()[:-1])


async def test_a_damaged_entry_is_set_aside_and_holds_up_no_other(house, caplog):
    publisher, begin, clock, results = house
    first, second = sorted([await begin("a"), await begin("b")])
    publisher.spool.put(failed(first, "a"))
    publisher.spool.put(failed(second, "b"))
    damage(publisher.spool, first)
    clock.ms += LEASE_MS + 1
    assert await publisher.recover() == 2
    assert sorted(row[3] for row in attempts(results)) == [700, 5_000]
    aside = publisher.spool.folder / "damaged" / first
    assert aside.is_file()
    assert str(aside) in caplog.text
    assert publisher.spool.ids() == []


async def test_an_entry_that_cannot_be_read_holds_up_no_other_sweep(house):
    publisher, begin, clock, _ = house
    first, second = sorted([await begin("a"), await begin("b")])
    (publisher.spool.folder / first).mkdir(parents=True)
    publisher.spool.put(failed(second, "b"))
    clock.ms += LEASE_MS + 1
    with pytest.raises(ConfigurationError, match="Cannot read"):
        await settle_expired(publisher.ledger, publisher.spool)
    assert await publisher.ledger.expired() == (first,)


async def test_a_shared_spool_sweeps_only_the_sessions_of_its_lake(house, tmp_path):
    """Another lake's spool may have the result of the others."""
    publisher, begin, clock, _ = house
    session_id = await begin("a")
    clock.ms += LEASE_MS + 1
    store = open_store(str(tmp_path / "other"))
    await settle_expired(publisher.ledger, SharedSpool(store, "_spool", "other"))
    assert await publisher.ledger.expired() == (session_id,)
    await settle_expired(publisher.ledger, SharedSpool(store, "_spool", "lake"))
    assert await publisher.ledger.expired() == ()


async def test_what_a_worker_says_after_it_was_given_up_does_not_count_and_does_not_stay(house):
    """Else one publisher might see it and another not, and they would write different rows to the same names."""
    publisher, begin, clock, results = house
    session_id = await begin("a")
    clock.ms += LEASE_MS + 1
    await settle_expired(publisher.ledger, publisher.spool)
    publisher.spool.put(msgspec.structs.replace(failed(session_id, "a"), summary={"frame_count": 4}))
    assert await publisher.recover() == 1
    assert attempts(results) == [("a", "failed", "worker_died", 5_000)]
    publisher.spool.put(failed(session_id, "a"))
    assert await publisher.recover() == 0
    assert attempts(results) == [("a", "failed", "worker_died", 5_000)]
    assert publisher.spool.ids() == []


async def test_a_session_that_was_taken_back_has_an_attempt_without_a_dead_worker(house):
    publisher, begin, _, results = house
    session_id = await begin("a")
    await publisher.ledger.fail(Failure(session_id, Phase.PREFLIGHT, CANCELLED), sent_ms=0, outcome="cancelled")
    assert await publisher.recover() == 1
    assert attempts(results) == [("a", "cancelled", None, 0)]


async def test_a_package_that_waits_for_results_holds_up_no_other(house):
    publisher, begin, _, results = house
    await publisher.ledger.finish(await begin("a"), 1_000)
    package = await publisher.ledger.assign_package("lake", RUN, run_date(RUN), max_sessions=8)
    session_id = await begin("b")
    publisher.spool.put(failed(session_id, "b"))
    await publisher.ledger.fail(Failure(session_id, Phase.STREAMING, CANCELLED), sent_ms=700, outcome="failed")
    with pytest.raises(ResultsMissing, match=package.package):
        await publisher.recover()
    assert [row[0] for row in attempts(results)] == ["b"]


async def test_a_package_whose_results_are_lost_for_good_is_given_up_and_its_objects_are_free(house):
    publisher, begin, _, results = house
    lost = await begin("a")
    await publisher.ledger.finish(lost, 1_000)
    session_id = await begin("b")
    publisher.spool.put(failed(session_id, "b"))
    await publisher.ledger.fail(Failure(session_id, Phase.STREAMING, CANCELLED), sent_ms=700, outcome="failed")
    with pytest.raises(ResultsMissing):
        await publisher.recover()
    assert await publisher.give_up(f"{RUN}-p0001") == 1
    assert (await publisher.ledger.session(lost)).state == SessionState.LOST
    [everywhere, _] = await publisher.ledger.usage("org", "2026-11")
    assert everywhere.settled_ms == 1_000, "it was paid for all the same"
    assert await publisher.recover() == 1
    assert [row[0] for row in attempts(results)] == ["b"]
    await begin("a")
    assert await publisher.give_up(f"{RUN}-p0001") == 0, "it may have broken off"
    with pytest.raises(ConfigurationError, match="no package"):
        await publisher.give_up(f"{RUN}-p0009")


async def test_a_package_of_which_nothing_is_lost_is_not_given_up(house):
    publisher, begin, _, results = house
    session_id = await begin("a")
    publisher.spool.put(failed(session_id, "a"))
    await publisher.ledger.fail(Failure(session_id, Phase.STREAMING, CANCELLED), sent_ms=700, outcome="failed")
    package = await publisher.ledger.assign_package("lake", RUN, run_date(RUN), max_sessions=8)
    with pytest.raises(ConfigurationError, match="nothing of package"):
        await publisher.give_up(package.package)
    assert await publisher.recover() == 1
    assert [row[0] for row in attempts(results)] == ["a"]


class GivenUpMeanwhile:
    """A ledger that somebody on another host tells, right before a package is confirmed, that its results are lost."""

    def __init__(self, publisher: Publisher, elsewhere: Spool) -> None:
        self.ledger, self.other = publisher.ledger, replace(publisher, spool=elsewhere)

    def __getattr__(self, name: str):
        return getattr(self.ledger, name)

    async def mark_published(self, package: str) -> bool:
        await self.other.give_up(package)
        return await self.ledger.mark_published(package)


async def test_what_is_given_up_while_it_is_published_is_in_the_lake_no_more(tmp_path):
    place = Place(tmp_path, open_store(str(tmp_path / "results")), shared=False)
    await leave(place, [a_session(number) for number in range(3)])
    async with place.publisher() as publisher:
        ledger = GivenUpMeanwhile(publisher, Spool(tmp_path / "elsewhere"))
        await replace(publisher, ledger=ledger).recover()
        assert not seen(place.store, tmp_path / "mirror")
        assert (await publisher.ledger.session(a_session(0).session_id)).state == SessionState.LOST


async def test_what_waits_in_the_spool_of_before_is_taken_over(tmp_path):
    """The setting was changed to a spool that all hosts share."""
    place = Place(tmp_path, open_store(str(tmp_path / "results")), shared=False)
    await leave(place, [a_session(number) for number in range(3)])
    async with place.publisher() as publisher:
        shared = SharedSpool(place.store, SPOOL_FOLDER, LAKE)
        assert await replace(publisher, spool=shared, before=publisher.spool).recover() == 3
        assert len(seen(place.store, tmp_path / "mirror")) == 3
        assert publisher.spool.ids() == shared.ids() == []


class Unconfirmed:
    """A ledger that nobody reaches any more once everything is written."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def __getattr__(self, name: str):
        return getattr(self.ledger, name)

    async def mark_published(self, _package: str) -> None:
        raise UnreachableError("the ledger is gone")


async def test_what_was_compacted_before_it_was_confirmed_does_not_come_back(tmp_path):
    """A crash between the last file and the ledger, then a compaction: the next run must not write the originals again."""
    place = Place(tmp_path, open_store(str(tmp_path / "results")), shared=False)
    await leave(place, [a_session(number) for number in range(4)])
    async with place.publisher() as publisher:
        for _ in range(2):
            await publisher.ledger.assign_package(LAKE, a_session().run_id, run_date(a_session().run_id), max_sessions=2)
        for package in await publisher.ledger.unpublished(LAKE):
            with pytest.raises(UnreachableError):
                await replace(publisher, ledger=Unconfirmed(publisher.ledger))._publish(package)
        assert compact_days(place.store, NOW.date(), lambda *_: None).deleted == 6
        with pytest.raises(ConfigurationError, match="merged files"):
            await publisher.give_up(package.package)
        assert await publisher.recover() == 4
        assert len(seen(place.store, tmp_path / "mirror")) == 4
        assert await publisher.ledger.unpublished(LAKE) == []


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
    done = msgspec.structs.replace(smooth_session(1, 10), session_id=session_id, run_id=RUN)
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
    done = msgspec.structs.replace(smooth_session(1, 10), session_id=session_id, run_id=RUN)
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
        publisher.spool.put(msgspec.structs.replace(done, run_id=RUN))
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
