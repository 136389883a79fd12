"""Questions to the results in SQL, and their answers as a table, CSV, JSON or Parquet: what `soundcheck sql` does."""

import csv
import json
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from rich.text import Text

from connectors.durable import replacing
from connectors.lake.query import QueryError, connect, one_line
from connectors.lake.schemas import datasets
from connectors.lake.store import FolderStore, open_store
from moderation.errors import ConfigurationError
from moderation.printable import printable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

TABLE_ROWS = 1000
"""Rows that a table on a terminal shows at most."""
_FETCHED_ROWS = 10_000
_BATCH_ROWS = 128 * 1024
_INTERRUPT_SECONDS = 0.1
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a query: column names, each once, and rows to be read once. Reading them raises QueryError, too."""

    columns: list[str]
    rows: Iterator[tuple[Any, ...]]


def open_results(results_url: str, s3: "S3Client | None" = None) -> duckdb.DuckDBPyConnection:
    """A connection as of `connectors.lake.query.connect`. Raises ConfigurationError where there is nothing to ask about."""
    find_results(results_url, s3)
    return connect(results_url, s3)


def find_results(results_url: str, s3: "S3Client | None" = None) -> None:
    """Raise ConfigurationError where there is nothing to ask about."""
    store = open_store(results_url, s3)
    if isinstance(store, FolderStore) and not Path(store.url).is_dir():
        raise ConfigurationError(f"There is no results folder {store.url}: check --results, or run a scan first.")
    if not any(True for dataset in datasets() for _ in store.list(f"{dataset}/")):
        raise ConfigurationError(f"There are no results in {store.url} yet: run a scan first.")


def ask(connection: duckdb.DuckDBPyConnection, sql: str) -> Answer:
    """Run one SELECT. Raises QueryError with what DuckDB says, in one line.

    Only SELECT (and what DuckDB makes one of: FROM, WITH, DESCRIBE, SHOW, SUMMARIZE) is run: COPY, also inside EXPLAIN ANALYZE, would
    write into the results.
    """
    with _explained():
        cursor = _heeding(connection, lambda: connection.execute(_select(connection, sql)))
    return Answer(_distinct([column[0] for column in cursor.description or ()]), _rows(cursor))


def save_parquet(connection: duckdb.DuckDBPyConnection, sql: str, file: Path) -> int:
    """Run one SELECT as `ask` does, write the answer as a Parquet file in place of an earlier one, and return how many rows it has.

    Raises QueryError also for a type that Parquet does not have (intervals), and ResultsNotWritable; then the earlier file stays.
    """
    rows = 0
    with _explained():
        reader = _heeding(connection, lambda: connection.sql(_select(connection, sql)).to_arrow_reader(_BATCH_ROWS))
        names = _distinct(reader.schema.names)
        schema = pa.schema([column.with_name(name) for name, column in zip(names, reader.schema, strict=True)])
        with replacing(file) as out, pq.ParquetWriter(out, schema, compression="zstd") as writer:
            while (batch := _heeding(connection, lambda: next(reader, None))) is not None:
                writer.write_batch(batch.rename_columns(names))
                rows += batch.num_rows
    return rows


def render_table(answer: Answer, console: Console) -> None:
    """Show an answer on a terminal, its first TABLE_ROWS rows, and say so where there are more."""
    rows = list(islice(answer.rows, TABLE_ROWS + 1))
    table = Table()
    for place, name in enumerate(answer.columns):
        is_number = any(isinstance(row[place], int | float) for row in rows)
        table.add_column(Text(printable(name)), justify="right" if is_number else "left", overflow="fold")
    for row in rows[:TABLE_ROWS]:
        table.add_row(*(_cell(value) for value in row))
    console.print(table)
    if len(rows) > TABLE_ROWS:
        console.print(f"Only the first {TABLE_ROWS:,} rows are shown: add a LIMIT, or take all of them as CSV or JSON.")


def to_csv(answer: Answer, out: TextIO) -> None:
    """Write an answer as CSV with a header; null and NaN are empty, instants are ISO 8601, lists and structs are JSON."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(answer.columns)
    for row in answer.rows:
        values = [_plain(value) for value in row]
        writer.writerow(json.dumps(value) if isinstance(value, list | dict) else value for value in values)


def to_json(answer: Answer, out: TextIO) -> None:
    """Write an answer as a JSON list of objects, a line each; NaN and infinities are null, instants are ISO 8601."""
    out.write("[")
    separator = "\n"
    for row in answer.rows:
        members = {name: _plain(value) for name, value in zip(answer.columns, row, strict=True)}
        out.write(separator + json.dumps(members, ensure_ascii=False, allow_nan=False))
        separator = ",\n"
    out.write("\n]\n")


def _select(connection: duckdb.DuckDBPyConnection, sql: str) -> str:
    """The query itself, if it is one."""
    if [statement.type for statement in connection.extract_statements(sql)] != [duckdb.StatementType.SELECT]:
        raise QueryError("The query must be a single SELECT: results are only read.")
    return sql


def _rows(cursor: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    with _explained():
        while rows := _heeding(cursor, lambda: cursor.fetchmany(_FETCHED_ROWS)):
            yield from rows


def _heeding(connection: duckdb.DuckDBPyConnection, work: Callable[[], T]) -> T:
    """What some work with DuckDB returns, done in a thread: in this one Ctrl-C would wait, for a sort or a recursion to its end."""
    with ThreadPoolExecutor(1, "query") as thread:
        done = thread.submit(work)
        try:
            # once input() has had a history, a signal wakes nobody who waits: Python looks for it when a wait ends
            while not wait([done], timeout=_INTERRUPT_SECONDS).done:
                pass
            return done.result()
        except KeyboardInterrupt:
            while not done.done():
                with suppress(KeyboardInterrupt):  # it has been heard
                    connection.interrupt()  # which is forgotten where a query is only about to begin
                    wait([done], timeout=_INTERRUPT_SECONDS)
            raise


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what is wrong with a query into QueryError in one line; what a disk says has become ResultsNotWritable before."""
    try:
        yield
    except duckdb.Error as error:
        raise QueryError(one_line(error)) from error
    except (pa.ArrowException, OSError) as error:
        raise QueryError(" ".join(str(error).split())) from error


def _distinct(names: list[str]) -> list[str]:
    """The names, a repeated one with its place: an object of JSON has each only once."""
    return [name if names.index(name) == place else f"{name}_{place + 1}" for place, name in enumerate(names)]


def _plain(value: Any) -> Any:  # noqa: PLR0911 - one a kind of value
    """The value as JSON has it."""
    match value:
        case None | bool() | int() | str():
            return value
        case float() | Decimal():
            return float(value) if math.isfinite(value) else None
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case date() | time():
            return value.isoformat()
        case list() | tuple():
            return [_plain(part) for part in value]
        case dict():
            return {str(name): _plain(part) for name, part in value.items()}
        case bytes():
            return value.hex()
        case _:
            return str(value)


def _cell(value: Any) -> Text:
    plain = _plain(value)
    if plain is None:
        return Text("null", style="dim")
    return Text(printable(json.dumps(plain) if isinstance(plain, list | dict) else str(plain)))
