"""Backfills and retries as Prefect flows: the steps of a scan over exactly what somebody names."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.request import WHOLE, FlowName, Portion, Request
from flows.resuming import request_of
from flows.scan import run_request, several
from flows.setting_types import EndpointName


@flow(name="backfill", persist_result=False, log_prints=False)
async def backfill_catalogue(
    source: str | list[str] | None = None,
    where: str | None = None,
    force: bool = False,  # noqa: FBT001, FBT002 - a parameter of a deployment
    resume: str | None = None,
    anyway: bool = False,  # noqa: FBT001, FBT002
    results: str | None = None,
    endpoints: list[EndpointName] | None = None,
    velma_url: str | None = None,
    org: str | None = None,
    cascade: str | None = None,
    portion: Portion = WHOLE,
) -> State[dict[str, Any]]:
    """Stream what `source` names, or the objects for whose earlier results `where` holds.

    Give source, where or resume: without any of them there is nothing to do, and the run says so.

    Args:
        source: s3://bucket/prefix, inventory:s3://bucket/path/manifest.json, or keys:s3://bucket/key of a list; one, or several.
        where: Only objects for whose earlier results this holds, as SQL such as music_pct > 50 and scan_date < '2026-06-01'.
        force: Also stream again what is done. That is paid for again.
        resume: The name of a run to go on with, such as 20261121T101500Z-3fa2c1. Exactly its rest is streamed.
        anyway: Resume though settings that shape a plan have changed since, or the run seems to be running still.
        results: A folder, or s3://bucket/prefix. Left out, it is the one of the worker's settings.
        endpoints: Which endpoints to ask. Left out, those of the worker's settings.
        velma_url: One host for every endpoint, such as ws://127.0.0.1:8765 for a local server. Left out, the service itself.
        org: The organisation that pays, where the worker's settings have several.
        cascade: What a music result must say for the AI-music endpoint to be asked, as SQL such as music_pct >= 10.
        portion: Which of the objects to take. What is not given takes all.
    """
    flags = {"results": results, "endpoints": endpoints, "velma_url": velma_url, "org": org, "cascade": cascade}
    if resume is not None:
        return await run_request(flags, lambda settings: request_of(settings, resume, anyway=anyway))
    return await run_request(flags, lambda _: Request(several(source or []), portion, FlowName.BACKFILL, where, force))


@flow(name="retry", persist_result=False, log_prints=False)
async def retry_quarantined(
    where: str,
    results: str | None = None,
    endpoints: list[EndpointName] | None = None,
    velma_url: str | None = None,
    org: str | None = None,
    cascade: str | None = None,
    portion: Portion = WHOLE,
) -> State[dict[str, Any]]:
    """Release the quarantined objects for which `where` holds, and stream them.

    Args:
        where: Which quarantined objects, as SQL over the view quarantined_now, such as reason = 'undecodable'.
        results: A folder, or s3://bucket/prefix. Left out, it is the one of the worker's settings.
        endpoints: Which endpoints to ask. Left out, those of the worker's settings.
        velma_url: One host for every endpoint, such as ws://127.0.0.1:8765 for a local server. Left out, the service itself.
        org: The organisation that pays, where the worker's settings have several.
        cascade: What a music result must say for the AI-music endpoint to be asked, as SQL such as music_pct >= 10.
        portion: Which of the objects to take. What is not given takes all.
    """
    flags = {"results": results, "endpoints": endpoints, "velma_url": velma_url, "org": org, "cascade": cascade}
    return await run_request(flags, lambda _: Request((), portion, FlowName.RETRY, where))
