"""One shard of a run as a Prefect flow, which workers run (flows.fan_out)."""

from typing import Any
from uuid import UUID

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed

from flows.logs import logging_to_stderr
from flows.metrics import metrics_served
from flows.mirror import Mirror
from flows.report import COMPLETED
from flows.resuming import request_of
from flows.run_settings import run_settings
from flows.scan import RUNNER_GRACE_SECONDS, drained_when_called_off, state_of_error
from flows.settings import load_settings
from flows.shard_worker import run_shard
from flows.stopping import stoppable
from flows.watch import Watch
from flows.wiring import wired
from moderation.errors import SoundcheckError
from moderation.outcomes import StopCause
from tasks.about import about


@flow(name="stream-shard", persist_result=False, log_prints=False)
async def stream_shard(run_id: str, shard: int, results: str | None = None, org: str | None = None) -> State[Any]:
    """Stream one shard of a run that is under way: its plan lies in the results. Started by the run itself, with fan_out = "workers".

    Args:
        run_id: The name of the run.
        shard: The number of the shard in the run's plan.
        results: A folder, or s3://bucket/prefix. Left out, it is the one of the worker's settings.
        org: The organisation that pays, where the worker's settings have several.
    """
    watch = Watch()
    try:
        settings = load_settings(results=results, org=org)
        request = request_of(settings, run_id, anyway=True)
        grace_seconds = min(run_settings(settings, request.sources).grace_seconds, RUNNER_GRACE_SECONDS)
        with logging_to_stderr(settings.log_level, settings.log_format), about(run=run_id, shard=shard):
            async with (
                Mirror.open() as mirror,
                stoppable(watch, grace_seconds) as drain,
                wired(settings, request) as parts,
                metrics_served(parts, watch),
                drained_when_called_off(mirror, drain, UUID(flow_run.id)),
            ):
                await run_shard(parts, request, watch, shard, str(UUID(flow_run.id)))
    except SoundcheckError as error:
        return state_of_error(error)
    stop = watch.stop
    if stop.cause is None:
        return Completed(name=COMPLETED, message=watch.progress.line())
    ended = Cancelled if stop.cause is StopCause.TERMINATED else Failed
    return ended(name=stop.cause.value, message=stop.message)
