"""A ledger rebuilt from the lake and the spool, beside the one that was lost, in both databases."""

import contextlib
import itertools
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from connectors.lake.packages import write_package, write_rows
from connectors.lake.query import connect
from connectors.lake.store import open_store
from connectors.ledger import LEASE_MS, Ledger, aside, rebuilding, sqlite
from connectors.ledger.database import url_of
from connectors.spool import Spool
from ledger_facts import Clock, admit, change, claim_of, execute, finished, set_gate
from moderation.admission import Claim, Denial, Grant, Refusal, SessionState
from moderation.errors import ConfigurationError, Phase, UnreachableError
from moderation.judgement import Failure
from moderation.refusals import INCOMPLETE, UNDECODABLE
from moderation.results import SpooledSession
from tasks.publish import Publisher, run_date
from tasks.rebuild import Lake, Rebuild, Rebuilt

LAKE = "lake"
RUN = "20261130T225959Z-0a1b2c"
NEXT_RUN = "20261130T235000Z-0d0e0f"
EVE = datetime(2026, 11, 30, 23, 0, tzinfo=UTC)
MONTHS = ("2026-11", "2026-12")
END = datetime(2026, 12, 1, 8, tzinfo=UTC)
SHA = "0123456789abcdef"


class House:
    """A ledger, its spool and its lake, and sessions as a run leaves them."""

    def __init__(self, ledger, folder, clock):
        self.ledger = ledger
        self.clock = clock
        self.spool = Spool(folder / "spool")
        self.store = open_store(str(folder / "results"))
        self.results = str(folder / "results")
        self.publisher = Publisher(ledger, self.spool, self.store, LAKE)
        self.numbers = itertools.count(1)
        self.plans = {}

    def start_run(self, run_id):
        row = dict.fromkeys(("objects_listed", "planned", "done", "quarantined", "skipped", "pending"), 0)
        spent = dict.fromkeys(("audio_ms_settled", "audio_ms_at_risk", "audio_ms_saved"), 0)
        names = {"flow": "scan", "org": "acme", "source": "s3://b/", "parameters": "{}", "fingerprint": "f", "code_version": "1"}
        run = {"run_id": run_id, **names, "started_at": EVE, "state": "Running", **row, **spent}
        write_rows(self.store, "runs", run_id, run_date(run_id), "start", [run])
        self.plans[run_id] = []

    def plan_run(self, run_id):
        """The plan and the manifest of all that was begun."""
        plan = [
            {"object_id": name, "endpoint": endpoint, "params_hash": SHA, "decision": "stream", "estimate_ms": 8000, "estimate_source": "x"}
            | {"audio_format": "flac", "shard": 0}
            for name, endpoint in self.plans[run_id]
        ]
        place = {"bucket": "b", "etag": "e", "size_bytes": 1000, "last_modified": EVE}
        objects = sorted({name for name, _ in self.plans[run_id]})
        manifest = [{"object_id": name, "object_key_id": f"key-{name}", "key": name, **place} for name in objects]
        write_rows(self.store, "plan", run_id, run_date(run_id), "plan", plan)
        write_rows(self.store, "manifests", run_id, run_date(run_id), "manifest", manifest)

    async def begin(self, object_id, endpoint="music", run_id=RUN, started_at=EVE):
        number = next(self.numbers)
        session_id = f"01936f00-0000-7000-8000-{number:012}"
        month = f"{started_at:%Y-%m}"
        names = ("acme", endpoint, object_id, f"key-{object_id}", SHA, run_id, 0, "north", 1, month)
        assert isinstance(await self.ledger.admit(Claim(session_id, LAKE, *names, 9000)), Grant)
        self.plans[run_id].append((object_id, endpoint))
        attempt = {"session_id": session_id, "run_id": run_id, "org": "acme", "endpoint": endpoint, "object_id": object_id, "attempt": 1}
        attempt |= {"worker": "north", "started_at": started_at, "finished_at": started_at + timedelta(seconds=9), "phase": "streaming"}
        return attempt

    async def done(self, object_id, booked_ms=5000, **place):
        attempt = await self.begin(object_id, **place) | {"outcome": "done", "close_code": 1000, "bytes_sent": 1000, "items_received": 1}
        head = ("session_id", "run_id", "org", "endpoint", "object_id", "attempt", "started_at", "finished_at", "close_code")
        summary = {name: attempt[name] for name in head} | {"object_key_id": f"key-{object_id}", "params_hash": SHA, "bucket": "b"}
        summary |= {"key": object_id, "etag": "e", "size_bytes": 1000, "last_modified": EVE, "audio_format": "flac", "host": "h"}
        summary |= {"duration_ms": booked_ms, "covered_ms": 4032, "items_received": 1, "evidence": "sufficient", "quality_flags": ""}
        summary |= (
            {"wire_shape": "x", "frame_count": 1, "primary_label": "music", "threshold": 0.5}
            if attempt["endpoint"] == "music"
            else {
                "wire_shape": "x",
                "window_count": 1,
                "primary_verdict": "not-ai-music",
            }
        )
        spans = {name: at.to_bytes(8, "little") for name, at in (("start_time_ms", 0), ("end_time_ms", 4032))}
        attempt["audio_sent_ms"] = 5000
        return await self.end(attempt, booked_ms, summary, spans)

    async def failed(self, object_id, bytes_sent=500, cause=INCOMPLETE, **place):
        attempt = await self.begin(object_id, **place) | {"outcome": "failed", "close_code": 1011, "bytes_sent": bytes_sent}
        attempt |= {"items_received": 0, "audio_sent_ms": 0, "scope": cause.scope.value, "cause": cause.name}
        return await self.end(attempt, cause=cause, sent_ms=8 * bytes_sent)

    async def end(self, attempt, booked_ms=0, summary=None, items=None, cause=None, sent_ms=5000):
        names = {name: attempt[name] for name in ("session_id", "run_id", "endpoint", "object_id")}
        self.spool.put(SpooledSession(**names, attempt=attempt, booked_ms=booked_ms, sent_ms=sent_ms, summary=summary, items=items or {}))
        if summary is not None:
            await self.ledger.finish(attempt["session_id"], booked_ms, 1000)
        else:
            failure = Failure(attempt["session_id"], Phase.STREAMING, cause)
            await self.ledger.fail(failure, sent_ms=sent_ms, outcome="failed", close_code=1011)
        return attempt["session_id"]

    def rebuild(self):
        return Rebuild([Lake(self.store, LAKE)], [self.spool], lambda *_: None)

    async def rebuilt(self, place, **options):
        rebuild = self.rebuild()
        await self.ledger._database._server.close()  # as a run that has been stopped; it connects again
        async with rebuilding(place, replace=True, now=lambda: END, **options) as ledger:
            found = await rebuild.run(ledger)
        await rebuild.clear_spool()
        return found


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path):
    return tmp_path / "state" / "ledger.db" if request.param == "sqlite" else request.getfixturevalue("postgresql").url()


