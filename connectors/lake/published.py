"""Reading back what was published: package by package, who was streamed and what it cost, without the items (design.md section 7)."""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from io import BytesIO
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectors.lake.names import place_of
from connectors.lake.packages import publishing_order, run_file
from connectors.lake.schemas import ENDPOINT_DATASETS, PARTITION, datasets
from connectors.lake.store import ResultStore
from moderation.errors import ConfigurationError

_RUN_FILE = re.compile(rf"runs/{PARTITION}=[\d-]+/(?P<run_id>.+)-(start|end)\.parquet")
_SESSION = ("session_id", "org", "endpoint", "object_id", "attempt", "started_at", "close_code", "items_received")
_FAILURE = ("worker", "outcome", "scope", "cause", "error_text", "bytes_sent", "audio_sent_ms")
_FIGURES = ("params_hash", "duration_ms", "covered_ms")
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PackageFiles:
    """The files of a package: their names by dataset. merged are those of its day in which, once it is compacted, its other rows are."""

    package: str
    run_id: str
    scan_date: date
    names: Mapping[str, str]
    merged: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PublishedPackage:
    """What lies in the lake of a package: rows of attempts and of summaries by session, and the sessions that have items alone.

    Attempts are written after the items and before the summaries: a package with sessions that lack either is not published to its end.
    """

    files: PackageFiles
    attempts: Mapping[str, Row]
    summaries: Mapping[str, Row]
    items_alone: frozenset[str]


@dataclass(frozen=True, slots=True)
class Planned:
    """What a run had planned for an object at an endpoint; is_raw where what was sent of it can be told from its bytes."""

    params_hash: str
    estimate_ms: int
    size_bytes: int
    is_raw: bool


def package_files(store: ResultStore) -> list[PackageFiles]:
    """Every package of which anything lies in the lake, by run and number."""
    found: defaultdict[tuple[str, str, date], dict[str, str]] = defaultdict(dict)
    merged: defaultdict[date, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for dataset in publishing_order():
        for name in store.list(f"{dataset.name}/"):
            place = place_of(name)
            if place is not None and place.package:
                found[place.run_id, place.package, place.day][dataset.name] = name
            elif place is not None and place.digest:
                merged[place.day][dataset.name].append(name)
    return [
        PackageFiles(package, run_id, day, names, {dataset: tuple(files) for dataset, files in merged[day].items()})
        for (run_id, package, day), names in sorted(found.items())
    ]


class PackageReader:
    """Reads packages of a lake. Merged files are read once for all packages of their day, where these come one after the other."""

    def __init__(self, store: ResultStore) -> None:
        self._store = store
        self._day: date | None = None
        self._merged: dict[str, dict[str, list[Row]]] = {}

    def read(self, files: PackageFiles) -> PublishedPackage:
        """What a package says of its sessions. Raises ConfigurationError where a file cannot be read, and what the store raises."""
        store, names = self._store, files.names
        attempts = {row["session_id"]: row for row in _rows(store, names.get("attempts"), (*_SESSION, *_FAILURE))}
        summaries: dict[str, Row] = {}
        with_items: set[str] = set()
        for kind in ENDPOINT_DATASETS.values():
            rows = _rows(store, names.get(kind.summaries.name), (*_SESSION, *_FIGURES))
            merged = (self._rows_of(files, name) for name in files.merged.get(kind.summaries.name, ()))
            summaries |= {row["session_id"]: row for row in chain(rows, *merged)}
            if "attempts" not in names:  # else every session is known by now
                with_items |= {row["session_id"] for row in _rows(store, names.get(kind.items.name), ("session_id",), distinct=True)}
        return PublishedPackage(files, attempts, summaries, frozenset(with_items - summaries.keys()))

    def _rows_of(self, files: PackageFiles, name: str) -> list[Row]:
        """The rows of a package in a merged file of summaries."""
        if files.scan_date != self._day:
            self._day, self._merged = files.scan_date, {}
        if name not in self._merged:
            of_packages: defaultdict[str, list[Row]] = defaultdict(list)
            for row in _rows(self._store, name, (*_SESSION, *_FIGURES, "package")):
                of_packages[row.pop("package")].append(row)
            self._merged[name] = dict(of_packages)
        return self._merged[name].get(files.package, [])


def runs_of(store: ResultStore) -> frozenset[str]:
    """The names of the runs whose results go into this lake: each writes its own record before anything else."""
    return frozenset(found["run_id"] for name in store.list("runs/") if (found := _RUN_FILE.fullmatch(name)))


def planned_for(store: ResultStore, run_id: str, object_ids: Collection[str]) -> dict[tuple[str, str], Planned]:
    """What a run had planned for these objects, by object and endpoint; nothing of a run that has left no plan."""
    sizes = {row["object_id"]: row["size_bytes"] for row in _run_rows(store, run_id, "manifests", ("object_id", "size_bytes"), object_ids)}
    plan = _run_rows(store, run_id, "plan", ("object_id", "endpoint", "params_hash", "estimate_ms", "sample_rate"), object_ids)
    return {
        (row["object_id"], row["endpoint"]): Planned(
            row["params_hash"], row["estimate_ms"], sizes.get(row["object_id"], 0), row["sample_rate"] is not None
        )
        for row in plan
    }


def _run_rows(store: ResultStore, run_id: str, dataset: str, columns: Sequence[str], object_ids: Collection[str]) -> list[Row]:
    name = run_file(run_id, f"{datasets()[dataset].stem}.parquet")
    table = _table(store, name, columns)
    wanted: pa.Array[Any] = pa.array(sorted(object_ids), pa.string())
    return [] if table is None else table.filter(pc.is_in(table["object_id"], wanted)).to_pylist()


def _rows(store: ResultStore, name: str | None, columns: Sequence[str], *, distinct: bool = False) -> list[Row]:
    table = None if name is None else _table(store, name, columns)
    if table is None:
        return []
    return (table.group_by(list(columns)).aggregate([]) if distinct else table).to_pylist()


def _table(store: ResultStore, name: str, columns: Sequence[str]) -> pa.Table | None:
    content = store.get(name)
    if content is None:
        return None
    try:
        return pq.read_table(BytesIO(content), columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise ConfigurationError(
            f"{name} in {store.url} cannot be read ({error}): restore it, or take it away, then begin again"
        ) from error
