"""The tables and views over a lake, on both stores."""

from datetime import UTC, date, datetime, timedelta
from io import BytesIO

import duckdb
import pyarrow.parquet as pq
import pytest

from connectors.lake.packages import write_package, write_rows
from connectors.lake.query import audio_saved_ms, connect, done_objects, measured_speed, places_done, quarantined_now, spent_by
from connectors.lake.schemas import datasets
from connectors.lake.store import FolderStore, open_store
from connectors.s3 import S3Settings, s3_client
from moderation.errors import ConfigurationError

RUN = "20260301T080000Z-0a1b2c"
PACKAGE = f"{RUN}-p0001"
DAY = date(2026, 3, 1)
START = datetime(2026, 3, 1, 8, 0, 0, 123456, tzinfo=UTC)
VIEWS = {
    "ai_music_current",
    "ai_music_latest",
    "answers_latest",
    "cascade_backlog",
    "catalogue_latest",
    "clean_ai_music",
    "clean_music",
    "decisions_latest",
    "decisions_now",
    "evidence_latest",
    "failures",
    "failures_by_cause",
    "frames_latest",
    "music_current",
    "music_latest",
    "outcomes",
    "quarantined_now",
    "rule_precision",
    "runs_latest",
    "segments_latest",
    "spend_daily",
    "throughput",
    "windows_latest",
}


@pytest.fixture
def ask(store, request):
    """Publish sessions as packages of a day, then ask."""
    client = None if isinstance(store, FolderStore) else request.getfixturevalue("s3")
    connections = []

    def publish_and_ask(query: str, *packages, day: date = DAY) -> list[tuple]:
        for number, members in enumerate(packages, 1):
            write_package(store, f"{RUN}-p{number:04d}", RUN, day, members)
        if packages or not connections:
            connections.append(connect(store.url, client))
        return connections[-1].execute(query).fetchall()

    yield publish_and_ask
    for connection in connections:
        connection.close()


def test_an_empty_lake_has_every_table_and_view_and_no_rows(store, ask):
    names = {name for (name,) in ask("SHOW TABLES")}
    assert names == VIEWS | datasets().keys()
    for name in names:
        assert ask(f"FROM {name}") == []


def test_a_results_folder_that_does_not_exist_yet_is_an_empty_lake(tmp_path):
    with connect(str(tmp_path / "later")) as connection:
        assert connection.execute("FROM music_latest").fetchall() == []
        assert done_objects(connection, "music").num_rows == 0
    assert not (tmp_path / "later").exists()


def test_tables_have_the_columns_of_the_schemas_with_and_without_rows(ask, package):
    for members in ([], package):
        ask("FROM runs", members)
        for dataset in datasets().values():
            columns = dict(ask(f"SELECT column_name, column_type FROM (DESCRIBE {dataset.name})"))
            place = {"scan_date": "DATE"} if dataset.partitioned else {"run_id": "VARCHAR"}
            types = {column.name: column.type.sql.replace("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE") for column in dataset.columns}
            assert list(columns.items()) == list((types | place).items())


def test_rows_come_back_as_they_were_spooled(ask, session):
    spooled = session(endpoint="ai_music", items=2)
    summary = spooled.summary
    (row,) = ask("SELECT key, finished_at, vocal_percentage, vocal_ai_percentage, package, scan_date FROM ai_music_summaries", [spooled])
    assert row[:1] + row[2:] == (summary["key"], 12.5, None, PACKAGE, DAY)
    assert row[1] == summary["finished_at"]
    assert ask("SELECT window_index, start_time_ms, vocal_percentage, vocal_ai_probability FROM ai_music_windows ORDER BY 1") == [
        (0, 0, 0.0, None),
        (1, 4000, 11.0, None),
    ]


