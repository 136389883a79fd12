"""A reader that knows nothing of packages: DuckDB over every Parquet file that a glob finds."""

import shutil
from functools import cache
from pathlib import Path

import duckdb

from connectors.lake.schemas import ENDPOINT_DATASETS
from connectors.lake.store import FolderStore, ResultStore

OPTIONS = {
    "enable_external_file_cache": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "threads": "1",
}


@cache
def _engine() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config=OPTIONS)


def seen(store: ResultStore, mirror: Path) -> dict[str, int]:
    """The sessions of which a summary is seen, with their items; each is seen once, and with all its items and its attempt.

    The files of a bucket are copied into `mirror` as they lie there, summaries first: what comes meanwhile can only be more.
    """
    if isinstance(store, FolderStore):
        return _read(store.root)
    shutil.rmtree(mirror, ignore_errors=True)
    datasets = [name for kind in ENDPOINT_DATASETS.values() for name in (kind.summaries.name, kind.items.name)]
    for dataset in [*datasets[::2], "attempts", *datasets[1::2]]:
        for name in store.list(f"{dataset}/"):
            path = mirror / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(store.get(name) or b"")
    return _read(mirror)


def _read(root: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    with _engine().cursor() as connection:

        def rows(dataset: str, query: str) -> dict[str, tuple[int, ...]]:
            if not any((root / dataset).glob("**/*.parquet")):
                return {}
            files = f"read_parquet('{root}/{dataset}/**/*.parquet')"
            return {session: tuple(rest) for session, *rest in connection.execute(query.format(files=files)).fetchall()}

        counted = "SELECT session_id, count(*), count(DISTINCT {ordinal}) FROM {{files}} GROUP BY ALL"
        summaries = {
            name: rows(kind.summaries.name, "SELECT session_id, count(*), any_value(items_received) FROM {files} GROUP BY ALL")
            for name, kind in ENDPOINT_DATASETS.items()
        }  # before what they speak of, which may only come meanwhile
        attempts = rows("attempts", "SELECT session_id, count(*) FROM {files} GROUP BY ALL")
        for name, kind in ENDPOINT_DATASETS.items():
            items = rows(kind.items.name, counted.format(ordinal=kind.items.sorted_by[-1]))
            for session, (times, received) in summaries[name].items():
                assert times == 1, f"session {session} is there {times} times"
                there, distinct = items.get(session, (0, 0))
                assert there == distinct == received, f"session {session} has {there} of {received} items"
                assert attempts.get(session) == (1,), f"session {session} has no attempt, or more than one"
                found[session] = received
            assert all(there == distinct for there, distinct in items.values()), "items are there twice"
        assert set(attempts.values()) <= {(1,)}, "an attempt is there twice"
    return found
