"""Shards on workers of their own: counted as if they ran here, submitted again where a worker is lost, and ended with the run."""

import asyncio

import pytest

from connectors.spool import Spool
from flows import fan_out, shard_worker
from flows.request import Request
from flows.resuming import request_of
from flows.run import run_scan
from flows.stopping import Drain
from flows.streaming import stream_shards
from flows.watch import Watch
from flows.wiring import wired
from moderation.catalogue import ShardRules
from moderation.errors import UnreachableError
from moderation.outcomes import ExitCode
from paced_scans import live_sessions, put_raw, seen
from shards_here import ShardsHere

SOURCE = "s3://catalogue/"


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(fan_out, "LOOK_S", 0.05)
    monkeypatch.setattr(fan_out, "DRAINING_LOOK_S", 0.05)


def settings_of(world, **changes):
    return world.settings.model_copy(update={"shards": ShardRules(max_objects=3), "endpoints": ["music"], "lease_seconds": 2.0} | changes)


async def scan_on(workers, settings, watch=None):
    request = Request((SOURCE,))
    async with wired(settings, request) as parts:
        return await run_scan(parts, request, watch or Watch(), workers=workers)


@pytest.mark.torture
async def test_every_shard_goes_out_once_and_the_run_ends_as_one_that_streams_itself(world, make_wav):
    put_raw(world, make_wav, 8, 1.0)
    world.put("broken.flac", b"fLaC" + bytes(range(256)) * 8)
    settings = settings_of(world, endpoints=["music", "ai_music"], shards_in_flight=2)
    workers = ShardsHere(settings)
    report = await scan_on(workers, settings)
    counts = report.counts()
    assert {name: counts[name] for name in ("done", "quarantined", "pending", "sessions")} == {
        "done": 8,
        "quarantined": 1,
        "pending": 0,
        "sessions": world.velma.journal.counts["connect"],
    }
    assert report.exit_code is ExitCode.QUARANTINED
    assert workers.submitted == [(shard, 1) for shard, _ in workers.submitted]
    assert len(workers.submitted) == 2 * 4
    assert workers.most <= 3, "two in flight, and one that is just closing"
    assert world.ask("SELECT count(*), count(DISTINCT object_id) FROM music_summaries") == [(8, 8)]
    assert world.ask("SELECT done, audio_ms_settled FROM runs_latest") == [(8, report.progress.audio_ms)]
    assert not list(world.results.rglob("shards/*/*.json"))
    again = ShardsHere(settings)
    assert (await scan_on(again, settings)).progress.sessions == 0
    assert again.submitted == []


@pytest.mark.fault(63)
async def test_a_lost_shard_is_submitted_again_and_nothing_is_paid_twice_but_what_was_live(world, make_wav):
    put_raw(world, make_wav, 7, 1.0)
    settings = settings_of(world)
    workers = ShardsHere(settings, doomed={1: 2})
    report = await scan_on(workers, settings)
    assert report.counts()["done"] == 7
    assert sorted(workers.submitted) == [(0, 1), (1, 1), (1, 2), (1, 3), (2, 1)]
    assert world.ask("SELECT count(*), count(DISTINCT object_id) FROM music_summaries") == [(7, 7)]
    assert world.ask("SELECT audio_ms_settled FROM runs_latest") == world.ask("SELECT sum(covered_ms) FROM music_summaries")
    assert not Spool(world.results / "_state" / "spool").ids()


@pytest.mark.torture
async def test_a_worker_that_is_told_to_end_drains_and_another_one_goes_on(world, make_wav):
    put_raw(world, make_wav, 7, 1.0)
    settings = settings_of(world, pace=8.0, connections=1)
    workers = ShardsHere(settings, doomed={1: 1}, drained=True)
    report = await scan_on(workers, settings)
    assert (report.state, report.counts()["done"], report.counts()["pending"]) == ("Completed", 7, 0)
    assert sorted(workers.submitted) == [(0, 1), (1, 1), (1, 2), (2, 1)]
    assert report.progress.sessions == world.velma.journal.counts["connect"] == 7


@pytest.mark.torture
async def test_a_worker_that_takes_a_shard_and_is_never_heard_of_is_not_waited_for(world, make_wav, monkeypatch):
    monkeypatch.setattr(fan_out, "SILENCE_S", 3.0)
    put_raw(world, make_wav, 4, 1.0)
    settings = settings_of(world)
    workers = ShardsHere(settings, unheard={0})
    report = await scan_on(workers, settings)
    assert (report.state, report.counts()["done"]) == ("Completed", 4)
    assert {(0, 1), (0, 2)} <= set(workers.submitted)
    assert report.progress.sessions == world.velma.journal.counts["connect"] == 4