@pytest.fixture
async def house(place, tmp_path):
    clock = Clock()
    async with Ledger.open(place, clock_ms=clock, now=lambda: EVE) as ledger:
        for endpoint in ("music", "ai_music"):
            await set_gate(ledger, "acme", endpoint, 50)
        house = House(ledger, tmp_path, clock)
        house.start_run(RUN)
        house.start_run(NEXT_RUN)
        yield house


async def catalogue(house):
    """Two runs over a month's end: results, failures and what was not sent at all, in three packages and in the spool."""
    await house.done("a")
    await house.done("a", endpoint="ai_music", booked_ms=7000)
    await house.failed("b")
    await house.failed("b", cause=UNDECODABLE, bytes_sent=0)
    await house.done("b", started_at=EVE + timedelta(hours=2))
    await house.publisher.publish_run(RUN, run_date(RUN))
    await house.failed("c", endpoint="ai_music", started_at=EVE + timedelta(hours=2))
    await house.publisher.publish_run(RUN, run_date(RUN))
    await house.done("d", run_id=NEXT_RUN)
    await house.publisher.publish_run(NEXT_RUN, run_date(NEXT_RUN))
    await house.done("e", run_id=NEXT_RUN)
    await house.failed("f", run_id=NEXT_RUN)
    for run_id in (RUN, NEXT_RUN):
        house.plan_run(run_id)


async def standing(ledger):
    """All that a rebuilt ledger must have in common with the one that was lost."""
    kept = (
        "session_id, lake, org, endpoint, object_id, params_hash, run_id, worker, attempt, month, booked_ms, state, package, outcome, scope"
    )
    sessions = await execute(ledger, f"SELECT {kept}, close_code FROM sessions ORDER BY session_id")
    packages = await execute(ledger, "SELECT package, lake, run_id, org, scan_date, published_at IS NULL FROM packages ORDER BY package")
    budgets = [
        (usage.endpoint, usage.month, usage.settled_ms, usage.at_risk_ms, usage.reserved_ms)
        for month in MONTHS
        for usage in await ledger.usage("acme", month)
        if usage.hours.taken
    ]
    return sessions, packages, budgets


