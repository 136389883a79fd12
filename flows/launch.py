"""Starts a scan for somebody at a terminal: directly, on the Prefect server that is configured, or on an embedded one; and ends it well."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from flows.embedded_prefect import check_api, embedded_prefect
from flows.metrics import metrics_served
from flows.places import state_of
from flows.report import Report
from flows.request import FlowName, Request
from flows.run import run_scan
from flows.run_settings import run_settings
from flows.settings import Settings
from flows.stopping import stoppable
from flows.terminal import progress_shown
from flows.watch import Watch
from flows.wiring import wired
from moderation.errors import SoundcheckError, UnreachableError

logger = logging.getLogger("soundcheck.launch")


async def scan_directly(settings: Settings, wanted: str | Request, watch: Watch) -> Report:
    """Run the steps in this process without Prefect: for all of one source, or for a request."""
    request = Request.of(wanted)
    own = run_settings(settings, request.sources)
    async with (
        wired(settings, request) as parts,
        stoppable(watch, own.grace_seconds),
        progress_shown(watch),
        metrics_served(parts, watch),
    ):
        return await run_scan(parts, request, watch)


async def scan_as_flow(settings: Settings, wanted: str | Request, watch: Watch) -> Report:
    """Run the Prefect flow in this process, on the server that Prefect's settings name by now. Raises the error that ended it."""
    from prefect.exceptions import PrefectSignal  # noqa: PLC0415

    # importing Prefect takes seconds, and only flows need it
    from flows.backfill import backfill_catalogue, retry_quarantined  # noqa: PLC0415
    from flows.scan import WATCH, scan_catalogue  # noqa: PLC0415

    request = Request.of(wanted)
    watch.request, watch.settings = request, settings
    token = WATCH.set(watch)
    try:
        async with progress_shown(watch):
            shown = {"results": settings.results, "endpoints": settings.endpoints, "org": settings.org, "portion": request.portion}
            sources, resume = list(request.sources), request.begun and request.begun.run_id
            match request.flow:
                case FlowName.SCAN:
                    state = await scan_catalogue(sources, **shown, return_state=True)
                case FlowName.BACKFILL:
                    state = await backfill_catalogue(sources, request.where, request.force, resume, **shown, return_state=True)
                case FlowName.RETRY:
                    state = await retry_quarantined(request.where or "", **shown, return_state=True)
            ended = f"the flow run ended as {state.name} without a report: {state.message}"
    except (Exception, PrefectSignal) as error:
        if isinstance(error, SoundcheckError):
            raise
        logger.exception("Prefect failed")  # it has many ways to, and what was done is on record all the same
        ended = f"Prefect failed ({type(error).__name__}: {error}): check its server, then run again"
    finally:
        WATCH.reset(token)
    if watch.error is not None:
        raise watch.error
    if watch.report is None:
        raise UnreachableError(ended)
    return watch.report


@asynccontextmanager
async def prefect_server(settings: Settings) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """The Prefect server to use: the one of PREFECT_API_URL, else an embedded one; the block waits for it by calling what it gets."""
    if api_url := os.environ.get("PREFECT_API_URL"):
        await asyncio.to_thread(check_api, api_url)

        async def ready() -> None:
            return

        yield ready
    else:
        async with embedded_prefect(state_of(settings), wait=False, log_level=settings.log_level) as server:
            yield server.ready
