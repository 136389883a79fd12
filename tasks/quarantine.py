"""The quarantine of one organisation: which objects are held until a person has looked at them, and their release.

A release is an event in the same log: the plan of the next scan finds the object held no more, and streams it or holds it again.
"""

from datetime import timedelta

import polars as pl
from duckdb import DuckDBPyConnection

from connectors.lake.packages import write_rows
from connectors.lake.predicates import HOLDS, Predicate
from connectors.lake.store import ResultStore
from tasks.records import Run

EVERYTHING = "true"
"""The predicate that holds for every row."""
RESOLUTION = timedelta(microseconds=1)
"""Of the instants in the lake."""
_VIEW = "quarantined_now"
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
    rows = pl.from_arrow(Predicate(_VIEW, where).judge(lake, _COLUMNS))
    assert isinstance(rows, pl.DataFrame), "a table has columns"
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
    write_rows(results, "quarantine", run.run_id, run.scan_date, "release", rows.to_arrow())
