"""Runs over the same objects at the same time, with one ledger: each object is streamed once, and nobody is in the way of anybody."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from connectors.ledger import Ledger
from flows.launch import scan_directly
from flows.places import open_ledger
from flows.plan import plan_scan
from flows.request import FlowName
from flows.watch import Watch
from moderation.admission import Claim, Grant
from moderation.budget import month_of
from moderation.errors import Phase, ResultsNotWritable
from moderation.identity import lake_id
from moderation.judgement import Failure
from moderation.outcomes import ExitCode
from moderation.refusals import CANCELLED
from scan_processes import ScanProcesses
from scanning import BUCKET, PATIENCE_S, scanning

pytestmark = pytest.mark.torture

LEASE_S = 4.0
ENDPOINTS = ["music", "ai_music"]


@pytest.mark.fault(67)
async def test_a_scheduled_scan_and_a_backfill_in_two_processes_stream_each_object_once(put, tmp_path):
    """The longest object streams for longer than a lease: who finds it claimed waits for it, and no longer."""
    for number in range(10):
        put(f"{number}.ulaw", 1.0 + number / 10)
    put("long.ulaw", 16.0)
    async with (
        scanning(tmp_path, speed=2, connections=3, endpoints=ENDPOINTS, lease_seconds=LEASE_S) as world,
        ScanProcesses.ready(tmp_path) as scans,
    ):
        scheduled = await scans.scan(f"s3://{BUCKET}/", world.said)
        backfill = await scans.scan(f"s3://{BUCKET}/", world.said, FlowName.BACKFILL)
        ends = await asyncio.gather(scheduled.ended(), backfill.ended())
        sessions = [(row.object_id, row.endpoint) for row in await world.rows()]
    assert [end["exit_code"] for end in ends] == [ExitCode.OK, ExitCode.OK], ends
    assert [(end["objects"], end["done"]) for end in ends] == [(11, 11), (11, 11)]
    assert min(end["sessions"] for end in ends) > 0
    assert len(world.seen.events("connect")) == sum(end["sessions"] for end in ends) == 22
    assert len(set(sessions)) == len(sessions) == 22
    assert world.ask("SELECT endpoint, count(DISTINCT object_id), count(*) FROM attempts GROUP BY 1 ORDER BY 1") == [
        ("ai_music", 11, 11),
        ("music", 11, 11),
    ]
    assert world.ask("SELECT DISTINCT music_outcome, ai_music_outcome FROM catalogue_latest") == [("done", "done")]
    assert world.ask("SELECT run_id, outcome, count(*) FROM outcomes GROUP BY ALL ORDER BY ALL") == [
        (run_id, "done", 22) for run_id in sorted(end["run_id"] for end in ends)
    ]


@asynccontextmanager
async def held_elsewhere(world, key):
    """The ledger with a session `other` of an object, as if of another process."""
    await plan_scan(world.settings, f"s3://{BUCKET}/")
    [(object_id, key_id, params_hash)] = world.ask(
        f"SELECT DISTINCT object_id, object_key_id, params_hash FROM manifests JOIN plan USING (object_id) WHERE key = '{key}'"
    )
    org, lake = world.settings.org, lake_id(world.settings.results)
    async with open_ledger(world.settings) as ledger:
        await ledger.set_gate(org, "music", world.settings.connections)
        names = {"object_id": object_id, "object_key_id": key_id, "params_hash": params_hash, "estimate_ms": 1000}
        claim = Claim(
            "other", lake, org, "music", run_id="r0", shard=0, worker="other", attempt=1, month=month_of(datetime.now(UTC)), **names
        )
        assert isinstance(await ledger.admit(claim), Grant)
        await ledger.note_result("other")
        yield ledger


@pytest.mark.fault(67)
@pytest.mark.parametrize("ends_well", [True, False])
async def test_a_claimed_object_holds_no_place_and_is_waited_for_until_its_session_ends(put, tmp_path, monkeypatch, ends_well):
    monkeypatch.setattr("tasks.stream.CLAIM_PAUSE_S", 0.05)
    for number in range(6):
        put(f"{number}.ulaw", 1.0)
    put("claimed.ulaw", 9.0)
    watch = Watch()
    async with (
        scanning(tmp_path, connections=2) as world,
        held_elsewhere(world, "claimed.ulaw") as ledger,
        asyncio.timeout(PATIENCE_S),
    ):
        run = asyncio.create_task(scan_directly(world.settings, f"s3://{BUCKET}/", watch))
        while "; 1 claimed elsewhere" not in watch.progress.line():
            await asyncio.sleep(0.02)
        assert watch.progress.of("music").sessions == 6
        assert not run.done()
        if ends_well:
            await ledger.finish("other", 9000)
        else:
            await ledger.fail(Failure("other", Phase.STREAMING, CANCELLED), sent_ms=500, outcome="failed")
        report = await run
    counts = report.counts()
    assert (counts["exit_code"], counts["done"], counts["sessions"]) == (0, 7, 6 if ends_well else 7)
    assert len(world.seen.events("connect")) == counts["sessions"]


async def test_a_run_that_is_stopped_while_it_waits_leaves_what_is_claimed_pending(put, tmp_path):
    put("claimed.ulaw", 9.0)
    watch = Watch()
    async with (
        scanning(tmp_path, connections=2) as world,
        held_elsewhere(world, "claimed.ulaw"),
        asyncio.timeout(PATIENCE_S),
    ):
        run = asyncio.create_task(scan_directly(world.settings, f"s3://{BUCKET}/", watch))
        while "; 1 claimed elsewhere" not in watch.progress.line():
            await asyncio.sleep(0.02)
        watch.terminate()
        counts = (await run).counts()
    assert (counts["exit_code"], counts["pending"], counts["sessions"]) == (ExitCode.DRAINED, 1, 0)
    assert counts["endpoints"]["music"]["reasons"] == {"not_reached": 1}


async def test_a_backfill_goes_ahead_of_a_scheduled_scan(put, tmp_path):
    for number in range(16):
        put(f"all/{number:02}.ulaw", 1.0)
    for number in range(4):
        put(f"wanted/{number}.ulaw", 1.0)
    async with scanning(tmp_path, speed=2, connections=2) as world, ScanProcesses.ready(tmp_path) as scans:
        scheduled = await scans.scan(f"s3://{BUCKET}/all/", world.said)
        await world.until_done(3)
        backfill = await scans.scan(f"s3://{BUCKET}/wanted/", world.said, FlowName.BACKFILL)
        ends = await asyncio.gather(scheduled.ended(), backfill.ended())
        assert [end["exit_code"] for end in ends] == [ExitCode.OK, ExitCode.OK], ends
        runs = [row.run_id for row in await world.rows()]
    first, last = (place(runs, ends[1]["run_id"]) for place in (list.index, lambda rows, run: len(rows) - 1 - rows[::-1].index(run)))
    in_between = [run for run in runs[first:last] if run == ends[0]["run_id"]]
    assert len(in_between) <= 2, runs
    assert runs[last:].count(ends[0]["run_id"]) >= 4, runs


async def test_a_paid_result_whose_worker_died_before_booking_is_published_by_the_run_that_waited_for_it(put, tmp_path, monkeypatch):
    put("one.ulaw", 1.0)
    book = Ledger.finish

    async def dies(*_: object) -> None:
        raise ResultsNotWritable("the worker dies between spool and booking")

    async with scanning(tmp_path, connections=1, lease_seconds=1.0) as world:
        monkeypatch.setattr(Ledger, "finish", dies)
        with pytest.raises(ResultsNotWritable):
            await world.scan()
        monkeypatch.setattr(Ledger, "finish", book)
        report = await world.scan()
        assert (report.state, report.progress.sessions, report.recovered) == ("Completed", 0, 1)
        assert world.ask("SELECT count(*) FROM music_summaries") == [(1,)]