def test_partitions_and_columns_are_filtered(store, ask, session):
    ask("FROM runs", [session(1), session(3)])
    ask("FROM runs", [], [session(2)], day=DAY + timedelta(days=1))
    assert ask("SELECT DISTINCT scan_date FROM music_summaries WHERE scan_date > DATE '2026-03-01'") == [(DAY + timedelta(days=1),)]
    wanted = f"scan_date = DATE '2026-03-01' AND object_id = '{session(1).object_id}'"
    plan = ask(f"EXPLAIN SELECT music_prob FROM music_frames WHERE {wanted}")[0][1]
    assert "Projections: music_prob" in plan
    assert "object_id" in plan
    assert "Scanning Files: 1/2" in plan or "PYTHON_ARROW_SCAN" in plan


def test_latest_has_an_object_once_however_often_it_was_scanned(ask, session):
    first, again, other = session(1, items=3), session(7, key=session(1).summary["key"], items=4), session(2, items=2)
    assert ask("SELECT count(*) FROM music_summaries", [first, other], [again]) == [(3,)]
    assert set(ask("SELECT session_id FROM music_latest")) == {(again.session_id,), (other.session_id,)}
    assert ask("SELECT session_id, count(*) FROM frames_latest GROUP BY 1 ORDER BY 1") == [(other.session_id, 2), (again.session_id, 4)]


def test_the_segments_of_the_newest_result_tile_it(ask, session):
    first, again = session(1, items=30), session(7, key=session(1).summary["key"], items=40)
    assert ask("SELECT count(*) FROM segments", [first], [again]) == [(len(first.segments) + len(again.segments),)]
    found = ask("SELECT session_id, kind, start_time_ms, end_time_ms, mean_prob FROM segments_latest ORDER BY segment_index")
    told = [(again.session_id, row["kind"], row["start_time_ms"], row["end_time_ms"], row["mean_prob"]) for row in again.segments]
    assert found == told
    assert len({kind for _, kind, *_ in found}) > 1
    assert [start for _, _, start, *_ in found[1:]] == [end for _, _, _, end, _ in found[:-1]]


def test_a_tie_of_instants_goes_to_the_later_session(ask, session):
    first = session(1)
    same_time = {"key": first.summary["key"], "started_at": first.summary["started_at"], "finished_at": first.summary["finished_at"]}
    second = session(5, **same_time)
    assert ask("SELECT session_id FROM music_latest", [second, first]) == [(second.session_id,)]


def test_current_is_the_newest_version_of_a_key_even_if_it_was_scanned_first(ask, session):
    old = session(9, key="a.mp3", etag="old", last_modified=START - timedelta(days=9))
    new = session(1, key="a.mp3", etag="new", last_modified=START - timedelta(days=1))
    assert ask("SELECT etag FROM music_latest ORDER BY 1", [old, new]) == [("new",), ("old",)]
    assert ask("SELECT etag FROM music_current") == [("new",)]


def test_clean_views_leave_out_flags_and_thin_evidence(ask, session):
    sessions = [
        session(1),
        session(2, quality_flags="gap"),
        session(3, items=0),
        session(4, endpoint="ai_music"),
        session(5, endpoint="ai_music", quality_flags="partial"),
    ]
    assert ask("SELECT session_id FROM clean_music", sessions) == [(sessions[0].session_id,)]
    assert ask("SELECT session_id FROM clean_ai_music") == [(sessions[3].session_id,)]
    assert ask("SELECT count(*) FROM windows_latest") == [(10,)]


def test_failures_are_the_attempts_that_went_wrong(ask, session):
    outcomes = ["done", "failed", "refused", "cancelled"]
    found = ask("SELECT outcome FROM failures ORDER BY 1", [session(number, outcome=outcome) for number, outcome in enumerate(outcomes)])
    assert found == [("failed",), ("refused",)]


def attempts_of(store, session, *facts) -> None:
    """Publish attempts alone, each with facts of its own."""
    for number, more in enumerate(facts):
        write_rows(store, "attempts", RUN, DAY, f"a{number}", [{**session(number).attempt, **more}])


