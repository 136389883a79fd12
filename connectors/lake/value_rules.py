"""The values that the columns of a dataset may have, as their units say: what no Parquet type can hold them to."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from connectors.lake.columns import Column, ColumnType, Dataset
from connectors.lake.schemas import REASONS
from moderation.endpoints import ENDPOINTS
from moderation.outcomes import Reason
from moderation.results import Flag

_CHOICE = " | "
_BOUNDS = {"probability, 0 to 1": (0, 1), "percent, 0 to 100": (0, 100)}
_NEVER_NEGATIVE = frozenset({"count", "ms of audio", "bytes", "ordinal", "Hz"})
_OPEN = frozenset(endpoint.label_field for endpoint in ENDPOINTS.values())
"""Columns whose list of values the service may lengthen."""

_FLAGS = "quality_flags"


def misfits(dataset: Dataset, table: pa.Table) -> Iterator[tuple[str, int]]:
    """What is wrong with the values of some rows, in a few words, and in how many of them. The table has the dataset's columns.

    Figures out of range are no misfit where the row is flagged for it: they are kept as the service said them.
    """
    excused = pc.match_substring(table[_FLAGS], Flag.RANGE) if _FLAGS in table.column_names else None
    for column in dataset.columns:
        if column.name in table.column_names:
            wrong, words = _wrong(column, table[column.name])
            if wrong is not None and excused is not None and column.type is not ColumnType.STRING:
                wrong = pc.and_not(wrong, excused)
            if wrong is not None and (rows := _true(wrong)):
                yield f"{column.name} is {words}", rows
    spans = {"start_time_ms", "end_time_ms"} <= set(table.column_names)
    if spans and (rows := _true(pc.less(table["end_time_ms"], table["start_time_ms"]))):
        yield "end_time_ms is before start_time_ms", rows


def _wrong(column: Column, values: Any) -> tuple[Any, str]:
    """Which values (an Arrow array) are not among those that the column may have, None where it may have any; null is none of them."""
    if column.type is ColumnType.DOUBLE and column.unit in _BOUNDS:
        low, high = map(pa.scalar, _BOUNDS[column.unit])
        # NaN is in no range
        return pc.invert(pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high))), f"outside {low} to {high}"
    if column.type is ColumnType.INT64 and column.unit in _NEVER_NEGATIVE:
        return pc.less(values, pa.scalar(0)), "negative"
    if column.type is ColumnType.STRING and (known := _known_words(column)):
        unknown = pc.invert(pc.is_in(values, pa.array(sorted(known), pa.string())))
        return pc.and_(unknown, pc.is_valid(values)), "none of its words"
    return None, ""


def _known_words(column: Column) -> frozenset[str]:
    """The closed list of a column's words, empty where there is none."""
    if column.unit == REASONS:
        return frozenset(reason.value for reason in Reason)
    return frozenset(column.unit.split(_CHOICE)) if _CHOICE in column.unit and column.name not in _OPEN else frozenset()


def _true(mask: Any) -> int:
    return pc.sum(mask).as_py() or 0
