"""What needs a person, and its release: the quarantine in the results of one organisation's settings."""

from collections.abc import Iterator
from contextlib import contextmanager

import polars as pl
from duckdb import DuckDBPyConnection

from connectors.lake.store import ResultStore, open_store
from flows.person import who
from flows.places import results_of
from flows.results import s3_of
from flows.settings import Settings
from tasks import quarantine
from tasks.quarantine import EVERYTHING
from tasks.query import open_results
from tasks.records import Run


def held_now(settings: Settings, where: str = EVERYTHING) -> pl.DataFrame:
    """What is held of the organisation's, as `tasks.quarantine.held_now`. Raises ConfigurationError where there are no results."""
    with _results(settings) as (_, lake):
        return quarantine.held_now(lake, settings.org, where)


def release(settings: Settings, run: Run, where: str, why: str) -> pl.DataFrame:
    """Release what is held and a predicate is true of, in the name of a run and of whoever runs this; the rows that were held.

    They have org, endpoint, bucket, key, version_id, etag, object_id, params_hash, and what else `held_now` has. Raises as that does, and
    ResultsNotWritable.
    """
    with _results(settings) as (results, lake):
        held = quarantine.held_now(lake, settings.org, where)
        quarantine.release(results, held, run, who(), why)
        return held


@contextmanager
def _results(settings: Settings) -> Iterator[tuple[ResultStore, DuckDBPyConnection]]:
    url = results_of(settings)
    s3 = s3_of(url)
    with open_results(url, s3) as lake:
        yield open_store(url, s3), lake