def test_failures_are_counted_by_day_and_cause(store, ask, session):
    worse = {"outcome": "failed", "scope": "service", "cause": "internal", "audio_sent_ms": 500}
    refused = {"outcome": "refused", "scope": "org", "cause": "capacity", "audio_sent_ms": 0}
    late = datetime(2026, 3, 1, 23, 59, 59, tzinfo=UTC)
    attempts_of(
        store,
        session,
        worse,
        worse,
        refused,
        {},
        {**worse, "endpoint": "ai_music"},
        worse | {"started_at": late},
        worse | {"started_at": late + timedelta(seconds=2)},
    )
    assert ask("SELECT * FROM failures_by_cause ORDER BY day, endpoint, cause") == [
        (DAY, "acme", "ai_music", "service", "internal", 1, 500),
        (DAY, "acme", "music", "org", "capacity", 1, 0),
        (DAY, "acme", "music", "service", "internal", 3, 1500),
        (DAY + timedelta(days=1), "acme", "music", "service", "internal", 1, 500),
    ]


def test_throughput_is_audio_with_a_result_by_the_time_in_which_sessions_were_open(store, ask, session):
    def ran(start, end, audio_ms, **more):
        return {
            "started_at": START + timedelta(seconds=start),
            "finished_at": START + timedelta(seconds=end),
            "audio_sent_ms": audio_ms,
            **more,
        }

    attempts_of(
        store,
        session,
        ran(0, 10, 600_000),
        ran(5, 25, 400_000),
        ran(6, 9, 0),
        ran(3600, 3615, 600_000),
        ran(30, 40, 9_000_000, outcome="failed"),
        ran(0, 2, 1000, endpoint="ai_music"),
        ran(7, 7, 1000, run_id="r2"),
    )
    assert ask("SELECT * FROM throughput ORDER BY run_id, endpoint") == [
        (RUN, "acme", "ai_music", 1, 1000, 2000, 0.5, 2.0),
        (RUN, "acme", "music", 4, 1_600_000, 40_000, 40.0, 12.0),
        ("r2", "acme", "music", 1, 1000, 0, None, 0.0),
    ]


def test_spend_is_counted_by_the_day_a_session_began(ask, session):
    sessions = [
        session(1, items=10),  # 1920 ms by both
        session(2, items=10, duration_ms=5000),
        session(3, items=10, duration_ms=None),
        session(4, outcome="failed", items=2),
        session(5, endpoint="ai_music", items=1),
        session(6, items=1, at=datetime(2026, 3, 1, 23, 59, 59, tzinfo=UTC)),
        session(7, items=1, at=datetime(2026, 3, 2, 0, 0, 1, tzinfo=UTC)),
    ]
    assert ask("FROM spend_daily ORDER BY ALL", sessions) == [
        (DAY, "acme", "ai_music", 4000, 0),
        (DAY, "acme", "music", 1920 + 5000 + 1920 + 192, 384),
        (DAY + timedelta(days=1), "acme", "music", 192, 0),
    ]


def test_quarantine_is_a_log_and_the_last_word_counts(store, ask, session):
    held, freed, again = (session(number, outcome="failed", quarantined=True).quarantine for number in range(3))
    later = {"run_id": RUN, "happened_at": START + timedelta(hours=1)}
    release = [{**row, "event": "released", **later} for row in (freed, again)]
    write_rows(store, "quarantine", RUN, DAY, "plan", [held, freed, again])
    write_rows(store, "quarantine", RUN, DAY, "release", release)
    write_rows(store, "quarantine", RUN, DAY, "third", [{**again, "reason": "poison", "happened_at": START + timedelta(hours=2)}])
    found = ask("SELECT object_id, endpoint, params_hash, reason FROM quarantined_now ORDER BY reason")
    assert found == [(again["object_id"], "music", "p1", "poison"), (held["object_id"], "music", "p1", "undecodable")]


