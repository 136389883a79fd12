"""The file under the ledger: opening it, and what goes wrong with it."""

import asyncio
import contextlib
import random
import sqlite3

import pytest

from connectors.ledger import Ledger, aside, rebuilding, sqlite
from ledger_facts import MONTH, START, admit, change, claim_of, execute, failed_as, finished, money, set_gate
from moderation.admission import Denial, Refusal
from moderation.errors import ConfigurationError, ResultsNotWritable, UnreachableError
from moderation.gate import Gate


@pytest.fixture
async def ledger(path, clock):
    async with Ledger.open(path, clock_ms=clock) as ledger:
        await set_gate(ledger, "acme", "music", 2)
        yield ledger


async def test_everything_is_there_after_reopening(path, clock):
    async with Ledger.open(path, clock_ms=clock) as ledger:
        await set_gate(ledger, "acme", "music", 2)
        await admit(ledger, 1)
    async with Ledger.open(str(path), clock_ms=clock) as ledger:
        assert await ledger.renew("worker") == {"session-0001"}
        assert await money(ledger) == (1000, 0, 0)
        assert await execute(ledger, "PRAGMA journal_mode") == [("wal",)]
        assert await execute(ledger, "PRAGMA synchronous") == [(2,)]


async def test_a_url_and_a_path_with_odd_characters_open(tmp_path):
    async with Ledger.open(tmp_path / "a b?c#d%20" / "ledger.sqlite"):
        assert (tmp_path / "a b?c#d%20" / "ledger.sqlite").exists()
    for drivers in ("sqlite", "sqlite+aiosqlite"):
        async with Ledger.open(f"{drivers}:///{tmp_path}/{drivers}.sqlite"):
            assert (tmp_path / f"{drivers}.sqlite").exists()


async def opening_fails(path_or_url, error, words):
    with pytest.raises(error, match=words):
        async with Ledger.open(path_or_url):
            pass


async def test_another_database_is_refused():
    await opening_fails("mysql://host/ledger", ConfigurationError, "sqlite")


async def test_another_schema_version_is_refused(path, ledger):
    await change(ledger, "UPDATE schema_version SET version = 99")
    await opening_fails(path, ConfigurationError, "version 99")


VERSION_1 = """
CREATE TABLE schema_version (version INTEGER PRIMARY KEY);
INSERT INTO schema_version VALUES (1);
CREATE TABLE sessions (session_id VARCHAR PRIMARY KEY, lake VARCHAR NOT NULL, org VARCHAR NOT NULL, endpoint VARCHAR NOT NULL,
    object_id VARCHAR NOT NULL, params_hash VARCHAR NOT NULL, run_id VARCHAR NOT NULL, shard INTEGER NOT NULL, worker VARCHAR NOT NULL,
    kind VARCHAR NOT NULL, attempt INTEGER NOT NULL, month VARCHAR NOT NULL, reserved_ms BIGINT NOT NULL, sent_ms BIGINT, booked_ms BIGINT,
    state VARCHAR NOT NULL, package VARCHAR, started_at DATETIME NOT NULL, lease_until BIGINT, outcome VARCHAR, scope VARCHAR,
    close_code INTEGER, error_text VARCHAR);
INSERT INTO sessions VALUES ('s1', 'lake', 'acme', 'music', 'o1', 'params', 'run', 0, 'worker', 'object', 1, '2026-11', 1000, NULL, 900,
    'finished', NULL, '2026-11-21 12:00:00.000000', NULL, 'done', NULL, 1000, NULL);
CREATE TABLE gates (org VARCHAR, endpoint VARCHAR, ceiling INTEGER, learned_limit INTEGER, limit_known_at DATETIME,
    breaker VARCHAR DEFAULT 'closed' NOT NULL, breaker_until DATETIME, fence INTEGER DEFAULT '0' NOT NULL, key_ok_at DATETIME,
    paused BOOLEAN DEFAULT 0 NOT NULL, PRIMARY KEY (org, endpoint));
INSERT INTO gates (org, endpoint, ceiling, paused) VALUES ('acme', '*', NULL, 1), ('acme', 'music', 7, 0);
CREATE TABLE budgets (org VARCHAR, endpoint VARCHAR, month VARCHAR, cap_ms BIGINT, settled_ms BIGINT DEFAULT '0' NOT NULL,
    at_risk_ms BIGINT DEFAULT '0' NOT NULL, reserved_ms BIGINT DEFAULT '0' NOT NULL, PRIMARY KEY (org, endpoint, month));
INSERT INTO budgets VALUES ('acme', '*', '2026-12', 6000, 0, 0, 0), ('acme', '*', '2026-11', 5000, 900, 10, 0),
    ('acme', 'music', '2026-11', NULL, 900, 10, 0), ('acme', '*', '2026-10', 9999, 9000, 0, 0);
CREATE TABLE tombstones (object_key_id VARCHAR PRIMARY KEY, at DATETIME NOT NULL, receipt VARCHAR NOT NULL);
INSERT INTO tombstones VALUES ('key-9', '2026-11-01 00:00:00.000000', 'receipt');
CREATE TABLE packages (package VARCHAR PRIMARY KEY, lake VARCHAR NOT NULL, run_id VARCHAR NOT NULL, org VARCHAR NOT NULL,
    scan_date DATE NOT NULL, created_at DATETIME NOT NULL, published_at DATETIME);
"""
"""A ledger of the first release."""


