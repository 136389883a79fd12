"""Chooses objects by a predicate over earlier results, and leaves them as a key list under the run: what a backfill works from."""

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


def choose(
    open_lake: Callable[[], DuckDBPyConnection], results: ResultStore, run: Run, asked: Sequence[Predicate], below: Sequence[S3Uri] = ()
) -> str:
    """The address of the key list of those that any predicate holds for; below are the prefixes that they must lie in, if any are given.

    A run that is taken up again finds its list as it was. Raises ConfigurationError where nothing is chosen, QueryError.
    """
    name = f"{RUNS_FOLDER}/{run.run_id}/chosen.parquet"
    if not results.exists(name):
        with open_lake() as lake:
            chosen = pl.concat([_frame(predicate, lake, run.org) for predicate in asked])
        if below:
            chosen = chosen.filter(pl.any_horizontal(_lies_in(prefix) for prefix in below))
        if chosen.is_empty():
            raise ConfigurationError(f"no result satisfies {asked[0].condition!r}: ask with `soundcheck sql` what there is")
        out = BytesIO()
        chosen.unique(["bucket", "key", "etag"]).sort("bucket", "key", "etag").write_parquet(out)
        results.put(name, out.getvalue())
    return results.address(name)


def _frame(predicate: Predicate, lake: DuckDBPyConnection, org: str) -> pl.DataFrame:
    rows = pl.from_arrow(predicate.rows(lake, (*FACTS, "org")))
    assert isinstance(rows, pl.DataFrame), "a table has columns"
    return rows.filter(pl.col("org") == org).drop("org")


def _lies_in(prefix: S3Uri) -> pl.Expr:
    return (pl.col("bucket") == prefix.bucket) & pl.col("key").str.starts_with(prefix.prefix)