def test_the_cascade_waits_for_what_has_music_alone(ask, session):
    both, waiting, held = session(1, key="a"), session(2, key="b"), session(3, key="c")
    second = [session(4, endpoint="ai_music", key="a"), session(5, endpoint="ai_music", key="c", outcome="failed", quarantined=True)]
    assert ask("SELECT key, music_pct FROM cascade_backlog", [both, waiting, held, *second]) == [("b", 60.0)]
    assert ask("SELECT key FROM cascade_backlog WHERE music_pct > 60") == []


def planned_of(session, endpoint="music", decision="stream", reason=None):
    """A row of a plan."""
    facts = {"decision": decision, "reason": reason, "estimate_ms": 0, "estimate_source": "none"}
    return {"object_id": session.object_id, "endpoint": endpoint, "params_hash": "p1", **facts}


def test_what_the_newest_cascade_left_out_is_no_backlog(store, ask, session, run):
    passing, lower, raised = session(1, key="passes"), session(2, key="lower"), session(3, key="raised")
    left_out = {"endpoint": "ai_music", "decision": "skip", "reason": "second_stage"}
    plans = {
        "20260301T080000Z-000001": [planned_of(passing, "ai_music"), planned_of(raised, "ai_music"), planned_of(lower, **left_out)],
        "20260302T080000Z-000002": [planned_of(passing, "ai_music"), planned_of(lower, "ai_music"), planned_of(raised, **left_out)],
        "20260303T080000Z-000003": [planned_of(each, **left_out) for each in (passing, lower, raised)],  # a dry run: no run at all
    }
    for run_id, rows in plans.items():
        write_rows(store, "plan", run_id, DAY, "plan", rows)
    for run_id in list(plans)[:2]:
        write_rows(store, "runs", run_id, DAY, "start", [{**run, "run_id": run_id}])
    assert ask("SELECT key FROM cascade_backlog ORDER BY 1", [passing, lower, raised]) == [("lower",), ("passes",)]


def test_an_outcome_is_what_any_run_has_made_of_the_object_by_now(store, ask, session, run, listed):
    """Two runs at once: the second plans what the first one does; done, held, left out and pending are told apart at each endpoint."""
    done, held, left, late = (session(number, key=key) for number, key in enumerate(("done", "held", "left", "late")))
    held_row = session(1, key="held", outcome="failed", quarantined=True, endpoint="ai_music").quarantine
    plan = [*(planned_of(each) for each in (done, held, left)), planned_of(late, "music", "skip", "changed")]
    plan += [planned_of(done, "ai_music"), planned_of(held, "ai_music"), planned_of(late, "ai_music", "skip", "not_reached")]
    plan += [planned_of(left, "ai_music", "skip", "second_stage")]
    rows = [
        listed(number) | {"object_id": each.object_id, "key": each.summary["key"]} for number, each in enumerate((done, held, left, late))
    ]
    for run_id in ("20260301T080000Z-000001", "20260301T080001Z-000002"):
        write_rows(store, "runs", run_id, DAY, "start", [{**run, "run_id": run_id}])
        write_rows(store, "manifests", run_id, DAY, "manifest", rows)
        write_rows(store, "plan", run_id, DAY, "plan", plan)
    write_rows(store, "quarantine", RUN, DAY, "x", [held_row])
    other_parameters = session(9, key="late", params_hash="p2")
    columns = "key, music_outcome, music_reason, ai_music_outcome, ai_music_reason"
    published = [done, held, left, session(8, key="done", endpoint="ai_music"), other_parameters]
    assert ask(f"SELECT {columns} FROM catalogue_latest ORDER BY 1", published) == [
        ("done", "done", None, "done", None),
        ("held", "done", None, "quarantined", "undecodable"),
        ("late", "pending", None, "pending", None),
        ("left", "done", None, "skipped", "second_stage"),
    ]
    assert ask("SELECT outcome, count(*), count(DISTINCT run_id) FROM outcomes GROUP BY 1 ORDER BY 1") == [
        ("done", 8, 2),
        ("pending", 4, 2),
        ("quarantined", 2, 2),
        ("skipped", 2, 2),
    ]


