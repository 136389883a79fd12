"""Compaction: the same rows in few files, whatever breaks off and whoever else is at it."""

import shutil
from collections import Counter
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.lake import compaction
from connectors.lake.compaction import COMPACTED, NotCompacted, compact, days_before
from connectors.lake.merging import merged_rows
from connectors.lake.packages import write_package
from connectors.lake.published import PackageReader, package_files
from connectors.lake.schemas import datasets
from connectors.lake.store import FolderStore
from tasks.verify import verify

pytestmark = pytest.mark.torture

RUN = "20260301T080000Z-0a1b2c"
LATER = "20260301T200000Z-0a1b2c"
DAY = date(2026, 3, 1)
NOW = datetime(2026, 3, 9, tzinfo=UTC)
COMPACTED_NAMES = {dataset.name for dataset in COMPACTED}


@pytest.fixture(scope="module")
def packages(session):
    """Four packages of two runs, a long session among them; the last has a failed attempt alone."""

    def later(number, **options):
        one = session(number, run_id=LATER, **options)
        return msgspec.structs.replace(one, run_id=LATER, attempt=one.attempt | {"run_id": LATER})

    return {
        (f"{RUN}-p0001", RUN): [session(0, items=5_000), session(1, items=4), session(2, items=3, endpoint="ai_music")],
        (f"{RUN}-p0002", RUN): [session(3, items=7, key=session(0).summary["key"]), session(4, items=0), session(5, outcome="failed")],
        (f"{LATER}-p0001", LATER): [later(6, items=400), later(7, items=2, endpoint="ai_music")],
        (f"{RUN}-p0003", RUN): [session(8, outcome="failed")],
    }


def publish(store, packages) -> None:
    for (package, run), sessions in packages.items():
        write_package(store, package, run, DAY, sessions)


def compact_all(store, before: date = DAY + timedelta(days=1)) -> Counter:
    done: Counter[str] = Counter()
    for files in days_before(store, before):
        for dataset in COMPACTED:
            done += compact(store, files, dataset)
    return done


def rows(store, dataset: str) -> list[dict]:
    """Every row, as a bare glob finds them, in one order."""
    tables = [pq.read_table(BytesIO(store.get(name))) for name in store.list(f"{dataset}/")]
    return sorted(
        (row for table in tables for row in table.to_pylist()), key=lambda row: [row[name] for name in datasets()[dataset].sorted_by]
    )


def every_row(store) -> dict[str, list[dict]]:
    return {name: rows(store, name) for name in (*COMPACTED_NAMES, "attempts")}


def content(store) -> dict[str, bytes]:
    return {name: store.get(name) for name in store.list("")}


def clean(store) -> bool:
    return verify(store, NOW, lambda done, of: None).findings == []


def test_the_same_rows_are_in_few_sorted_files(store, packages):
    publish(store, packages)
    before = every_row(store)
    done = compact_all(store)
    assert every_row(store) == before
    assert clean(store)
    assert done == Counter(made=5, merged=13, deleted=13)
    for dataset in COMPACTED_NAMES:
        [name] = store.list(f"{dataset}/")
        file = pq.ParquetFile(BytesIO(store.get(name)))
        keys = list(zip(*(file.read()[column].to_pylist() for column in datasets()[dataset].sorted_by), strict=True))
        assert keys == sorted(keys)
        assert (file.metadata.row_group(0).column(0).bloom_filter_length or 0) > 0
    assert len(list(store.list("attempts/"))) == len(packages)


def test_compacting_again_changes_nothing(lake, packages):
    publish(lake, packages)
    compact_all(lake)
    once = content(lake)
    assert compact_all(lake) == Counter()
    assert content(lake) == once


def test_the_same_packages_give_the_same_bytes(tmp_path, packages):
    stores = [FolderStore(tmp_path / name) for name in ("a", "b")]
    for store, order in zip(stores, (packages, dict(reversed(packages.items()))), strict=True):
        publish(store, order)
        compact_all(store)
    assert content(stores[0]) == content(stores[1])


