"""Rows of facts in CSV, Parquet and JSON lines, read as they come and never held whole."""

import asyncio
import csv
import gzip
import io
import json
import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from connectors.catalogue.facts import Facts, column, facts
from moderation.errors import ConfigurationError

BATCH_ROWS = 1000
_UNREADABLE = (ValueError, TypeError, OverflowError, RecursionError, csv.Error, zlib.error, EOFError, OSError, pa.ArrowException)
"""What the readers of these formats raise for a file that is none of theirs."""
_GZIP = b"\x1f\x8b"


class TableFormat(StrEnum):
    """How a list of keys is written; CSV and JSON lines may be compressed by gzip."""

    CSV = "csv"
    PARQUET = "parquet"
    JSON_LINES = "jsonl"

    @classmethod
    def of(cls, address: str) -> "TableFormat":
        """By the ending of a name. Raises ConfigurationError."""
        ending = address.lower().removesuffix(".gz").rpartition(".")[2]
        if ending not in _ENDINGS:
            raise ConfigurationError(f"{address} is of no known format: let its name end in .csv, .parquet or .jsonl (.gz may follow)")
        return _ENDINGS[ending]


_ENDINGS = {
    "csv": TableFormat.CSV,
    "parquet": TableFormat.PARQUET,
    "jsonl": TableFormat.JSON_LINES,
    "ndjson": TableFormat.JSON_LINES,
}


def table_rows(file: BinaryIO, kind: TableFormat, name: str, header: Sequence[str] | None = None) -> Generator[Facts, None, None]:
    """The facts in a table, row by row. name is the table's, for messages; header that of a CSV that has none of its own.

    Columns of something else are passed over. Close it before the file. Raises ConfigurationError for a table without keys, or a row
    that cannot be read.
    """
    read = 0
    try:
        for row in _rows(file, kind, header):
            yield facts(row)
            read += 1
    except _UNREADABLE as error:
        raise ConfigurationError(f"{name} cannot be read at row {read + 1}: {error}") from error


async def next_rows(rows: Iterator[Facts]) -> list[Facts]:
    """The next rows, read in a thread; none at the end. Who is cancelled waits for it: a table cannot be closed while it is read."""
    reading = asyncio.ensure_future(asyncio.to_thread(lambda: list(islice(rows, BATCH_ROWS))))
    try:
        return await asyncio.shield(reading)
    except asyncio.CancelledError:
        await asyncio.gather(reading, return_exceptions=True)
        raise


def _rows(file: BinaryIO, kind: TableFormat, header: Sequence[str] | None) -> Iterator[Mapping[str, Any]]:
    if kind is TableFormat.PARQUET:
        yield from _parquet_rows(file)
        return
    lines = io.TextIOWrapper(_plain(file), encoding="utf-8-sig", newline="")
    try:
        yield from _json_rows(lines) if kind is TableFormat.JSON_LINES else _csv_rows(lines, header)
    finally:
        lines.detach()  # the file is its owner's to close


def _plain(file: BinaryIO) -> BinaryIO:
    packed = file.read(len(_GZIP)) == _GZIP
    file.seek(0)
    return gzip.GzipFile(fileobj=file) if packed else file  # type: ignore[return-value]


def _csv_rows(lines: Iterable[str], header: Sequence[str] | None) -> Iterator[Mapping[str, Any]]:
    rows = csv.reader(lines, strict=True)
    names = _columns(header if header is not None else next(rows, []))
    for row in rows:
        if len(row) != len(names):
            raise ValueError(f"it has {len(row)} columns of {len(names)}")
        yield {name: value for name, value in zip(names, row, strict=True) if name}


def _json_rows(lines: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        if text := line.strip():
            row = json.loads(text)
            if not isinstance(row, dict):
                raise ValueError("it is no JSON object")
            yield {known: value for name, value in row.items() if (known := column(name))}


def _parquet_rows(file: BinaryIO) -> Iterator[Mapping[str, Any]]:
    with pq.ParquetFile(file, coerce_int96_timestamp_unit="us") as table:
        given = table.schema_arrow.names
        names = [(name, known) for name, known in zip(given, _columns(given), strict=True) if known]
        for batch in table.iter_batches(BATCH_ROWS, columns=[name for name, _ in names]):
            for row in batch.to_pylist():
                yield {known: row[name] for name, known in names}


def _columns(header: Iterable[str]) -> list[str | None]:
    known = [column(name) for name in header]
    found = [name for name in known if name]
    if "key" not in found:
        raise ValueError("it has no column `key`")
    if len(set(found)) < len(found):
        raise ValueError("two of its columns are the same")
    return known
