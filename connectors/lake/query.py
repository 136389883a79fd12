"""Reading the lake: an in-memory DuckDB with every dataset as a table and the views over them.

The engine reads the lake and nothing else: no other file, no network, no extension, no variable of this process.
"""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import boto3
import duckdb
import pyarrow as pa
import pyarrow.dataset as pads
from botocore import UNSIGNED
from pyarrow.fs import S3FileSystem

from connectors.lake.columns import Dataset
from connectors.lake.packages import RUNS_FOLDER, publishing_order
from connectors.lake.schemas import ENDPOINT_DATASETS, PARTITION, datasets
from connectors.lake.store import FolderStore, ResultStore, S3Store, open_store
from connectors.lake.tables import RUN_ID, duckdb_query, duckdb_types, literal
from connectors.lake.views import views
from moderation.errors import ConfigurationError
from moderation.outcomes import ExitCode

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONFIGURATION: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
}
"""What every DuckDB of ours is opened with: it fetches nothing, and takes nothing from this process."""


class QueryError(ConfigurationError):
    """A query that cannot be answered: its SQL is wrong, or it is not of the kind that is asked for."""

    exit_code = ExitCode.USAGE


def connect(results_url: str, s3: "S3Client | None" = None, *, only: Collection[str] | None = None) -> duckdb.DuckDBPyConnection:
    """A connection over the results at a path or `s3://bucket/prefix`, closed to everything else; s3 as in `open_store`.

    Tables bear the names of the datasets and have scan_date (DATE), or run_id for those of a run; one without files is empty. Files that
    come later may show or not: connect anew. Times are shown in UTC. With `only` the other tables stay empty, and are not listed.
    Raises ConfigurationError for a bad address, and what the store raises when it is listed.
    """
    return _connected(open_store(results_url, s3), only)


def connect_to_nothing() -> duckdb.DuckDBPyConnection:
    """The same tables and views without a row, closed to every file: what a query can be checked against where no results can be read."""
    return _connected(None, only=())


def _connected(store: ResultStore | None, only: Collection[str] | None) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:", config=CONFIGURATION)
    try:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")  # it would write into what a command prints
        _shut_in(connection, store)
        # views look through to the files as soon as they are made, each anew: so they are made over empty tables
        connection.execute("; ".join(f"CREATE TABLE {dataset.name} ({_columns(dataset)})" for dataset in datasets().values()))
        connection.execute("; ".join(f"CREATE VIEW {view.name} AS {view.query}" for view in views()))
        for dataset in _listing_order():
            if store is not None and (only is None or dataset.name in only):
                _add_files(connection, store, dataset)
    except BaseException:
        connection.close()
        raise
    return connection


def done_objects(connection: duckdb.DuckDBPyConnection, endpoint: str, run_id: str | None = None) -> pa.Table:
    """What an endpoint has results for, of one run or of all: distinct (object_id, object_key_id, params_hash)."""
    summaries = ENDPOINT_DATASETS[endpoint].summaries.name
    query = f"SELECT DISTINCT object_id, object_key_id, params_hash FROM {summaries} WHERE run_id = coalesce(?, run_id)"  # noqa: S608 - a name of ours
    return _read(connection, query, [run_id])


def places_done(connection: duckdb.DuckDBPyConnection, endpoint: str, below: Sequence[tuple[str, str]]) -> pa.Table:
    """Where an endpoint has results below any of these (bucket, prefix): distinct (object_key_id)."""
    summaries = ENDPOINT_DATASETS[endpoint].summaries.name
    places = " OR ".join(["(bucket = ? AND starts_with(key, ?))"] * len(below)) or "false"
    query = f"SELECT DISTINCT object_key_id FROM {summaries} WHERE {places}"  # noqa: S608 - a name of ours
    return _read(connection, query, [word for place in below for word in place])


def measured_speed(connection: duckdb.DuckDBPyConnection, endpoint: str, *, runs: int) -> float | None:
    """Milliseconds of audio in a millisecond of one session, in the newest runs that had results; None where there was none yet."""
    table = _read(
        connection,
        """
        WITH finished AS (
            SELECT run_id, audio_sent_ms AS audio_ms, epoch_ms(finished_at) - epoch_ms(started_at) AS session_ms
            FROM attempts WHERE endpoint = ? AND outcome = 'done' AND audio_sent_ms > 0
        )
        SELECT sum(audio_ms) / nullif(sum(session_ms), 0) AS speed FROM finished
        WHERE run_id IN (SELECT DISTINCT run_id FROM finished ORDER BY run_id DESC LIMIT ?)
        """,
        [endpoint, runs],
    )
    speed: float | None = table["speed"][0].as_py()
    return speed


def spent_by(connection: duckdb.DuckDBPyConnection, run_id: str) -> tuple[int, int]:
    """What a run has cost by what is published of it, in milliseconds of audio: for its results, and sent without one."""
    rows = [f"SELECT run_id, duration_ms, covered_ms FROM {kind.summaries.name}" for kind in ENDPOINT_DATASETS.values()]  # noqa: S608 - names of ours
    settled = f"SELECT sum(greatest(coalesce(duration_ms, 0), covered_ms)) AS ms FROM ({' UNION ALL '.join(rows)}) WHERE run_id = ?"  # noqa: S608 - as above
    possible = "SELECT sum(audio_sent_ms) AS ms FROM attempts WHERE run_id = ? AND outcome <> 'done'"
    settled_ms, possible_ms = (_read(connection, query, [run_id])["ms"][0].as_py() for query in (settled, possible))
    return int(settled_ms or 0), int(possible_ms or 0)


