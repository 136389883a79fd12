"""Reading the lake: an in-memory DuckDB with every dataset as a table and the views over them.

The engine reads the lake and nothing else: no other file, no network, no extension, no variable of this process.
"""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import duckdb
import pyarrow as pa

from connectors.lake.columns import Dataset
from connectors.lake.current import current_dataset, current_views
from connectors.lake.current_files import current_files, current_name
from connectors.lake.packages import RUNS_FOLDER, publishing_order
from connectors.lake.s3_tables import s3_dataset, s3_file
from connectors.lake.schemas import ENDPOINT_DATASETS, datasets
from connectors.lake.store import FolderStore, ResultStore, S3Store, open_store
from connectors.lake.tables import duckdb_file, duckdb_query, duckdb_rows, duckdb_types, literal
from connectors.lake.views import views
from moderation.errors import ConfigurationError
from moderation.outcomes import ExitCode

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Configuration: TypeAlias = dict[str, str | bool | int | float | list[str]]
CONFIGURATION: Configuration = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
}
"""What every DuckDB of ours is opened with: it fetches nothing, and takes nothing from this process."""
FRUGAL: Configuration = {"threads": 1, "allocator_bulk_deallocation_flush_threshold": "1MB"}
"""What one has besides that answers a run, which streams beside it: each thread holds buffers of its own, and what is freed is kept."""


class QueryError(ConfigurationError):
    """A query that cannot be answered: its SQL is wrong, or it is not of the kind that is asked for."""

    exit_code = ExitCode.USAGE


def connect(
    results_url: str, s3: "S3Client | None" = None, *, only: Collection[str] | None = None, frugal: bool = False
) -> duckdb.DuckDBPyConnection:
    """A connection over the results at a path or `s3://bucket/prefix`, closed to everything else; s3 as in `open_store`.

    Tables bear the names of the datasets and have scan_date (DATE), or run_id for those of a run; one without files is empty. Files that
    come later may show or not: connect anew. Times are shown in UTC. With `only` the other tables stay empty, and are not listed. A
    frugal one takes its time, and little memory.
    Raises ConfigurationError for a bad address, and what the store raises when it is listed.
    """
    return _connected(open_store(results_url, s3), only, frugal=frugal)


def connect_to_files(store: ResultStore, endpoint: str, names: Sequence[str]) -> duckdb.DuckDBPyConnection:
    """The same over these files of an endpoint's summaries, and nothing else. Raises what the store raises."""
    connection, summaries = _connected(store, only=()), ENDPOINT_DATASETS[endpoint].summaries
    try:
        connection.execute(f"DROP TABLE {summaries.name}")
        _add_rows(connection, store, summaries, names)
    except BaseException:
        connection.close()
        raise
    return connection


def add_current(connection: duckdb.DuckDBPyConnection, store: ResultStore, endpoint: str, name: str) -> None:
    """Add the table of a file of the materialised `current`."""
    dataset = current_dataset(endpoint)
    if isinstance(store, S3Store):
        connection.register(dataset.name, s3_file(store, dataset, name))
    else:
        connection.execute(f"CREATE VIEW {dataset.name} AS {duckdb_file(dataset, store.address(name))}")


def summary_files(store: ResultStore, endpoint: str) -> list[str]:
    """The files of an endpoint's summaries that there are."""
    return _files(store, ENDPOINT_DATASETS[endpoint].summaries)


def connect_to_nothing() -> duckdb.DuckDBPyConnection:
    """The same tables and views without a row, closed to every file: what a query can be checked against where no results can be read."""
    return _connected(None, only=())


def _connected(store: ResultStore | None, only: Collection[str] | None, *, frugal: bool = False) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:", config=CONFIGURATION | FRUGAL if frugal else CONFIGURATION)
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


def measured_overhead_s(connection: duckdb.DuckDBPyConnection) -> float:
    """Seconds that the newest run with results took beside its sessions: to list, to plan, to publish; 0 where there was none yet."""
    table = _read(
        connection,
        """
        SELECT (epoch_ms(ended.finished_at) - epoch_ms(ended.started_at) - streamed.ms) / 1000 AS overhead_s
        FROM runs_latest AS ended
        JOIN (
            SELECT run_id, max(epoch_ms(finished_at)) - min(epoch_ms(started_at)) AS ms
            FROM attempts WHERE outcome = 'done' GROUP BY run_id
        ) AS streamed USING (run_id)
        WHERE ended.exit_code IS NOT NULL
        ORDER BY run_id DESC
        LIMIT 1
        """,
    )
    overhead_s = table["overhead_s"].to_pylist()
    return max(0.0, float(overhead_s[0] or 0.0)) if overhead_s else 0.0


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
    if names and isinstance(store, FolderStore):
        connection.execute(f"DROP TABLE {dataset.name}")
        connection.execute(f"CREATE VIEW {dataset.name} AS {duckdb_query(dataset, str(store.root))}")
    elif names:
        connection.execute(f"DROP TABLE {dataset.name}")
        _add_rows(connection, store, dataset, names)
    endpoint = next((name for name, kind in ENDPOINT_DATASETS.items() if kind.summaries is dataset), None)
    if names and endpoint is not None:
        _use_current(connection, store, endpoint, names)


def _use_current(connection: duckdb.DuckDBPyConnection, store: ResultStore, endpoint: str, summaries: Sequence[str]) -> None:
    """Let the materialised `current` answer the views that it can, where there is one of just these files of summaries."""
    name = current_name(endpoint, summaries)
    if name in current_files(store, endpoint):
        add_current(connection, store, endpoint, name)
        for view, query in current_views(endpoint).items():
            connection.execute(f"CREATE OR REPLACE VIEW {view} AS {query}")


def _add_rows(connection: duckdb.DuckDBPyConnection, store: ResultStore, dataset: Dataset, names: Sequence[str]) -> None:
    """A table of a dataset's rows in these files."""
    if isinstance(store, S3Store):
        connection.register(dataset.name, s3_dataset(store, dataset, names))
    else:
        connection.execute(f"CREATE VIEW {dataset.name} AS {duckdb_rows(dataset, [store.address(name) for name in names])}")


def _files(store: ResultStore, dataset: Dataset) -> list[str]:
    if dataset.partitioned:
        return [name for name in store.list(f"{dataset.name}/") if name.endswith(".parquet")]
    return [name for name in store.list(f"{RUNS_FOLDER}/") if name.endswith(f"/{dataset.stem}.parquet")]
