"""The file under the ledger: opening it, and what goes wrong with it."""

import asyncio
import sqlite3

import pytest

from connectors.ledger import Ledger, sqlite
from ledger_facts import MONTH, admit, change, claim_of, execute, failed_as, finished, money, set_gate
from moderation.errors import ConfigurationError, ResultsNotWritable, UnreachableError


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
    async with Ledger.open(f"sqlite+aiosqlite:///{tmp_path}/url.sqlite"):
        assert (tmp_path / "url.sqlite").exists()


async def opening_fails(path_or_url, error, words):
    with pytest.raises(error, match=words):
        async with Ledger.open(path_or_url):
            pass


async def test_another_database_is_refused():
    await opening_fails("mysql://host/ledger", ConfigurationError, "sqlite")


async def test_another_schema_version_is_refused(path, ledger):
    await change(ledger, "UPDATE schema_version SET version = 99")
    await opening_fails(path, ConfigurationError, "version 99")


async def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "ledger.sqlite").write_bytes(b"no database " * 1000)
    await opening_fails(tmp_path / "ledger.sqlite", UnreachableError, r"ledger\.sqlite is damaged.*rebuild")


async def test_a_folder_that_cannot_be_made_or_a_file_that_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "file").touch()
    await opening_fails(tmp_path / "file" / "ledger.sqlite", ResultsNotWritable, str(tmp_path / "file"))
    await opening_fails(tmp_path, ResultsNotWritable, str(tmp_path))


async def test_a_full_disk_stops_admission_and_nothing_is_lost(ledger, path):
    claim = await admit(ledger, 1)
    await execute(ledger, "PRAGMA max_page_count = 1")
    with pytest.raises(ResultsNotWritable, match=f"{path.name} takes no writes: the disk is full"):
        await ledger.fail(failed_as(claim), sent_ms=1, outcome="failed", error_text="x" * 100_000)
    await execute(ledger, "PRAGMA max_page_count = 1000000")
    assert await money(ledger) == (1000, 0, 0)
    await ledger.finish(claim.session_id, 900)


async def test_a_read_only_ledger_is_said(ledger):
    await change(ledger, "PRAGMA query_only = ON")
    with pytest.raises(ResultsNotWritable, match="read-only"):
        await ledger.admit(claim_of(1))


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
        await ledger.admit(claim_of(1, force=True))
    assert await money(ledger) == (0, 1000, 0)


async def test_ledgers_opened_at_the_same_time_make_one_schema(path):
    async def visit(number):
        async with Ledger.open(path) as ledger:
            await ledger.set_gate("acme", f"endpoint-{number}", 1)

    await asyncio.gather(*(visit(number) for number in range(8)))
    async with Ledger.open(path) as ledger:
        assert len(await ledger.usage("acme", MONTH)) == 9
