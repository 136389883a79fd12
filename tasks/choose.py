"""Chooses objects by a predicate, and leaves them as a key list under the run: what a backfill or a retry works from."""

from collections.abc import Callable, Sequence

import polars as pl
from duckdb import DuckDBPyConnection

from connectors.lake.predicates import Predicate
from connectors.lake.query import QueryError
from connectors.lake.store import ResultStore
from connectors.s3 import S3Uri
from moderation.endpoints import ENDPOINTS
from moderation.errors import ConfigurationError
from tasks.frames import frame_address, frame_of, has_frame, keep_frame
from tasks.quarantine import EVERYTHING
from tasks.records import Run

FACTS = ("bucket", "key", "version_id", "etag", "size_bytes", "last_modified")
"""What a key list says of an object, so that it need not be asked for."""
_PLACE = ("bucket", "key")
_CHOSEN = "chosen"
CURRENT = tuple(f"{endpoint}_current" for endpoint in ENDPOINTS)
"""The views that are asked: a result of what was overwritten since is history, and its object can be streamed no more."""


def predicates(condition: str) -> list[Predicate]:
    """The condition over the current results of every endpoint that has its columns: one of key and time is asked of all.

    Raises QueryError where it is a condition over none, with what is wrong with it over the first.
    """
    found, errors = [], []
    for view in CURRENT:
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
    return frame_address(results, run.run_id, _CHOSEN) if has_frame(results, run.run_id, _CHOSEN) else None


def freeze(results: ResultStore, run: Run, chosen: pl.DataFrame, condition: str) -> str:
    """Write the key list of a run, and return its address. Raises ConfigurationError where the condition has chosen nothing."""
    if chosen.is_empty():
        raise ConfigurationError(f"nothing satisfies {condition!r}: ask with `soundcheck sql` what there is")
    rows = chosen.select(name for name in FACTS if name in chosen.columns).unique(["bucket", "key", "etag"]).sort("bucket", "key", "etag")
    keep_frame(results, run.run_id, _CHOSEN, rows)
    return frame_address(results, run.run_id, _CHOSEN)


def chosen_results(
    open_lake: Callable[[], DuckDBPyConnection], org: str, asked: Sequence[Predicate], below: Sequence[S3Uri] = ()
) -> pl.DataFrame:
    """The FACTS of an organisation's results that any predicate holds for; below are prefixes that they must lie in, if any are given.

    An endpoint may know an older version of an object than another one does: that counts as overwritten, too.
    """
    with open_lake() as lake:
        found = pl.concat([_frame(predicate, lake, org, FACTS) for predicate in asked])
        seen = pl.concat([_frame(Predicate(view, EVERYTHING), lake, org, (*_PLACE, "last_modified")) for view in CURRENT])
    chosen = found.join(seen.group_by(_PLACE).max(), on=[*_PLACE, "last_modified"], how="semi")
    return chosen.filter(pl.any_horizontal(_lies_in(prefix) for prefix in below)) if below else chosen


def _frame(predicate: Predicate, lake: DuckDBPyConnection, org: str, columns: Sequence[str]) -> pl.DataFrame:
    rows = frame_of(predicate.rows(lake, (*columns, "org")))
    return rows.filter(pl.col("org") == org).drop("org")


def _lies_in(prefix: S3Uri) -> pl.Expr:
    return (pl.col("bucket") == prefix.bucket) & pl.col("key").str.starts_with(prefix.prefix)
