"""Summaries of many objects without a session behind them, from a seed: columns of plain figures, written as packages are."""

from datetime import date

import numpy as np
import pyarrow as pa

from connectors.lake.columns import Column, ColumnType
from connectors.lake.packages import partition_name
from connectors.lake.parquet import ParquetSink
from connectors.lake.schemas import datasets
from connectors.lake.store import ResultStore

RUN, DAY = "20260301T080000Z-0a1b2c", date(2026, 3, 1)
ID_BYTES = 16
WORDS = {"evidence": "sufficient", "quality_flags": "", "primary_label": "music", "run_id": RUN, "endpoint": "music"}


def publish_summaries(store: ResultStore, objects: int, packages: int) -> None:
    """Music summaries of so many objects, an object a session, in so many packages."""
    dataset = datasets()["music_summaries"]
    for number in range(packages):
        rows = objects // packages
        generator = np.random.default_rng(number)
        ids = {name: _ids(generator, rows) for name in ("object_id", "object_key_id", "session_id")}
        table = pa.table({column.name: ids.get(column.name, _values(column, generator, rows)) for column in dataset.columns})
        package = f"{RUN}-p{number:04}"
        with (
            store.writing(partition_name(dataset, DAY, package)) as out,
            ParquetSink(out, dataset, run_id=RUN, package=package, objects=rows) as sink,
        ):
            sink.write(table.sort_by("object_id"))


def _ids(generator: np.random.Generator, rows: int) -> list[str]:
    return [generator.bytes(ID_BYTES).hex() for _ in range(rows)]


def _values(column: Column, generator: np.random.Generator, rows: int) -> "pa.Array":
    match column.type:
        case ColumnType.STRING:
            return pa.repeat(WORDS.get(column.name, column.name), rows)
        case ColumnType.DOUBLE:
            return pa.array(np.round(generator.random(rows), 4))
        case _:
            return pa.array(generator.integers(0, 10**6, rows)).cast(column.type.value)
