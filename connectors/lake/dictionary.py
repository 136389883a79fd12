"""docs/data-dictionary.md, made from the schemas and views: `python -m connectors.lake.dictionary > docs/data-dictionary.md`."""

import sys

from connectors.lake.columns import Column, Dataset
from connectors.lake.current import CURRENT_FOLDER
from connectors.lake.schemas import (
    METADATA_DATASET,
    METADATA_PACKAGE,
    METADATA_RUN_ID,
    METADATA_SCHEMA_VERSION,
    PARTITION,
    SCHEMA_VERSION,
    datasets,
)
from connectors.lake.views import views

_HEAD = f"""# Data dictionary

Made by `python -m connectors.lake.dictionary` from `schemas.py`, `endpoint_views.sql` and `views.sql` beside it: change those, not this.

Everything lies under `<results>/v1/` as plain Parquet. Integers are signed 64-bit, fractions are doubles, instants have microseconds
and are in UTC. A null says that nothing is known; it is never a zero. Values are kept as the service sent them. Changes are additive;
this is schema version {SCHEMA_VERSION}.
Every file carries the metadata `{METADATA_DATASET}`, `{METADATA_SCHEMA_VERSION}`, `{METADATA_RUN_ID}` and `{METADATA_PACKAGE}`.
Where there are many summaries, `{CURRENT_FOLDER}/` has a copy of the newest of each object, from which `soundcheck sql` takes the views
`*_latest` and `*_current`; it is no dataset, and `soundcheck compact` makes it again.
"""


def data_dictionary() -> str:
    """The page: every dataset with its columns, every view with what it is, a query over each."""
    sections = "\n".join(_section(dataset) for dataset in datasets().values())
    rows = "\n".join(f"| `{view.name}` | {view.description} |" for view in views())
    examples = "\n\n".join(_example(view.example) for view in views())
    return f"{_HEAD}\n{sections}\n## Views\n\n| view | what it is |\n|---|---|\n{rows}\n\nA query over each:\n\n{examples}\n"


def _section(dataset: Dataset) -> str:
    place = f"{dataset.name}/{PARTITION}=YYYY-MM-DD/*.parquet" if dataset.partitioned else f"_runs/<run_id>/{dataset.stem}.parquet"
    by = f", in the order of {', '.join(dataset.sorted_by)}" if dataset.sorted_by else ""
    rows = "\n".join(_row(column) for column in dataset.columns)
    head = "| column | type | null | unit or values | what it is |\n|---|---|---|---|---|"
    return f"## {dataset.name}\n\n{dataset.description} Files: `{place}`{by}.\n\n{head}\n{rows}\n\n{_example(dataset.example)}\n"


def _example(query: str) -> str:
    return f"```sql\n{query}\n```"


def _row(column: Column) -> str:
    unit = column.unit.replace("|", "\\|").replace("<", "&lt;")
    null = "yes" if column.nullable else ""
    return f"| `{column.name}` | {column.type.sql.lower()} | {null} | {unit} | {column.description} |"


if __name__ == "__main__":
    sys.stdout.write(data_dictionary())