def test_what_the_newest_run_did_not_plan_is_done_by_the_results_alone(store, ask, session, run, listed):
    both, music = session(1, key="both"), session(2, key="music")
    rows = [listed(place, object_id=each.object_id, key=each.summary["key"]) for place, each in enumerate((both, music))]
    write_rows(store, "runs", RUN, DAY, "start", [run])
    write_rows(store, "manifests", RUN, DAY, "manifest", rows)
    write_rows(store, "plan", RUN, DAY, "plan", [planned_of(both), planned_of(music)])
    published = [both, music, session(3, key="both", endpoint="ai_music")]
    found = ask("SELECT key, music_outcome, ai_music_outcome FROM catalogue_latest ORDER BY 1", published)
    assert found == [("both", "done", "done"), ("music", "done", None)]


def test_saved_hours_are_those_of_the_newest_run_of_each_source_this_month(store, ask, run, request):
    def ran(number, day, saved_ms, source="s3://audio/", state="Completed", **more):
        run_id = f"202603{day:02}T080000Z-{number:06}"
        at = START + timedelta(days=day - 1)
        row = {**run, "run_id": run_id, "started_at": at, "finished_at": at, "source": source, "state": state, "audio_ms_saved": saved_ms}
        write_rows(store, "runs", run_id, DAY, "end", [row | more])

    ran(1, 1, 500)
    ran(2, 2, 400)
    ran(3, 3, 0, state="Terminated")
    ran(4, 2, 30, source="s3://other/", state="Incomplete")
    ran(5, 9, 7000, org="globex")
    ran(6, 31 + 2, 90_000)
    client = None if isinstance(store, FolderStore) else request.getfixturevalue("s3")
    with connect(store.url, client, only=["runs"]) as connection:
        assert [audio_saved_ms(connection, *of) for of in (("acme", "2026-03"), ("acme", "2026-02"), ("globex", "2026-03"))] == [
            430,
            0,
            7000,
        ]


def test_a_run_is_shown_as_it_ended(store, ask, run):
    other = {**run, "run_id": "20260302T080000Z-ffffff"}
    write_rows(store, "runs", RUN, DAY, "start", [run])
    write_rows(store, "runs", RUN, DAY, "end", [{**run, "state": "Completed", "exit_code": 0, "finished_at": START + timedelta(hours=1)}])
    write_rows(store, "runs", other["run_id"], DAY, "start", [other])
    assert ask("SELECT run_id, state, exit_code FROM runs_latest ORDER BY 1") == [(RUN, "Completed", 0), (other["run_id"], "Running", None)]


def test_the_catalogue_is_the_newest_manifest_of_each_source(store, ask, run, listed):
    runs = {
        "20260301T080000Z-000001": ("s3://audio/", [1, 2, 3]),
        "20260302T080000Z-000002": ("s3://audio/", [2, 3, 4]),
        "20260301T090000Z-000003": ("s3://other/", [9]),
        "20260303T080000Z-000004": ("s3://audio/", None),  # still listing
    }
    for run_id, (source, numbers) in runs.items():
        write_rows(store, "runs", run_id, DAY, "start", [{**run, "run_id": run_id, "source": source}])
        if numbers:
            write_rows(store, "manifests", run_id, DAY, "manifest", [listed(number) for number in numbers])
            write_rows(store, "plan", run_id, DAY, "plan", [])
    assert ask("SELECT key, run_id[-1:] FROM catalogue_latest ORDER BY 1") == [("k2", "2"), ("k3", "2"), ("k4", "2"), ("k9", "3")]
    assert ask("SELECT count(*), count(DISTINCT run_id) FROM manifests") == [(7, 3)]


