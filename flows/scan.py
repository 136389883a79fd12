"""The scan as a Prefect flow: the same steps as `flows.run`, each shown as a task, and the stop's name as the flow run's state."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from anyio import CancelScope, current_effective_deadline
from prefect import flow
from prefect.artifacts import acreate_markdown_artifact, acreate_progress_artifact, aupdate_progress_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.context import FlowRunContext
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed

from flows.logs import logging_to_stderr
from flows.metrics import metrics_served
from flows.mirror import Mirror
from flows.report import COMPLETED, Report, state_name
from flows.report_artifact import markdown_of
from flows.request import WHOLE, Portion, Request
from flows.resuming import request_of_rerun
from flows.run import run_scan
from flows.run_settings import run_settings
from flows.setting_types import EndpointName, FanOutTo
from flows.settings import Settings, load_settings
from flows.shard_runs import DeployedShardRuns
from flows.stopping import Drain, stoppable
from flows.watch import Watch
from flows.wiring import Wired, wired
from moderation.errors import SoundcheckError
from moderation.outcomes import ExitCode, StopCause
from tasks.progress import Progress

ARTIFACT_SECONDS = 5.0
STATE_SECONDS = 1.0
"""How often a run asks Prefect whether it is called off, where no runner tells it."""
RUNNER_GRACE_SECONDS = 20.0
"""The longest grace period under a worker or runner of Prefect: 30 s after SIGTERM they kill, and results are to be published by then."""
CALLED_OFF = frozenset({StateType.CANCELLING, StateType.CANCELLED, StateType.CRASHED, StateType.PAUSED})
"""States of a flow run that is wanted to end, or was written off; a run from the command line has no worker to tell it."""
WATCH: ContextVar[Watch | None] = ContextVar("watch", default=None)
"""Set by whoever runs the flow in its own process and wants to see, or stop, the run."""


@flow(name="scan-catalogue", persist_result=False, log_prints=False)
async def scan_catalogue(
    source: str | list[str],
    results: str | None = None,
    endpoints: list[EndpointName] | None = None,
    velma_url: str | None = None,
    org: str | None = None,
    cascade: str | None = None,
    portion: Portion = WHOLE,
) -> State[dict[str, Any]]:
    """Scan the audio of `source`, and publish what the service finds.

    What is not given comes from the settings of the process that runs this (SOUNDCHECK_*, soundcheck.toml).

    Args:
        source: s3://bucket/prefix, inventory:s3://bucket/path/manifest.json, keys:FILE or a folder of the worker; one, or several.
        results: A folder, or s3://bucket/prefix. Left out, it is the one of the worker's settings.
        endpoints: Which endpoints to ask. Left out, those of the worker's settings.
        velma_url: One host for every endpoint, such as ws://127.0.0.1:8765 for a local server. Left out, the service itself.
        org: The organisation that pays, where the worker's settings have several.
        cascade: What a music result must say for the AI-music endpoint to be asked, as SQL such as music_pct >= 10.
        portion: Which of the objects to take. What is not given takes all.
    """
    flags = {"results": results, "endpoints": endpoints, "velma_url": velma_url, "org": org, "cascade": cascade}
    return await run_request(flags, lambda _: Request(several(source), portion))


def several(source: str | list[str]) -> tuple[str, ...]:
    """One source, or some."""
    return (source,) if isinstance(source, str) else tuple(source)


async def run_request(flags: Mapping[str, Any], wanted: Callable[[Settings], Request]) -> State[dict[str, Any]]:
    """Run what is wanted within a flow run: the request and the settings of whoever watches it, else those of the flow's parameters.

    A flow run that Prefect starts once more goes on with what it had begun, whatever its parameters ask for.
    Prefect cancels a flow whose slot of its deployment it could not renew: an outage of its server would end a run in the middle of what is
    paid for. The ledger keeps the limits, so the run goes on.
    """
    with CancelScope(shield=True):
        state = await _run_request(flags, wanted)
    if current_effective_deadline() == -math.inf:
        with CancelScope(shield=True):
            await _leave(state)
    return state


async def _leave(state: State[Any]) -> None:
    """Put the final state where Prefect's engine finds it: it has cancelled this flow, and would call it crashed."""
    context = FlowRunContext.get()
    own = context.flow_run if context is not None else None
    assert own is not None, "a flow has a run in its context"
    async with Mirror.open() as mirror, get_client() as client:
        left = await mirror.tell(client.set_flow_run_state(own.id, state, force=True))
    if left is not None:
        own.state = left.state


