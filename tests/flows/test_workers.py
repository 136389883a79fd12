"""Runs over workers of a real Prefect server, with one PostgreSQL: who takes shards, and what becomes of them when somebody ends."""

import asyncio
import json
import os
import shutil
import signal
from datetime import UTC, datetime

import pytest

from connectors.ledger import Ledger
from fleet import PATIENCE_S, SCANS, SHARDS, fleet, server
from postgresql import cluster
from processes import SOUNDCHECK, kill
from scanning import BYTES_PER_SECOND, KEY, scanning

OBJECTS = 3000
RESTARTED_OBJECTS = 320
STOPPED_OBJECTS = 48
RESTARTS = 10
GRACE_S = 5.0
SOON_S = 2.0
"""Behind the grace period, by when no session is live any more; as many times longer as processes wait for a core."""

pytestmark = [pytest.mark.torture, pytest.mark.prefect, pytest.mark.slow]


@pytest.fixture(scope="module")
def database():
    try:
        with cluster() as running:
            yield running
    except LookupError as absent:
        pytest.skip(str(absent))


@pytest.fixture(scope="module")
def prefect(database, tmp_path_factory, unused_tcp_port_factory):
    with server(tmp_path_factory.mktemp("prefect"), unused_tcp_port_factory(), database) as running:
        yield running


@pytest.fixture
def put(tmp_path):
    """Puts so many objects of so many seconds into a new folder, and names it."""

    def put(count, seconds):
        folder = tmp_path / "catalogue"
        folder.mkdir()
        for number in range(count):
            (folder / f"{number:04}.ulaw").write_bytes(b"\xff" * round(seconds * BYTES_PER_SECOND))
        return folder

    return put


def settings_of(world, database, objects_a_shard, **changes):
    settings = {
        "api_key": KEY,
        "results": str(world.settings.results),
        "velma_url": world.velma.url,
        "endpoints": '["music"]',
        "raw_rules": json.dumps([rule.model_dump(mode="json") for rule in world.settings.raw_rules]),
        "connections": "8",
        "fan_out": "workers",
        "shards": json.dumps({"max_objects": objects_a_shard}),
        "shards_in_flight": "4",
        "ledger_url": database.url(),
        "lease_seconds": "10",
        "report": "false",
    }
    return settings | changes


async def seen(world, event, times):
    """Wait until the server has seen so many."""
    async with asyncio.timeout(PATIENCE_S):
        while world.velma.journal.counts[event] < times:
            await asyncio.sleep(0.02)


async def live_sessions(ledger_url):
    """What streams, as the ledger has it."""
    async with Ledger.open(ledger_url) as ledger:
        return await ledger.streaming("default")


def published_once(world, count):
    return world.ask("SELECT count(*), count(DISTINCT object_id) FROM music_summaries") == [(count, count)]


@pytest.mark.parametrize("killed", [False, True])
async def test_every_worker_takes_shards_and_each_object_goes_out_once(put, tmp_path, database, prefect, unused_tcp_port_factory, killed):
    """With one endpoint, 3,000 objects of a second and a half, 250 a shard."""
    async with scanning(tmp_path) as world:
        with fleet(tmp_path, prefect, settings_of(world, database, 250)) as made:
            workers = [made.worker(SHARDS, unused_tcp_port_factory()) for _ in range(3)]
            scan = made.scan(put(OBJECTS, 1.5))
            if killed:
                await seen(world, "done", 700)
                kill(workers[0])
                made.worker(SHARDS, unused_tcp_port_factory())
            assert await made.code(scan) == 0, made.said(scan)
        assert world.ask("SELECT state, done, pending, quarantined FROM runs_latest") == [("Completed", OBJECTS, 0, 0)]
        assert published_once(world, OBJECTS)
        took = world.ask("SELECT worker, count(*) FROM attempts WHERE outcome = 'done' GROUP BY worker")
        assert sum(count for _, count in took) == OBJECTS
        assert len(took) >= 3
        connected = world.seen.events("connect")
        assert max(line["live"] for line in connected) <= 8
        assert OBJECTS <= len(connected) <= OBJECTS + 8 * killed


async def test_a_server_that_is_killed_ten_times_in_mid_run_changes_nothing_but_the_time(
    put, tmp_path, database, prefect, unused_tcp_port_factory
):
    """Scan and shards are runs of deployments; the next scan is admitted, so the slot of the deployment has not leaked either."""
    catalogue = put(RESTARTED_OBJECTS, 20.0)
    async with scanning(tmp_path, speed=1.0) as world:
        settings = settings_of(world, database, 20)
        with fleet(tmp_path, prefect, settings) as made:
            for pool in (SCANS, SHARDS, SHARDS):
                made.worker(pool, unused_tcp_port_factory(), limit=2)
            scan = await made.submit("scan-catalogue/scan", source=str(catalogue))
            for _ in range(RESTARTS):
                await seen(world, "done", world.velma.journal.counts["done"] + 5)
                await asyncio.to_thread(prefect.kill)
                await asyncio.to_thread(prefect.serve)
            assert world.velma.journal.counts["done"] < RESTARTED_OBJECTS, "the restarts were in mid-run"
            assert await made.final_state(scan) == ("COMPLETED", "Completed")
            assert world.ask("SELECT state, done, pending FROM runs_latest") == [("Completed", RESTARTED_OBJECTS, 0)]
            assert published_once(world, RESTARTED_OBJECTS)
            assert await live_sessions(settings["ledger_url"]) == []
            again = await made.submit("scan-catalogue/scan", source=str(catalogue))
            assert await made.final_state(again) == ("COMPLETED", "Completed")
        assert len(world.seen.events("connect")) == RESTARTED_OBJECTS


