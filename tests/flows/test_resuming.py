"""Runs that are taken up again, or that meet their own results: nothing is paid twice, and their record keeps what was before."""

import asyncio
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from connectors.catalogue.list_pages import list_page
from connectors.lake.store import FolderStore
from connectors.ledger import Ledger
from connectors.local_velma.journal import Journal
from flows.backfill_cli import backfill
from flows.flags import RunFlags
from flows.request import FlowName, Portion, Request
from flows.resuming import request_of
from flows.watch import Watch
from moderation.errors import ConfigurationError, UnreachableError
from tasks.alive import LIFE, alive, is_alive

pytestmark = pytest.mark.torture


def named(*sources, **more):
    return Request(tuple(f"s3://catalogue/{source}" for source in sources), flow=FlowName.BACKFILL, **more)


async def broken_at(world, monkeypatch, step, request, **changes):
    """The run_id of a run that was broken off at a step."""

    def breaks(*_, **__):
        raise UnreachableError("S3 did not answer")

    with monkeypatch.context() as patch:
        patch.setattr(step, breaks)
        with pytest.raises(UnreachableError):
            await world.scan_request(request, **changes)
    return world.ask("SELECT max(run_id) FROM runs")[0][0]


@pytest.mark.parametrize("force", [False, True])
async def test_a_result_that_was_swept_before_it_was_booked_is_paid_once_by_its_run(world, make_wav, monkeypatch, force):
    world.put("a.wav", make_wav(1.0))
    finish, late = Ledger.finish, []

    async def finish_late(ledger, session_id, *arguments, **more):
        if not late:
            late.append(session_id)
            with sqlite3.connect(world.results / "_state" / "ledger.db") as database:
                database.execute("UPDATE sessions SET lease_until = 1 WHERE state = 'streaming'")
        return await finish(ledger, session_id, *arguments, **more)

    monkeypatch.setattr("tasks.stream.CLAIM_PAUSE_S", 0.05)
    monkeypatch.setattr(Ledger, "finish", finish_late)
    await world.scan_request(named("", force=force), endpoints=["music"])
    assert world.ask("SELECT session_id FROM music_summaries") == [tuple(late)]
    assert world.velma.journal.counts["done"] == 1


async def test_a_run_that_is_alive_is_not_taken_up_by_another_process(world, make_wav, monkeypatch):
    for number in range(3):
        world.put(f"{number}.wav", make_wav(1.0, 200.0 + number))
    watch, note = Watch(), Journal.note
    reached, asked = asyncio.Event(), asyncio.Event()

    def hold_at_the_first(journal, event, *arguments, **facts):
        note(journal, event, *arguments, **facts)
        if journal.counts["done"]:
            reached.set()

    monkeypatch.setattr(Journal, "note", hold_at_the_first)
    finish = Ledger.finish

    async def finish_when_asked(ledger, *arguments, **more):
        await asked.wait()
        return await finish(ledger, *arguments, **more)

    monkeypatch.setattr(Ledger, "finish", finish_when_asked)
    first = asyncio.create_task(world.scan_request(named(""), watch, endpoints=["music"], connections=1))
    await reached.wait()
    [(run_id,)] = world.ask("SELECT run_id FROM runs_latest")
    with pytest.raises(ConfigurationError, match=r"is still running.*--anyway"):
        await world.scan_request(request_of(world.settings, run_id), endpoints=["music"])
    assert world.ask("SELECT state FROM runs") == [("Running",)]
    watch.terminate()
    asked.set()
    await first
    report = await world.scan_request(request_of(world.settings, run_id), endpoints=["music"])
    assert (report.run_id, report.counts()["done"], world.velma.journal.counts["done"]) == (run_id, 3, 3)


async def test_a_sign_of_life_holds_for_a_minute_and_goes_with_its_run(tmp_path):
    store, at = FolderStore(tmp_path), datetime(2026, 11, 21, 8, tzinfo=UTC)
    assert not is_alive(store, "r1", at)
    async with alive(store, "r1", lambda: at):
        assert is_alive(store, "r1", at + LIFE - timedelta(seconds=1))
        assert not is_alive(store, "r1", at + LIFE)
        assert not is_alive(store, "r2", at)
    assert not is_alive(store, "r1", at)


