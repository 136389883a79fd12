"""`verify` over whole lakes: what is missing, twice, misplaced or foreign, on a folder and on S3."""

import os
import shutil
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from connectors.lake.findings import Finding, Problem
from connectors.lake.packages import rows_sink, write_package, write_rows
from connectors.lake.parquet import ParquetSink, few_valued
from connectors.lake.schemas import datasets
from connectors.lake.store import FolderStore
from tasks.verify import LIVE_WRITE, verify

pytestmark = pytest.mark.torture

RUN = "20260301T080000Z-0a1b2c"
PACKAGE = f"{RUN}-p0001"
DAY = date(2026, 3, 1)
NOW = datetime(2026, 3, 9, tzinfo=UTC)


def place(dataset: str, package: str = PACKAGE, day: date = DAY) -> str:
    return f"{dataset}/scan_date={day}/{package}.parquet"


def found(store, **options) -> list[Finding]:
    return verify(store, NOW, lambda done, of: None, **options).findings


def brief(findings) -> set[tuple[str, Problem]]:
    return {(finding.name.partition("/")[0], finding.problem) for finding in findings}


def change(store, dataset: str, changing) -> None:
    """Write a package's file anew, as soundcheck would have, with other rows."""
    name = place(dataset)
    rows = pq.read_table(BytesIO(store.get(name)))
    kind, out = datasets()[dataset], BytesIO()
    changed = changing(rows)
    options = {"few_valued": few_valued(kind, [changed]), "objects": len(set(changed["object_id"].to_pylist()))}
    with ParquetSink(out, kind, run_id=RUN, package=PACKAGE, **options) as sink:
        sink.write(changed)
    store.put(name, out.getvalue())


def with_value(column: str, row: int, value):
    def changing(rows: pa.Table) -> pa.Table:
        values = rows[column].to_pylist()
        values[row] = value
        return rows.set_column(rows.column_names.index(column), column, pa.array(values, rows.schema.field(column).type))

    return changing


def without_rows(*places: int):
    return lambda rows: rows.take([row for row in range(rows.num_rows) if row not in places])


def fill(store, package, run, listed):
    """A lake with a package, a run's record, a manifest, a plan and a release."""
    write_package(store, PACKAGE, RUN, DAY, package)
    write_rows(store, "runs", RUN, DAY, "start", [run])
    write_rows(store, "plan", RUN, DAY, "plan", [])
    write_rows(store, "quarantine", RUN, DAY, "release", [package[7].quarantine | {"event": "released"}])
    with rows_sink(store, "manifests", RUN, DAY, "manifest") as sink:
        sink.write([listed(number) for number in range(3)])
    store.put(f"_runs/{RUN}/chosen.parquet", b"a run's own")


@pytest.fixture(scope="module")
def filled(tmp_path_factory, package, run, listed, decision, answer):
    store = FolderStore(tmp_path_factory.mktemp("filled"))
    fill(store, package, run, listed)
    write_rows(store, "decisions", RUN, DAY, "d0001", [decision(), decision(1, decision="block", reason="any words at all")])
    write_rows(store, "review_answers", RUN, DAY, "a0001", [answer()])
    store.put("_policies/0123456789abcdef.toml", b"a policy")
    return store


@pytest.fixture
def sound(filled, tmp_path):
    """A copy of it in a folder."""
    return FolderStore(Path(shutil.copytree(filled.url, tmp_path / "sound")))


def test_a_sound_lake_is_clean_and_every_file_is_read(store, package, run, listed):
    fill(store, package, run, listed)
    told = []
    done = verify(store, NOW, lambda *progress: told.append(progress))
    assert (done.findings, done.files, done.unproven) == ([], 11, 0)
    assert done.rows == sum(len(pq.read_table(BytesIO(store.get(name)))) for name in store.list("") if "chosen" not in name)
    assert told == [(number, 11) for number in range(1, 12)]


@pytest.mark.parametrize(
    ("gone", "findings"),
    [
        ("music_frames", {("music_summaries", Problem.ORPHANS)}),
        ("segments", {("music_summaries", Problem.COUNTS)}),
        ("attempts", {("music_summaries", Problem.ORPHANS), ("ai_music_summaries", Problem.ORPHANS)}),
        ("music_summaries", {("music_summaries", Problem.UNFINISHED)}),
    ],
)
def test_a_file_that_is_gone_is_missed(sound, gone, findings):
    sound.delete(place(gone))
    assert brief(found(sound)) == findings


