"""One Parquet file of a dataset: rows held strictly to the schema, written with the settings of design.md section 7."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectors.lake import schemas
from connectors.lake.columns import Column, ColumnType, Dataset

ROW_GROUP_ROWS = 256 * 1024
FEW_VALUES = 10_001
"""Distinct values up to which a dictionary pays: all there are of a probability with four decimals, and some (measurements.md, Parquet)."""
BLOOM_FALSE_POSITIVES = 0.01

Rows: TypeAlias = Sequence[Mapping[str, Any]] | pa.Table
"""Rows of a dataset; an absent column is null, NaN is null, instants know their time zone."""


class ParquetSink(AbstractContextManager["ParquetSink"]):
    """A Parquet file that is written row group by row group and never held whole.

    few_valued are the double columns that get a dictionary; objects is the number of distinct object ids, which sizes the bloom
    filter (None: no filter); group_rows is the size of a row group, ROW_GROUP_ROWS where nothing is said; schema_version is that of the
    dataset's columns. Rows are written in the order given. The same rows give the same bytes, however they are cut into calls. write raises
    ValueError for rows that do not fit the dataset.
    """

    def __init__(
        self,
        out: BinaryIO,
        dataset: Dataset,
        *,
        run_id: str,
        package: str = "",
        few_valued: Collection[str] = (),
        objects: int | None = None,
        group_rows: int | None = None,
        schema_version: str = str(schemas.SCHEMA_VERSION),
    ) -> None:
        self.rows = 0
        self._group_rows = group_rows or ROW_GROUP_ROWS
        self._dataset = dataset
        self._waiting = dataset.arrow_schema().empty_table()
        self._writer = pq.ParquetWriter(out, dataset.arrow_schema(), **_settings(dataset, few_valued, objects))
        self._writer.add_key_value_metadata(
            {
                schemas.METADATA_DATASET: dataset.name,
                schemas.METADATA_SCHEMA_VERSION: schema_version,
                schemas.METADATA_RUN_ID: run_id,
                schemas.METADATA_PACKAGE: package,
            }
        )

    def write(self, rows: Rows) -> None:
        """Add rows. A row group goes out whenever there is a full one."""
        table = fitted(self._dataset, rows)
        self.rows += table.num_rows
        self._waiting = pa.concat_tables([self._waiting, table])
        while self._waiting.num_rows >= self._group_rows:
            self._writer.write_table(self._waiting.slice(0, self._group_rows).combine_chunks())
            self._waiting = self._waiting.slice(self._group_rows)

    def describe(self, facts: Mapping[str, str]) -> None:
        """Add facts to the file's metadata, any time before it is closed."""
        self._writer.add_key_value_metadata(dict(facts))

    def close(self) -> None:
        """Write what is left, and the footer."""
        if self._waiting.num_rows:
            self._writer.write_table(self._waiting.combine_chunks())
            self._waiting = self._waiting.slice(0, 0)
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            # the file is being thrown away: only the writer's own hold on it must end
            self._writer.close()


def _settings(dataset: Dataset, few_valued: Collection[str], objects: int | None) -> dict[str, Any]:
    dictionaries = [*dataset.columns_of(ColumnType.STRING), *few_valued]
    encodings = dict.fromkeys(dataset.columns_of(ColumnType.INT64, ColumnType.INSTANT), "DELTA_BINARY_PACKED")
    encodings |= {name: "BYTE_STREAM_SPLIT" for name in dataset.columns_of(ColumnType.DOUBLE) if name not in few_valued}
    names = dataset.arrow_schema().names
    return {
        "compression": "zstd",
        "compression_level": 3,
        "store_schema": False,
        "use_dictionary": dictionaries,
        "column_encoding": encodings,
        "write_page_index": True,
        "write_page_checksum": True,
        "sorting_columns": [pq.SortingColumn(names.index(name)) for name in dataset.sorted_by] or None,
        "bloom_filter_options": {"object_id": {"ndv": objects, "fpp": BLOOM_FALSE_POSITIVES}} if objects else None,
    }


