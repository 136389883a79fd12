"""The lake's tables and views as DDL of other engines: what `soundcheck sql --emit` prints, and what a database of views is made of."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from string import Template

from connectors.lake.columns import Column, ColumnType, Dataset
from connectors.lake.schemas import PARTITION, SCHEMA_VERSION, datasets
from connectors.lake.store import LAYOUT
from connectors.lake.tables import duckdb_query, quoted
from connectors.lake.views import DAY_OF_PLAIN, DAY_OF_ZONED, View, views
from connectors.s3 import S3Uri
from moderation.errors import ConfigurationError

PLACEHOLDER = "s3://YOUR-BUCKET/YOUR-PREFIX"
"""Where results lie as long as nobody has said."""
NAMESPACE = "soundcheck"
"""The database of Athena, or schema of Trino, that everything goes into."""
_FIRST_DAY = "2026-01-01"
"""No run is older: Athena looks for a partition on every day since."""
_PARTITION_COMMENT = "The UTC date of the run's start."


class Engine(Enum):
    """An engine that can be told of the lake."""

    DUCKDB = "duckdb"
    ATHENA = "athena"
    TRINO = "trino"


@dataclass(frozen=True, slots=True)
class _Dialect:
    """How an engine is told of tables and views: templates with the facts of one, and the names of types."""

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


_DUCKDB = _Dialect(
    head="-- In S3 it needs: INSTALL httpfs; LOAD httpfs; CREATE SECRET (TYPE s3, PROVIDER credential_chain);",
    table=Template("CREATE OR REPLACE VIEW $name AS\n$query;\nCOMMENT ON VIEW $name IS '$description';$comments"),
    view=Template("CREATE OR REPLACE VIEW $name AS\n$query;\nCOMMENT ON VIEW $name IS '$description';"),
    quoted=quoted,
    start_day=DAY_OF_ZONED,
    column_types={kind: kind.sql for kind in ColumnType},
    reads_hidden=True,
)
_ATHENA = _Dialect(
    head=f"-- Athena takes one statement at a time, those after the first with the database {NAMESPACE} chosen.\n"
    "-- Instants are in UTC. New days are seen by themselves.\n"
    f"-- After an update of soundcheck drop the tables, which leaves their files, and repeat all.\nCREATE DATABASE IF NOT EXISTS {NAMESPACE};",
    table=Template(
        "CREATE EXTERNAL TABLE IF NOT EXISTS $name (\n$columns\n)\nCOMMENT '$description'\n"
        f"PARTITIONED BY ({PARTITION} date COMMENT '$partition')\nSTORED AS PARQUET\nLOCATION '$location'\nTBLPROPERTIES (\n"
        f"  'projection.enabled' = 'true',\n  'projection.{PARTITION}.type' = 'date',\n"
        f"  'projection.{PARTITION}.format' = 'yyyy-MM-dd',\n  'projection.{PARTITION}.range' = '{_FIRST_DAY},NOW'\n);"
    ),
    view=Template("CREATE OR REPLACE VIEW $name AS\n$query;"),
    quoted=_quoted_for_hive,
    start_day=DAY_OF_PLAIN,
    column_types={
        ColumnType.STRING: "string",
        ColumnType.INT64: "bigint",
        ColumnType.DOUBLE: "double",
        ColumnType.INSTANT: "timestamp",
    },
)
_TRINO = _Dialect(
    head="-- In a catalog of the Hive connector, which has instants to the millisecond unless it is set otherwise; they are in UTC.\n"
    "-- New days are seen after the CALL of a table, each time.\n"
    f"-- After an update of soundcheck drop the tables, which leaves their files, and repeat all.\nCREATE SCHEMA IF NOT EXISTS {NAMESPACE};\nUSE {NAMESPACE};",
    table=Template(
        f"CREATE TABLE IF NOT EXISTS $name (\n$columns,\n  {PARTITION} date COMMENT '$partition'\n)\nCOMMENT '$description'\nWITH (\n"
        f"  external_location = '$location',\n  format = 'PARQUET',\n  partitioned_by = ARRAY['{PARTITION}']\n);\n"
        f"CALL system.sync_partition_metadata('{NAMESPACE}', '$name', 'ADD');"
    ),
    view=Template("CREATE OR REPLACE VIEW $name\nCOMMENT '$description' AS\n$query;"),
    quoted=quoted,
    start_day=DAY_OF_PLAIN,
    column_types={
        ColumnType.STRING: "varchar",
        ColumnType.INT64: "bigint",
        ColumnType.DOUBLE: "double",
        ColumnType.INSTANT: "timestamp(3)",
    },
)
_DIALECTS = {Engine.DUCKDB: _DUCKDB, Engine.ATHENA: _ATHENA, Engine.TRINO: _TRINO}


def script(engine: Engine, results_url: str | None) -> str:
    """All of it as text, statements ended by semicolons; results_url None means PLACEHOLDER.

    Raises ConfigurationError for a bad address, and for a folder where the engine reads S3 alone.
    """
    dialect = _DIALECTS[engine]
    if results_url is not None and "://" not in results_url and not dialect.reads_hidden:
        raise ConfigurationError(f"{engine.value} reads results in S3, and {results_url} is a folder: give --results s3://bucket/prefix")
    root = f"{PLACEHOLDER}/{LAYOUT}" if results_url is None else root_of(results_url)
    head = [
        f"-- The results of soundcheck in {engine.value}: schema version {SCHEMA_VERSION}, made by `soundcheck sql --emit {engine.value}`."
    ]
    if results_url is None:
        head.append(f"-- Put the address of the results in place of {PLACEHOLDER}, or make this with --results.")
    seen = {what.name for what in (*_datasets(dialect), *_views(dialect))}
    if hidden := [what.name for what in (*datasets().values(), *views()) if what.name not in seen]:
        head.append(
            f"-- Not here: {', '.join(hidden)}. They need files below _runs, and {engine.value} hides what begins with an underscore."
        )
    return "\n\n".join(["\n".join([*head, dialect.head]), *tables(engine, root), *view_statements(engine)]) + "\n"


def root_of(results_url: str) -> str:
    """Where the datasets of results lie: an absolute path, or an address in S3. Raises ConfigurationError for a bad address."""
    if "://" not in results_url:
        return str(Path(results_url).absolute() / LAYOUT)
    uri = S3Uri.parse(results_url)
    return "/".join(part for part in ("s3:/", uri.bucket, uri.prefix.rstrip("/"), LAYOUT) if part)


def tables(engine: Engine, root: str) -> list[str]:
    """The statements of each table that the engine can see, over the files below a root; there need not be any file."""
    dialect = _DIALECTS[engine]
    return [_table(dialect, dataset, root) for dataset in _datasets(dialect)]


def view_statements(engine: Engine) -> list[str]:
    """The statements of each view over those tables, in an order in which they can be executed."""
    dialect = _DIALECTS[engine]
    return [
        dialect.view.substitute(name=view.name, query=view.query, description=dialect.quoted(view.description)) for view in _views(dialect)
    ]


def _datasets(dialect: _Dialect) -> list[Dataset]:
    return [dataset for dataset in datasets().values() if dataset.partitioned or dialect.reads_hidden]


def _views(dialect: _Dialect) -> Iterator[View]:
    """The views that read nothing hidden, nor another view that does."""
    hidden = datasets().keys() - {dataset.name for dataset in _datasets(dialect)}
    for view in views(dialect.start_day):
        if view.reads & hidden:
            hidden.add(view.name)
        else:
            yield view


def _table(dialect: _Dialect, dataset: Dataset, root: str) -> str:
    columns = [f"  {column.name} {dialect.column_types[column.type]} COMMENT '{_comment(dialect, column)}'" for column in dataset.columns]
    comments = [f"\nCOMMENT ON COLUMN {dataset.name}.{column.name} IS '{_comment(dialect, column)}';" for column in dataset.columns]
    return dialect.table.substitute(
        name=dataset.name,
        columns=",\n".join(columns),
        comments="".join(comments),
        description=dialect.quoted(dataset.description),
        location=dialect.quoted(f"{root}/{dataset.name}/"),
        partition=dialect.quoted(_PARTITION_COMMENT),
        query=duckdb_query(dataset, root),
    )


def _comment(dialect: _Dialect, column: Column) -> str:
    return dialect.quoted(f"{column.description} ({column.unit})" if column.unit else column.description)