@pytest.mark.parametrize(
    ("dataset", "changing", "says"),
    [
        ("music_frames", without_rows(1), "have items that are not numbered from 0 without a hole"),
        ("music_frames", without_rows(26), "have other numbers of items"),
        ("music_frames", lambda rows: pa.concat_tables([rows.slice(5), rows.slice(0, 5)]), "are not in the order of the dataset"),
        ("music_frames", lambda rows: pa.concat_tables([rows, rows]), "not numbered from 0"),
        ("music_frames", with_value("frame_index", 0, -1), "frame_index is negative in 1 of 27 rows"),
        ("music_frames", with_value("music_prob", 0, 1.25), "music_prob is outside 0 to 1 in 1 of 27 rows"),
        ("music_frames", with_value("end_time_ms", 2, 1), "end_time_ms is before start_time_ms"),
        ("music_frames", with_value("session_id", 0, "0"), "have items, and no summary"),
        ("ai_music_windows", with_value("vocal_percentage", 0, 100.5), "vocal_percentage is outside 0 to 100"),
        ("segments", without_rows(0), "have segments that are not numbered from 0"),
        ("segments", with_value("end_time_ms", 0, 1), "have segments of other audio than their items cover"),
        ("segments", with_value("kind", 0, "noise"), "kind is none of its words"),
        ("attempts", lambda rows: rows.filter(pc.equal(rows["outcome"], "failed")), "have no attempt"),
        ("attempts", with_value("outcome", 0, "well"), "outcome is none of its words"),
        ("attempts", lambda rows: pa.concat_tables([rows.slice(0, 1), rows]), "are there twice"),
        ("quarantine", with_value("reason", 0, "boredom"), "reason is none of its words"),
        ("quarantine", with_value("run_id", 0, "another"), "run_id is another than its name's"),
        ("music_summaries", lambda rows: pa.concat_tables([rows.slice(0, 1), rows]), "are there twice"),
        ("music_summaries", without_rows(0), "have a good attempt, and no summary"),
        ("music_summaries", with_value("package", 0, "another"), "package is another than its name's"),
        ("music_summaries", with_value("items_received", 0, 1), "have other numbers of items"),
        ("music_summaries", with_value("frame_count", 0, 1), "count other items than they have, and are not flagged for it"),
        ("music_summaries", with_value("covered_ms", 0, 1), "have segments of other audio than their items cover"),
        ("music_summaries", with_value("object_id", 0, "0" * 32), "are of another object than their summaries say"),
        ("music_summaries", with_value("music_pct", 0, 101.0), "music_pct is outside 0 to 100"),
        ("music_summaries", with_value("evidence", 0, "some"), "evidence is none of its words"),
    ],
)
def test_rows_that_do_not_agree_are_found(sound, dataset, changing, says):
    change(sound, dataset, changing)
    assert says in "; ".join(finding.what for finding in found(sound))


@pytest.mark.parametrize(
    ("column", "value"), [("primary_label", "whale song"), ("music_pct", None), ("frame_count", None), ("quality_flags", "range")]
)
def test_what_the_service_may_say_is_no_finding(sound, column, value):
    change(sound, "music_summaries", with_value(column, 0, value))
    assert found(sound) == []


def test_figures_that_are_flagged_for_it_are_no_finding(lake, session):
    odd = session(0, quality_flags="count_mismatch,range", music_pct=250.0, frame_count=77)
    write_package(lake, PACKAGE, RUN, DAY, [odd])
    assert found(lake) == []


def test_a_session_in_two_packages_is_found(sound, package):
    write_package(sound, f"{RUN}-p0002", RUN, DAY, package[:1])
    findings = found(sound)
    assert all(finding.problem is Problem.TWICE for finding in findings)
    datasets_of_it = ("music_frames", "segments", "attempts", "music_summaries")
    both = {place(dataset, name) for dataset in datasets_of_it for name in (PACKAGE, f"{RUN}-p0002")}
    assert {finding.name for finding in findings} == both


def test_a_copy_on_another_day_is_found(sound):
    name = place("music_summaries", day=date(2026, 3, 2))
    sound.put(name, sound.get(place("music_summaries")))
    assert Finding(name, Problem.MISPLACED, "its run did not begin on the day of its folder") in found(sound)