def memberships(lake):
    reader = PackageReader(lake)
    return {files.package: reader.read(files) for files in package_files(lake)}


def test_membership_stays_readable(lake, packages):
    publish(lake, packages)
    before = memberships(lake)
    compact_all(lake)
    after = memberships(lake)
    assert after.keys() == before.keys() == {package for package, _ in packages}
    for package, found in before.items():
        assert after[package].attempts == found.attempts
        assert after[package].summaries == found.summaries
        assert after[package].items_alone == found.items_alone == frozenset()


def test_open_days_and_packages_that_are_not_published_to_their_end_stay_as_they_are(lake, packages):
    publish(lake, packages)
    assert compact_all(lake, DAY) == Counter()
    unfinished = f"{RUN}-p0002"
    lake.delete(f"music_summaries/scan_date={DAY}/{unfinished}.parquet")
    compact_all(lake)
    assert [name for name in lake.list("") if unfinished in name and "attempts" not in name] == [
        f"{dataset}/scan_date={DAY}/{unfinished}.parquet" for dataset in ("music_frames", "segments")
    ]


def test_what_comes_later_is_merged_with_what_else_does(lake, packages, session):
    publish(lake, packages)
    compact_all(lake)
    merged = set(lake.list("music_frames/"))
    for number in (4, 5):
        write_package(lake, f"{RUN}-p000{number}", RUN, DAY, [session(50 + number, items=5)])
    compact_all(lake)
    assert merged < set(lake.list("music_frames/"))
    assert len(list(lake.list("music_frames/"))) == 2
    assert clean(lake)


def test_a_package_that_is_published_once_more_goes_again(lake, packages):
    publish(lake, packages)
    compact_all(lake)
    once = content(lake)
    publish(lake, packages)
    assert not clean(lake)
    compact_all(lake)
    assert content(lake) == once


def test_files_have_their_bounds(lake, session, monkeypatch):
    for number in range(1, 8):
        write_package(lake, f"{RUN}-p000{number}", RUN, DAY, [session(number, items=5)])
    size = max(lake.size(name) for name in lake.list("music_frames/"))
    monkeypatch.setattr(compaction, "MERGED_FILES", 3)
    compact_all(lake)
    assert len(list(lake.list("music_frames/"))) == 3, "three, three, and one that would be alone"
    for number in range(8, 10):
        write_package(lake, f"{RUN}-p0{number:03}", RUN, DAY, [session(number, items=5)])
    monkeypatch.setattr(compaction, "MERGED_BYTES", 2 * size)
    compact_all(lake)
    assert sum("merged" in name for name in lake.list("music_frames/")) == 3
    assert clean(lake)


def test_a_merged_file_that_names_other_packages_than_its_name_is_found(lake, packages):
    publish(lake, packages)
    compact_all(lake)
    name = next(lake.list("music_frames/"))
    data = lake.get(name)
    lake.put(name, data.replace(f"{RUN}-p0001".encode(), f"{RUN}-p0009".encode()))
    [finding] = verify(lake, NOW, lambda done, of: None).findings
    assert (finding.name, finding.what) == (name, "its metadata names other packages than its name says")


@pytest.mark.parametrize("what", ["original", "merged"])
def test_nothing_is_changed_where_something_is_damaged(lake, packages, what):
    publish(lake, packages)
    if what == "merged":
        compact_all(lake)
        publish(lake, packages)
    name = next(name for name in lake.list("music_frames/") if ("merged" in name) == (what == "merged"))
    data = bytearray(lake.get(name))
    data[data.rindex(b"parquet-cpp-arrow") - 100] ^= 1  # in the footer, which no checksum covers
    lake.put(name, bytes(data))
    before = content(lake)
    with pytest.raises(NotCompacted, match="see soundcheck verify"):
        compact_all(lake)
    assert content(lake) == before