def sink_like(out: BinaryIO, dataset: Dataset, written: pq.FileMetaData) -> ParquetSink:
    """A sink with the settings by which a sound file of the dataset was written, as its footer tells them.

    The rows of that file give the same bytes again, a row group a call, where `written_here` is true of it.
    """
    facts = {name.decode(): value.decode() for name, value in (written.metadata or {}).items()}
    present = [written.schema.column(place).name for place in range(written.num_columns)]
    of_then = replace(dataset, columns=tuple(column for column in dataset.columns if column.name in present))
    groups = [written.row_group(place) for place in range(written.num_row_groups)]
    few = [
        name
        for name in of_then.columns_of(ColumnType.DOUBLE)
        if any(group.column(present.index(name)).has_dictionary_page for group in groups)
    ]
    object_ids: Any = groups[0].column(present.index("object_id")) if groups and "object_id" in present else None
    filter_bytes = object_ids and object_ids.bloom_filter_length
    sink = ParquetSink(
        out,
        of_then,
        run_id=facts.pop(schemas.METADATA_RUN_ID),
        package=facts.pop(schemas.METADATA_PACKAGE),
        few_valued=few,
        objects=_objects_of(filter_bytes) if filter_bytes else None,
        group_rows=groups[0].num_rows if groups else None,
        schema_version=facts.pop(schemas.METADATA_SCHEMA_VERSION),
    )
    if more := {name: value for name, value in facts.items() if name != schemas.METADATA_DATASET}:
        sink.describe(more)
    return sink


def written_here(written: pq.FileMetaData) -> bool:
    """Whether a file was written by this version of Arrow, whose bytes for the same rows are the same."""
    return bool(written.created_by == f"parquet-cpp-arrow version {pa.__version__}")


def _objects_of(filter_bytes: int) -> int:
    """Objects for which a bloom filter takes these bytes: it has a power of two of them, and a short header."""
    bits = 8 << (filter_bytes.bit_length() - 1)
    return int(-bits * math.log(1 - BLOOM_FALSE_POSITIVES ** (1 / 8)) / 8)


def few_valued(dataset: Dataset, tables: Iterable[pa.Table]) -> list[str]:
    """The double columns with at most FEW_VALUES distinct values over all these tables."""
    seen: dict[str, set[float | None]] = {name: set() for name in dataset.columns_of(ColumnType.DOUBLE)}
    for table in tables:
        for name, values in seen.items():
            if len(values) <= FEW_VALUES:
                values.update(pc.unique(table[name]).to_pylist())
    return [name for name, values in seen.items() if len(values) <= FEW_VALUES]


def fitted(dataset: Dataset, rows: Rows) -> pa.Table:
    """The rows as a table of exactly the dataset's schema. Raises ValueError, naming the dataset and the column."""
    given = set(rows.column_names) if isinstance(rows, pa.Table) else {name for row in rows for name in row}
    if unknown := given - {column.name for column in dataset.columns}:
        raise ValueError(f"{dataset.name} has no column {', '.join(sorted(unknown))}")
    arrays = [_fitted_column(dataset, column, rows) for column in dataset.columns]
    return pa.Table.from_arrays(arrays, schema=dataset.arrow_schema())


def _fitted_column(dataset: Dataset, column: Column, rows: Rows) -> "pa.Array[Any] | pa.ChunkedArray[Any]":
    try:
        values = _table_column(column, rows) if isinstance(rows, pa.Table) else _row_values(column, rows)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{dataset.name}.{column.name} takes {column.type.name.lower()}: {error}") from error
    if values.null_count and not column.nullable:
        raise ValueError(f"{dataset.name}.{column.name} must not be null, and is in {values.null_count} of {len(values)} rows")
    return values


def _row_values(column: Column, rows: Sequence[Mapping[str, Any]]) -> "pa.Array[Any]":
    values = [row.get(column.name) for row in rows]
    # two things that Arrow lets pass: it cuts fractions off, and takes any clock's time for UTC
    if column.type is ColumnType.INT64 and any(isinstance(value, float) for value in values):
        raise ValueError("a fraction")
    if column.type is ColumnType.INSTANT and any(isinstance(value, datetime) and value.tzinfo is None for value in values):
        raise ValueError("an instant without a time zone")
    # from_pandas makes NaN null
    array: pa.Array[Any] = pa.array(values, column.type.value, from_pandas=column.type is ColumnType.DOUBLE)
    return array


def _table_column(column: Column, table: pa.Table) -> "pa.Array[Any] | pa.ChunkedArray[Any]":
    if column.name not in table.column_names:
        absent: pa.Array[Any] = pa.nulls(table.num_rows, column.type.value)
        return absent
    values: pa.ChunkedArray[Any] = table[column.name]
    if column.type is ColumnType.INSTANT and pa.types.is_timestamp(values.type) and values.type.tz is None:
        raise ValueError("an instant without a time zone")
    values = values.cast(column.type.value)
    if column.type is ColumnType.DOUBLE:
        values = pc.if_else(pc.is_nan(values), None, values)
    return values
