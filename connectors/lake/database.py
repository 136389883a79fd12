"""A DuckDB database with nothing in it but the lake's tables and views: what `soundcheck sql --duckdb FILE` writes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
from fsspec.implementations.memory import MemoryFileSystem

from connectors.lake.ddl import root_of, tables, view_statements
from connectors.lake.dialects import Engine
from connectors.lake.query import CONFIGURATION, one_line
from connectors.lake.schemas import datasets
from connectors.lake.tables import duckdb_query
from connectors.lake.views import views
from moderation.errors import ConfigurationError


def write_database(file: Path, results_url: str) -> None:
    """Write the database over the results at a path or `s3://bucket/prefix`, in place of an earlier one; nothing is read of the results.

    Whoever opens it finds the files of that moment, and needs a DuckDB as new as ours, with its extension httpfs where results are in S3.
    Raises ConfigurationError where the file is something else or cannot be written; then it stays as it is.
    """
    root, is_new = root_of(results_url), not file.exists()
    if not is_new:
        _refuse_another(file)
    try:
        with _explained(file), duckdb.connect(file, config=CONFIGURATION) as connection:
            if "://" in root:
                connection.register_filesystem(_empty_s3())
            connection.begin()
            # views look through to the files as soon as they are made, each anew: so they are made over tables without any
            for dataset in datasets().values():
                connection.execute(f"CREATE OR REPLACE VIEW {dataset.name} AS {duckdb_query(dataset)}")
            for statements in (*view_statements(Engine.DUCKDB), *tables(Engine.DUCKDB, root)):
                connection.execute(statements)
            connection.commit()
    except BaseException:
        if is_new:
            file.unlink(missing_ok=True)
        raise


def _refuse_another(file: Path) -> None:
    """Raise unless the file is a DuckDB database with views of our names alone."""
    ours = datasets().keys() | {view.name for view in views()}
    with _explained(file), duckdb.connect(file, read_only=True, config=CONFIGURATION) as connection:
        found = connection.execute("""
            SELECT table_name, false FROM duckdb_tables() WHERE NOT internal
            UNION ALL SELECT view_name, schema_name = 'main' FROM duckdb_views() WHERE NOT internal
            UNION ALL SELECT function_name, false FROM duckdb_functions() WHERE NOT internal
            UNION ALL SELECT type_name, false FROM duckdb_types() WHERE NOT internal
            UNION ALL SELECT sequence_name, false FROM duckdb_sequences()
        """).fetchall()
    if others := sorted({name for name, is_view in found if not is_view or name not in ours}):
        raise ConfigurationError(f"{file} holds something else ({', '.join(others[:3])}): name another file, or delete it yourself")


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        raise ConfigurationError(f"{file} cannot be used as a database: {one_line(error)}") from error


def _empty_s3() -> MemoryFileSystem:
    """An S3 without an object: a view is bound when it is made, and DuckDB's own S3 reader is a download away."""
    empty = MemoryFileSystem(skip_instance_cache=True)
    empty.protocol = "s3"
    return empty