def test_nothing_is_deleted_where_the_merged_file_lacks_a_session(lake, packages, session):
    publish(lake, packages)
    compact_all(lake)
    changed = [session(0, items=3)]
    write_package(lake, f"{RUN}-p0001", RUN, DAY, changed)
    before = content(lake)
    with pytest.raises(NotCompacted, match=r"has other rows of \S+ \(session_id\) than"):
        compact_all(lake)
    assert content(lake) == before


CALLS = 28
"""Of the store, to compact two packages of two datasets."""


class Crash(Exception):
    """A process that dies."""


class Crashing(FolderStore):
    """A folder whose process dies before its nth call: what it did until then is all there, as after the one before."""

    def __init__(self, folder: Path, at: int) -> None:
        super().__init__(folder)
        self.calls, self.at = 0, at

    def happens(self) -> None:
        raise Crash

    def _called(self) -> None:
        self.calls += 1
        if self.calls == self.at:
            self.happens()

    def list(self, prefix):
        self._called()
        return iter(list(super().list(prefix)))

    def size(self, name):
        self._called()
        return super().size(name)

    def reading(self, name):
        self._called()
        return super().reading(name)

    @contextmanager
    def writing(self, name):
        with super().writing(name) as file:
            yield file
            self._called()

    def delete(self, name):
        self._called()
        super().delete(name)


@pytest.fixture(scope="module")
def small(session, tmp_path_factory) -> Path:
    """A folder with two packages of one short session each, of frames and summaries alone."""
    folder = tmp_path_factory.mktemp("small")
    publish(
        FolderStore(folder),
        {(f"{RUN}-p000{number}", RUN): [msgspec.structs.replace(session(number, items=5), segments=[])] for number in (1, 2)},
    )
    return folder


def copy_of(folder: Path, number: int, tmp_path: Path) -> Crashing:
    """The same lake once more, in which something happens at that call."""
    return Crashing(Path(shutil.copytree(folder, tmp_path / str(number))), number)


def test_a_crash_before_any_call_is_repaired_by_running_it_again(tmp_path, small):
    sound = copy_of(small, 0, tmp_path)
    rows_before = every_row(FolderStore(small))
    compact_all(sound)
    assert sound.calls == CALLS
    for at in range(1, CALLS + 1):
        broken = copy_of(small, at, tmp_path)
        with pytest.raises(Crash):
            compact_all(broken)
        seen = every_row(broken)
        assert all(row in seen[dataset] for dataset, rows in rows_before.items() for row in rows), "nothing is lost meanwhile"
        compact_all(broken)
        assert content(broken) == content(sound)


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.torture)])
def test_two_that_compact_at_once_lose_nothing(tmp_path, small, step):
    """The second comes in before a call of the first, and does all of it."""
    rows_before = every_row(FolderStore(small))
    for at in range(1, CALLS + 1, step):
        first = copy_of(small, at, tmp_path)
        other = FolderStore(tmp_path / str(at))
        first.happens = lambda other=other: compact_all(other)
        with suppress(NotCompacted):
            compact_all(first)
        assert every_row(other) == rows_before
        assert len(list(other.list("music_frames/"))) == 1


def test_merging_keeps_the_order_whatever_the_batches(packages, lake):
    publish(lake, packages)
    names = sorted(lake.list("music_frames/"))
    frames = datasets()["music_frames"]
    whole = pa.concat_tables(pq.read_table(BytesIO(lake.get(name))) for name in names).sort_by(
        [(name, "ascending") for name in frames.sorted_by]
    )
    for batch_rows in (100, 1024, 100_000):
        pieces = list(merged_rows([BytesIO(lake.get(name)) for name in names], frames, batch_rows))
        assert max(piece.num_rows for piece in pieces) <= batch_rows * len(names)
        assert pa.concat_tables(pieces).equals(whole)
