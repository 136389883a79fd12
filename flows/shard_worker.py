"""One shard of a run in a process of its own, on whatever host: the plan is in the lake, and what became of it goes there, too."""

import asyncio
import logging
from collections.abc import Sequence

from connectors.lake.query import quarantined_now
from flows.report import state_name
from flows.request import Request
from flows.streaming import notifier_of, stream_shards, streaming_of
from flows.watch import Watch
from flows.wiring import Wired
from moderation.errors import ConfigurationError, SoundcheckError, first_of_group
from moderation.outcomes import Reason, StopCause
from tasks.frames import frame_of
from tasks.progress import Outcome
from tasks.records import PlannedObject, Run
from tasks.shard_reports import Reporter, was_tried
from tasks.shards import PlannedShards, Shard

logger = logging.getLogger("soundcheck.shards")


async def run_shard(wired: Wired, request: Request, watch: Watch, number: int, flow_run_id: str) -> None:
    """Stream a shard of a run that is under way, publish what it brings, and report what became of each object.

    Raises ConfigurationError for a shard that the run's plan does not have, and what ends a run.
    """
    assert request.begun is not None, "a shard is one of a run that has begun"
    run = Run(request.begun.run_id, wired.settings.org, request.begun.started_at)
    planned = PlannedShards(wired.results, run.run_id)
    objects = await asyncio.to_thread(planned.objects, number)
    if not objects:
        raise ConfigurationError(f"run {run.run_id} has planned no shard {number}")
    shard = Shard(number, objects[0].endpoint.name, len(objects), sum(each.estimate_ms for each in objects))
    counts = watch.progress.of(shard.endpoint)
    counts.planned, counts.planned_ms = shard.objects, shard.estimate_ms
    taken_up_again = await asyncio.to_thread(was_tried, wired.results, run.run_id, number)
    reporter = Reporter(wired.results, run.run_id, number, flow_run_id, counts, wired.now)
    outcomes: list[Outcome] = []
    try:
        with first_of_group():
            async with reporter.reporting():
                if taken_up_again:
                    await wired.publisher.recover()  # what the worker before this one has left
                    outcomes += await asyncio.to_thread(_held, wired, objects)
                await _stream(wired, request, run, watch, planned, shard, outcomes)
    except SoundcheckError as error:
        watch.stop.request(StopCause(state_name(error)), Reason.NOT_REACHED, str(error))
        await reporter.end(outcomes, watch.stop)
        raise
    await reporter.end(outcomes, watch.stop)
    logger.info("%s shard %d: %s", run.run_id, number, watch.progress.line())


async def _stream(
    wired: Wired, request: Request, run: Run, watch: Watch, planned: PlannedShards, shard: Shard, outcomes: list[Outcome]
) -> None:
    """Stream the objects of a shard that have no outcome yet."""
    held = {outcome.object_id for outcome in outcomes}
    notifier = notifier_of(wired, run)
    streaming = streaming_of(wired, request, run, watch, notifier, outcomes.append)
    watch.streams = streaming.admission
    async with notifier.until_told():
        try:
            await stream_shards(streaming, wired, planned, [shard], lambda _, object_id: object_id not in held)
        finally:  # what was paid for is published, however the rest ended
            await wired.publisher.publish_run(run.run_id, run.scan_date)


def _held(wired: Wired, objects: Sequence[PlannedObject]) -> list[Outcome]:
    """What the worker before this one has quarantined."""
    with wired.open_lake() as lake:
        rows = frame_of(quarantined_now(lake)).iter_rows(named=True)
        held = {(row["endpoint"], row["object_id"], row["params_hash"]): Reason(row["reason"]) for row in rows}
    found = ((each, held.get((each.endpoint.name, each.item.object_id, each.params_hash))) for each in objects)
    return [Outcome(each.item.object_id, each.item.key, each.endpoint.name, reason, new=True) for each, reason in found if reason]
