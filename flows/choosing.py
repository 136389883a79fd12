"""What a run lists, its sources or the objects that a predicate chooses, and by which rules it plans them."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from connectors.catalogue import Source
from connectors.s3 import S3Uri
from flows.person import who
from flows.request import FlowName, Request
from flows.settings import Settings
from flows.sources import prefixes_of
from flows.wiring import Wired, WiredToPlan
from moderation.selection import Selection
from tasks.choose import chosen_results, freeze, frozen, predicates
from tasks.plan import PlanRules
from tasks.quarantine import freeze_held, frozen_held, held_now, release_planned
from tasks.records import Run

RELEASED = "released to be tried again"


def plan_rules(settings: Settings, request: Request, selection: Selection, erased: frozenset[str]) -> PlanRules:
    """What shapes the plan of a request, over what a selection takes; erased are ids of keys and versions that are never streamed again."""
    return PlanRules(
        parameter_rules=[raw.rule() for raw in settings.raw_rules],
        max_session_hours=settings.max_session_hours,
        cascade=settings.cascade,
        transcode=settings.transcode,
        cut=request.portion.cut,
        force=request.force,
        selection=selection,
        shards=settings.shards,
        erased=erased,
    )


async def letting_go(rules: PlanRules, wired: Wired, request: Request, run: Run) -> PlanRules:
    """The same rules; those of a retry plan what it is about as if that were held no more."""
    if request.flow is not FlowName.RETRY:
        return rules
    return replace(rules, let_go=await asyncio.to_thread(frozen_held, wired.results, run))


async def release_retried(wired: Wired, request: Request, run: Run) -> None:
    """Release what the plan of a retry streams; nothing of any other run."""
    if request.flow is FlowName.RETRY:
        await asyncio.to_thread(release_planned, wired.results, run, who(), RELEASED)


async def source_of(wired: Wired | WiredToPlan, request: Request, run: Run) -> Source:
    """The source of a run: what is chosen is frozen as a key list first, so that a run that is taken up again finds it as it was.

    Raises QueryError for a predicate that cannot be asked, ConfigurationError where it chooses nothing.
    """
    if request.where is None:
        return wired.source
    if request.flow is FlowName.RETRY:
        return wired.key_list(await asyncio.to_thread(_held, wired, run, request.where))
    return wired.key_list(await asyncio.to_thread(_chosen, wired, prefixes_of(request.sources), run, request.where))


def _chosen(wired: Wired | WiredToPlan, below: Sequence[S3Uri], run: Run, where: str) -> str:
    asked = predicates(where)
    address = frozen(wired.results, run)
    return address or freeze(wired.results, run, chosen_results(wired.open_lake, run.org, asked, below), where)


def _held(wired: Wired | WiredToPlan, run: Run, where: str) -> str:
    """The quarantined objects, and what holds them: it stays held until the plan has said what of it is streamed."""
    if address := frozen(wired.results, run):
        return address
    with wired.open_lake() as lake:
        held = held_now(lake, run.org, where).filter(pl.col("endpoint").is_in([endpoint.name for endpoint in wired.endpoints]))
    freeze_held(wired.results, run, held)
    return freeze(wired.results, run, held, where)