@pytest.mark.fault(78)
async def test_a_rebuilt_ledger_is_the_one_that_was_lost(house, place):
    await catalogue(house)
    before = await standing(house.ledger)
    assert {row[11] for row in before[0]} == {"published", "finished", "at_risk", "released"}
    found = await house.rebuilt(place)
    assert found == Rebuilt(packages=3, published=4, failed=4, spooled=1)
    async with Ledger.open(place) as ledger:
        assert await standing(ledger) == before


async def test_after_a_rebuild_nothing_that_is_paid_for_is_streamed_and_no_package_gets_a_name_twice(house, place):
    await catalogue(house)
    await house.rebuilt(place)
    async with Ledger.open(place) as ledger:
        claim = Claim("s", LAKE, "acme", "music", "a", "key-a", SHA, NEXT_RUN, 0, "w", 1, "2026-12", 1000)
        closed = await ledger.admit(replace(claim, object_id="new"))
        assert closed == Refusal(Denial.FULL, live=0), "until a run has written its limits"
        await set_gate(ledger, "acme", "music", 5)
        for done in ("a", "b", "d", "e"):
            assert await ledger.admit(replace(claim, object_id=done)) == Refusal(Denial.DONE)
        assert isinstance(await ledger.admit(replace(claim, object_id="c")), Grant)
        publisher = Publisher(ledger, house.spool, house.store, LAKE)
        assert await publisher.recover() == 2
        assert await execute(ledger, "SELECT max(package) FROM packages") == [(f"{NEXT_RUN}-p0002",)]
    with connect(house.results) as lake:
        assert lake.execute("SELECT count(*), count(DISTINCT session_id) FROM attempts").fetchone() == (9, 9)
        assert lake.execute("SELECT count(*) FROM music_frames").fetchone() == (4,)
    assert house.spool.ids() == []


@pytest.mark.parametrize("files", range(7))
async def test_a_package_that_was_interrupted_is_published_to_its_end_and_nothing_shows_twice(house, place, files):
    """Publishing dies after so many of its files, with the package in the ledger and everything in the spool."""
    await house.done("a")
    await house.done("a", endpoint="ai_music")
    await house.failed("b")
    package = await house.ledger.assign_package(LAKE, RUN, run_date(RUN), max_sessions=10)
    members = [house.spool.get(member.session_id) for member in package.members]
    names = write_package(house.store, package.package, RUN, run_date(RUN), members)
    assert len(names) == 5
    for name in names[files:]:
        house.store.delete(name)
    house.plan_run(RUN)
    await house.rebuilt(place)
    async with Ledger.open(place) as ledger:
        await Publisher(ledger, house.spool, house.store, LAKE).recover()
        states = await execute(ledger, "SELECT state, count(*) FROM sessions GROUP BY state ORDER BY state")
        assert states == [("at_risk", 1), ("published", 2)]
    assert house.spool.ids() == []
    with connect(house.results) as lake:
        for dataset, rows in (
            ("attempts", 3),
            ("music_frames", 1),
            ("ai_music_windows", 1),
            ("music_summaries", 1),
            ("ai_music_summaries", 1),
        ):
            assert lake.execute(f"SELECT count(*) FROM {dataset}").fetchone() == (rows,), dataset


async def test_what_a_publisher_did_not_clear_from_the_spool_is_cleared(house, place):
    one, two = await house.done("a"), await house.done("b")
    entry = house.spool.get(two)
    await house.publisher.publish_run(RUN, run_date(RUN))
    house.spool.put(entry)
    found = await house.rebuilt(place)
    assert (found.published, found.spooled) == (2, 0)
    assert house.spool.ids() == []
    async with Ledger.open(place) as ledger:
        assert [(await ledger.session(name)).state for name in (one, two)] == ["published", "published"]


