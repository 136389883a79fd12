"""Publishing: what is written, that it can be repeated, and that nobody ever sees half of it."""

from datetime import date
from io import BytesIO
from pathlib import Path

import duckdb
import msgspec
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from connectors.lake import packages
from connectors.lake.packages import publishing_order, rows_sink, write_package, write_rows
from connectors.lake.schemas import ENDPOINT_DATASETS, datasets
from connectors.lake.store import FolderStore
from connectors.spool import Spool
from moderation.errors import ResultsNotWritable
from smooth_frames import smooth_session

RUN = "20260301T080000Z-0a1b2c"
PACKAGE = f"{RUN}-p0001"
DAY = date(2026, 3, 1)


def content(store) -> dict[str, bytes]:
    return {name: store.get(name) for name in store.list("")}


def rows(store, dataset: str) -> list[dict]:
    return [row for name in store.list(f"{dataset}/") for row in pq.read_table(BytesIO(store.get(name))).to_pylist()]


def test_one_file_a_dataset_items_first_and_summaries_last(store, package):
    names = write_package(store, PACKAGE, RUN, DAY, package)
    assert names == [
        f"{dataset}/scan_date=2026-03-01/{PACKAGE}.parquet"
        for dataset in ("music_frames", "ai_music_windows", "segments", "attempts", "quarantine", "music_summaries", "ai_music_summaries")
    ]
    assert sorted(names) == list(store.list(""))


def test_a_dataset_without_rows_gets_no_file(store, session):
    names = write_package(store, PACKAGE, RUN, DAY, [session(outcome="failed")])
    assert names == [f"attempts/scan_date=2026-03-01/{PACKAGE}.parquet"]
    assert write_package(store, f"{RUN}-p0002", RUN, DAY, []) == []


