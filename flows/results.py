"""The results of the settings, opened: in a folder, or in S3."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from duckdb import DuckDBPyConnection

from connectors.lake.query import connect
from connectors.lake.store import ResultStore, open_store
from connectors.s3 import S3Settings, s3_client
from flows.places import results_of
from flows.settings import Settings
from tasks.query import find_results

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def s3_of(url: str) -> "S3Client | None":
    """What reads and writes results at an address; None for a folder, which needs no credentials."""
    return s3_client(S3Settings()) if "://" in url else None


def opened(settings: Settings) -> tuple[ResultStore, Callable[..., DuckDBPyConnection]]:
    """The results of the settings, and what opens the lake over them. Raises ConfigurationError where there are none."""
    url = results_of(settings)
    s3 = s3_of(url)
    find_results(url, s3)
    return open_store(url, s3), partial(connect, url, s3)