async def test_a_result_that_neither_lake_nor_spool_has_is_lost_booked_and_said(house, place):
    session_id = await house.done("a")
    await house.failed("b")
    await house.publisher.publish_run(RUN, run_date(RUN))
    house.store.delete(next(iter(house.store.list("music_summaries/"))))
    found = await house.rebuilt(place)
    assert (found.lost, found.published, found.failed) == (1, 0, 1)
    async with Ledger.open(place) as ledger:
        assert (await ledger.session(session_id)).state == "lost"
        assert (await ledger.usage("acme", "2026-11"))[0].settled_ms == 5000
        assert await Publisher(ledger, house.spool, house.store, LAKE).recover() == 0


async def test_items_without_anything_else_are_counted_and_their_package_keeps_its_name(house, place):
    await house.done("a")
    await house.publisher.publish_run(RUN, run_date(RUN))
    for dataset in ("attempts", "music_summaries"):
        house.store.delete(next(iter(house.store.list(f"{dataset}/"))))
    found = await house.rebuilt(place)
    assert (found.unknown, found.packages) == (1, 1)
    async with Ledger.open(place) as ledger:
        assert await execute(ledger, "SELECT package FROM packages") == [(f"{RUN}-p0001",)]


async def test_a_failure_without_a_plan_is_at_risk_with_what_is_known_to_have_been_sent(house, place):
    await house.failed("a")
    await house.publisher.publish_run(RUN, run_date(RUN))
    await house.rebuilt(place)
    async with Ledger.open(place) as ledger:
        assert await execute(ledger, "SELECT state, params_hash FROM sessions") == [("released", "unknown")]


async def test_a_worker_that_died_is_at_risk_with_its_reservation(house, place):
    attempt = await house.begin("a")
    house.clock.ms += LEASE_MS
    assert await house.publisher.recover() == 1
    before = await standing(house.ledger)
    house.plan_run(RUN)
    await house.rebuilt(place)
    async with Ledger.open(place) as ledger:
        assert (await standing(ledger))[2] == before[2]
        assert (await ledger.session(attempt["session_id"])).state == "at_risk"


async def test_a_damaged_spool_entry_is_named(house, place):
    session_id = await house.done("a")
    (house.spool.folder / session_id).write_bytes(b"SCspool1 and nothing more")
    found = await house.rebuilt(place)
    assert [session_id in said for said in found.damaged] == [True]


async def test_the_spool_of_another_lakes_run_is_left_alone(house, place):
    await house.done("a")
    for name in list(house.store.list("runs/")):
        house.store.delete(name)
    found = await house.rebuilt(place)
    assert found == Rebuilt()
    assert len(house.spool.ids()) == 1


async def test_while_sessions_stream_nothing_is_rebuilt(house, place):
    await house.begin("a")
    before = await standing(house.ledger)
    with pytest.raises(ConfigurationError, match="1 sessions stream"):
        await house.rebuilt(place)
    assert await standing(house.ledger) == before


async def test_a_rebuild_that_fails_leaves_everything_as_it_was(house, place, tmp_path):
    await catalogue(house)
    before = await standing(house.ledger)
    (tmp_path / "results" / "v1" / next(iter(house.store.list("attempts/")))).write_bytes(b"no Parquet")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        await house.rebuilt(place)
    async with Ledger.open(place) as ledger:
        assert await standing(ledger) == before
    assert len(house.spool.ids()) == 2
    if url_of(place).drivername.startswith("sqlite"):
        assert sorted(path.name for path in place.parent.iterdir() if "rebuild" in path.name) == []


async def test_a_ledger_in_a_database_is_replaced_only_when_that_is_said_and_what_was_erased_stays_so(house, postgresql):
    place = postgresql.url()
    async with Ledger.open(place, clock_ms=Clock()) as ledger:
        await set_gate(ledger, "acme", "music", 50)
        await change(ledger, "INSERT INTO tombstones VALUES ('key-z', '2026-11-01', 'receipt')")
        async with rebuilding(place, replace=False, now=lambda: END) as empty:
            await house.rebuild().run(empty)
        house.ledger = ledger
        await set_gate(ledger, "acme", "music", 50)
        await house.done("a")
    with pytest.raises(ConfigurationError, match="--replace"):
        async with rebuilding(place, replace=False, now=lambda: END):
            pass
    await house.rebuilt(place)
    async with Ledger.open(place) as ledger:
        assert await execute(ledger, "SELECT object_key_id FROM tombstones") == [("key-z",)]