@pytest.mark.parametrize("batch_rows", [1, 3, 25])
def test_a_package_is_the_same_however_many_sessions_are_made_one_table(lake, session, monkeypatch, batch_rows):
    sessions = [session(), smooth_session(1, 10), replace(session(number=1), items={}), smooth_session(2, 1), smooth_session(3, 30)]
    names = write_package(lake, PACKAGE, RUN, DAY, sessions)
    before = content(lake)
    frames = sum(len(each.items["start_time_ms"]) // 8 for each in sessions if each.endpoint == "music" and each.items)
    assert len(rows(lake, "music_frames")) == frames
    monkeypatch.setattr(packages, "BATCH_ROWS", batch_rows)
    assert write_package(lake, PACKAGE, RUN, DAY, sessions) == names
    assert content(lake) == before


def test_every_file_is_of_its_schema(store, package):
    for name in write_package(store, PACKAGE, RUN, DAY, package):
        file = pq.ParquetFile(BytesIO(store.get(name)))
        dataset = datasets()[name.partition("/")[0]]
        assert file.schema_arrow.remove_metadata().equals(dataset.arrow_schema())
        assert file.metadata.metadata[b"soundcheck.dataset"].decode() == dataset.name
        assert file.metadata.metadata[b"soundcheck.run_id"].decode() == RUN
        assert file.metadata.metadata[b"soundcheck.package"].decode() == PACKAGE


def test_items_come_back_with_their_ordinals_sorted(lake, package):
    write_package(lake, PACKAGE, RUN, DAY, package)
    frames = rows(lake, "music_frames")
    assert frames == sorted(frames, key=lambda row: (row["object_id"], row["session_id"], row["frame_index"]))
    for session in package:
        if session.endpoint == "music" and session.summary:
            own = [row for row in frames if row["session_id"] == session.session_id]
            assert [row["frame_index"] for row in own] == list(range(session.summary["items_received"]))
            assert [row["start_time_ms"] for row in own] == [192 * index for index in range(len(own))]
            assert {row["object_id"] for row in own} <= {session.object_id}
            assert [row["music_prob"] is None for row in own] == [index == 1 for index in range(len(own))]


def test_summaries_and_attempts_come_back_as_they_were(lake, package):
    write_package(lake, PACKAGE, RUN, DAY, package)
    found = {row["session_id"]: row for row in rows(lake, "music_summaries")}
    for session in package:
        if session.endpoint == "music" and session.summary:
            summary = session.summary | {"package": PACKAGE, "speech_pct_recomputed": None}
            assert {name: value for name, value in found[session.session_id].items() if value is not None} == {
                name: value for name, value in summary.items() if value is not None
            }
    attempts = {row["session_id"]: row for row in rows(lake, "attempts")}
    assert attempts.keys() == {session.session_id for session in package}
    assert all(attempts[session.session_id].items() >= session.attempt.items() for session in package)
    assert [row["reason"] for row in rows(lake, "quarantine")] == ["undecodable"]


def test_a_failed_attempt_leaves_no_items(lake, session):
    broken = msgspec.structs.replace(session(outcome="failed"), items=session().items)
    write_package(lake, PACKAGE, RUN, DAY, [broken])
    assert list(lake.list("music_frames/")) == []


def test_what_went_through_the_spool_gives_the_same_bytes(lake, package, tmp_path):
    spool = Spool(tmp_path / "spool")
    for session in package:
        spool.put(session)
    write_package(lake, PACKAGE, RUN, DAY, package)
    direct = content(lake)
    write_package(lake, PACKAGE, RUN, DAY, [spool.get(name) for name in spool.ids()])
    assert content(lake) == direct


@settings(max_examples=6, deadline=None)
@given(order=st.permutations(range(10)))
def test_the_same_members_in_any_order_give_the_same_bytes(tmp_path_factory, package, order):
    first, second = FolderStore(tmp_path_factory.mktemp("a")), FolderStore(tmp_path_factory.mktemp("b"))
    write_package(first, PACKAGE, RUN, DAY, package)
    write_package(second, PACKAGE, RUN, DAY, (package[place] for place in order))
    assert content(first) == content(second)


def test_publishing_twice_changes_nothing(store, package):
    write_package(store, PACKAGE, RUN, DAY, package)
    once = content(store)
    write_package(store, PACKAGE, RUN, DAY, package)
    assert content(store) == once


def test_polars_and_duckdb_read_the_same(lake, package):
    write_package(lake, PACKAGE, RUN, DAY, package)
    files = lake.root / "music_frames" / "*" / "*.parquet"
    by_polars = pl.scan_parquet(files, hive_partitioning=True).sort("session_id", "frame_index").collect().rows()
    by_duckdb = duckdb.sql(f"FROM read_parquet('{files}', hive_partitioning = true) ORDER BY session_id, frame_index").fetchall()
    assert by_polars == by_duckdb
    assert len(by_polars) == sum(len(session.items["start_time_ms"]) // 8 for session in package if "music_prob" in session.items)


def test_a_session_that_is_there_twice_is_refused(lake, session):
    with pytest.raises(ValueError, match="twice"):
        write_package(lake, PACKAGE, RUN, DAY, [session(), session()])


def test_a_session_that_does_not_fit_stops_the_package_before_anything_is_written(lake, session):
    misfit = session(1, colour="red")
    with pytest.raises(ValueError, match="music_summaries has no column colour"):
        write_package(lake, PACKAGE, RUN, DAY, [session(0), misfit])
    odd = msgspec.structs.replace(session(2), items={**session(2).items, "loudness": b""})
    with pytest.raises(ValueError, match="music_frames has no column loudness"):
        write_package(lake, PACKAGE, RUN, DAY, [odd])
    assert list(lake.list("")) == []


class Failing(FolderStore):
    """A folder whose nth put fails: before anything is written, or after, as when the reply is lost."""

    def __init__(self, folder: Path, fails_at: int, *, after: bool) -> None:
        super().__init__(folder)
        self.calls, self.fails_at, self.after = 0, fails_at, after

    def put(self, name: str, data: bytes) -> None:
        self.calls += 1
        if self.calls == self.fails_at and not self.after:
            raise ResultsNotWritable("crash")
        super().put(name, data)
        seen_by_a_bare_glob(self)
        if self.calls == self.fails_at:
            raise ResultsNotWritable("crash")


def seen_by_a_bare_glob(store: FolderStore) -> int:
    """The sessions that a reader of all Parquet files sees summaries of; it finds all their items and attempts."""
    sessions = 0
    attempts = {row["session_id"] for row in rows(store, "attempts")}
    for items, summaries, _ in ENDPOINT_DATASETS.values():
        counted: dict[str, int] = {}
        for row in rows(store, items.name):
            counted[row["session_id"]] = counted.get(row["session_id"], 0) + 1
        for row in rows(store, summaries.name):
            sessions += 1
            assert counted.get(row["session_id"], 0) == row["items_received"]
            assert row["session_id"] in attempts
    return sessions


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", range(1, len(publishing_order()) + 1))
def test_a_crash_at_any_write_is_repaired_by_repeating(tmp_path, package, call, after):
    sound = FolderStore(tmp_path / "sound")
    write_package(sound, PACKAGE, RUN, DAY, package)
    failing = Failing(tmp_path / "failing", call, after=after)
    with pytest.raises(ResultsNotWritable, match="crash"):
        write_package(failing, PACKAGE, RUN, DAY, package)
    seen_by_a_bare_glob(failing)
    write_package(failing, PACKAGE, RUN, DAY, package)
    assert content(failing) == content(sound)
    assert seen_by_a_bare_glob(failing) == sum(session.summary is not None for session in package)


def test_rows_of_a_run_have_names_of_their_own(store, run):
    assert write_rows(store, "runs", RUN, DAY, "start", [run]) == f"runs/scan_date=2026-03-01/{RUN}-start.parquet"
    assert write_rows(store, "plan", RUN, DAY, "plan", []) == f"_runs/{RUN}/plan.parquet"
    with pytest.raises(ValueError, match="is called plan"):
        write_rows(store, "plan", RUN, DAY, "plans", [])
    assert pq.read_table(BytesIO(store.get(f"_runs/{RUN}/plan.parquet"))).schema.equals(datasets()["plan"].arrow_schema())
    assert rows(store, "runs")[0].items() >= run.items()


def test_the_same_rows_give_the_same_file_in_any_order(lake, session):
    events = [session(number, quarantined=True).quarantine for number in range(9)]
    name = write_rows(lake, "quarantine", RUN, DAY, "plan", events)
    first = lake.get(name)
    write_rows(lake, "quarantine", RUN, DAY, "plan", events[::-1])
    assert lake.get(name) == first


def test_a_manifest_is_written_as_it_comes_and_appears_when_it_is_complete(store, listed):
    with rows_sink(store, "manifests", RUN, DAY, "manifest") as sink:
        sink.write([listed(number) for number in range(3)])
        assert list(store.list("")) == []
        sink.write([listed(number) for number in range(3, 5)])
    table = pq.read_table(BytesIO(store.get(f"_runs/{RUN}/manifest.parquet")))
    assert table["key"].to_pylist() == [f"k{number}" for number in range(5)]


def test_a_manifest_whose_listing_breaks_never_appears(store, listed):
    def listing_that_breaks():
        with rows_sink(store, "manifests", RUN, DAY, "manifest") as sink:
            sink.write([listed(number) for number in range(3)])
            sink.write([{"key": "x"}])

    with pytest.raises(ValueError, match="must not be null"):
        listing_that_breaks()
    assert list(store.list("")) == []
