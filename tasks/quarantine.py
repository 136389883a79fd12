"""The quarantine of one organisation: which objects are held until a person has looked at them, and their release.

A release is an event in the same log: the plan of the next scan finds the object held no more, and streams it or holds it again.
"""

from datetime import timedelta

import polars as pl
from duckdb import DuckDBPyConnection

from connectors.lake.packages import partition_name, write_rows
from connectors.lake.predicates import HOLDS, Predicate
from connectors.lake.schemas import datasets
from connectors.lake.store import ResultStore
from tasks.frames import find_frame, frame_of, keep_frame, read_frame
from tasks.records import Run

EVERYTHING = "true"
"""The predicate that holds for every row."""
RESOLUTION = timedelta(microseconds=1)
"""Of the instants in the lake."""
_DATASET, _VIEW, _RELEASE, _HELD = "quarantine", "quarantined_now", "release", "held"
_COLUMNS = (
    "org",
    "endpoint",
    "bucket",
    "key",
    "version_id",
    "etag",
    "object_id",
    "params_hash",
    "reason",
    "detail",
    "run_id",
    "happened_at",
)


def held_now(lake: DuckDBPyConnection, org: str, where: str = EVERYTHING) -> pl.DataFrame:
    """What of an organisation's is held and a predicate over the view quarantined_now is true of, newest first.

    Raises QueryError that says what is wrong with the predicate.
    """
    rows = frame_of(Predicate(_VIEW, where).judge(lake, _COLUMNS))
    own = rows.filter(pl.col(HOLDS) & (pl.col("org") == org)).drop(HOLDS)
    return own.sort("happened_at", "bucket", "key", "endpoint", "params_hash", descending=[True, False, False, False, False])


def release(results: ResultStore, held: pl.DataFrame, run: Run, who: str, why: str) -> None:
    """Put on record that somebody lets these rows of `held_now` be planned again; for the same run it may be repeated.

    Raises what the store raises. A release comes after what it releases, whatever the clocks of two hosts say; what the same run finds out
    after that has its instant, too, and wins.
    """
    if held.is_empty():
        return
    rows = held.with_columns(
        pl.lit("released").alias("event"),
        pl.lit(f"{who}: {why}").alias("detail"),
        pl.lit(run.run_id).alias("run_id"),
        pl.max_horizontal(pl.col("happened_at") + RESOLUTION, pl.lit(run.started_at)).alias("happened_at"),
    )
    write_rows(results, _DATASET, run.run_id, run.scan_date, _RELEASE, rows.to_arrow())


def freeze_held(results: ResultStore, run: Run, held: pl.DataFrame) -> None:
    """Leave under a run the rows of `held_now` that it is about, whatever becomes of the quarantine while it lists and plans."""
    keep_frame(results, run.run_id, _HELD, held)


def frozen_held(results: ResultStore, run: Run) -> pl.DataFrame | None:
    """The rows that a run is about, None where none were frozen."""
    return find_frame(results, run.run_id, _HELD)


def release_planned(results: ResultStore, run: Run, who: str, why: str) -> None:
    """Release, once, the frozen rows of a run whose objects its plan streams, or finds done: nothing that it leaves out or cuts off."""
    held = frozen_held(results, run)
    if held is None or results.exists(partition_name(datasets()[_DATASET], run.scan_date, f"{run.run_id}-{_RELEASE}")):
        return
    planned = read_frame(results, run.run_id, "plan").filter(pl.col("decision").is_in(["stream", "done"]))
    release(results, held.join(planned, on=["object_id", "endpoint"], how="semi"), run, who, why)
