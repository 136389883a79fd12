"""Compaction: the packages of a day, a file each, become few large files; then the originals go.

A merged file appears whole, under a name that follows from its members', and says in its footer which packages they are. Whatever breaks
off, the next compaction goes on from what lies there: originals of packages that are in a merged file go once that one is verified, the
others are merged. Answers of people, a file each where they were given in the page, are merged alike once they are told. Attempts and
quarantine stay as they are: they are small, and the names of their files say which packages there were.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from operator import eq, ge
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectors.lake.columns import ColumnType, Dataset
from connectors.lake.merging import Key, merged_rows
from connectors.lake.names import merged_name, place_of
from connectors.lake.parquet import ParquetSink
from connectors.lake.schemas import ENDPOINT_DATASETS, METADATA_MEMBERS, PARTITION, SEGMENTS, datasets
from connectors.lake.soundness import READER_ERRORS, examine
from connectors.lake.store import ResultStore
from connectors.lake.untold import note_name, notes
from moderation.errors import ConfigurationError
from moderation.outcomes import ExitCode

MERGED_BYTES = 1_000_000_000
"""The most that the originals of a merged file have together."""
MERGED_FILES = 250
"""The most originals of a merged file: all of them are open at once, with a batch of rows each in memory."""
COMPACTED = (*(kind.items for kind in ENDPOINT_DATASETS.values()), SEGMENTS, *(kind.summaries for kind in ENDPOINT_DATASETS.values()))
"""The datasets of packages that are compacted, in the order in which they are."""
ANSWERS = datasets()["review_answers"]
"""Compacted after them: each file counts as a package of its own."""
_UNIT = dict.fromkeys(COMPACTED, ("session_id",)) | {ANSWERS: ("object_id", "reviewer", "answered_at")}
"""The columns that tell what must be in a merged file as often as in its originals: sessions, and answers."""
_REPEATABLE = frozenset({ANSWERS})
"""Where a merged file may have more rows of a unit than one original: two imports at once may have written an answer twice."""


class NotCompacted(ConfigurationError):
    """A merged file and its originals do not have the same rows, or one of them is damaged: nothing was deleted."""

    exit_code = ExitCode.FOUND


@dataclass(frozen=True, slots=True)
class DayFiles:
    """The files of a day: originals by dataset and package, merged ones by dataset and name with the packages that they are of."""

    day: date
    originals: Mapping[str, Mapping[str, str]]
    merged: Mapping[str, Mapping[str, frozenset[str]]]

    def packages(self, dataset: Dataset) -> frozenset[str]:
        """The packages that have rows of a dataset."""
        return frozenset(self.originals.get(dataset.name, {})).union(*self.merged.get(dataset.name, {}).values())

    def is_published(self, package: str) -> bool:
        """Whether a package has been published to its end, as far as its files can tell."""
        started = package in self.originals.get("attempts", {})
        return started and all(
            package in self.packages(kind.summaries) for kind in ENDPOINT_DATASETS.values() if package in self.packages(kind.items)
        )


def days_before(store: ResultStore, before: date) -> list[DayFiles]:
    """What there is of the packages of each day before one."""
    originals: dict[date, dict[str, dict[str, str]]] = {}
    merged: dict[date, dict[str, dict[str, frozenset[str]]]] = {}
    untold = set(notes(store))
    for dataset in ("attempts", *(each.name for each in (*COMPACTED, ANSWERS))):
        for name in store.list(f"{dataset}/"):
            place = place_of(name)
            if place is None or place.day >= before:
                continue
            if place.digest:
                merged.setdefault(place.day, {}).setdefault(dataset, {})[name] = _members(store, name)
            elif place.package:
                originals.setdefault(place.day, {}).setdefault(dataset, {})[place.package] = name
            elif place.dataset is ANSWERS and note_name(name) not in untold:
                originals.setdefault(place.day, {}).setdefault(dataset, {})[name.rpartition("/")[2].removesuffix(".parquet")] = name
    return [DayFiles(day, originals.get(day, {}), merged.get(day, {})) for day in sorted({*originals, *merged})]


def merged_datasets(store: ResultStore, package: str, day: date) -> frozenset[str]:
    """The datasets whose rows of a package are in a merged file of its day: its own files must not come back beside that.

    Raises NotCompacted where a merged file cannot be read, and what the store raises.
    """
    return frozenset(
        dataset.name
        for dataset in COMPACTED
        for name in store.list(f"{dataset.name}/{PARTITION}={day.isoformat()}/")
        if (place := place_of(name)) is not None and place.digest and package in _members(store, name)
    )


def compact(store: ResultStore, files: DayFiles, dataset: Dataset) -> Counter[str]:
    """Compact one dataset of a day; how many files were `merged` into how many were `made`, and how many originals were `deleted`.

    Raises NotCompacted, and what the store raises.
    """
    done: Counter[str] = Counter()
    originals = dict(files.originals.get(dataset.name, {}))
    for name, packages in files.merged.get(dataset.name, {}).items():
        if left := {package: originals.pop(package) for package in sorted(packages & originals.keys())}:
            done["deleted"] += _replace(store, dataset, name, _examined(store, dataset, left.values()))
    ready = {package: name for package, name in originals.items() if dataset is ANSWERS or files.is_published(package)}
    for members in _sets(store, ready):
        sound = _examined(store, dataset, members.values())
        name = _merge(store, dataset, files.day, members)
        done += Counter(made=1, merged=len(members), deleted=_replace(store, dataset, name, sound))
    return done


def _sets(store: ResultStore, originals: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """The originals that become a file each time, in the order of their packages; what would be alone stays as it is."""
    members: dict[str, str] = {}
    size = 0
    for package, name in sorted(originals.items()):
        more = store.size(name)
        if members and (size + more > MERGED_BYTES or len(members) == MERGED_FILES):
            if len(members) > 1:
                yield members
            members, size = {}, 0
        members[package] = name
        size += more
    if len(members) > 1:
        yield members


def _merge(store: ResultStore, dataset: Dataset, day: date, members: Mapping[str, str]) -> str:
    """Write the merged file of some originals."""
    name = merged_name(dataset, day, members)
    with ExitStack() as stack:
        files = [_opened(stack, store, original) for original in members.values()]
        try:
            few, objects = _few_valued(files, dataset), _objects(files)
            with store.writing(name) as out, ParquetSink(out, dataset, run_id="", few_valued=few, objects=objects) as sink:
                sink.describe({METADATA_MEMBERS: msgspec.json.encode(sorted(members)).decode()})
                for rows in merged_rows(files, dataset):
                    sink.write(rows)
        except READER_ERRORS as error:
            raise NotCompacted(f"a file of {dataset.name} of {day} cannot be read ({error}): see soundcheck verify") from error
    return name


def _replace(store: ResultStore, dataset: Dataset, name: str, originals: Mapping[str, Counter[Key]]) -> int:
    """Delete originals, by the rows of their units, once all of these are in a merged file that is sound."""
    there = _examined(store, dataset, [name])[name]
    has_all = ge if dataset in _REPEATABLE else eq
    for original, own in originals.items():
        if wrong := [unit for unit, rows in own.items() if not has_all(there[unit], rows)]:
            which = " ".join(map(str, min(wrong)))
            raise NotCompacted(f"{name} has other rows of {which} ({', '.join(_UNIT[dataset])}) than {original}: see soundcheck verify")
    for original in originals:
        store.delete(original)
    return len(originals)


def _examined(store: ResultStore, dataset: Dataset, names: Iterable[str]) -> dict[str, Counter[Key]]:
    """How many rows of each unit some files of a dataset have. Raises NotCompacted where one is not sound."""
    units = {}
    for name in names:
        with ExitStack() as stack:
            units[name] = _units(_opened(stack, store, name), dataset, name)
    return units


def _units(file: BinaryIO, dataset: Dataset, name: str) -> Counter[Key]:
    place = place_of(name)
    assert place is not None, "it was listed by its place"
    rows: Counter[Key] = Counter()

    def look(table: pa.Table) -> None:
        counted = table.group_by(list(_UNIT[dataset])).aggregate([([], "count_all")])
        *columns, counts = (counted[column].to_pylist() for column in (*_UNIT[dataset], "count_all"))
        for *unit, count in zip(*columns, counts, strict=True):
            rows[tuple(unit)] += count

    if problems := examine(file, place, look).problems:
        raise NotCompacted(f"{name} is damaged ({problems[0][1]}): see soundcheck verify")
    return rows


def _opened(stack: ExitStack, store: ResultStore, name: str) -> BinaryIO:
    file = stack.enter_context(store.reading(name))
    if file is None:
        raise NotCompacted(f"{name} is not there any more: somebody else compacts, run it again later")
    return file


def _members(store: ResultStore, name: str) -> frozenset[str]:
    """The packages whose rows a merged file has."""
    with ExitStack() as stack:
        try:
            facts: Any = pq.read_metadata(_opened(stack, store, name)).metadata
            return msgspec.json.decode(facts[METADATA_MEMBERS.encode()], type=frozenset[str])
        except (*READER_ERRORS, TypeError, msgspec.MsgspecError) as error:
            raise NotCompacted(f"{name} cannot be read ({error}): see soundcheck verify") from error


def _few_valued(files: Sequence[BinaryIO], dataset: Dataset) -> list[str]:
    """The double columns that had a dictionary in every file."""
    few = set(dataset.columns_of(ColumnType.DOUBLE))
    for file in files:
        group = pq.read_metadata(file).row_group(0)
        columns = [group.column(place) for place in range(group.num_columns)]
        few &= {column.path_in_schema for column in columns if column.has_dictionary_page}
    return sorted(few)


def _objects(files: Sequence[BinaryIO]) -> int:
    """How many objects some files are about."""
    seen: set[Any] = set()
    for file in files:
        for batch in pq.ParquetFile(file).iter_batches(columns=["object_id"]):
            seen.update(pc.unique(batch.column(0)).to_pylist())
    return len(seen)