def test_planning_asks_what_is_done_and_what_is_held(store, ask, session, request):
    ask("FROM runs", [session(1), session(11, key=session(1).summary["key"]), session(2, outcome="failed", quarantined=True)])
    client = None if isinstance(store, FolderStore) else request.getfixturevalue("s3")
    with connect(store.url, client) as connection:
        place = session(1).summary["object_key_id"]
        done = {"object_id": session(1).object_id, "object_key_id": place, "params_hash": "p1"}
        assert done_objects(connection, "music").to_pylist() == [done]
        assert done_objects(connection, "ai_music").num_rows == 0
        held = {"object_id": session(2).object_id, "endpoint": "music", "params_hash": "p1", "reason": "undecodable"}
        assert quarantined_now(connection).to_pylist() == [held]


def test_planning_asks_what_is_done_below_prefixes_that_are_taken_literally(ask, session, store, request):
    keys = ["a/one.mp3", "a/two.mp3", "b/100%_.mp3", "b/1000.mp3"]
    sessions = [session(number, key=key) for number, key in enumerate(keys)]
    ask("FROM runs", sessions)
    places = {ended.summary["object_key_id"]: key for key, ended in zip(keys, sessions, strict=True)}
    client = None if isinstance(store, FolderStore) else request.getfixturevalue("s3")
    with connect(store.url, client) as connection:

        def below(*prefixes):
            return sorted(places[row["object_key_id"]] for row in places_done(connection, "music", prefixes).to_pylist())

        assert below(("audio", "")) == sorted(keys)
        assert below(("audio", "a/o"), ("audio", "b/100%_")) == ["a/one.mp3", "b/100%_.mp3"]
        assert below(("another", "")) == below() == []
        assert places_done(connection, "ai_music", [("audio", "")]).num_rows == 0


def test_the_speed_of_a_session_is_that_of_the_newest_runs_that_had_results(lake, session):
    def ran(run, number, audio_ms, outcome="done"):
        ended = session(number, outcome=outcome)
        return {**ended.attempt, "run_id": run, "audio_sent_ms": audio_ms}

    rows = [ran("r1", 1, 9_000), ran("r2", 2, 60_000), ran("r2", 3, 30_000), ran("r2", 4, 900_000, "failed"), ran("r3", 5, 0)]
    for row in rows:
        write_rows(lake, "attempts", row["run_id"], DAY, str(row["session_id"]), [row])
    with connect(lake.url) as connection:
        assert measured_speed(connection, "music", runs=1) == 15
        assert measured_speed(connection, "music", runs=5) == 11
        assert measured_speed(connection, "ai_music", runs=5) is None


def test_what_a_run_has_spent_is_that_of_its_results_and_of_its_failures_at_every_endpoint(lake, session):
    write_package(lake, PACKAGE, RUN, DAY, [session(1), session(2, endpoint="ai_music"), session(3, outcome="failed")])
    with connect(lake.url) as connection:
        [(settled_ms, possible_ms)] = connection.execute("SELECT sum(settled_ms), sum(possible_ms) FROM spend_daily").fetchall()
        assert settled_ms > possible_ms > 0
        assert spent_by(connection, RUN) == (settled_ms, possible_ms)
        assert spent_by(connection, "another") == (0, 0)


def test_unfinished_and_hidden_files_are_not_read(lake, session):
    write_package(lake, PACKAGE, RUN, DAY, [session()])
    (lake.root / "music_summaries" / "scan_date=2026-03-01" / ".half.parquet.0a.tmp").write_bytes(b"half")
    (lake.root / "_spool").mkdir()
    (lake.root / "_spool" / "x.parquet").write_bytes(b"half")
    with connect(lake.url) as connection:
        assert connection.execute("SELECT count(*) FROM music_summaries").fetchall() == [(1,)]