@pytest.fixture
async def file(tmp_path):
    """A file ledger of a catalogue that nobody has open any more, with its house and how it stood."""
    place = tmp_path / "state" / "ledger.db"
    clock = Clock()
    async with Ledger.open(place, clock_ms=clock, now=lambda: EVE) as ledger:
        for endpoint in ("music", "ai_music"):
            await set_gate(ledger, "acme", endpoint, 50)
        house = House(ledger, tmp_path, clock)
        house.start_run(RUN)
        house.start_run(NEXT_RUN)
        await catalogue(house)
        before = await standing(ledger)
    return place, house, before


async def test_a_file_ledger_that_is_gone_is_made_anew(file):
    place, house, before = file
    for path in place.parent.glob("ledger.db*"):
        path.unlink()
    await house.rebuilt(place)
    async with Ledger.open(place) as ledger:
        assert await standing(ledger) == before
    assert not aside(place, END).exists()


@pytest.mark.parametrize("page", [0, 1, 3, 8])
async def test_a_damaged_file_is_moved_aside_as_it_is_and_made_anew(file, page):
    place, house, before = file
    content = bytearray(place.read_bytes())
    for at in range(4096 * page, min(4096 * (page + 1), len(content)), 3):
        content[at] ^= 0xFF
    place.write_bytes(content)
    await house.rebuilt(place)
    async with Ledger.open(place) as ledger:
        assert await standing(ledger) == before
        assert await execute(ledger, "PRAGMA integrity_check") == [("ok",)]
    assert len(aside(place, END).read_bytes()) == len(content)


async def test_while_a_process_has_the_file_open_nothing_is_rebuilt(file):
    """A run that lists has no session yet, and would write its first one into the file that is moved aside."""
    place, house, before = file
    async with Ledger.open(place) as idle:
        with pytest.raises(ConfigurationError, match=r"another process has the ledger .* open: stop every run"):
            await house.rebuilt(place)
        assert await standing(idle) == before
    await house.rebuilt(place)


async def test_what_a_killed_process_left_beside_the_file_is_not_in_the_new_one(file):
    place, house, before = file
    log = place.with_name("ledger.db-wal")
    with contextlib.closing(sqlite3.connect(place)) as killed:
        killed.execute("UPDATE sessions SET booked_ms = 1")
        killed.commit()
        left = {path: path.read_bytes() for path in (place, log)}
    for path, content in left.items():
        path.write_bytes(content)
    assert left[log]
    await house.rebuilt(place)
    async with Ledger.open(place) as ledger:
        assert await standing(ledger) == before
        assert await execute(ledger, "PRAGMA integrity_check") == [("ok",)]
    with contextlib.closing(sqlite3.connect(aside(place, END))) as kept:
        assert kept.execute("SELECT DISTINCT booked_ms FROM sessions").fetchall() == [(1,)]


async def test_while_a_rebuild_is_at_work_nobody_can_open_the_file(file, monkeypatch):
    place, *_ = file
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.05)
    async with rebuilding(place, replace=False, now=lambda: END):
        with pytest.raises(UnreachableError, match="locked"):
            async with Ledger.open(place):
                pass


@pytest.mark.parametrize(
    ("begin", "words"),
    [
        (lambda ledger: admit(ledger, 1), "1 sessions stream"),
        (lambda ledger: finished(ledger, 1), "have come into the ledger meanwhile"),
        (lambda ledger: ledger.admit(claim_of(1, endpoint="closed")), "1 workers wait"),
    ],
    ids=["streaming", "finished", "waiting"],
)
async def test_a_database_that_a_run_uses_while_the_lakes_are_read_stays_as_it_is(begin, words, postgresql):
    place = postgresql.url()

    async def remains():
        await begin(live)
        return
        yield

    async with Ledger.open(place) as live:
        await set_gate(live, "acme", "music", 1)
        await live.set_gate("acme", "closed", 0)
        await finished(live, 7)
        with pytest.raises(ConfigurationError, match=words):
            async with rebuilding(place, replace=True, now=lambda: END) as new:
                await new.restore(remains())
        assert (await live.session("session-0007")).state == SessionState.FINISHED


async def test_while_the_lakes_are_read_no_transaction_waits(postgresql, monkeypatch):
    """A server ends those that do nothing for half a minute."""
    place = postgresql.url()

    async def remains():
        async with Ledger.open(place) as other:
            await set_gate(other, "acme", "music", 1)
        return
        yield

    monkeypatch.setattr("connectors.ledger.postgresql.LOCK_SECONDS", 2)
    async with rebuilding(place, replace=True, now=lambda: END) as new:
        await new.restore(remains())
