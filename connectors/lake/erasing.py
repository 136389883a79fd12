"""Erasing: the rows of an object taken out of every file of a lake, each of which stays what it was for all other rows.

Most files know an object by its object_id alone, so the versions of a key are learned first, from those that have the key. Summaries go
before what they speak of: whoever reads meanwhile sees no summary without its items.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectors.lake.columns import Dataset
from connectors.lake.names import FLAGGED_SHEET, is_own_of_run, is_report, place_of
from connectors.lake.packages import RUNS_FOLDER, publishing_order
from connectors.lake.parquet import sink_like
from connectors.lake.receipts import Scope
from connectors.lake.soundness import READER_ERRORS
from connectors.lake.store import ResultStore
from moderation.errors import ConfigurationError
from moderation.identity import object_id, object_key_id
from moderation.outcomes import ExitCode

_IDS = ("object_id", "object_key_id")
_PLACE = ("bucket", "key", "etag")


class NotErased(ConfigurationError):
    """A file cannot be read: nobody knows whether it has rows that were to be erased. Everything else was."""

    exit_code = ExitCode.FOUND


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be erased: the id of a key or of one version, and the versions of it that are known by now."""

    erased_id: str
    scope: Scope
    object_ids: frozenset[str]

    @classmethod
    def of(cls, erased_id: str, scope: Scope) -> "Target":
        """One of which nothing is known yet."""
        return cls(erased_id, scope, frozenset() if scope is Scope.KEY else frozenset({erased_id}))

    def with_versions(self, object_ids: frozenset[str]) -> "Target":
        """The same; these are versions of it, too, where it is a key."""
        return replace(self, object_ids=self.object_ids | object_ids) if self.scope is Scope.KEY else self

    def covers(self, of_object: str, of_key: str | None) -> bool:
        """Whether an object is meant, by its id and, where that is known, its key's."""
        return of_object in self.object_ids or (self.scope is Scope.KEY and of_key == self.erased_id)


@dataclass(frozen=True, slots=True)
class LakeFile:
    """A file that has rows of objects: of a dataset, or of a run's own (None)."""

    name: str
    dataset: Dataset | None

    @property
    def word(self) -> str:
        """What it is one of, for people: the dataset, or the file's stem in its run's folder."""
        if self.dataset is not None:
            return self.dataset.name
        return "listing" if self.is_part else self.name.rpartition("/")[2].removesuffix(".parquet")

    @property
    def is_part(self) -> bool:
        """Whether it is a part of a manifest that is being written."""
        return self.dataset is None and "/listing/" in self.name

    @property
    def names_keys(self) -> bool:
        """Whether its rows have bucket and key."""
        return self.dataset is None or "bucket" in self.dataset.arrow_schema().names


def files_of(store: ResultStore) -> list[LakeFile]:
    """Every file that has rows of objects, but for copies, in the order of erasing: summaries before what they speak of."""
    order = [dataset.name for dataset in reversed(publishing_order())]
    found = []
    for name in store.list(""):
        place = place_of(name)
        if place is not None and not place.is_copy and "object_id" in place.dataset.arrow_schema().names:
            found.append(LakeFile(name, place.dataset))
        elif place is None and is_own_of_run(name) and name.endswith(".parquet"):
            found.append(LakeFile(name, None))
    return sorted(found, key=lambda file: (order.index(file.word) if file.word in order else len(order), file.word, file.name))


def forget_reports(store: ResultStore, target: Target) -> None:
    """Delete what workers have reported of shards that have the target: one that lives reports again, or its shard is taken up again."""
    for name in list(store.list(f"{RUNS_FOLDER}/")):
        if is_own_of_run(name) and "/shards/" in name:
            report = store.get(name) or b""
            if any(object_id.encode() in report for object_id in target.object_ids):
                store.delete(name)


def forget_pages(store: ResultStore, target: Target) -> None:
    """Delete the reports for people that list the target: `soundcheck report` makes them anew, without it."""
    names = [name for name in store.list(f"{RUNS_FOLDER}/") if is_report(name)]
    for sheet in (name for name in names if name.endswith(FLAGGED_SHEET)):
        listed = store.get(sheet) or b""
        if any(object_id.encode() in listed for object_id in target.object_ids):
            folder = sheet.removesuffix(FLAGGED_SHEET)
            for name in (*(each for each in names if each.startswith(folder) and each != sheet), sheet):  # what tells goes last
                store.delete(name)


