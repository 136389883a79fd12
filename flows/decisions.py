"""Decisions as a Prefect flow, for schedules: what `soundcheck decide` does."""

import asyncio
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import acreate_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.deciding import decide_results, tell
from flows.mirror import Mirror
from flows.report import COMPLETED
from flows.run_settings import organisation_of
from flows.scan import state_of_error
from flows.settings import load_settings
from flows.wiring import now
from moderation.errors import SoundcheckError
from moderation.outcomes import ExitCode


@flow(name="decide", persist_result=False, log_prints=False)
async def decide_lake(policy: str | None = None, results: str | None = None, org: str | None = None) -> State[Any]:
    """Decide about every object of an organisation; only changes are written.

    Args:
        policy: A file of the worker with the policy. Left out, it is the one of the worker's settings.
        results: A folder, or s3://bucket/prefix. Left out, it is the one of the worker's settings.
        org: The organisation, where the worker's settings have several.
    """
    try:
        settings = organisation_of(
            load_settings(org=org, results=results, policy=None if policy is None else Path(policy)), needs_key=False
        )
        done = await asyncio.to_thread(decide_results, settings, now)
        await tell(settings, done)
    except SoundcheckError as error:
        return state_of_error(error)
    async with Mirror.open() as mirror:
        rules = done.done.counts.to_dicts()
        await mirror.tell(acreate_table_artifact(rules, key="decisions", description=done.sentence()))
    return Completed(name=COMPLETED, message=f"{done.sentence()} (exit code {int(ExitCode.OK)})")
