"""Flow runs that Prefect starts once more: they go on with the run that they had begun (test_deployed.py shows it on a real server)."""

from datetime import timedelta

import pytest

from connectors.lake.store import FolderStore
from flows.request import FlowName, Request
from flows.resuming import request_of_rerun
from flows.run import run_scan
from flows.watch import Watch
from flows.wiring import now, wired
from moderation.errors import UnreachableError
from tasks.alive import LIFE, alive

FLOW_RUN = "3415c7fd-3d1b-41a9-86cc-c125068b75f5"
FORCED = Request(("s3://catalogue/",), flow=FlowName.BACKFILL, force=True)


async def run_of(world, request):
    """The run_id of one that a flow run has begun."""
    async with wired(world.settings.model_copy(update={"endpoints": ["music"]}), request) as parts:
        return (await run_scan(parts, request, Watch(), flow_run_id=FLOW_RUN)).run_id


@pytest.fixture
async def broken(world, make_wav, monkeypatch):
    """The run_id of one that broke off before it streamed anything."""
    world.put("one.wav", make_wav(1.0))

    def breaks(*_, **__):
        raise UnreachableError("S3 did not answer")

    with monkeypatch.context() as patch:
        patch.setattr("tasks.shards.PlannedShards.objects", breaks)
        with pytest.raises(UnreachableError):
            await run_of(world, FORCED)
    return world.ask("SELECT max(run_id) FROM runs")[0][0]


async def test_its_run_is_taken_up_until_that_has_completed(world, broken):
    request = await request_of_rerun(world.settings, FLOW_RUN)
    assert (request.begun.run_id, request.flow, request.force, request.begun.anyway) == (broken, FlowName.BACKFILL, True, False)
    assert await request_of_rerun(world.settings, FLOW_RUN.replace("3", "4")) is None
    assert await run_of(world, request) == broken
    assert await request_of_rerun(world.settings, FLOW_RUN) is None, "it is asked for anew"
    assert world.velma.journal.counts["done"] == 1


@pytest.mark.parametrize(("still_seconds", "waits"), [(7, 2), (90, LIFE.seconds // 5)])
async def test_a_sign_of_life_that_was_left_is_given_the_time_to_fade(world, broken, still_seconds, waits):
    slept = []
    at = now()

    async def sleep(seconds):
        slept.append(seconds)

    async with alive(FolderStore(world.results), broken, lambda: at + timedelta(seconds=still_seconds) - LIFE):
        found = await request_of_rerun(world.settings, FLOW_RUN, lambda: at + timedelta(seconds=sum(slept)), sleep)
    assert found.begun.run_id == broken
    assert len(slept) == waits
