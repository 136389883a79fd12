"""The cascade: the AI-music endpoint is asked about an object only where a condition over its music result holds.

What earlier runs know of the music is decided with the plan, before anything is looked at; the rest, the second stage, once this run's
music results are published. Whatever is left out is skipped as `second_stage`, and nothing of it is paid.
"""

import asyncio
from collections.abc import Callable, Mapping

import polars as pl
from duckdb import DuckDBPyConnection

from connectors.lake.packages import rows_sink
from connectors.lake.predicates import HOLDS, Predicate
from connectors.lake.store import ResultStore
from moderation.catalogue import ShardRules
from moderation.outcomes import Reason
from tasks.frames import frame_of, read_frame
from tasks.history import DECISIONS, IDENTITY, LOOK, REASONS, Known
from tasks.plan_counts import count_shards
from tasks.plan_rows import ROWS_AT_A_TIME
from tasks.progress import Outcome, Progress, Standing
from tasks.records import Run
from tasks.shards import Shard, cut_shards

FIRST, SECOND = "music", "ai_music"
"""The endpoint whose results decide, and the one that they decide about."""
MUSIC_RESULTS = "music_summaries"
"""What a condition is over: a row a music result, of whatever parameters."""
_NO_RESULT = "its music result is not there yet"


def cascade_predicate(condition: str) -> Predicate:
    """A condition such as `music_pct >= 10` over the music results."""
    return Predicate(MUSIC_RESULTS, condition)


def verdicts(open_lake: Callable[[], DuckDBPyConnection], condition: str) -> pl.DataFrame:
    """What the newest music result of each object and parameters says: (object_id, params_hash, passes, audio_ms).

    passes is null where the condition has no answer; audio_ms is the audio of the music session, which another one would have again. Raises
    QueryError for what is no condition.
    """
    with open_lake() as lake:
        rows = cascade_predicate(condition).judge(lake, [*IDENTITY, "finished_at", "session_id", "duration_ms", "covered_ms"])
    newest = frame_of(rows).sort("finished_at", "session_id").unique(IDENTITY, keep="last")
    audio = pl.max_horizontal(pl.col("duration_ms").fill_null(0), "covered_ms")
    return newest.select(*IDENTITY, pl.col(HOLDS).alias("passes"), audio.alias("audio_ms"))


def leave_out(known: Mapping[str, Known], listing: pl.DataFrame, judged: pl.DataFrame) -> tuple[dict[str, Known], int]:
    """The same knowledge, less what is left out of the second stage for sure; and the milliseconds of audio that saves.

    That is what does not pass, or has no music result, unless this run is still to look at its music.
    """
    second, first = known[SECOND], known.get(FIRST)
    ends = second.ends.join(listing.select("position", *IDENTITY), on="position", how="left", maintain_order="left")
    ends = ends.join(judged, on=IDENTITY, how="left", maintain_order="left")
    is_settled = pl.lit(value=True) if first is None else ~pl.col("position").is_in(first.left["position"].implode())
    is_left_out = (pl.col("decision") == LOOK) & is_settled & ~pl.col("passes").fill_null(value=False)
    ends = ends.with_columns(is_left_out.alias("left_out"))
    saved_ms = int(ends.filter("left_out")["audio_ms"].sum())
    decided = ends.select(
        "position",
        pl.when("left_out").then(pl.lit("skip", DECISIONS)).otherwise("decision").alias("decision"),
        pl.when("left_out").then(pl.lit(Reason.SECOND_STAGE.value, REASONS)).otherwise("reason").alias("reason"),
        "change",
    )
    return {**known, SECOND: Known(decided, second.deleted, second.decodable)}, saved_ms