def audio_saved_ms(connection: duckdb.DuckDBPyConnection, org: str, month: str) -> int:
    """The audio that cascades of an organisation leave out: by the newest run of each source in a month ("2026-11") that came to its end.

    Every run leaves the same objects out again, so runs do not add up. Only the table `runs` is asked.
    """
    table = _read(
        connection,
        """
        WITH newest AS (
            SELECT audio_ms_saved FROM runs_latest
            WHERE org = ? AND strftime(started_at, '%Y-%m') = ? AND state IN ('Completed', 'Incomplete')
            QUALIFY row_number() OVER (PARTITION BY source ORDER BY run_id DESC) = 1
        )
        SELECT CAST(coalesce(sum(audio_ms_saved), 0) AS BIGINT) AS saved_ms FROM newest
        """,
        [org, month],
    )
    saved_ms: int = table["saved_ms"][0].as_py()
    return saved_ms


def quarantined_now(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """What must not be streamed before a person released it: (object_id, endpoint, params_hash, reason)."""
    return _read(connection, "SELECT object_id, endpoint, params_hash, reason FROM quarantined_now")


def _read(connection: duckdb.DuckDBPyConnection, query: str, parameters: Sequence[Any] = ()) -> pa.Table:
    relation = connection.sql(query, params=list(parameters))
    assert relation is not None, "a SELECT has a relation"
    table: pa.Table = relation.to_arrow_table()
    return table


def one_line(error: duckdb.Error) -> str:
    """What DuckDB says, less the query that it repeats."""
    return " ".join(str(error).partition("\nLINE ")[0].split())


def _shut_in(connection: duckdb.DuckDBPyConnection, store: ResultStore | None) -> None:
    """Leave DuckDB the results folder alone, and its settings unchangeable."""
    if isinstance(store, FolderStore):
        # a pattern is held against this list as it is written, a file by its name
        allowed = sorted({f"{store.root}/", f"{literal(str(store.root))}/"})
        connection.execute("SET allowed_directories = ?", [allowed])
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _listing_order() -> tuple[Dataset, ...]:
    """Against the order of publishing: a package that appears in between shows its items without their summary, never the reverse."""
    published = publishing_order()
    return (*(dataset for dataset in datasets().values() if dataset not in published), *reversed(published))


def _columns(dataset: Dataset) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in duckdb_types(dataset).items())


def _add_files(connection: duckdb.DuckDBPyConnection, store: ResultStore, dataset: Dataset) -> None:
    """Put the files of a dataset, if there are any, in place of its empty table."""
    names = _files(store, dataset)
    if names:
        connection.execute(f"DROP TABLE {dataset.name}")
    if names and isinstance(store, S3Store):
        connection.register(dataset.name, _s3_dataset(store, dataset, names))
    elif names and isinstance(store, FolderStore):
        connection.execute(f"CREATE VIEW {dataset.name} AS {duckdb_query(dataset, str(store.root))}")


def _files(store: ResultStore, dataset: Dataset) -> list[str]:
    if dataset.partitioned:
        return [name for name in store.list(f"{dataset.name}/") if name.endswith(".parquet")]
    return [name for name in store.list(f"{RUNS_FOLDER}/") if name.endswith(f"/{dataset.stem}.parquet")]


def _s3_dataset(store: S3Store, dataset: Dataset, names: Sequence[str]) -> pads.Dataset:
    """The objects as an Arrow dataset, which takes DuckDB's columns and filters: DuckDB's own S3 reader is a download away."""
    place = pa.schema([pa.field(PARTITION, pa.date32()) if dataset.partitioned else pa.field(RUN_ID, pa.string())])
    folder = dataset.name if dataset.partitioned else RUNS_FOLDER
    return pads.dataset(
        [f"{store.bucket}/{store.root}/{name}" for name in names],
        schema=pa.unify_schemas([dataset.arrow_schema(), place]),
        filesystem=_filesystem(store.client),
        format="parquet",
        partitioning=pads.HivePartitioning(place) if dataset.partitioned else pads.DirectoryPartitioning(place),
        partition_base_dir=f"{store.bucket}/{store.root}/{folder}",
    )


def _filesystem(client: "S3Client") -> S3FileSystem:
    """Arrow's S3 with what botocore has found: on its own it ignores AWS_ENDPOINT_URL and profiles (measurements.md, S3)."""
    scheme, _, host = client.meta.endpoint_url.partition("://")
    options: dict[str, Any] = {"endpoint_override": host, "scheme": scheme, "region": client.meta.region_name}
    # botocore's stubs do not know the settings that a Config was made with
    if getattr(client.meta.config, "signature_version", None) is UNSIGNED:
        options["anonymous"] = True
    elif found := boto3.session.Session().get_credentials():
        keys = found.get_frozen_credentials()
        options |= {"access_key": keys.access_key, "secret_key": keys.secret_key, "session_token": keys.token}
    return S3FileSystem(**options)
