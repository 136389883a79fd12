"""What a dataset of the lake is made of: typed, described columns."""

from dataclasses import dataclass
from enum import Enum

import pyarrow as pa


class ColumnType(Enum):
    """A type that a column may have: signed integers, doubles, plain strings and UTC instants, nothing else (design.md section 7)."""

    STRING = pa.string()
    INT64 = pa.int64()
    DOUBLE = pa.float64()
    INSTANT = pa.timestamp("us", tz="UTC")

    @property
    def sql(self) -> str:
        """The type's name in DuckDB."""
        return {"STRING": "VARCHAR", "INT64": "BIGINT", "DOUBLE": "DOUBLE", "INSTANT": "TIMESTAMPTZ"}[self.name]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a dataset; unit is a unit, a range, or the closed list of its values, empty for free text."""

    name: str
    type: ColumnType
    unit: str
    description: str
    nullable: bool = False


@dataclass(frozen=True, slots=True)
class Dataset:
    """One kind of row in the lake.

    partitioned ones lie under `<name>/scan_date=YYYY-MM-DD/`, the others as `_runs/<run_id>/<stem>.parquet`, hidden from query
    engines by the underscore. Rows of a package are sorted by `sorted_by`. The example is a query that shows its use.
    """

    name: str
    description: str
    columns: tuple[Column, ...]
    sorted_by: tuple[str, ...] = ()
    partitioned: bool = True
    stem: str = ""
    example: str = ""

    def arrow_schema(self) -> pa.Schema:
        """The Arrow schema of the dataset's files, in column order; scan_date is not in it."""
        return pa.schema([pa.field(column.name, column.type.value, nullable=column.nullable) for column in self.columns])

    def columns_of(self, *types: ColumnType) -> list[str]:
        """The names of the columns of these types, in column order."""
        return [column.name for column in self.columns if column.type in types]


def text(name: str, description: str, unit: str = "", *, nullable: bool = False) -> Column:
    """A string column."""
    return Column(name, ColumnType.STRING, unit, description, nullable)


def ms(name: str, description: str, *, nullable: bool = False) -> Column:
    """Milliseconds of audio, int64."""
    return Column(name, ColumnType.INT64, "ms of audio", description, nullable)


def count(name: str, description: str, unit: str = "count", *, nullable: bool = False) -> Column:
    """A whole number, int64: a count unless the unit says otherwise."""
    return Column(name, ColumnType.INT64, unit, description, nullable)


def instant(name: str, description: str, *, nullable: bool = False) -> Column:
    """A moment in UTC, to the microsecond."""
    return Column(name, ColumnType.INSTANT, "instant, UTC", description, nullable)


def probability(name: str, description: str) -> Column:
    """A nullable double from 0 to 1."""
    return Column(name, ColumnType.DOUBLE, "probability, 0 to 1", description, nullable=True)


def percent(name: str, description: str) -> Column:
    """A nullable double from 0 to 100."""
    return Column(name, ColumnType.DOUBLE, "percent, 0 to 100", description, nullable=True)
