"""Publishing: a package's sessions become one Parquet file a dataset, items first and summaries last (design.md section 7).

Which sessions a package has was fixed before, in the ledger, and every name follows from the package's: publishing again, from
anywhere, after a crash or beside somebody else, writes the same bytes to the same names.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from io import BytesIO
from typing import Any, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa

from connectors.lake.columns import ColumnType, Dataset
from connectors.lake.parquet import ParquetSink, Rows, few_valued, fitted
from connectors.lake.schemas import ENDPOINT_DATASETS, PARTITION, SEGMENTS, datasets
from connectors.lake.store import ResultStore
from moderation.results import SpooledSession

RUNS_FOLDER = "_runs"
RUN_GROUP_ROWS = 64 * 1024
"""Rows of a group in a file that is filled bit by bit: listing a million keys took 300 MiB with these and 410 with larger ones."""
ItemsOf: TypeAlias = Callable[[SpooledSession], Mapping[str, bytes]]
"""Gives the packed items of a session."""
WithItems: TypeAlias = tuple[SpooledSession, Mapping[str, bytes]]
"""A session, and its packed columns."""
BATCH_ROWS = 16_384
"""Items of short sessions that are made one table: about an hour of frames."""
TIME_BYTES = 8
_NUMPY_TYPES = {ColumnType.INT64: "<i8", ColumnType.DOUBLE: "<f8"}


def publishing_order() -> tuple[Dataset, ...]:
    """The datasets of a package. A summary says that a session is published: whoever sees one finds everything else there."""
    ours, every = ENDPOINT_DATASETS.values(), datasets()
    return (*(kind.items for kind in ours), SEGMENTS, every["attempts"], every["quarantine"], *(kind.summaries for kind in ours))


def _own_items(session: SpooledSession) -> Mapping[str, bytes]:
    return session.items


def write_package(
    store: ResultStore,
    package_id: str,
    run_id: str,
    scan_date: date,
    sessions: Iterable[SpooledSession],
    items_of: ItemsOf = _own_items,
    merged: Collection[str] = (),
) -> list[str]:
    """Publish a package and return the names written, in order; a dataset without rows gets no file.

    package_id is `<run_id>-pNNNN`; scan_date the UTC date of the run's start; items_of gives a session's packed items, twice, where
    sessions come without theirs; merged the datasets whose rows of it a merged file of that day has: those are written no more. All of
    it may be repeated. Raises ValueError for a session that is there twice or does not fit the schema, before anything is written, and
    what items_of and the store raise.
    """
    members = sorted(sessions, key=lambda session: (session.object_id, session.session_id))
    if len({session.session_id for session in members}) < len(members):
        raise ValueError(f"Package {package_id} has a session twice.")
    files = {
        partition_name(dataset, scan_date, package_id): file
        for dataset in publishing_order()
        if dataset.name not in merged and (file := _file(dataset, members, package_id, run_id, items_of)) is not None
    }
    for name, file in files.items():
        store.put(name, file)
    return list(files)


def package_names(package_id: str, scan_date: date, merged: Collection[str] = ()) -> list[str]:
    """The names of the files that a package can have, but for those of merged datasets, in the order in which they are published."""
    return [partition_name(dataset, scan_date, package_id) for dataset in publishing_order() if dataset.name not in merged]


def remove_package(store: ResultStore, package_id: str, scan_date: date) -> None:
    """Take a package out of the lake, summaries first: nobody sees one without its items. May be repeated; raises what the store raises."""
    for dataset in reversed(publishing_order()):
        store.delete(partition_name(dataset, scan_date, package_id))


def write_rows(store: ResultStore, dataset: str, run_id: str, scan_date: date, name: str, rows: Rows) -> str:
    """Write rows that belong to a run rather than a package, as one file, and return its name.

    `_runs/<run_id>/manifest.parquet` and `plan.parquet` (name is `manifest`, `plan`), else
    `<dataset>/scan_date=.../<run_id>-<name>.parquet`. Raises ValueError for rows that do not fit, and what the store raises.
    """
    kind = datasets()[dataset]
    table = fitted(kind, rows)
    out = BytesIO()
    with ParquetSink(out, kind, run_id=run_id, few_valued=few_valued(kind, [table])) as sink:
        sink.write(_sorted(kind, table))
    path = _run_file_name(kind, run_id, scan_date, name)
    store.put(path, out.getvalue())
    return path


@contextmanager
def rows_sink(store: ResultStore, dataset: str, run_id: str, scan_date: date, name: str) -> Iterator[ParquetSink]:
    """The file of `write_rows` to be filled bit by bit, in the order that its rows come; nothing appears when the block fails."""
    kind = datasets()[dataset]
    path = _run_file_name(kind, run_id, scan_date, name)
    with store.writing(path) as out, ParquetSink(out, kind, run_id=run_id, group_rows=RUN_GROUP_ROWS) as sink:
        yield sink


def run_file(run_id: str, name: str) -> str:
    """The name of a file in a run's own folder."""
    return f"{RUNS_FOLDER}/{run_id}/{name}"


