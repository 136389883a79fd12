"""Takes a frozen plan up again: what it streams and what has ended of that since, without looking at anything anew."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl
from duckdb import DuckDBPyConnection

from connectors.lake.query import done_objects, quarantined_now
from connectors.lake.store import ResultStore
from moderation.endpoints import Endpoint
from moderation.outcomes import Reason
from tasks.cascade import SECOND, verdicts
from tasks.frames import frame_of, has_frame, read_frame
from tasks.history import CHANGES, DECISIONS, IDENTITY, LOOK, REASONS, Known
from tasks.plan_counts import count_plan
from tasks.progress import Progress
from tasks.quarantine import EVERYTHING
from tasks.shards import Shard


@dataclass(frozen=True, slots=True)
class Rest:
    """What is left of a frozen plan: its shards, and the (endpoint, object_id) of what still has to be streamed; None where all has.

    has_second_stage tells that the plan was made to its end: a cascade has decided about the music results already.
    """

    shards: list[Shard]
    left: frozenset[tuple[str, str]] | None
    has_second_stage: bool = False

    def has(self, endpoint: str, object_id: str) -> bool:
        """Whether an object of the plan still has to be streamed."""
        return self.left is None or (endpoint, object_id) in self.left


NO_REST = Rest([], None)
"""Of a run that is not taken up again, but made anew."""


def has_manifest(results: ResultStore, run_id: str) -> bool:
    """Whether a run has listed its sources to their end."""
    return has_frame(results, run_id, "manifest")


def has_plan(results: ResultStore, run_id: str) -> bool:
    """Whether a run has come as far as its plan."""
    return has_frame(results, run_id, "plan")


def rest_of_plan(
    results: ResultStore,
    open_lake: Callable[[], DuckDBPyConnection],
    run_id: str,
    endpoints: Sequence[Endpoint],
    progress: Progress,
    *,
    force: bool,
) -> Rest:
    """What a run's plan streams and has not ended yet, counted in the progress with all that has.

    endpoints are those of the plan; others have nothing to stream in it. A result of anybody ends an object; of a run that streams anew
    (force), only its own.
    """
    listing = read_frame(results, run_id, "manifest").unique("object_id", keep="first", maintain_order=True).with_row_index("position")
    progress.listed = listing.height
    plan = read_frame(results, run_id, "plan").join(listing.select("position", "object_id"), on="object_id").with_columns(_is_cut())
    named = set(plan["endpoint"])
    planned_for = [each for each in endpoints if each.name in named or not named]
    with open_lake() as lake:
        held = frame_of(quarantined_now(lake))
        known = {
            each.name: _known(
                plan.filter(pl.col("endpoint") == each.name),
                frame_of(done_objects(lake, each.name, run_id if force else None)),
                held.filter(pl.col("endpoint") == each.name),
            )
            for each in planned_for
        }
    left = pl.concat(
        [each.left.join(plan.filter(pl.col("endpoint") == name), on="position", maintain_order="left") for name, each in known.items()]
    )
    shards = _shards(left.filter(pl.col("shard").is_not_null()))
    findings = left.select("position", pl.col("reason").cast(REASONS), pl.lit(None, pl.String).alias("detail"))
    findings = findings.unique("position", maintain_order=True)
    count_plan(progress, listing, known, findings, shards)
    if saved_ms := _saved_ms(plan, open_lake):
        progress.of(SECOND).saved_ms = saved_ms
    has_second_stage = not plan.filter((pl.col("endpoint") == SECOND) & pl.col("shard").is_not_null()).is_empty()
    return Rest(shards, frozenset(left.select("endpoint", "object_id").iter_rows()), has_second_stage)


def _is_cut() -> pl.Expr:
    """Which rows a bound of the plan left out; what its second stage did not reach has a row of the first one that is streamed."""
    is_streamed = (pl.col("decision") == "stream").any().over("object_id")
    return ((pl.col("reason") == Reason.NOT_REACHED.value) & ~is_streamed).fill_null(value=False).alias("cut")


def _saved_ms(plan: pl.DataFrame, open_lake: Callable[[], DuckDBPyConnection]) -> int:
    """The audio of the objects that a cascade has left out of a plan by now, as long as their music sessions were."""
    left_out = plan.filter((pl.col("endpoint") == SECOND) & (pl.col("reason") == Reason.SECOND_STAGE.value))
    if left_out.is_empty():
        return 0
    return int(left_out.join(verdicts(open_lake, EVERYTHING), on=IDENTITY)["audio_ms"].sum())


def _known(plan: pl.DataFrame, done: pl.DataFrame, held: pl.DataFrame) -> Known:
    """A plan's decisions of one endpoint as they stand by now."""
    streamed = plan.filter(pl.col("decision") == "stream")
    is_done = streamed.join(done, on=IDENTITY, how="semi")["position"].implode()
    given_up = streamed.join(held.unique(IDENTITY).select(*IDENTITY, pl.col("reason").alias("why")), on=IDENTITY).select("position", "why")
    place = pl.col("position")
    decision = (
        pl.when("cut")
        .then(pl.lit(LOOK))
        .when(pl.col("decision") != "stream")
        .then("decision")
        .when(place.is_in(is_done))
        .then(pl.lit("done"))
        .when(pl.col("why").is_not_null())
        .then(pl.lit("quarantined"))
        .otherwise(pl.lit(LOOK))
    )
    ends = plan.join(given_up, on="position", how="left").select(
        "position",
        decision.cast(DECISIONS).alias("decision"),
        pl.when(place.is_in(is_done)).then(None).otherwise(pl.coalesce("reason", "why")).cast(REASONS).alias("reason"),
        pl.lit(None, CHANGES).alias("change"),
    )
    return Known(ends.sort("position"), None, plan.clear().select("position", pl.lit(None, REASONS).alias("freed_from")))


def _shards(left: pl.DataFrame) -> list[Shard]:
    """The shards of what is left, each endpoint's lone first object before all others while it is still to come."""
    parts = left.group_by("shard", "endpoint").agg(pl.len().alias("objects"), pl.col("estimate_ms").sum()).sort("shard")
    lowest = dict(left.group_by("endpoint").agg(pl.col("shard").min()).iter_rows())
    shards = [
        Shard(number, endpoint, objects, estimate_ms, first=objects == 1 and lowest[endpoint] == number)
        for number, endpoint, objects, estimate_ms in parts.iter_rows()
    ]
    return sorted(shards, key=lambda shard: (not shard.first, shard.number))
