"""Backfills and retries as Prefect flows: the steps of a scan over exactly what somebody names."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.request import WHOLE, FlowName, Portion, Request
from flows.resuming import request_of
from flows.scan import run_request, several


@flow(name="backfill", persist_result=False, log_prints=False)
async def backfill_catalogue(
    source: str | list[str] | None = None,
    where: str | None = None,
    force: bool = False,  # noqa: FBT001, FBT002 - a parameter of a deployment
    resume: str | None = None,
    anyway: bool = False,  # noqa: FBT001, FBT002
    results: str | None = None,
    endpoints: list[str] | None = None,
    velma_url: str | None = None,
    org: str | None = None,
    cascade: str | None = None,
    portion: Portion = WHOLE,
) -> State[dict[str, Any]]:
    """Stream what `source` names, or the objects for whose earlier results `where` holds; with force again what is done.

    resume is the name of a run to go on with, anyway goes on though settings that shape a plan have changed, or the run seems to be running
    still. What is not given comes from the settings of the process that runs this.
    """
    flags = {"results": results, "endpoints": endpoints, "velma_url": velma_url, "org": org, "cascade": cascade}
    if resume is not None:
        return await run_request(flags, lambda settings: request_of(settings, resume, anyway=anyway))
    return await run_request(flags, lambda _: Request(several(source or []), portion, FlowName.BACKFILL, where, force))


@flow(name="retry", persist_result=False, log_prints=False)
async def retry_quarantined(
    where: str,
    results: str | None = None,
    endpoints: list[str] | None = None,
    velma_url: str | None = None,
    org: str | None = None,
    cascade: str | None = None,
    portion: Portion = WHOLE,
) -> State[dict[str, Any]]:
    """Release the quarantined objects for which `where` holds, and stream them."""
    flags = {"results": results, "endpoints": endpoints, "velma_url": velma_url, "org": org, "cascade": cascade}
    return await run_request(flags, lambda _: Request((), portion, FlowName.RETRY, where))
