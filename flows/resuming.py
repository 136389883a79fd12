"""Takes up an earlier run: finds it by its own record in the lake, and looks whether it may be gone on with."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import datetime

from connectors.lake.query import connect
from connectors.lake.store import open_store
from flows.places import results_of
from flows.report import COMPLETED
from flows.request import Begun, Request
from flows.results import s3_of
from flows.run_record import KEPT, SHAPING, fingerprint
from flows.run_settings import organisation_of
from flows.settings import Settings
from flows.wiring import Wired, now
from moderation.errors import ConfigurationError
from tasks.alive import LIFE, is_alive

LOOK_S = 5.0
"""How often it is looked whether a sign of life has faded."""


def request_of(settings: Settings, run_id: str, *, anyway: bool = False) -> Request:
    """What an earlier run of the organisation was asked for, to go on with it.

    Raises ConfigurationError for a run that is not there, or that is no longer to be taken up: it came to its end.
    """
    own = organisation_of(settings, needs_key=False)
    url = results_of(own)
    with connect(url, s3_of(url)) as lake:
        query = "SELECT started_at, fingerprint, parameters, exit_code FROM runs_latest WHERE run_id = ? AND org = ?"
        found = lake.execute(query, [run_id, own.org]).fetchone()
    if found is None:
        raise ConfigurationError(f'there is no run {run_id} of {own.org} in {url}: ask `soundcheck sql "from runs_latest"`')
    started_at, fingerprint, parameters, exit_code = found
    settled = json.loads(parameters)
    if (told := settled.get("request")) is None:
        raise ConfigurationError(f"run {run_id} is of an older soundcheck, which did not write down what it was asked for: start it anew")
    if exit_code == 0:
        raise ConfigurationError(f"run {run_id} came to its end: there is nothing left of it")
    return Request.from_json(told, Begun(run_id, started_at, fingerprint, tuple(settled["endpoints"]), settled["cascade"], anyway))


async def request_of_rerun(
    settings: Settings,
    flow_run_id: str,
    clock: Callable[[], datetime] = now,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Request | None:
    """What a flow run that Prefect starts once more has begun and not completed, to go on with it; None where there is no such run.

    Its process may have been killed a moment ago: the sign of life that it has left is given the time to fade.
    """
    own = organisation_of(settings, needs_key=False)
    url = results_of(own)
    s3 = s3_of(url)
    with connect(url, s3) as lake:
        query = "SELECT max(run_id) FROM runs_latest WHERE prefect_flow_run_id = ? AND org = ? AND state <> ?"
        found: tuple[str | None] | None = lake.execute(query, [flow_run_id, own.org, COMPLETED]).fetchone()
    if found is None or found[0] is None:
        return None
    results, until = open_store(url, s3), clock() + LIFE
    while clock() < until and await asyncio.to_thread(is_alive, results, found[0], clock()):
        await sleep(LOOK_S)
    return request_of(settings, found[0])


async def check_begun(wired: Wired, request: Request) -> None:
    """Refuse to go on with a run under settings that would have made another plan, or while somebody is at it; its record stays."""
    begun = request.begun
    if begun is None or begun.anyway:
        return
    if begun.fingerprint != fingerprint(wired.settings, request):
        shaping = ", ".join(name for name in SHAPING if name not in KEPT)
        raise ConfigurationError(f"run {begun.run_id} was planned under other settings ({shaping}): restore them, or go on with --anyway")
    if await asyncio.to_thread(is_alive, wired.results, begun.run_id, wired.now()):
        raise ConfigurationError(
            f"run {begun.run_id} is still running, or was killed less than {LIFE.seconds} s ago: wait for it, or go on with --anyway"
        )