async def test_a_deployed_scan_goes_on_when_prefect_gives_its_place_away(put, tmp_path, database, prefect, unused_tcp_port_factory):
    """Its lease is gone when it is to be renewed, which is 225 s after the start; then it is back, so that the place becomes free again."""
    catalogue, leases, away = put(8, 280.0), prefect.home / "concurrency_leases", tmp_path / "away"
    async with scanning(tmp_path, speed=1.0) as world:
        settings = settings_of(world, database, 20, fan_out="process")
        with fleet(tmp_path, prefect, settings) as made:
            worker = made.worker(SCANS, unused_tcp_port_factory())
            scan = await made.submit("scan-catalogue/scan", source=str(catalogue))
            await seen(world, "connect", 8)
            leases.rename(away)
            async with asyncio.timeout(PATIENCE_S):
                while "Terminating execution" not in made.said(worker):
                    await asyncio.sleep(1)
            shutil.rmtree(leases, ignore_errors=True)
            away.rename(leases)
            assert world.velma.journal.counts["done"] < 8
            assert await made.final_state(scan) == ("COMPLETED", "Completed")
        assert len(world.seen.events("connect")) == 8
        assert published_once(world, 8)


class Stopping:
    """A run of 48 objects of 12 s, of which some are done and some stream when it is told to end: 5 s later what streams is ended."""

    def __init__(self, world, made, catalogue):
        self.world = world
        self.made = made
        self.catalogue = catalogue
        self.told_at = None

    async def until_under_way(self):
        await seen(self.world, "done", 3)
        await seen(self.world, "connect", 15)

    def tell(self, process):
        self.told_at = datetime.now(UTC)
        process.send_signal(signal.SIGTERM)

    async def cancel(self, flow_run):
        self.told_at = datetime.now(UTC)
        await self.made.cancel(flow_run)

    def cut_off(self):
        """How many sessions the grace period has ended, after a check that it had."""
        ((last, count),) = self.world.ask("SELECT max(finished_at), count(*) FROM attempts WHERE outcome = 'cancelled'")
        assert count > 0
        wait = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        assert (last - self.told_at).total_seconds() <= GRACE_S + SOON_S * wait
        return count

    async def check_resume(self):
        """It does the rest, and nothing else. What a slow machine's workers reported too late is done all the same."""
        await seen(self.world, "close", len(self.world.seen.events("connect")))
        streamed = len(self.world.seen.events("done"))
        ((run, state, code, done, pending),) = self.world.ask("SELECT run_id, state, exit_code, done, pending FROM runs_latest")
        assert (state, code, done + pending) == ("Terminated", 143, STOPPED_OBJECTS)
        assert 0 < done <= streamed < STOPPED_OBJECTS
        connected = len(self.world.seen.events("connect"))
        resumed = self.made.start(*SOUNDCHECK, "backfill", "--resume", run)
        assert await self.made.code(resumed) == 0, self.made.said(resumed)
        assert len(self.world.seen.events("connect")) - connected == STOPPED_OBJECTS - streamed
        assert published_once(self.world, STOPPED_OBJECTS)


@pytest.fixture
async def stopping(put, tmp_path, database, prefect):
    async with scanning(tmp_path, speed=1.0) as world:
        settings = settings_of(world, database, 6, grace_seconds=str(GRACE_S), lease_seconds="60")
        with fleet(tmp_path, prefect, settings) as made:
            yield Stopping(world, made, put(STOPPED_OBJECTS, 12.0))
        assert await live_sessions(settings["ledger_url"]) == []


async def test_a_command_that_is_told_to_end_drains_its_workers_and_exits_with_143(stopping, unused_tcp_port_factory):
    stopping.made.worker(SHARDS, unused_tcp_port_factory(), limit=4)
    scan = stopping.made.scan(stopping.catalogue)
    await stopping.until_under_way()
    stopping.tell(scan)
    assert await stopping.made.code(scan) == 143, stopping.made.said(scan)
    stopping.cut_off()
    await stopping.check_resume()


async def test_a_deployed_scan_that_is_cancelled_in_prefect_drains_its_workers(stopping, unused_tcp_port_factory):
    stopping.made.worker(SCANS, unused_tcp_port_factory())
    stopping.made.worker(SHARDS, unused_tcp_port_factory(), limit=4)
    scan = await stopping.made.submit("scan-catalogue/scan", source=str(stopping.catalogue))
    await stopping.until_under_way()
    await stopping.cancel(scan)
    assert (await stopping.made.final_state(scan))[0] == "CANCELLED"
    stopping.cut_off()
    await stopping.check_resume()


async def test_a_worker_that_is_told_to_end_drains_and_others_do_the_rest(stopping, unused_tcp_port_factory):
    world, made = stopping.world, stopping.made
    workers = [made.worker(SHARDS, unused_tcp_port_factory(), limit=2) for _ in range(2)]
    scan = made.scan(stopping.catalogue)
    await stopping.until_under_way()
    stopping.tell(workers[0])
    await made.code(workers[0])
    assert await made.code(scan) == 0, made.said(scan)
    assert len(world.seen.events("connect")) == STOPPED_OBJECTS + stopping.cut_off()
    assert world.ask("SELECT state, done, pending FROM runs_latest") == [("Completed", STOPPED_OBJECTS, 0)]
    assert published_once(world, STOPPED_OBJECTS)
