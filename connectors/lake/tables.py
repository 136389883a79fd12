"""The datasets as tables: their columns with the one that tells where a file lies, and DuckDB's query over their files."""

import re
from collections.abc import Sequence

from connectors.lake.columns import Dataset
from connectors.lake.packages import RUNS_FOLDER
from connectors.lake.schemas import PARTITION

RUN_ID = "run_id"
"""The column of the datasets of a run: the folder that a file lies in."""
_GLOB_CHARACTERS = re.compile(r"[*?\[\\]")


def table_columns(dataset: Dataset) -> list[str]:
    """The names of a table's columns, the last one from the place of its files."""
    return list(duckdb_types(dataset))


def duckdb_types(dataset: Dataset) -> dict[str, str]:
    """The same with their types in DuckDB."""
    place = {PARTITION: "DATE"} if dataset.partitioned else {RUN_ID: "VARCHAR"}
    return {column.name: column.type.sql for column in dataset.columns} | place


def duckdb_query(dataset: Dataset, root: str | None = None) -> str:
    """The rows of a table in the files below a root (`/results/v1`, `s3://bucket/prefix/v1`), none without one; there need not be any file.

    What files lack is null, and what they have besides is left out: changes are additive.
    """
    if root is None:
        return _no_rows(duckdb_types(dataset))
    place = quoted(literal(root))
    files = f"{dataset.name}/*/*.parquet" if dataset.partitioned else f"{RUNS_FOLDER}/*/{dataset.stem}.parquet"
    return _rows(dataset, f"'{place}/{files}'")


def duckdb_rows(dataset: Dataset, addresses: Sequence[str]) -> str:
    """The same of these files alone, by their addresses."""
    return _rows(dataset, f"[{', '.join(_one_file(address) for address in addresses)}]")


def duckdb_file(dataset: Dataset, address: str) -> str:
    """The columns of a dataset in one file, whose place says nothing."""
    return f"SELECT {', '.join(dataset.arrow_schema().names)} FROM read_parquet({_one_file(address)}, hive_partitioning = false)"  # noqa: S608 - as below


def _one_file(address: str) -> str:
    return f"'{quoted(literal(address))}'"


def _rows(dataset: Dataset, files: str) -> str:
    types = duckdb_types(dataset)
    if dataset.partitioned:
        columns, of_files = list(types), types
        files = f"{files}, hive_partitioning = true, hive_types = {{'{PARTITION}': DATE}}"
    else:
        columns = [name if name != RUN_ID else f"parse_path(filename)[-2] AS {RUN_ID}" for name in types]
        of_files = {**types, "filename": "VARCHAR"}
        files = f"{files}, hive_partitioning = false, filename = true"
    rows = f"SELECT * FROM read_parquet({files}, union_by_name = true, allow_empty = true)"  # noqa: S608 - names of ours, and the root is quoted
    return f"SELECT {', '.join(columns)}\nFROM (\n  {_no_rows(of_files)}\n  UNION ALL BY NAME\n  {rows}\n) AS files"


def _no_rows(types: dict[str, str]) -> str:
    """The columns without a row: they name and type what no file has yet."""
    return f"SELECT {', '.join(f'CAST(NULL AS {kind}) AS {name}' for name, kind in types.items())} WHERE false"


def literal(root: str) -> str:
    """The root as a pattern that matches nothing else."""
    return _GLOB_CHARACTERS.sub(lambda found: f"[{found[0]}]", root)


def quoted(text: str) -> str:
    """The text as it stands between quotes of SQL."""
    return text.replace("'", "''")
