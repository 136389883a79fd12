"""Results that earlier runs have left, for benchmarks of what comes after them."""

from datetime import UTC, datetime, timedelta

import polars as pl

from connectors.lake.packages import write_rows
from connectors.lake.schemas import datasets
from connectors.lake.store import FolderStore
from moderation.identity import params_hash

FILES = 20
"""Packages that the results came in."""
START = datetime(2026, 11, 1, tzinfo=UTC)
UNCHANGED = params_hash(sidecar=None, rule=None, transcode="never")


def publish(results: FolderStore, endpoint: str, objects: pl.DataFrame) -> None:
    """Results of all of them, in so many packages."""
    name = f"{endpoint}_summaries"
    required = {column.name: column for column in datasets()[name].columns if not column.nullable and column.name not in objects.columns}
    fill = {"STRING": pl.lit("x"), "INT64": pl.lit(1), "DOUBLE": pl.lit(0.5), "INSTANT": pl.lit(START)}
    constants = [
        fill[column.type.name].alias(column.name) for column in required.values() if column.name not in {"session_id", "params_hash"}
    ]
    rows = objects.drop("storage_class").with_columns(
        *constants, pl.lit(UNCHANGED).alias("params_hash"), ("s-" + pl.col("object_id")).alias("session_id")
    )
    for number, part in enumerate(rows.iter_slices(max(1, -(-rows.height // FILES)))):
        write_rows(results, name, f"r{number:03}", (START + timedelta(days=number)).date(), "p0000", part.to_arrow())
