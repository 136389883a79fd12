"""Makes the materialised `current` anew of the files of summaries that there are.

Its name follows from theirs, and it appears whole: anyone may do this, at any time, beside others, and again after a crash.
"""

from collections.abc import Iterator
from contextlib import closing
from math import ceil

import duckdb
import msgspec
import pyarrow.parquet as pq

from connectors.lake.columns import ColumnType
from connectors.lake.current import current_dataset, current_differs, current_rows, current_versions
from connectors.lake.current_files import current_files, current_name
from connectors.lake.parquet import FEW_VALUES, ParquetSink
from connectors.lake.query import add_current, connect_to_files, summary_files
from connectors.lake.s3_tables import s3_footer
from connectors.lake.schemas import METADATA_MEMBERS
from connectors.lake.soundness import READER_ERRORS
from connectors.lake.store import ResultStore, S3Store

SLICE_ROWS = 250_000
"""Rows that are sorted and held at a time, some 250 MB: object ids are hashes, so that equal ranges of them have alike many."""
_PREFIXES = 1 << 16
"""The beginnings of an object id, four hex digits, at which slices can be cut."""


def refresh(store: ResultStore, endpoint: str, *, few_files: int = 0) -> str | None:
    """Make an endpoint's `current` and return its name, None where it is there; a first one only of more than so few files.

    The one that it takes the place of stays for those who read it, the others go. Raises what the store raises.
    """
    summaries, others = summary_files(store, endpoint), current_files(store, endpoint)
    name = current_name(endpoint, summaries)
    if not summaries or name in others or (not others and len(summaries) <= few_files):
        return None
    with closing(connect_to_files(store, endpoint, summaries)) as lake:
        _write(store, lake, endpoint, name, summaries)
    made_of = {old: _made_of(store, old) & frozenset(summaries) for old in others}
    last = max(made_of, key=lambda old: (len(made_of[old]), old), default=None)
    for old in made_of.keys() - {last}:
        store.delete(old)
    return name


def differing(store: ResultStore, endpoint: str) -> int:
    """In how many rows the `current` is another than the summaries make it, as far as which of them it has; 0 where there is none of them.

    Raises duckdb.Error where files cannot be read, and what the store raises.
    """
    summaries = summary_files(store, endpoint)
    if current_name(endpoint, summaries) not in current_files(store, endpoint):
        return 0
    with closing(connect_to_files(store, endpoint, summaries)) as lake:
        add_current(lake, store, endpoint, current_name(endpoint, summaries))
        [(rows,)] = lake.execute(current_differs(endpoint)).fetchall()
    return int(rows)


def _made_of(store: ResultStore, name: str) -> frozenset[str]:
    """The files of summaries that a file says it is made of, none where it does not say."""
    try:
        footer = s3_footer(store, name) if isinstance(store, S3Store) else pq.read_metadata(store.address(name))
        return msgspec.json.decode((footer.metadata or {})[METADATA_MEMBERS.encode()], type=frozenset[str])
    except (*READER_ERRORS, msgspec.MsgspecError):
        return frozenset()


def _write(store: ResultStore, lake: duckdb.DuckDBPyConnection, endpoint: str, name: str, summaries: list[str]) -> None:
    lake.execute(f"CREATE TEMP TABLE versions AS {current_versions(endpoint)}")
    [(rows,)] = lake.execute("SELECT count(*) FROM versions").fetchall()
    dataset, few = current_dataset(endpoint), _few_valued(lake, endpoint)
    with store.writing(name) as out, ParquetSink(out, dataset, run_id="", objects=rows, few_valued=few) as sink:
        sink.describe({METADATA_MEMBERS: msgspec.json.encode(sorted(summaries)).decode()})
        for of_slice in _slices(max(1, ceil(rows / SLICE_ROWS))):
            found = lake.sql(current_rows(endpoint, of_slice))
            assert found is not None, "a SELECT has a relation"
            sink.write(found.to_arrow_table())


def _few_valued(lake: duckdb.DuckDBPyConnection, endpoint: str) -> list[str]:
    """The columns that get a dictionary."""
    doubles = current_dataset(endpoint).columns_of(ColumnType.DOUBLE)
    distinct = ", ".join(f"count(DISTINCT {name})" for name in doubles)
    [counts] = lake.execute(f"SELECT {distinct} FROM {endpoint}_latest").fetchall()  # noqa: S608 - names of ours
    return [name for name, values in zip(doubles, counts, strict=True) if values <= FEW_VALUES]


def _slices(count: int) -> Iterator[str]:
    """So many predicates, each true of an equal range of object ids, in their order; together they are true of every one."""
    edges = [f"{_PREFIXES * place // count:04x}" for place in range(1, count)]
    for first, end in zip(["", *edges], [*edges, None], strict=True):
        yield f"object_id >= '{first}'" + (f" AND object_id < '{end}'" if end else "")