async def test_a_sign_of_life_is_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.alive.BEAT_S", 0.01)
    store, at = FolderStore(tmp_path), datetime(2026, 11, 21, 8, tzinfo=UTC)
    later = at + LIFE * 5
    told = iter([at])
    async with asyncio.timeout(30), alive(store, "r1", lambda: next(told, later)):
        while not is_alive(store, "r1", later):
            await asyncio.sleep(0.01)


async def test_a_store_that_takes_no_sign_of_life_ends_no_run(tmp_path, caplog):
    (tmp_path / "v1").write_text("no folder")
    async with alive(FolderStore(tmp_path), "r1", lambda: datetime(2026, 11, 21, 8, tzinfo=UTC)):
        pass
    assert "sign of life is not kept" in caplog.text


@pytest.mark.parametrize("anyway", [False, True])
async def test_a_run_keeps_its_endpoints_and_its_cascade_when_it_is_taken_up(world, make_wav, monkeypatch, anyway):
    for number in range(2):
        world.put(f"{number}.wav", make_wav(1.0, 200.0 + number))
    run_id = await broken_at(
        world, monkeypatch, "tasks.shards.PlannedShards.objects", named("", portion=Portion(limit=1)), endpoints=["ai_music"]
    )
    report = await world.scan_request(request_of(world.settings, run_id, anyway=anyway), cascade="music_pct > 5")
    assert (report.run_id, list(report.progress.endpoints), report.progress.sessions) == (run_id, ["ai_music"], 1)


async def test_the_record_of_a_run_that_is_taken_up_keeps_what_it_had_spent_and_saved(world, make_wav, monkeypatch):
    for key, seconds in {"half.wav": 9.7, "one.wav": 3.0, "two.wav": 2.0}.items():
        world.put(key, make_wav(seconds, 200 + seconds))
    await world.scan(endpoints=["music"])
    wanted = {"cascade": "music_pct >= 60", "connections": 1}
    watch, note, done = Watch(), Journal.note, world.velma.journal.counts["done"]

    def stop_at_the_first(journal, event, *arguments, **facts):
        note(journal, event, *arguments, **facts)
        if journal.counts["done"] == done + 1:
            watch.terminate()

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "note", stop_at_the_first)
        run_id = (await world.scan_request(named(""), watch, **wanted)).run_id
    record = f"SELECT audio_ms_settled, audio_ms_at_risk, audio_ms_saved FROM runs_latest WHERE run_id = '{run_id}'"
    [(settled_ms, _, saved_ms)] = world.ask(record)
    assert settled_ms in {2000, 3000}
    assert saved_ms > 9000
    await world.scan_request(request_of(world.settings, run_id), **wanted)
    assert world.ask(record) == [(5000, 0, saved_ms)]


@pytest.mark.parametrize("more", [{"flags": RunFlags(endpoint=["music"])}, {"cascade": "true"}])
def test_other_endpoints_or_another_cascade_for_a_run_that_is_taken_up_are_refused(tmp_path, monkeypatch, more):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="give nothing else"):
        backfill(resume="x", **more)


@pytest.mark.fault(1, 2)
async def test_a_listing_that_breaks_off_names_the_command_that_goes_on_behind_its_last_page(world, make_wav, monkeypatch):
    for number in range(3):
        world.put(f"{number}.wav", make_wav(1.0, 200.0 + number))
    asked, breaks = [], True

    def page_of_one(client, bucket, **request):
        asked.append(request)
        if breaks and "ContinuationToken" in request:
            raise UnreachableError("S3 did not answer: try again")
        return list_page(client, bucket, **{"MaxKeys": 1, **request})

    monkeypatch.setattr("connectors.catalogue.listing.OUTLINED_PREFIXES", 0)  # it is seen whole, and yet listed page by page
    monkeypatch.setattr("connectors.catalogue.listing.list_page", page_of_one)
    with pytest.raises(UnreachableError, match=r"S3 did not answer: try again; then `soundcheck scan --resume \S+` goes on") as caught:
        await world.scan(endpoints=["music"])
    [(run_id, said)] = world.ask("SELECT run_id, stop_cause FROM runs_latest")
    assert run_id in str(caught.value)
    assert run_id in said
    asked.clear()
    breaks = False
    report = await world.scan_request(request_of(world.settings, run_id))
    assert (report.run_id, report.counts()["objects"], report.progress.sessions) == (run_id, 3, 3)
    assert ["ContinuationToken" in request for request in asked] == [True, True], "the first page is not asked for again"