def ids_in(store: ResultStore, file: LakeFile) -> Iterator[pa.Table]:
    """The (object_id, object_key_id) of a file's rows, a row group at a time; object_key_id is missing where the rows have no key.

    Raises NotErased.
    """
    with _opened(store, file.name) as opened:
        if opened is None:
            return
        parquet = pq.ParquetFile(opened, page_checksum_verification=True)
        columns = [name for name in (*_IDS, *_PLACE) if name in parquet.schema_arrow.names]
        for group in range(parquet.metadata.num_row_groups):
            yield _with_ids(parquet.read_row_group(group, columns=columns))


def rows_in(store: ResultStore, file: LakeFile, target: Target) -> tuple[int, frozenset[str]]:
    """How many rows of the target a file has, and the versions that these are of. Raises NotErased."""
    count, versions = 0, set[str]()
    for ids in ids_in(store, file):
        meant = ids["object_id"].filter(_meant(ids, target))
        count += len(meant)
        versions.update(str(version) for version in meant.unique().to_pylist())
    return count, frozenset(versions)


def erase_from(store: ResultStore, file: LakeFile, target: Target) -> None:
    """Write a file anew without the rows of the target. One of a package that has no others goes. Raises NotErased."""
    if file.is_part:
        _forget_rest(store, file)
        return
    with _opened(store, file.name) as opened:
        if opened is None:
            return
        parquet = pq.ParquetFile(opened, page_checksum_verification=True)
        groups = range(parquet.metadata.num_row_groups)
        if file.dataset is not None and file.dataset.partitioned and not any(_others(parquet, group, target).num_rows for group in groups):
            store.delete(file.name)
            return
        with store.writing(file.name) as out:
            if file.dataset is None:
                rows = pa.concat_tables([_others(parquet, group, target) for group in groups])
                pq.write_table(rows, out, compression="zstd")
                return
            with sink_like(out, file.dataset, parquet.metadata) as sink:
                for group in groups:
                    sink.write(_others(parquet, group, target))


def _others(parquet: pq.ParquetFile, group: int, target: Target) -> pa.Table:
    """The rows of a row group that stay."""
    rows = parquet.read_row_group(group)
    return rows.filter(pc.invert(_meant(_with_ids(rows), target)))


def _meant(rows: pa.Table, target: Target) -> Any:
    """Which rows are the target's."""
    meant = pc.is_in(rows["object_id"], pa.array(sorted(target.object_ids), pa.string()))
    if target.scope is Scope.KEY and "object_key_id" in rows.column_names:
        meant = pc.or_(meant, pc.equal(rows["object_key_id"], pa.scalar(target.erased_id)))
    return meant


def _with_ids(rows: pa.Table) -> pa.Table:
    """The ids of rows, computed where they have the place of an object but not its ids."""
    if "key" in rows.column_names:
        places = [rows[name].to_pylist() for name in _PLACE]
        if "object_id" not in rows.column_names:
            rows = rows.append_column("object_id", pa.array([object_id(*place) for place in zip(*places, strict=True)], pa.string()))
        if "object_key_id" not in rows.column_names:
            keys = [object_key_id(*place) for place in zip(*places[:2], strict=True)]
            rows = rows.append_column("object_key_id", pa.array(keys, pa.string()))
    return rows.select([name for name in _IDS if name in rows.column_names])


def _forget_rest(store: ResultStore, file: LakeFile) -> None:
    """Take away a part of a listing that broke off, and those that follow it, which goes on where the one before it ended.

    Its own footer has the place where it ended, which can be the key. The last part goes first: what is left is a listing that broke off
    earlier.
    """
    folder, _, own = file.name.rpartition("/")
    piece = own.partition("-")[0]
    parts = [name for name in store.list(f"{folder}/") if name.startswith(f"{folder}/{piece}-") and name >= file.name]
    for name in sorted(parts, reverse=True):
        store.delete(name)


@contextmanager
def _opened(store: ResultStore, name: str) -> Iterator[BinaryIO | None]:
    """A file to read; None where it has gone since it was listed."""
    with store.reading(name) as opened:
        try:
            yield opened
        except READER_ERRORS as error:
            raise NotErased(f"{name} cannot be read ({' '.join(str(error).split())}): see soundcheck verify") from error