@pytest.mark.torture
async def test_a_shard_that_is_lost_again_and_again_ends_the_run_and_says_where_to_look(world, make_wav):
    put_raw(world, make_wav, 2, 4.0)
    settings = settings_of(world, pace=1.0)
    with pytest.raises(UnreachableError, match=r"shard 0 of run .* was lost by 5 workers .*look into their logs"):
        await scan_on(ShardsHere(settings, doomed={0: 5}), settings)
    assert world.ask("SELECT state, exit_code FROM runs_latest") == [("ServiceUnreachable", ExitCode.UNREACHABLE)]


async def test_a_shard_that_ends_with_an_error_says_what_it_had_done(world, make_wav, monkeypatch):
    async def breaks_off(*arguments):
        await stream_shards(*arguments)
        raise UnreachableError("S3 did not answer")

    monkeypatch.setattr(shard_worker, "stream_shards", breaks_off)
    put_raw(world, make_wav, 4, 1.0)
    settings = settings_of(world, shards_in_flight=1)
    report = await scan_on(ShardsHere(settings), settings)
    assert (report.state, report.exit_code) == ("ServiceUnreachable", ExitCode.UNREACHABLE)
    assert report.counts()["endpoints"]["music"]["reasons"]["not_reached"] == 3
    assert report.counts()["done"] == 1
    assert world.ask("SELECT count(*) FROM music_summaries") == [(1,)]


@pytest.mark.torture
async def test_a_worker_whose_host_is_taken_away_leaves_its_shard_to_another(world, make_wav):
    put_raw(world, make_wav, 9, 2.0)
    settings = settings_of(world, pace=4.0)
    workers = ShardsHere(settings)
    scan = asyncio.create_task(scan_on(workers, settings))
    await seen(world, "first_audio", 3)
    workers.terminate_one()
    report = await scan
    assert (report.state, report.counts()["done"]) == ("Completed", 9)
    assert len(workers.submitted) > len({shard for shard, _ in workers.submitted})
    assert world.ask("SELECT count(*), count(DISTINCT object_id) FROM music_summaries") == [(9, 9)]


@pytest.mark.torture
async def test_a_stop_on_one_worker_stops_the_run_and_the_others_drain(world, make_wav):
    put_raw(world, make_wav, 9, 2.0)
    settings = settings_of(world, pace=4.0)
    watch = Watch()
    workers = ShardsHere(settings)
    scan = asyncio.create_task(scan_on(workers, settings, watch))
    await seen(world, "first_audio", 3)
    drain = Drain(watch, 60.0)
    drain.begin("a signal")
    report = await scan
    drain.over()
    done = report.counts()["done"]
    assert (report.state, report.exit_code) == ("Terminated", ExitCode.DRAINED)
    assert done == world.velma.journal.counts["done"] == world.velma.journal.counts["connect"] < 9
    assert await live_sessions(world) == []
    rest = await world.scan(endpoints=["music"])
    assert (rest.counts()["done"], rest.progress.sessions) == (9, 9 - done)


async def test_a_worker_that_does_not_end_is_not_waited_for_behind_the_grace_period(world, make_wav, monkeypatch):
    monkeypatch.setattr(fan_out, "LAST_WORD_S", 0.1)
    put_raw(world, make_wav, 2, 1.0)
    settings = settings_of(world)
    watch = Watch()
    workers = ShardsHere(settings, unheard={0})
    scan = asyncio.create_task(scan_on(workers, settings, watch))
    async with asyncio.timeout(60):
        while not workers.submitted:
            await asyncio.sleep(0.01)
    drain = Drain(watch, 0.1)
    drain.begin("a signal")
    async with asyncio.timeout(60):
        report = await scan
    drain.over()
    assert (report.state, report.exit_code) == ("Terminated", ExitCode.DRAINED)
    assert report.counts()["endpoints"]["music"]["reasons"]["not_reached"] == 2
    assert workers.submitted == [(0, 1)]


@pytest.mark.torture
async def test_a_run_that_is_taken_up_again_counts_each_object_once(world, make_wav):
    put_raw(world, make_wav, 7, 1.0)
    settings = settings_of(world)
    with pytest.raises(UnreachableError):
        await scan_on(ShardsHere(settings, doomed={2: 5}), settings)
    ((run_id,),) = world.ask("SELECT run_id FROM runs_latest")
    request = request_of(settings, run_id, anyway=True)
    async with wired(settings, request) as parts:
        report = await run_scan(parts, request, Watch(), workers=ShardsHere(settings))
    assert (report.counts()["done"], report.counts()["pending"]) == (7, 0)
    assert world.ask("SELECT count(*), count(DISTINCT object_id) FROM music_summaries") == [(7, 7)]
