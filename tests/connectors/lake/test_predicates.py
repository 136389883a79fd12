"""Predicates that people write, over a lake with rows and over none."""

from datetime import date

import pytest

from connectors.lake.packages import write_package, write_rows
from connectors.lake.predicates import Predicate
from connectors.lake.query import QueryError, connect
from connectors.lake.store import FolderStore
from moderation.outcomes import ExitCode

RUN = "20260301T080000Z-0a1b2c"
DAY = date(2026, 3, 1)


@pytest.fixture
def lake(tmp_path, session):
    store = FolderStore(tmp_path / "results")
    sessions = [session(1, key="a", music_pct=5.0), session(2, key="b", music_pct=20.0), session(3, key="c", music_pct=None)]
    write_package(store, f"{RUN}-p0001", RUN, DAY, [*sessions, session(4, key="b", music_pct=30.0)])
    held = session(2, key="b", outcome="failed", quarantined=True).quarantine
    write_rows(store, "quarantine", RUN, DAY, "plan", [held])
    with connect(store.url) as connection:
        yield connection


def held(lake, condition, view="music_latest"):
    """The keys of the objects that a predicate holds for."""
    keys = dict(lake.execute("SELECT object_id, key FROM music_latest").fetchall())
    return sorted(keys[row["object_id"]] for row in Predicate(view, condition).object_ids(lake).to_pylist())


@pytest.mark.parametrize(
    ("condition", "keys"),
    [
        ("music_pct >= 10", ["b"]),
        ("music_pct IS NULL -- of old services", ["c"]),
        ("scan_date < '2026-06-01' and key in ('a', 'c')", ["a", "c"]),
        ("NOT music_pct < 10 OR key = 'a'", ["a", "b"]),
        ("object_id in (select object_id from quarantined_now where reason = 'undecodable')", ["b"]),
    ],
)
def test_it_holds_for_the_objects_that_sql_selects(lake, condition, keys):
    Predicate("music_latest", condition).check()
    assert held(lake, condition) == keys


def test_an_object_with_several_results_is_there_once(lake):
    assert held(lake, "true", view="music_summaries") == ["a", "b", "c"]


def test_no_answer_is_neither_yes_nor_no(lake):
    rows = Predicate("music_summaries", "music_pct >= 10").judge(lake, ["key", "music_pct"]).to_pylist()
    assert sorted((row["key"], row["music_pct"], row["holds"]) for row in rows if row["key"] != "b") == [
        ("a", 5.0, False),
        ("c", None, None),
    ]
    assert [row["holds"] for row in rows if row["key"] == "b"] == [True, True]


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("", "SELECT clause without selection list"),
        ("music_pct >=", "syntax error"),
        ("music_share >= 10", r'"music_share" not found.*columns of music_latest are object_id, .*music_pct'),
        ("music_pct", "gives DOUBLE, not one answer"),
        ("'music_pct > 1'", "gives VARCHAR"),
        ("*", "STAR expression"),
        ("COLUMNS('.*_pct') > 3", "gives BOOLEAN, BOOLEAN"),
        ("true, true", "more than one|single expression"),
        ("true; DROP VIEW music_latest", "more than one statement"),
        ("true) OR (true", "syntax error"),
        ("count(*) > 1", "aggregate"),
        ("row_number() OVER () = 1", "window"),
        ("unnest([true])", "UNNEST"),
        ("music_pct > ?", "parameters"),
        ("exists (FROM read_text('/etc/passwd'))", "disabled by configuration"),
        ("object_id IN (FROM 'outside.parquet')", "disabled by configuration"),
        ("exists (FROM glob('/etc/*'))", "disabled by configuration"),
        ("exists (FROM 's3://bucket/x.parquet')", ""),
        ("exists (FROM outside)", "does not exist"),
    ],
)
def test_what_is_no_condition_over_the_view_is_refused_with_and_without_results(lake, condition, says):
    outside = [1]  # noqa: F841 - DuckDB would look for it here
    predicate = Predicate("music_latest", condition)
    for use in (predicate.check, lambda: predicate.object_ids(lake), lambda: predicate.judge(lake, ["key"])):
        with pytest.raises(QueryError, match=rf"(?i)^the predicate .*({says})") as caught:
            use()
        assert caught.value.exit_code is ExitCode.USAGE
        assert "\n" not in str(caught.value)


def test_what_only_shows_in_the_rows_is_refused_as_well(lake):
    predicate = Predicate("music_latest", "CAST(key AS INTEGER) > 3")
    predicate.check()
    for use in (lambda: predicate.object_ids(lake), lambda: predicate.judge(lake, ["key"])):
        with pytest.raises(QueryError, match=r"the predicate 'CAST.* Could not convert string"):
            use()


def test_a_condition_without_an_end_is_refused(monkeypatch):
    monkeypatch.setattr("connectors.lake.predicates.CHECK_SECONDS", 0.5)
    endless = "(WITH RECURSIVE t(i) AS (SELECT 1 UNION ALL SELECT (i + 1) % 5 FROM t) SELECT count(*) FROM t) > 0"
    with pytest.raises(QueryError, match="takes too long, or has no end"):
        Predicate("music_latest", endless).check()
