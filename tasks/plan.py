"""Plans a run: drops what is done or quarantined, finds out what the rest is, estimates hours, and cuts shards.

What is done is known by identity and by everything that changes a result, all of which the listing itself shows: so an unchanged
catalogue costs nothing but its listing, and that is joined as tables, never object by object.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import polars as pl
from duckdb import DuckDBPyConnection

from connectors.audio_store import AudioStore
from connectors.lake.packages import rows_sink, write_rows
from connectors.lake.store import ResultStore
from connectors.s3 import S3Uri
from moderation.budget import hours_to_ms, ms_to_hours
from moderation.catalogue import NotStreamable, ParameterRule, ShardRules
from moderation.endpoints import Endpoint
from moderation.errors import first_of_group
from moderation.outcomes import Reason
from moderation.selection import EVERYTHING, Selection
from moderation.transcoding import Transcode
from tasks.cascade import SECOND, leave_out, verdicts
from tasks.cut import Cut, sampled
from tasks.examine import Examiner, Finding
from tasks.forecast import Forecast, forecast
from tasks.history import DECISIONS, REASONS, Known, read_known
from tasks.listed import item_of, read_listing, with_sidecars, without_erased
from tasks.no_audio import Alike, known_no_audio
from tasks.plan_counts import count_plan
from tasks.plan_rows import FINDINGS, finding_row, found_at, plan_rows, streamed_rows
from tasks.progress import Progress
from tasks.records import Run, quarantine_row
from tasks.shards import Shard, cut_shards

LOOKED_AT_A_TIME = 20_000
"""Objects whose findings are held as Python objects."""
LOOKED_AT_A_TIME_TO_CUT = 128
"""The same where the plan ends as soon as a bound is reached."""
logger = logging.getLogger("soundcheck.plan")


@dataclass(frozen=True, slots=True)
class PlanRules:
    """What shapes a plan: ordered rules for raw audio, the longest session in hours, bounds of a shard, what to take, what to decode.

    force plans again what is done; selection is what the manifest was listed with; let_go are rows of the quarantine (endpoint, object_id,
    params_hash) that hold nothing any more; erased are ids of keys and versions that were erased by request.
    """

    parameter_rules: Sequence[ParameterRule] = ()
    max_session_hours: float = 6.0
    shards: ShardRules = field(default_factory=ShardRules)
    cascade: str | None = None
    """The condition over music results without which the AI-music endpoint is not asked."""
    cut: Cut = field(default_factory=Cut)
    force: bool = False
    transcode: Transcode = Transcode.AUTO
    selection: Selection = EVERYTHING
    let_go: pl.DataFrame | None = field(default=None, compare=False)
    erased: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Plan:
    """A written plan: its shards, the first ones first, and what it will cost."""

    shards: list[Shard]
    forecast: Forecast


async def plan_catalogue(
    audio: AudioStore,
    results: ResultStore,
    open_lake: Callable[[], DuckDBPyConnection],
    run: Run,
    endpoints: Sequence[Endpoint],
    rules: PlanRules,
    progress: Progress,
    sources: Sequence[S3Uri] = (),
    alike: Alike | None = None,
) -> list[Shard]:
    """Make the plan of a run, quarantine what cannot be streamed, and return the shards, the first ones first. As `make_plan`."""
    plan = await make_plan(audio, results, open_lake, run, endpoints, rules, progress, sources=sources, alike=alike)
    for place in plan.forecast.disagreements:
        logger.info("%s: %r is %s", run.run_id, place.key, place.detail)
    return plan.shards


async def make_plan(
    audio: AudioStore,
    results: ResultStore,
    open_lake: Callable[[], DuckDBPyConnection],
    run: Run,
    endpoints: Sequence[Endpoint],
    rules: PlanRules,
    progress: Progress,
    *,
    sources: Sequence[S3Uri] = (),
    alike: Alike | None = None,
    dry: bool = False,
) -> Plan:
    """Write the plan beside the manifest, and what cannot be streamed into the quarantine unless it is dry.

    open_lake opens what earlier runs published; sources are the prefixes that the manifest lists completely: what is done below them and
    not listed was deleted; alike tells whose earlier plan is believed about what is no audio. Raises AccessDeniedError or UnreachableError
    where objects cannot be looked at for a reason that is not theirs.
    """
    progress.step = "planning"
    listing = await asyncio.to_thread(read_listing, results, run.run_id, rules.parameter_rules, rules.transcode, rules.selection)
    listing = without_erased(listing, rules.erased)
    progress.listed = listing.height
    only_of, no_audio = (run.run_id, None) if rules.force else (None, partial(known_no_audio, results, alike) if alike else None)
    known = await asyncio.to_thread(read_known, open_lake, listing, endpoints, sources, rules.transcode, only_of, no_audio, rules.let_go)
    has_second_stage = rules.cascade is not None and SECOND in known
    if rules.cascade is not None and has_second_stage:
        judged = await asyncio.to_thread(verdicts, open_lake, rules.cascade)
        known, progress.of(SECOND).saved_ms = leave_out(known, listing, judged)
    with first_of_group():
        findings = await _look(Examiner(audio, rules.parameter_rules, rules.transcode), rules, listing, known)

    def settle() -> Plan:
        streamed = streamed_rows(listing, known, findings)
        at_once = streamed.filter(pl.col("endpoint") != SECOND) if has_second_stage and not dry else streamed
        numbers, shards = cut_shards(at_once, rules.shards)
        count_plan(progress, listing, known, findings, shards)
        with rows_sink(results, "plan", run.run_id, run.scan_date, "plan") as sink:
            for rows in plan_rows(listing, known, findings, numbers):
                sink.write(rows.to_arrow())
        if not dry and (quarantines := list(_quarantines(run, listing, known, findings))):
            write_rows(results, "quarantine", run.run_id, run.scan_date, "plan", quarantines)
        found = forecast(listing, known, findings, streamed, shards, SECOND if has_second_stage else None)
        for each in found.endpoints:
            progress.of(each.endpoint).changes = each.changes
        return Plan(shards, found)

    return await asyncio.to_thread(settle)


async def _look(examiner: Examiner, rules: PlanRules, listing: pl.DataFrame, known: Mapping[str, Known]) -> pl.DataFrame:
    """What is found out about the objects of which not all is known; those that a cut leaves out are `not_reached`."""
    endpoints = pl.concat([each.left for each in known.values()]).group_by("position").len("endpoints")
    left = listing.join(endpoints, on="position", maintain_order="left")
    meter = rules.cut.meter()
    frames = [pl.DataFrame(schema=FINDINGS)]
    for rows in sampled(left, rules.cut.sample).iter_slices(LOOKED_AT_A_TIME_TO_CUT if meter.is_bounded else LOOKED_AT_A_TIME):
        found = await examiner.examine_all(list(with_sidecars(rows, listing)))
        bounded = [_bounded(finding, rules.max_session_hours) for finding in found]
        within = meter.take((_streamed_ms(finding), count) for finding, count in zip(bounded, rows["endpoints"], strict=True))
        decided = [finding_row(position, finding) for position, finding in zip(rows["position"], bounded, strict=True)]
        frames.append(pl.DataFrame(decided[:within], FINDINGS))
        if meter.is_full:
            break
    looked = pl.concat(frames)
    beyond = left.join(looked, on="position", how="anti").select("position")
    cut = beyond.with_columns(pl.lit("skip", DECISIONS).alias("decision"), pl.lit(Reason.NOT_REACHED.value, REASONS).alias("reason"))
    return pl.concat([looked, cut], how="diagonal").sort("position")


def _bounded(finding: Finding, max_session_hours: float) -> Finding:
    """The same, unless its session would be too long: as far as that is known for sure."""
    estimate = finding.estimate
    if finding.refusal or estimate is None or not estimate.is_exact or estimate.ms <= hours_to_ms(max_session_hours):
        return finding
    detail = f"{ms_to_hours(estimate.ms):.1f} hours are more than max_session_hours = {max_session_hours}"
    return Finding(None, estimate, NotStreamable(Reason.TOO_LONG, detail), finding.disagreement)


def _streamed_ms(finding: Finding) -> int | None:
    return finding.estimate.ms if finding.estimate and finding.refusal is None else None


def _quarantines(run: Run, listing: pl.DataFrame, known: Mapping[str, Known], findings: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows of `quarantine` for what cannot be streamed, and for what now can, dated by the run: planning again writes the same."""
    of_run = {"run_id": run.run_id, "org": run.org, "happened_at": run.started_at}
    refused = findings.filter(pl.col("decision") == "quarantined")
    streamed = findings.filter(pl.col("decision") == "stream").select("position")
    for endpoint, each in known.items():
        rows = found_at(each, refused).join(listing, on="position", maintain_order="left")
        for row in rows.iter_rows(named=True):
            yield quarantine_row(item_of(row), endpoint, row["params_hash"], Reason(row["reason"]), detail=row["detail"], **of_run)
        freed = each.decodable.join(found_at(each, streamed), on="position", how="semi").join(listing, on="position", maintain_order="left")
        for row in freed.iter_rows(named=True):
            why = {"event": "released", "detail": "it is decoded here now"}
            yield quarantine_row(item_of(row), endpoint, row["params_hash"], Reason(row["freed_from"]), **why, **of_run)
