"""The materialised `current` of the summaries: it says what the views say of the summaries, or is not asked."""

import time
from datetime import UTC, date, datetime, timedelta

import pytest

from connectors.lake import refresh as refreshing
from connectors.lake.current_files import current_files, current_name, forget_current
from connectors.lake.findings import Problem
from connectors.lake.names import place_of
from connectors.lake.packages import write_package
from connectors.lake.query import connect, summary_files
from connectors.lake.refresh import refresh
from connectors.lake.store import FolderStore
from many_summaries import publish_summaries
from moderation.errors import ResultsNotWritable
from tasks.compact import compact_days
from tasks.refresh import keep_current
from tasks.verify import verify

NEWEST_MS = 50
RUN = "20260301T080000Z-0a1b2c"
DAY = date(2026, 3, 1)
START = datetime(2026, 3, 1, 8, tzinfo=UTC)
VIEWS = ("music_latest", "music_current", "ai_music_latest", "ai_music_current", "clean_music", "cascade_backlog", "frames_latest")


def publish(store, number: int, *sessions) -> None:
    write_package(store, f"{RUN}-p{number:04d}", RUN, DAY, sessions)


def answers(store, client=None) -> tuple[dict[str, list[tuple]], bool]:
    """What every view says, and whether a `current` was asked."""
    with connect(store.url, client) as lake:
        said = {view: lake.execute(f"FROM {view} ORDER BY ALL").fetchall() for view in VIEWS}
        return said, ("music_summaries_current",) in lake.execute("SHOW TABLES").fetchall()


@pytest.fixture
def two_versions(session):
    """Two versions of one key, one of them scanned twice, and more."""
    old = session(1, key="a.mp3", etag="old", last_modified=START - timedelta(days=9))
    new = session(2, key="a.mp3", etag="new", last_modified=START - timedelta(days=1))
    again = session(9, key="a.mp3", etag="old", last_modified=START - timedelta(days=9))
    return old, new, again, session(3), session(4, endpoint="ai_music"), session(5, outcome="failed")


def test_it_says_what_the_summaries_say(store, request, two_versions):
    client = None if isinstance(store, FolderStore) else request.getfixturevalue("s3")
    old, *rest = two_versions
    publish(store, 1, old)
    publish(store, 2, *rest)
    before = answers(store, client)
    made = keep_current(store)
    assert [place_of(name).dataset.name for name in made] == ["music_summaries_current", "ai_music_summaries_current"]
    after = answers(store, client)
    assert (before[1], after[1]) == (False, True)
    assert after[0] == before[0]
    assert len(after[0]["music_current"]) < len(after[0]["music_latest"])


def test_it_is_asked_only_while_it_is_of_all_there_is(lake, session, two_versions):
    publish(lake, 1, *two_versions)
    keep_current(lake)
    publish(lake, 2, session(20, key="a.mp3", etag="new", last_modified=START))
    with_newer, asked = answers(lake)
    assert not asked
    assert session(20, key="a.mp3", etag="new").session_id in {row[2] for row in with_newer["music_current"]}
    keep_current(lake)
    assert answers(lake) == (with_newer, True)
    lake.delete(f"music_summaries/scan_date={DAY}/{RUN}-p0001.parquet")
    assert not answers(lake)[1]


def test_the_same_summaries_give_the_same_bytes_and_making_it_again_does_nothing(lake, two_versions, monkeypatch):
    monkeypatch.setattr(refreshing, "SLICE_ROWS", 2)
    publish(lake, 1, *two_versions[:3])
    publish(lake, 2, *two_versions[3:])
    name = refresh(lake, "music")
    first = lake.get(name)
    assert refresh(lake, "music") is None
    lake.delete(name)
    assert refresh(lake, "music") == name
    assert lake.get(name) == first


def test_the_one_before_stays_for_its_readers_and_older_ones_go(lake, session):
    made = []
    for number in range(1, 5):
        publish(lake, number, session(number))
        made.append(refresh(lake, "music"))
    assert current_files(lake, "music") == sorted(made[-2:])
    forget_current(lake)
    assert current_files(lake, "music") == []


