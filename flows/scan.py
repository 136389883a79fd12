"""The scan as a Prefect flow: the same steps as `flows.run`, each a task, with progress as an artifact and the stop's name as its state."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from prefect import flow, task
from prefect.artifacts import acreate_markdown_artifact, acreate_progress_artifact, aupdate_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from connectors.s3 import S3Uri
from flows.run import COMPLETED, Report, Watch, run_scan, state_name
from flows.settings import load_settings
from flows.stopping import stoppable
from flows.wiring import wired
from moderation.errors import SoundcheckError
from moderation.outcomes import ExitCode
from tasks.progress import Progress

ARTIFACT_SECONDS = 5.0
WATCH: ContextVar[Watch | None] = ContextVar("watch", default=None)
"""Set by whoever runs the flow in its own process and wants to see, or stop, the run."""
T = TypeVar("T")


@flow(name="scan-catalogue", persist_result=False, log_prints=False)
async def scan_catalogue(
    source: str, results: str | None = None, endpoints: list[str] | None = None, velma_url: str | None = None
) -> State[dict[str, Any]]:
    """Scan the audio below `source` (s3://bucket/prefix) and publish what the service finds.

    What is not given comes from the settings of the process that runs this (SOUNDCHECK_*, soundcheck.toml).
    """
    watch = WATCH.get() or Watch()
    try:
        settings = watch.settings or load_settings(results=results, endpoints=endpoints, velma_url=velma_url)
        async with stoppable(watch, settings.grace_seconds), wired(settings) as parts, _shown(watch.progress):
            report = await run_scan(parts, S3Uri.parse(source), watch, as_task, str(flow_run.id))
    except SoundcheckError as error:
        watch.error = error
        return Failed(name=state_name(error), message=str(error))
    await acreate_markdown_artifact(_markdown(report), key="scan-report", description=f"scan of {source}")
    summary = f"{report.message or report.state} (exit code {int(report.exit_code)})"
    if report.state == COMPLETED:
        name = COMPLETED if report.exit_code is ExitCode.OK else "CompletedWithQuarantine"
        return Completed(name=name, message=summary)
    return Failed(name=report.state, message=summary)


async def as_task(name: str, step: Callable[[], Awaitable[T]]) -> T:
    """An executor that runs a step as a Prefect task: without parameters, so that nothing of ours is looked into or stored."""
    result: list[T] = []

    async def run_step() -> None:
        result.append(await step())

    await task(name=name.partition(" shard")[0], task_run_name=name, cache_policy=NO_CACHE, persist_result=False)(run_step)()
    return result[0]


@asynccontextmanager
async def _shown(progress: Progress) -> AsyncIterator[None]:
    """Keep a progress artifact up to date while the block runs."""
    artifact = await acreate_progress_artifact(0.0, key="scan-progress", description="share of the planned audio")
    assert artifact is not None

    async def update() -> None:
        while True:
            await asyncio.sleep(ARTIFACT_SECONDS)
            await aupdate_progress_artifact(artifact, progress.share * 100, description=progress.line())

    updates = asyncio.create_task(update())
    try:
        yield
    finally:
        updates.cancel()
        await asyncio.gather(updates, return_exceptions=True)
        await aupdate_progress_artifact(artifact, progress.share * 100, description=progress.line())


def _markdown(report: Report) -> str:
    counts = report.counts()
    lines = ["| figure | value |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in counts.items() if not isinstance(value, dict)]
    return "\n".join(lines)