def partition_name(dataset: Dataset, scan_date: date, stem: str) -> str:
    """The name of a file in its Hive partition."""
    return f"{dataset.name}/{PARTITION}={scan_date.isoformat()}/{stem}.parquet"


def _run_file_name(dataset: Dataset, run_id: str, scan_date: date, name: str) -> str:
    if dataset.partitioned:
        return partition_name(dataset, scan_date, f"{run_id}-{name}")
    if name != dataset.stem:
        raise ValueError(f"The file of {dataset.name} is called {dataset.stem}, not {name}.")
    return run_file(run_id, f"{name}.parquet")


def _file(dataset: Dataset, members: Sequence[SpooledSession], package_id: str, run_id: str, items_of: ItemsOf) -> bytes | None:
    """The bytes of a package's file, None without rows. Items are made twice, as they are too many to be held."""
    has_items = any(kind.items is dataset for kind in ENDPOINT_DATASETS.values())
    rows = None if has_items else _row_table(dataset, members, package_id)

    def tables() -> Iterable[pa.Table]:
        return _item_tables(dataset, members, items_of) if rows is None else (rows,)

    few = few_valued(dataset, tables())
    objects = len({session.object_id for session in members})
    out = BytesIO()
    with ParquetSink(out, dataset, run_id=run_id, package=package_id, few_valued=few, objects=objects) as sink:
        for some in tables():
            sink.write(some)
    return out.getvalue() if sink.rows else None


def _item_tables(dataset: Dataset, members: Sequence[SpooledSession], items_of: ItemsOf) -> Iterator[pa.Table]:
    """The items that the members, sorted, have for a dataset, one table at a time: a package may be large."""
    done = (each for each in members if each.summary is not None and ENDPOINT_DATASETS[each.endpoint].items is dataset)
    for some in _batches((session, items_of(session)) for session in done):
        yield _item_table(dataset, some)


def _row_table(dataset: Dataset, members: Sequence[SpooledSession], package_id: str) -> pa.Table:
    """The rows that the members have for a dataset of another kind."""
    return _sorted(dataset, fitted(dataset, [row for session in members for row in _rows(dataset, session, package_id)]))


def _rows(dataset: Dataset, session: SpooledSession, package_id: str) -> Sequence[dict[str, Any]]:
    if dataset is SEGMENTS:
        return session.segments
    if dataset.name == "attempts":
        return [session.attempt]
    if dataset.name == "quarantine":
        return [session.quarantine] if session.quarantine else []
    if session.summary is None or ENDPOINT_DATASETS[session.endpoint].summaries is not dataset:
        return []
    return [{**session.summary, "package": package_id}]


def _batches(sessions: Iterable[WithItems]) -> Iterator[list[WithItems]]:
    """Sessions with the same columns, some BATCH_ROWS of items at a time: a table each would cost a short one more than its rows."""
    batch: list[WithItems] = []
    rows = 0
    for session, items in sessions:
        if batch and (rows >= BATCH_ROWS or items.keys() != batch[0][1].keys()):
            yield batch
            batch, rows = [], 0
        batch.append((session, items))
        rows += _rows_of(items)
    if batch:
        yield batch


def _rows_of(items: Mapping[str, bytes]) -> int:
    return len(items.get("start_time_ms", b"")) // TIME_BYTES


def _item_table(dataset: Dataset, sessions: Sequence[WithItems]) -> pa.Table:
    """The packed columns of some sessions as rows, with their ordinals; NaN is null again."""
    types = {column.name: column.type for column in dataset.columns}
    names = sessions[0][1].keys()
    if unknown := names - types.keys():
        raise ValueError(f"{dataset.name} has no column {', '.join(sorted(unknown))}")
    arrays = {name: _unpacked([items[name] for _, items in sessions], types[name]) for name in names}
    counts = [_rows_of(items) for _, items in sessions]
    for name in ("object_id", "session_id"):
        arrays[name] = pa.concat_arrays([pa.repeat(getattr(each, name), rows) for (each, _), rows in zip(sessions, counts, strict=True)])
    arrays[dataset.sorted_by[-1]] = pa.array(np.concatenate([np.arange(rows, dtype="<i8") for rows in counts]))
    return fitted(dataset, pa.table(arrays))


def _unpacked(packed: Sequence[bytes], kind: ColumnType) -> "pa.Array[Any]":
    """A column as `Columns.packed` made it, of some sessions."""
    if kind is ColumnType.STRING:
        values: Any = [word for each in packed for word in msgspec.json.decode(each)]
    else:
        values = np.frombuffer(b"".join(packed), _NUMPY_TYPES[kind])
    array: pa.Array[Any] = pa.array(values, kind.value, from_pandas=True)
    return array


def _sorted(dataset: Dataset, table: pa.Table) -> pa.Table:
    return table.sort_by([(name, "ascending") for name in dataset.sorted_by]) if dataset.sorted_by else table