@pytest.mark.parametrize("name", ["odd [x] it's * {a,b}", "tab\tnew", "Ä ö"])
def test_any_folder_name_will_do(tmp_path, session, run, listed, name):
    for folder in (name, "odd x it's anything a"):
        store = FolderStore(tmp_path / folder)
        write_package(store, PACKAGE, RUN, DAY, [session()])
        write_rows(store, "manifests", RUN, DAY, "manifest", [listed(1)])
        write_rows(store, "runs", RUN, DAY, "start", [run])
        with connect(store.url) as connection:
            assert connection.execute("SELECT count(*) FROM music_frames").fetchall() == [(5,)]
            assert connection.execute("SELECT key, run_id FROM catalogue_latest").fetchall() == [("k1", RUN)]


def test_a_relative_folder_stays_where_it_was(tmp_path, monkeypatch, session):
    monkeypatch.chdir(tmp_path)
    write_package(FolderStore(tmp_path / "results"), PACKAGE, RUN, DAY, [session()])
    with connect("results") as connection:
        monkeypatch.chdir("/")
        assert connection.execute("SELECT count(*) FROM music_frames").fetchall() == [(5,)]


def test_columns_that_files_do_not_have_yet_or_any_more_do_no_harm(store, ask, session):
    """Additive changes: older files lack a column, newer ones have one that this version does not know."""
    name = next(name for name in write_package(store, PACKAGE, RUN, DAY, [session(1), session(2)]) if "music_summaries" in name)
    table = pq.read_table(BytesIO(store.get(name))).drop_columns(["transcoded_from", "extra"])
    out = BytesIO()
    pq.write_table(table.append_column("loudness", [[-14.0, -9.0]]), out)
    store.put(name, out.getvalue())
    assert ask("SELECT count(*), count(extra), count(transcoded_from) FROM music_latest") == [(2, 0, 0)]
    assert ask("SELECT count(*) FROM (DESCRIBE music_summaries) WHERE column_name = 'loudness'") == [(0,)]
    assert ask("SELECT count(*), count(extra) FROM music_latest", [], [session(3)]) == [(3, 0)]


@pytest.mark.parametrize(
    "query",
    [
        "FROM read_csv('/etc/passwd')",
        "FROM read_text('/etc/passwd')",
        "FROM 'https://example.com/x.parquet'",
        "FROM 's3://bucket/x.parquet'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "ATTACH '/etc/x.db'",
        "COPY (SELECT 1) TO '/etc/soundcheck.csv'",
        "SET enable_external_access = true",
        "SET threads = 1",
        "FROM outside",
        "FROM glob('/etc/*')",
    ],
)
def test_nothing_but_the_lake_can_be_reached(tmp_path, query):
    outside = [1]  # noqa: F841 - DuckDB would look for it here
    with connect(str(tmp_path)) as connection, pytest.raises(duckdb.Error):
        connection.execute(query).fetchall()


def test_times_are_in_utc_wherever_this_runs(ask, session, monkeypatch):
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    assert ask("SELECT CAST(started_at AS VARCHAR) FROM music_latest", [session()]) == [("2026-03-01 08:00:00.123456+00",)]


def test_a_missing_bucket_is_told(s3):
    with pytest.raises(ConfigurationError, match="does not exist"):
        connect("s3://no-such-bucket/x", s3)


def test_a_public_bucket_needs_no_credentials(s3, local_s3, session):
    names = write_package(open_store("s3://results-bucket/x", s3), PACKAGE, RUN, DAY, [session()])
    s3.put_bucket_acl(Bucket="results-bucket", ACL="public-read")
    for name in names:
        s3.put_object_acl(Bucket="results-bucket", Key=f"x/v1/{name}", ACL="public-read")
    anonymous = s3_client(S3Settings(endpoint_url=local_s3.endpoint_url, region="us-east-1", anonymous=True))
    with connect("s3://results-bucket/x", anonymous) as connection:
        assert connection.execute("SELECT count(*) FROM music_frames").fetchall() == [(5,)]
    anonymous.close()
