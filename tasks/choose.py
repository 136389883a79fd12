"""Chooses objects by a predicate, and leaves them as a key list under the run: what a backfill or a retry works from."""

from collections.abc import Callable, Sequence
from io import BytesIO

import polars as pl
from duckdb import DuckDBPyConnection

from connectors.lake.packages import RUNS_FOLDER
from connectors.lake.predicates import Predicate
from connectors.lake.query import QueryError
from connectors.lake.store import ResultStore
from connectors.s3 import S3Uri
from moderation.endpoints import ENDPOINTS
from moderation.errors import ConfigurationError
from tasks.records import Run

FACTS = ("bucket", "key", "version_id", "etag", "size_bytes", "last_modified")
"""What a key list says of an object, so that it need not be asked for."""
LATEST = tuple(f"{endpoint}_latest" for endpoint in ENDPOINTS)


def predicates(condition: str) -> list[Predicate]:
    """The condition over the latest results of every endpoint that has its columns: one of key and time is asked of all.

    Raises QueryError where it is a condition over none, with what is wrong with it over the first.
    """
    found, errors = [], []
    for view in LATEST:
        try:
            Predicate(view, condition).check()
        except QueryError as error:
            errors.append(error)
        else:
            found.append(Predicate(view, condition))
    if not found:
        raise errors[0]
    return found


def frozen(results: ResultStore, run: Run) -> str | None:
    """The address of the key list that a run left when it began, None where it has none yet."""
    name = _name(run)
    return results.address(name) if results.exists(name) else None


def freeze(results: ResultStore, run: Run, chosen: pl.DataFrame, condition: str) -> str:
    """Write the key list of a run, and return its address. Raises ConfigurationError where the condition has chosen nothing."""
    if chosen.is_empty():
        raise ConfigurationError(f"nothing satisfies {condition!r}: ask with `soundcheck sql` what there is")
    rows = chosen.select(name for name in FACTS if name in chosen.columns).unique(["bucket", "key", "etag"]).sort("bucket", "key", "etag")
    out = BytesIO()
    rows.write_parquet(out)
    results.put(_name(run), out.getvalue())
    return results.address(_name(run))


def chosen_results(
    open_lake: Callable[[], DuckDBPyConnection], org: str, asked: Sequence[Predicate], below: Sequence[S3Uri] = ()
) -> pl.DataFrame:
    """The FACTS of an organisation's results that any predicate holds for; below are prefixes that they must lie in, if any are given."""
    with open_lake() as lake:
        chosen = pl.concat([_frame(predicate, lake, org) for predicate in asked])
    return chosen.filter(pl.any_horizontal(_lies_in(prefix) for prefix in below)) if below else chosen


def _name(run: Run) -> str:
    return f"{RUNS_FOLDER}/{run.run_id}/chosen.parquet"


def _frame(predicate: Predicate, lake: DuckDBPyConnection, org: str) -> pl.DataFrame:
    rows = pl.from_arrow(predicate.rows(lake, (*FACTS, "org")))
    assert isinstance(rows, pl.DataFrame), "a table has columns"
    return rows.filter(pl.col("org") == org).drop("org")


def _lies_in(prefix: S3Uri) -> pl.Expr:
    return (pl.col("bucket") == prefix.bucket) & pl.col("key").str.starts_with(prefix.prefix)