def test_a_run_does_not_begin_one_for_little(lake, session):
    for number in range(1, 4):
        publish(lake, number, session(number))
    assert keep_current(lake, few_files=3) == []
    assert len(keep_current(lake, few_files=2)) == 1
    publish(lake, 4, session(4))
    assert len(keep_current(lake, few_files=99)) == 1, "one that is there is kept up"
    assert keep_current(lake, few_files=0) == []


def test_without_summaries_there_is_none(lake):
    assert keep_current(lake) == []


def test_a_crash_while_it_is_made_leaves_what_was(lake, session, two_versions, monkeypatch):
    publish(lake, 1, *two_versions)
    [music, _] = keep_current(lake)
    publish(lake, 2, session(30))

    def broken(*_: object) -> None:
        raise ResultsNotWritable("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(refreshing.ParquetSink, "write", broken)
        with pytest.raises(ResultsNotWritable):
            keep_current(lake)
    assert current_files(lake, "music") == [music]
    with connect(lake.url) as connection:
        assert connection.execute("SELECT count(*) FROM music_latest").fetchall() == [(4,)]
    assert len(keep_current(lake)) == 1


def test_verification_knows_it_and_compaction_makes_it(lake, session, two_versions):
    publish(lake, 1, *two_versions)
    publish(lake, 2, session(30))
    compact_days(lake, date(2026, 3, 9), lambda done, of: None)
    assert current_name("music", summary_files(lake, "music")) in current_files(lake, "music")
    found = verify(lake, datetime(2026, 3, 9, tzinfo=UTC), lambda done, of: None)
    assert found.findings == []


def test_a_copy_of_other_rows_is_found(lake, session):
    publish(lake, 1, session(1), session(2))
    [copy] = keep_current(lake)
    write_package(lake, f"{RUN}-p0001", RUN, DAY, [session(1)])  # as one that rewrites a file under its name and forgets the copy
    [finding] = verify(lake, datetime(2026, 3, 9, tzinfo=UTC), lambda done, of: None).findings
    assert (finding.name, finding.problem) == (copy, Problem.COPY)
    assert "1 rows are not the newest of music_summaries" in finding.what


def test_a_damaged_copy_is_found_and_costs_nothing(lake, session):
    publish(lake, 1, session(1))
    [copy] = keep_current(lake)
    data = bytearray(lake.get(copy))
    data[100] ^= 1
    lake.put(copy, bytes(data))
    findings = verify(lake, datetime(2026, 3, 9, tzinfo=UTC), lambda done, of: None).findings
    assert {(finding.name, finding.problem) for finding in findings} == {(copy, Problem.COPY)}
    assert "loses nothing" in findings[0].problem.remedy


@pytest.mark.torture
def test_the_newest_of_a_million_objects_are_there_at_once(lake, record_property):
    publish_summaries(lake, 1_000_000, packages=100)
    with connect(lake.url) as ranked:
        answer, slow = timed(ranked)
    keep_current(lake)
    with connect(lake.url) as copied:
        again, fast = timed(copied)
    assert again == answer
    assert sum(row[1] for row in answer) == 1_000_000
    record_property("cpu_ms", {"ranked": slow, "current": fast})
    assert min(fast) <= NEWEST_MS, fast


def timed(lake) -> tuple[list[tuple], list[float]]:
    """The labels of the newest results with how many there are, and the CPU-milliseconds of each of five times."""
    spent = []
    for _ in range(5):
        before = time.process_time()
        found = lake.sql("SELECT primary_label, count(*), round(avg(music_pct), 6) FROM music_latest GROUP BY primary_label").fetchall()
        spent.append(1000 * (time.process_time() - before))
    return found, spent


@pytest.mark.parametrize(
    "name", ["_current/music_frames-0123456789abcdef.parquet", "_current/music_summaries_current-x.parquet", "_current/x"]
)
def test_what_is_no_copy_there_is_foreign(name):
    assert place_of(name) is None
