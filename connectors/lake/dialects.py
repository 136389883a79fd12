"""How DuckDB, Athena and Trino are told of tables and views: a template each, the names of their types, what they see."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from string import Template

from connectors.lake.columns import ColumnType
from connectors.lake.schemas import PARTITION
from connectors.lake.tables import quoted
from connectors.lake.views import DAY_OF_PLAIN, DAY_OF_ZONED

_NAMESPACE = "soundcheck"
"""The database of Athena, or schema of Trino, that everything goes into."""
_FIRST_DAY = "2026-01-01"
"""No run is older: Athena looks for a partition on every day since."""


class Engine(Enum):
    """An engine that can be told of the lake."""

    DUCKDB = "duckdb"
    ATHENA = "athena"
    TRINO = "trino"


@dataclass(frozen=True, slots=True)
class Dialect:
    """One engine's way: what comes first, templates of a table and a view, how a text is quoted, and the UTC day of a session's start.

    Only one that reads_hidden sees files below a folder whose name begins with an underscore.
    """

    head: str
    table: Template
    view: Template
    quoted: Callable[[str], str]
    start_day: str
    column_types: dict[ColumnType, str]
    reads_hidden: bool = False


def _quoted_for_hive(text: str) -> str:
    """Two quotes would be the end of one text there, and the start of another; scripts that feed Athena cut at every semicolon."""
    return text.replace("\\", "\\\\").replace("'", "\\'").replace(";", ",")


_DUCKDB = Dialect(
    head="-- In S3 it needs: INSTALL httpfs; LOAD httpfs; CREATE SECRET (TYPE s3, PROVIDER credential_chain);",
    table=Template("""\
CREATE OR REPLACE VIEW $name AS
$query;
COMMENT ON VIEW $name IS '$description';
$comments"""),
    view=Template("""\
CREATE OR REPLACE VIEW $name AS
$query;
COMMENT ON VIEW $name IS '$description';"""),
    quoted=quoted,
    start_day=DAY_OF_ZONED,
    column_types={kind: kind.sql for kind in ColumnType},
    reads_hidden=True,
)
_ATHENA = Dialect(
    head=f"""\
-- Athena takes one statement at a time, those after the first with the database {_NAMESPACE} chosen.
-- Instants are in UTC. New days are seen by themselves.
-- After an update of soundcheck drop the tables, which leaves their files, and repeat all.
CREATE DATABASE IF NOT EXISTS {_NAMESPACE};""",
    table=Template(f"""\
CREATE EXTERNAL TABLE IF NOT EXISTS $name (
$columns
)
COMMENT '$description'
PARTITIONED BY ({PARTITION} date COMMENT '$partition')
STORED AS PARQUET
LOCATION '$location'
TBLPROPERTIES (
  'projection.enabled' = 'true',
  'projection.{PARTITION}.type' = 'date',
  'projection.{PARTITION}.format' = 'yyyy-MM-dd',
  'projection.{PARTITION}.range' = '{_FIRST_DAY},NOW'
);"""),
    view=Template("""\
CREATE OR REPLACE VIEW $name AS
$query;"""),
    quoted=_quoted_for_hive,
    start_day=DAY_OF_PLAIN,
    column_types={
        ColumnType.STRING: "string",
        ColumnType.INT64: "bigint",
        ColumnType.DOUBLE: "double",
        ColumnType.INSTANT: "timestamp",
    },
)
_TRINO = Dialect(
    head=f"""\
-- In a catalog of the Hive connector, which has instants to the millisecond unless it is set otherwise; they are in UTC.
-- New days are seen after the CALL of a table, each time.
-- After an update of soundcheck drop the tables, which leaves their files, and repeat all.
CREATE SCHEMA IF NOT EXISTS {_NAMESPACE};
USE {_NAMESPACE};""",
    table=Template(f"""\
CREATE TABLE IF NOT EXISTS $name (
$columns,
  {PARTITION} date COMMENT '$partition'
)
COMMENT '$description'
WITH (
  external_location = '$location',
  format = 'PARQUET',
  partitioned_by = ARRAY['{PARTITION}']
);
CALL system.sync_partition_metadata('{_NAMESPACE}', '$name', 'ADD');"""),
    view=Template("""\
CREATE OR REPLACE VIEW $name
COMMENT '$description' AS
$query;"""),
    quoted=quoted,
    start_day=DAY_OF_PLAIN,
    column_types={
        ColumnType.STRING: "varchar",
        ColumnType.INT64: "bigint",
        ColumnType.DOUBLE: "double",
        ColumnType.INSTANT: "timestamp(3)",
    },
)
DIALECTS = {Engine.DUCKDB: _DUCKDB, Engine.ATHENA: _ATHENA, Engine.TRINO: _TRINO}
