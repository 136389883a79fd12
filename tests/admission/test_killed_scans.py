"""kill -9 of scans at any moment: nothing is lost, nothing is there twice, and what is paid twice was live at a kill."""

import asyncio
import random
from contextlib import AsyncExitStack

import pytest

from flows.places import open_ledger
from moderation.admission import DONE
from scan_processes import ScanProcesses
from scanning import BUCKET, PATIENCE_S, scanning, session_rows

pytestmark = pytest.mark.torture

LEASE_S = 2.0


@pytest.mark.fault(63)
async def test_scans_that_are_killed_lose_nothing_and_double_nothing(put, tmp_path):
    live, *_ = await killed_scans(put, tmp_path, objects=60, kills=3, workers=2)
    assert live


@pytest.mark.fault(63)
@pytest.mark.torture
async def test_a_hundred_kills_lose_nothing_and_double_nothing(put, tmp_path, database, say):
    live, beyond, cancelled = await killed_scans(put, tmp_path, objects=2_000, kills=100, workers=3, **database)
    assert beyond <= live
    say(f"{live} sessions live at the kills, {beyond} connections beyond one an object, {cancelled} of them given up for late renewals")


async def killed_scans(put, tmp_path, *, objects, kills, workers, seed=0, **settings):
    """Workers with a part of the objects each; now and then a random one with live sessions is killed, and another goes on in its place.

    A worker that did not get to renew its leases for half of one cancels its sessions: under load that happens, and is on record, too.
    """
    draw = random.Random(seed)
    for number in range(objects):
        put(f"{number % workers}/{number:04}.ulaw", 1.0)
    async with scanning(tmp_path, speed=2, connections=6, lease_seconds=LEASE_S, **settings) as world, AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(open_ledger(world.settings))
        scans = await stack.enter_async_context(ScanProcesses.ready(tmp_path))

        async def begin(worker):
            return await scans.scan(f"s3://{BUCKET}/{worker}/", world.said)

        running = [await begin(worker) for worker in range(workers)]
        live_at_kills = set()
        for kill in range(kills):
            await world.until_done(kill * objects // (kills + 1))
            worker = draw.choice(await with_sessions(ledger, running))
            await asyncio.sleep(draw.random() / 4)
            await running[worker].kill()
            live_at_kills |= {row.session_id for row in await live_of(ledger, running[worker])}
            running[worker] = await begin(worker)
        ends = [await process.ended() for process in running]
        assert {end["exit_code"] for end in ends} <= {0, 75}, ends
        rest = await world.scan()

        rows = await session_rows(ledger)
        assert (rest.counts()["done"], rest.counts()["quarantined"]) == (objects, 0), f"seed {seed}"
        assert world.ask("SELECT count(*), count(DISTINCT object_id) FROM music_summaries") == [(objects, objects)]
        done = [row for row in rows if row.state in DONE]
        assert len(done) == len({row.object_id for row in done}) == objects
        extra = [row for row in rows if row.state not in DONE]
        assert {row.session_id for row in extra if row.outcome != "cancelled"} <= live_at_kills, f"seed {seed}"
        beyond = len(world.seen.events("connect")) - objects
        assert 0 <= beyond <= len(extra), f"seed {seed}"
        return len(live_at_kills), beyond, sum(row.outcome == "cancelled" for row in extra)


async def live_of(ledger, process):
    """The sessions that the ledger takes for a process's."""
    return [row for org in await ledger.organisations() for row in await ledger.streaming(org) if f"-{process.pid}-" in row.worker]


async def with_sessions(ledger, running):
    """The numbers of the workers that have live sessions, as soon as one has."""
    async with asyncio.timeout(PATIENCE_S):
        while not (found := [worker for worker, process in enumerate(running) if process.runs and await live_of(ledger, process)]):
            await asyncio.sleep(0.05)
    return found