async def plan_second_stage(
    results: ResultStore, open_lake: Callable[[], DuckDBPyConnection], run: Run, condition: str, rules: ShardRules, progress: Progress
) -> list[Shard]:
    """Decide what the plan of this run left to its music results, write that into the plan, and return the shards, the first one first.

    An object whose music is left for a later run is left for that, too; one that will have no music result is left out.
    """
    progress.step = "planning the second stage"

    def settle() -> list[Shard]:
        plan = read_frame(results, run.run_id, "plan").with_row_index("position")
        waiting = plan.filter((pl.col("endpoint") == SECOND) & (pl.col("decision") == "stream"))
        if waiting.is_empty():
            return []
        keys = read_frame(results, run.run_id, "manifest").select("object_id", "key").unique("object_id", keep="first")
        judged = waiting.join(keys, on="object_id", how="left", maintain_order="left")
        judged = judged.join(verdicts(open_lake, condition), on=IDENTITY, how="left", maintain_order="left")
        decided = judged.with_columns(_decision(progress).alias("end"))
        numbers, shards = cut_shards(decided.filter(pl.col("end") == "stream"), rules, _next_number(plan))
        _write(results, run, plan, decided, numbers)
        _count(progress, decided, shards)
        return shards

    return await asyncio.to_thread(settle)


def _decision(progress: Progress) -> pl.Expr:
    """stream, or the reason why not, for rows with (object_id, passes, audio_ms)."""
    without_music = [
        outcome.object_id
        for outcome in progress.outcomes
        if outcome.endpoint == FIRST and outcome.standing in {Standing.QUARANTINED, Standing.SKIPPED}
    ]
    return (
        pl.when("passes")
        .then(pl.lit("stream"))
        .when(pl.col("audio_ms").is_not_null() | pl.col("object_id").is_in(pl.Series(without_music, dtype=pl.String).implode()))
        .then(pl.lit(Reason.SECOND_STAGE.value))
        .otherwise(pl.lit(Reason.NOT_REACHED.value))
    )


def _next_number(plan: pl.DataFrame) -> int:
    """The number of the next shard of a plan."""
    last = plan["shard"].max()
    return last + 1 if isinstance(last, int) else 0


def _write(results: ResultStore, run: Run, plan: pl.DataFrame, decided: pl.DataFrame, numbers: pl.DataFrame) -> None:
    """Put the plan in the place of the one that left the second stage open."""
    ends = decided.select("position", "end").join(numbers.select("position", pl.col("shard").alias("number")), on="position", how="left")
    is_left_out = pl.col("end").is_not_null() & (pl.col("end") != "stream")
    with rows_sink(results, "plan", run.run_id, run.scan_date, "plan") as sink:
        for rows in plan.iter_slices(ROWS_AT_A_TIME):
            joined = rows.join(ends, on="position", how="left", maintain_order="left")
            ended = joined.with_columns(
                pl.when(is_left_out).then(pl.lit("skip")).otherwise("decision").alias("decision"),
                pl.when(is_left_out).then("end").otherwise("reason").alias("reason"),
                pl.coalesce("number", "shard").alias("shard"),
            )
            sink.write(ended.drop("position", "end", "number").to_arrow())


def _count(progress: Progress, decided: pl.DataFrame, shards: list[Shard]) -> None:
    """Count what is not streamed; an object that has an outcome elsewhere is counted as a whole by that."""
    count_shards(progress, shards)
    left_out = decided.filter(pl.col("end") == Reason.SECOND_STAGE.value)
    progress.know(SECOND, Reason.SECOND_STAGE, left_out.height)
    progress.of(SECOND).saved_ms += int(left_out["audio_ms"].sum())
    named = pl.Series([outcome.object_id for outcome in progress.outcomes if not outcome.example], dtype=pl.String)
    progress.known[Standing.SKIPPED] += left_out.filter(~pl.col("object_id").is_in(named.implode())).height
    for object_id, key in decided.filter(pl.col("end") == Reason.NOT_REACHED.value).select("object_id", "key").iter_rows():
        progress.add(Outcome(object_id, key, SECOND, Reason.NOT_REACHED, _NO_RESULT))