async def _run_request(flags: Mapping[str, Any], wanted: Callable[[Settings], Request]) -> State[dict[str, Any]]:
    watch = WATCH.get() or Watch()
    try:
        settings = watch.settings or load_settings(**flags)
        begun = await request_of_rerun(settings, flow_run.id) if flow_run.run_count > 1 else None
        request = watch.request or begun or wanted(settings)
        grace_seconds = run_settings(settings, request.sources).grace_seconds
        logging_here: AbstractContextManager[None] = nullcontext()
        if watch.settings is None:  # nobody else has opened a log: a worker runs this
            grace_seconds = min(grace_seconds, RUNNER_GRACE_SECONDS)
            logging_here = logging_to_stderr(settings.log_level, settings.log_format)
        with logging_here:
            async with (
                Mirror.open() as mirror,
                stoppable(watch, grace_seconds) as drain,
                wired(settings, request) as parts,
                _shown(mirror, watch.progress),
                metrics_served(parts, watch),
                drained_when_called_off(mirror, drain, UUID(flow_run.id)),
            ):
                report = await run_scan(parts, request, watch, mirror.run_step, flow_run.id, _workers(parts))
                described = f"{request.flow} of {request}"
                await mirror.tell(acreate_markdown_artifact(markdown_of(report, watch.figures), key="scan-report", description=described))
    except SoundcheckError as error:
        watch.error = error
        return state_of_error(error)
    return state_of_report(report)


def state_of_error(error: SoundcheckError) -> State[Any]:
    """The final state of a flow run that an error has ended: the name of the stop, and what the error says to do."""
    return Failed(name=state_name(error), message=f"{error} (exit code {int(error.exit_code)})")


def state_of_report(report: Report) -> State[Any]:
    """The final state of a flow run that came to its end, or was stopped.

    Drained runs are Cancelled by type, whoever wanted it: Prefect takes no other state from a run that it is cancelling.
    """
    message = f"{report.message or report.state} (exit code {int(report.exit_code)})"
    if report.state == COMPLETED:
        return Completed(name=COMPLETED if report.exit_code is ExitCode.OK else "CompletedWithQuarantine", message=message)
    ended = Cancelled if report.state == StopCause.TERMINATED else Failed
    return ended(name=report.state, message=message)


def _workers(parts: Wired) -> DeployedShardRuns | None:
    settings = parts.settings
    if settings.fan_out is FanOutTo.PROCESS:
        return None
    return DeployedShardRuns(settings.shard_deployment, parts.worker, parts.results.url, settings.org)


@asynccontextmanager
async def drained_when_called_off(mirror: Mirror, drain: Drain, run_id: UUID) -> AsyncIterator[None]:
    """While the block runs, drain it when its flow run is called off in Prefect. The grace period begins then, not when it is heard."""

    async def look() -> None:
        async with get_client() as client:
            state = (await client.read_flow_run(run_id)).state
        if state is not None and state.type in CALLED_OFF:
            drain.begin(f"Prefect ({state.name})", (datetime.now(UTC) - state.timestamp).total_seconds())

    async with _again_and_again(STATE_SECONDS, lambda: mirror.tell(look())):
        yield


@asynccontextmanager
async def _shown(mirror: Mirror, progress: Progress) -> AsyncIterator[None]:
    """Keep a progress artifact up to date while the block runs."""
    artifact: UUID | None = None

    async def show() -> None:
        nonlocal artifact
        share, line = progress.share * 100, progress.line()
        if artifact is None:
            artifact = await acreate_progress_artifact(share, key="scan-progress", description=line)
        else:
            await aupdate_progress_artifact(artifact, share, description=line)

    try:
        async with _again_and_again(ARTIFACT_SECONDS, lambda: mirror.tell(show())):
            yield
    finally:
        await mirror.tell(show())


@asynccontextmanager
async def _again_and_again(pause_s: float, step: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Do something, with pauses, while the block runs."""

    async def keep() -> None:
        while True:
            await step()
            await asyncio.sleep(pause_s)

    keeping = asyncio.create_task(keep())
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