async def test_a_ledger_of_the_first_version_is_brought_up_with_its_newest_cap_and_all_its_money(path, clock):
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.executescript(VERSION_1)
    for _ in range(2):
        async with Ledger.open(path, clock_ms=clock) as ledger:
            usages = {usage.endpoint: usage for usage in await ledger.usage("acme", MONTH)}
            assert (usages["*"].gate, usages["music"].gate) == (Gate(cap_ms=6000, paused=True), Gate(ceiling=7))
            assert [(usage.settled_ms, usage.at_risk_ms, usage.reserved_ms) for usage in usages.values()] == [(900, 10, 0)] * 2
            assert (await ledger.usage("acme", "2026-10"))[0].settled_ms == 9000
            session = await ledger.session("s1")
            assert (session.admitted, session.closed) == (False, False)
            assert await ledger.admit(claim_of(9)) == Refusal(Denial.TOMBSTONE)
    await ledger_admits_up_to_its_cap(path, clock)


async def ledger_admits_up_to_its_cap(path, clock):
    async with Ledger.open(path, clock_ms=clock) as ledger:
        await ledger.resume("acme")
        assert await ledger.admit(claim_of(1, estimate_ms=5091)) == Refusal(Denial.BUDGET, cap="*")
        await admit(ledger, 1, estimate_ms=5090)


async def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "ledger.sqlite").write_bytes(b"no database " * 1000)
    await opening_fails(tmp_path / "ledger.sqlite", UnreachableError, r"ledger\.sqlite is damaged.*rebuild")


async def nothing():
    return
    yield


@pytest.mark.fault(78)
@pytest.mark.parametrize("seed", range(12))
async def test_whatever_is_damaged_a_file_is_moved_aside_and_made_anew(path, seed):
    async with Ledger.open(path) as ledger:
        await set_gate(ledger, "acme", "music", None)
        for number in range(10):
            await finished(ledger, number)
    chance = random.Random(seed)
    content = bytearray(path.read_bytes())
    first_page_only = seed % 2
    for _ in range(chance.choice([1, 10, 200])):
        content[chance.randrange(4096 if first_page_only else len(content))] ^= chance.randrange(1, 256)
    path.write_bytes(content)
    async with rebuilding(path, replace=False, now=lambda: START) as ledger:
        await ledger.restore(nothing())
    assert len(aside(path, START).read_bytes()) == len(content)
    async with Ledger.open(path) as ledger:
        assert await execute(ledger, "SELECT count(*) FROM sessions") == [(0,)]


@pytest.mark.parametrize("gate", ["no JSON", '{"ceiling": "many"}'])
async def test_a_damaged_gate_admits_nothing_and_is_named(ledger, gate):
    await change(ledger, "UPDATE gates SET gate = :gate WHERE endpoint = 'music'", gate=gate)
    with pytest.raises(UnreachableError, match="rebuild"):
        await ledger.admit(claim_of(1))


async def test_a_folder_that_cannot_be_made_or_a_file_that_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "file").touch()
    await opening_fails(tmp_path / "file" / "ledger.sqlite", ResultsNotWritable, str(tmp_path / "file"))
    await opening_fails(tmp_path, ResultsNotWritable, str(tmp_path))


@pytest.mark.fault(65)
async def test_a_full_disk_stops_admission_and_nothing_is_lost(ledger, path):
    claim = await admit(ledger, 1)
    await execute(ledger, "PRAGMA max_page_count = 1")
    with pytest.raises(ResultsNotWritable, match=f"{path.name} takes no writes: the disk is full"):
        await ledger.fail(failed_as(claim), sent_ms=1, outcome="failed", error_text="x" * 100_000)
    await execute(ledger, "PRAGMA max_page_count = 1000000")
    assert await money(ledger) == (1000, 0, 0)
    await ledger.finish(claim.session_id, 900)


@pytest.mark.fault(66)
async def test_a_read_only_ledger_is_said(ledger):
    await change(ledger, "PRAGMA query_only = ON")
    with pytest.raises(ResultsNotWritable, match="read-only"):
        await ledger.admit(claim_of(1))


@pytest.mark.fault(77)
async def test_a_locked_ledger_is_said_and_works_again_afterwards(path, clock, monkeypatch):
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.05)
    async with Ledger.open(path, clock_ms=clock) as ledger:
        await set_gate(ledger, "acme", "music", 2)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UnreachableError, match=r"locked for 0\.05 s"):
            await ledger.admit(claim_of(1))
        task = asyncio.create_task(ledger.admit(claim_of(1)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        other.execute("ROLLBACK")
        other.close()
        await admit(ledger, 1)


async def test_a_session_id_used_twice_is_our_mistake_and_rolls_back(ledger):
    await finished(ledger, 1)
    with pytest.raises(Exception, match="UNIQUE constraint"):
        await ledger.admit(claim_of(1, force=True, run_id="another"))
    assert await money(ledger) == (0, 1000, 0)


async def test_ledgers_opened_at_the_same_time_make_one_schema(path):
    async def visit(number):
        async with Ledger.open(path) as ledger:
            await ledger.set_gate("acme", f"endpoint-{number}", 1)

    await asyncio.gather(*(visit(number) for number in range(8)))
    async with Ledger.open(path) as ledger:
        assert len(await ledger.usage("acme", MONTH)) == 9
