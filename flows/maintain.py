"""Maintenance as Prefect flows, for schedules: what the commands of the same names do."""

import asyncio
from datetime import date, timedelta
from typing import Annotated, Any

from annotated_types import Gt
from prefect import flow
from prefect.artifacts import acreate_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import WithJsonSchema

from flows.maintenance import Verification, compact_results, verify_results
from flows.mirror import Mirror
from flows.overdue import look_for_scans
from flows.reconciliation import ReconciliationReport, reconciled_results
from flows.report import COMPLETED
from flows.run_settings import organisation_of
from flows.scan import several, state_of_error
from flows.settings import load_settings
from flows.wiring import now
from moderation.errors import SoundcheckError
from moderation.outcomes import ExitCode

FOUND = "Found"
"""The state of a flow run that found something wrong."""
Day = Annotated[date, WithJsonSchema({"type": "string", "format": "date", "pattern": r"^\d{4}-\d{2}-\d{2}$"})]
"""A day of which Prefect's form knows how it is written: it does not look at formats, and would have a run find it wrong."""


@flow(name="verify-results", persist_result=False, log_prints=False)
async def verify_lake(results: str | None = None, since: Day | None = None) -> State[Any]:
    """Look through the published files; a run that finds something fails as `Found`.

    Args:
        results: A folder, or s3://bucket/prefix. Left out, it is the one of the worker's settings.
        since: Only what runs since this day have left.
    """
    try:
        done = await asyncio.to_thread(verify_results, load_settings(results=results), now, since)
    except SoundcheckError as error:
        return state_of_error(error)
    if done.found.findings:
        rows = [{"file": name, "what is wrong": what, "what to do": remedy} for name, what, remedy in done.rows()]
        async with Mirror.open() as mirror:
            await mirror.tell(acreate_table_artifact(rows, key="verify-findings", description=done.sentence()))
    return state_of_verification(done)


def state_of_verification(done: Verification) -> State[Any]:
    """The final state of a flow run that has looked through all files."""
    return _state_of(done.exit_code, done.sentence())


def state_of_reconciliation(done: ReconciliationReport) -> State[Any]:
    """The final state of a flow run that has held everything against each other."""
    return _state_of(done.exit_code, done.sentence())


def _state_of(exit_code: ExitCode, sentence: str) -> State[Any]:
    message = f"{sentence} (exit code {int(exit_code)})"
    return Failed(name=FOUND, message=message) if exit_code is ExitCode.FOUND else Completed(name=COMPLETED, message=message)


@flow(name="reconcile-results", persist_result=False, log_prints=False)
async def reconcile_lake(results: str | None = None) -> State[Any]:
    """Hold catalogue, ledger and results against each other; a run that finds something that is not explained fails as `Found`.

    Args:
        results: A folder, or s3://bucket/prefix. Left out, it is the one of the worker's settings.
    """
    try:
        async with reconciled_results(load_settings(results=results), now, ()) as done:
            if done.unexplained:
                names = ("symbol", "endpoint", "object", "what is wrong", "what to do")
                rows = [dict(zip(names, row, strict=True)) for row in done.rows()]
                async with Mirror.open() as mirror:
                    await mirror.tell(acreate_table_artifact(rows, key="reconcile-findings", description=done.sentence()))
            return state_of_reconciliation(done)
    except SoundcheckError as error:
        return state_of_error(error)


@flow(name="compact-results", persist_result=False, log_prints=False)
async def compact_lake(results: str | None = None, before: Day | None = None) -> State[Any]:
    """Make few large files of what closed days have left.

    Args:
        results: A folder, or s3://bucket/prefix. Left out, it is the one of the worker's settings.
        before: Only days before this one. Left out, those before yesterday.
    """
    try:
        done = await asyncio.to_thread(compact_results, load_settings(results=results), now, before)
    except SoundcheckError as error:
        return state_of_error(error)
    return _state_of(ExitCode.OK, done.sentence())


@flow(name="overdue-scans", persist_result=False, log_prints=False)
async def overdue_scans(
    source: str | list[str] | None = None,
    every_hours: Annotated[float, Gt(0)] = 24.0,
    results: str | None = None,
    org: str | None = None,
) -> State[Any]:
    """Look whether scans complete as often as they are to, and tell people once where one is overdue; the run then fails as `Found`.

    Args:
        source: The source of the scan, written as for it; one, or several. Left out, every scan of the organisation counts.
        every_hours: The interval of the schedule, in hours. A scan is overdue when the next one is due and it has not completed.
        results: A folder, or s3://bucket/prefix. Left out, it is the one of the worker's settings.
        org: The organisation, where the worker's settings have several.
    """
    try:
        settings = organisation_of(load_settings(results=results, org=org), needs_key=False)
        done = await look_for_scans(settings, several(source or []), timedelta(hours=every_hours), now)
    except SoundcheckError as error:
        return state_of_error(error)
    return _state_of(done.exit_code, done.sentence())