@pytest.mark.parametrize(
    "name",
    [
        "music_frames/notes.txt",
        "music_frames/scan_date=2026-03-01/copy.parquet",
        f"music_frames/scan_date=2026-02-30/{PACKAGE}.parquet",
        f"music_frames/{PACKAGE}.parquet",
        f"runs/scan_date=2026-03-01/{RUN}-middle.parquet",
        f"loudness/scan_date=2026-03-01/{PACKAGE}.parquet",
        f"_runs/{RUN}/other.parquet",
        "_canary-0123456789abcdef",
    ],
)
def test_a_file_that_is_no_datasets_is_found(sound, name):
    sound.put(name, b"x")
    assert [(finding.name, finding.problem) for finding in found(sound)] == [(name, Problem.FOREIGN)]


def test_a_shared_spool_is_nothing_foreign_but_what_it_lost_is_found(sound):
    session_id = "019ca869-c5ab-7000-8000-00000000001e"
    sound.put(f"_spool/{session_id}", b"x")
    assert found(sound) == []
    sound.put(f"_spool/damaged/{session_id}", b"x")
    sound.put("_spool/else", b"x")
    assert {(finding.name, finding.problem) for finding in found(sound)} == {
        (f"_spool/damaged/{session_id}", Problem.LOST),
        ("_spool/else", Problem.FOREIGN),
    }


def test_what_a_broken_write_left_is_found_once_nobody_can_be_writing_it(sound):
    unfinished = sound.root / "music_frames" / "scan_date=2026-03-01" / ".x.parquet.0f0f.tmp"
    unfinished.write_bytes(b"half")
    os.utime(unfinished, (NOW.timestamp(),) * 2)
    assert found(sound) == []
    findings = verify(sound, NOW + LIVE_WRITE + timedelta(seconds=1), lambda done, of: None).findings
    assert [(finding.name, finding.problem) for finding in findings] == [
        ("music_frames/scan_date=2026-03-01/.x.parquet.0f0f.tmp", Problem.LEFTOVER)
    ]


@pytest.mark.fault(71)
def test_a_damaged_file_is_one_finding_and_its_package_is_not_asked_further(sound):
    name = place("music_frames")
    sound.put(name, sound.get(name)[:-1])
    assert [(finding.name, finding.problem) for finding in found(sound)] == [(name, Problem.DAMAGED)]


class Publishing(FolderStore):
    """A folder into which a package is published while it is listed: its files come behind what was listed already."""

    def __init__(self, folder, publish) -> None:
        super().__init__(folder)
        self.publish = publish
        self.lists = 0

    def list(self, prefix):
        self.lists += 1
        names = list(super().list(prefix))
        if self.lists == self.at:
            self.publish()
        return iter(names)


@pytest.mark.parametrize("at", range(1, 10))
def test_a_package_that_is_published_meanwhile_is_no_finding(tmp_path, package, at):
    sound = FolderStore(tmp_path)
    write_package(sound, PACKAGE, RUN, DAY, package[:3])
    store = Publishing(tmp_path, lambda: write_package(sound, f"{RUN}-p0002", RUN, DAY, package[3:]))
    store.at = at
    assert found(store) == []


@pytest.mark.parametrize("files", range(1, 7))
def test_a_package_that_broke_off_is_unfinished_and_nothing_else(tmp_path, package, files):
    sound, broken = FolderStore(tmp_path / "sound"), FolderStore(tmp_path / "broken")
    for name in write_package(sound, PACKAGE, RUN, DAY, package)[:files]:
        broken.put(name, sound.get(name))
    assert {finding.problem for finding in found(broken)} == {Problem.UNFINISHED}


def test_days_before_since_are_left_out(sound, session):
    name = place("music_frames")
    sound.put(name, b"gone")
    assert brief(found(sound, since=DAY)) == {("music_frames", Problem.DAMAGED)}
    assert found(sound, since=DAY + timedelta(days=1)) == []


def test_empty_results_of_a_session_without_items_are_sound(lake, session):
    silent = msgspec.structs.replace(session(0, items=0), segments=[])
    write_package(lake, PACKAGE, RUN, DAY, [silent, session(1, outcome="failed")])
    assert found(lake) == []
