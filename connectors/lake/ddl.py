"""The lake's tables and views as DDL of other engines: what `soundcheck sql --emit` prints, and what a database of views is made of."""

from collections.abc import Iterator
from pathlib import Path

from connectors.lake.columns import Column, Dataset
from connectors.lake.dialects import DIALECTS, Dialect, Engine
from connectors.lake.packages import RUNS_FOLDER
from connectors.lake.schemas import SCHEMA_VERSION, datasets
from connectors.lake.store import LAYOUT
from connectors.lake.tables import duckdb_query
from connectors.lake.views import View, views
from connectors.s3 import S3Uri
from moderation.errors import ConfigurationError

PLACEHOLDER = "s3://YOUR-BUCKET/YOUR-PREFIX"
"""Where results lie as long as nobody has said."""
_PARTITION_COMMENT = "The UTC date of the run's start."


def script(engine: Engine, results_url: str | None) -> str:
    """All of it as text, statements ended by semicolons; results_url None means PLACEHOLDER.

    Raises ConfigurationError for a bad address, and for a folder where the engine reads S3 alone.
    """
    dialect = DIALECTS[engine]
    if results_url is not None and "://" not in results_url and not dialect.reads_hidden:
        raise ConfigurationError(f"{engine.value} reads results in S3, and {results_url} is a folder: give --results s3://bucket/prefix")
    root = f"{PLACEHOLDER}/{LAYOUT}" if results_url is None else root_of(results_url)
    name = engine.value
    head = [f"-- The results of soundcheck in {name}: schema version {SCHEMA_VERSION}, made by `soundcheck sql --emit {name}`."]
    if results_url is None:
        head.append(f"-- Put the address of the results in place of {PLACEHOLDER}, or make this with --results.")
    seen = {dataset.name for dataset in _datasets(dialect)} | {view.name for view in _views(dialect)}
    if hidden := [each for each in (*datasets(), *(view.name for view in views())) if each not in seen]:
        head.append(
            f"-- Not here: {', '.join(hidden)}. They need files below {RUNS_FOLDER}, and {name} hides names with an underscore first."
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
    dialect = DIALECTS[engine]
    return [_table(dialect, dataset, root) for dataset in _datasets(dialect)]


def view_statements(engine: Engine) -> list[str]:
    """The statements of each view over those tables, in an order in which they can be executed."""
    dialect = DIALECTS[engine]
    return [
        dialect.view.substitute(name=view.name, query=view.query, description=dialect.quoted(view.description)) for view in _views(dialect)
    ]


def _datasets(dialect: Dialect) -> list[Dataset]:
    return [dataset for dataset in datasets().values() if dataset.partitioned or dialect.reads_hidden]


def _views(dialect: Dialect) -> Iterator[View]:
    """The views that read nothing hidden, nor another view that does."""
    hidden = datasets().keys() - {dataset.name for dataset in _datasets(dialect)}
    for view in views(dialect.start_day):
        if view.reads & hidden:
            hidden.add(view.name)
        else:
            yield view


def _table(dialect: Dialect, dataset: Dataset, root: str) -> str:
    columns = [f"  {column.name} {dialect.column_types[column.type]} COMMENT '{_comment(dialect, column)}'" for column in dataset.columns]
    comments = [f"COMMENT ON COLUMN {dataset.name}.{column.name} IS '{_comment(dialect, column)}';" for column in dataset.columns]
    return dialect.table.substitute(
        name=dataset.name,
        columns=",\n".join(columns),
        comments="\n".join(comments),
        description=dialect.quoted(dataset.description),
        location=dialect.quoted(f"{root}/{dataset.name}/"),
        partition=dialect.quoted(_PARTITION_COMMENT),
        query=duckdb_query(dataset, root),
    )


def _comment(dialect: Dialect, column: Column) -> str:
    return dialect.quoted(f"{column.description} ({column.unit})" if column.unit else column.description)
