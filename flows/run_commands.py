"""What the commands that start runs share: their flags, and the way from a request to a report or a plan on the terminal."""

import asyncio
from typing import TYPE_CHECKING

from flows.flags import RunFlags
from flows.request import Request
from moderation.errors import ConfigurationError
from moderation.outcomes import ExitCode

if TYPE_CHECKING:
    from flows.report import Report
    from flows.settings import Settings


def run(settings: "Settings", request: Request, *, direct: bool, json: bool) -> int:
    """Run a request for somebody at a terminal, directly or as a flow run of Prefect, and tell how it ended."""
    from flows.console import say_json  # noqa: PLC0415 - every command imports what it alone needs
    from flows.launch import prefect_server, scan_as_flow, scan_directly  # noqa: PLC0415
    from flows.logs import logging_to  # noqa: PLC0415
    from flows.places import state_of  # noqa: PLC0415
    from flows.terminal import print_summary  # noqa: PLC0415
    from flows.watch import Watch  # noqa: PLC0415
    from flows.wiring import check_before_start  # noqa: PLC0415

    own = asyncio.run(check_before_start(settings, request))

    async def streamed() -> "Report":
        if direct:
            return await scan_directly(settings, request, Watch())
        async with prefect_server(own) as ready:
            await ready()
            return await scan_as_flow(settings, request, Watch())

    with logging_to(state_of(own), own.log_level, own.log_format):
        report = asyncio.run(streamed())
    if json:
        say_json(report.counts())
    else:
        print_summary(report)
    return report.exit_code


def go_on(run_id: str, flags: RunFlags, *, wanted_anew: bool, anyway: bool, direct: bool, json: bool) -> int:
    """Go on with an earlier run; wanted_anew is whether something was given, too, that it was asked for once and for all."""
    from flows.resuming import request_of  # noqa: PLC0415

    if wanted_anew or flags.endpoint:
        raise ConfigurationError("--resume goes on with what that run was asked for: give nothing else of it")
    settings = flags.settings()
    return run(settings, request_of(settings, run_id, anyway=anyway), direct=direct, json=json)


def show_plan(settings: "Settings", request: Request, *, json: bool) -> int:
    """Say what a run of a request would stream."""
    from flows.console import say_json  # noqa: PLC0415
    from flows.plan import plan_scan  # noqa: PLC0415
    from flows.plan_tables import print_plan  # noqa: PLC0415

    report = asyncio.run(plan_scan(settings, request))
    if json:
        say_json(report.counts())
    else:
        print_plan(report)
    return ExitCode.OK
