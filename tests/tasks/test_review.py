"""Sheets for reviewers and what comes back: formulas, checks with row numbers, overrides, history, precision."""

import csv
import io
import shutil
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.lake.packages import write_rows
from connectors.lake.query import QueryError, connect
from connectors.lake.store import FolderStore
from connectors.lake.untold import still_untold, told
from judged_lakes import fill, identity_of, result
from moderation.outcomes import ExitCode
from moderation.policy_file import parse_policy
from odd_keys import ODD_KEYS
from tasks.compact import compact_days
from tasks.decide import decide
from tasks.records import Run
from tasks.review import check_answers, given_answers, precision, queue, record_answers
from tasks.review_sheets import AnswersRefused, as_meant, neutral, read_sheet, write_sheet
from tasks.verify import verify

NOW = datetime(2026, 11, 21, 8, 0, 0, tzinfo=UTC)
POLICY = parse_policy(
    """
name = "ours"
hold_out = 100
[[rules]]
id = "loud"
when = "music_pct > 90"
decide = "block"
reason = "loud"
priority = 5
[[rules]]
id = "middle"
when = "music_pct > 50"
decide = "review"
reason = "middling"
priority = 9
[[rules]]
id = "rest"
when = "true"
decide = "allow"
reason = "quiet"
""",
    "ours.toml",
)
FORMULAS = ["=cmd()", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "'=1", "''=1", "\uff1d1", '=HYPERLINK("http://x")', "\0=1"]
PLAIN = ["", "a", "'a", "''", "'", "a=b", "1-2", "it's", "songs/=x", "<script>alert(1)</script>", '"><img src=x>']


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    """A lake in which b is reviewed, d held out, and c blocked."""
    store = FolderStore(tmp_path_factory.mktemp("lake") / "results")
    shares = {"b": 60.0, "c": 95.0, "d": 5.0}
    fill(store, *(result(key, music_pct=share) for key, share in shares.items()))
    decide(store, partial(connect, store.url), Run("20261121T070000Z-000000", "default", NOW), POLICY, NOW - timedelta(hours=1))
    return store


@pytest.fixture
def results(untouched, tmp_path):
    """One's own copy of it."""
    return FolderStore(Path(shutil.copytree(untouched.url, tmp_path / "results")))


def take(results, *rows: dict, org: str = "default", now: datetime = NOW, number: int = 0):
    """Import rows of a sheet; the numbers of new and of repeated answers."""
    answers = given_answers(enumerate(rows, 2), "ada", now)
    with connect(results.url) as lake:
        checked = check_answers(lake, org, answers, now)
    file = record_answers(results, Run(f"20261121T08{number:04d}Z-abcdef", org, now), checked)
    assert (file is None) == (not checked.rows)
    return len(checked.rows), checked.repeated


def row(key: str, answer: str, **more) -> dict:
    return {"object_id": identity_of(key), "answer": answer, **more}


def ask(results, query: str) -> list[tuple]:
    with connect(results.url) as lake:
        return lake.execute(query).fetchall()


def waiting(results, *options) -> list[str]:
    with connect(results.url) as lake:
        return queue(lake, "default", *options)["key"].to_list()


@pytest.mark.parametrize("cell", FORMULAS)
def test_a_formula_is_none_any_more_and_comes_back_as_it_was(cell):
    assert neutral(cell).startswith("'")
    assert as_meant(neutral(cell)) == cell


@pytest.mark.parametrize("cell", PLAIN)
def test_other_cells_stay_as_they_are(cell):
    assert neutral(cell) == as_meant(cell) == cell


@given(st.text(st.sampled_from(["=", "+", "'", " ", "\t", "\r", "a", "\uff20"]), max_size=8))
def test_whatever_is_in_a_cell_comes_back(cell):
    assert as_meant(neutral(cell)) == cell
    assert not neutral(cell).strip().startswith(("=", "+", "-", "@", "\uff20"))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_sheet_comes_back_as_it_was(tmp_path, suffix):
    texts = [*ODD_KEYS, *FORMULAS, *PLAIN, "a\nb", 'say "hi", you', "a;b", "\u202eelif"]
    sheet = pl.DataFrame(
        {"object_id": [str(number) for number in range(len(texts))], "key": texts, "note": texts, "at": [NOW] * len(texts)}
    )
    file = tmp_path / f"sheet.{suffix}"
    write_sheet(sheet, file)
    back = [found for _, found in read_sheet(file)]
    assert [found["key"] or "" for found in back] == texts
    assert [found["note"] or "" for found in back] == texts
    if suffix == "csv":
        cells = [cell for line in csv.reader(io.StringIO(file.read_text(encoding="utf-8"), newline="")) for cell in line]
        assert not any(cell.lstrip().startswith(("=", "+", "-", "@")) for cell in cells)
        assert {datetime.fromisoformat(found["at"]) for found in back} == {NOW}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_sheets_as_spreadsheets_write_them_are_read(tmp_path, separator):
    file = tmp_path / "sheet.CSV"
    file.write_bytes(
        "\ufeff".encode()
        + separator.join(["object_id", "answer", "note"]).encode()
        + b"\r\n"
        + f"x{separator}allow{separator}\r\n".encode()
    )
    assert list(read_sheet(file)) == [(2, {"object_id": "x", "answer": "allow", "note": None})]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("sheet.xlsx", b"", r"neither \.csv nor \.parquet"),
        ("gone.csv", None, "No such file"),
        ("sheet.csv", b'object_id,answer\n"x,allow\n', "cannot be read"),
        ("sheet.csv", b"object_id,answer\nx,allow,more\n", "row 2: it has more cells"),
        ("sheet.csv", b"object_id,answer\n\xff\xfe,allow\n", "cannot be read"),
        ("sheet.parquet", b"PAR1", "cannot be read"),
    ],
)
def test_what_is_no_sheet_is_refused(tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(AnswersRefused, match=says) as caught:
        list(read_sheet(tmp_path / name))
    assert caught.value.exit_code is ExitCode.USAGE


def test_the_queue_has_what_waits_the_most_urgent_first(results):
    assert waiting(results) == ["b", "d"]
    assert waiting(results, "true") == ["b", "c", "d"]
    assert waiting(results, "decision = 'block'") == ["c"]
    assert waiting(results, "true", 1) == ["b"]
    with connect(results.url) as lake:
        assert queue(lake, "acme").is_empty()
        with pytest.raises(QueryError, match="nothing_such"):
            queue(lake, "default", "nothing_such = 1")


def test_what_was_overwritten_waits_for_nobody_once_its_successor_is_decided_on(results):
    fill(results, result("b", number=1, etag="e2", music_pct=70.0), name="p0002")
    assert waiting(results) == ["b", "d"], "the new version is not decided on yet"
    decide(results, partial(connect, results.url), Run("20261121T080000Z-000001", "default", NOW), POLICY, NOW)
    superseded = "SELECT etag, superseded FROM decisions_now WHERE key = 'b' ORDER BY etag"
    assert ask(results, superseded) == [("e1", True), ("e2", False)]
    assert waiting(results) == ["b", "d"]
    assert waiting(results, "superseded") == ["b"]


def test_an_answer_counts_more_than_the_policy_and_another_more_than_that(results):
    assert take(results, row("b", "block", note="=cmd()"), row("c", " Allow ", reviewer="bob"), row("d", "")) == (2, 0)
    now = "SELECT key, decision, policy_decision, reviewer, note FROM decisions_now ORDER BY key"
    assert ask(results, now) == [
        ("b", "block", "review", "ada", "=cmd()"),
        ("c", "allow", "block", "bob", None),
        ("d", "review", "review", None, None),
    ]
    assert waiting(results) == ["d"]
    assert take(results, row("b", "allow"), now=NOW + timedelta(hours=1), number=1) == (1, 0)
    assert ask(results, now)[0][1] == "allow"
    assert take(results, row("b", "unsure"), now=NOW + timedelta(hours=2), number=2) == (1, 0)
    assert ask(results, now)[0][1] == "allow", "who is unsure decides nothing"
    history = ask(results, "SELECT answer, decision_before, rule_id FROM review_answers ORDER BY answered_at, rule_id")
    assert history == [
        ("allow", "block", "loud"),
        ("block", "review", "middle"),
        ("allow", "review", "middle"),
        ("unsure", "review", "middle"),
    ]


def test_the_same_sheet_again_adds_nothing(results):
    rows = [
        row("b", "block", note="n"),
        row("c", "allow", reviewer="bob", answered_at="2026-11-21T07:30:00+01:00"),
        row("b", "block", note="n"),
    ]
    assert take(results, *rows) == (2, 1)
    assert take(results, *rows, now=NOW + timedelta(days=1), number=1) == (0, 3)
    assert ask(results, "SELECT count(*), min(answered_at) FROM review_answers") == [(2, datetime(2026, 11, 21, 6, 30, tzinfo=UTC))]


def test_an_exported_sheet_with_answers_can_be_imported_again(results, tmp_path):
    take(results, row("b", "block", note="'=x"))
    file = tmp_path / "all.csv"
    with connect(results.url) as lake:
        write_sheet(queue(lake, "default", "true"), file)
    answers = given_answers(read_sheet(file), "eve", NOW)
    with connect(results.url) as lake:
        checked = check_answers(lake, "default", answers, NOW)
    assert (checked.rows, checked.repeated) == ([], 1)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([row("b", "maybe")], "row 2: answer 'maybe' is none of allow, block, unsure"),
        ([row("b", "allow"), row("zz", "allow")], "row 3: there is no decision on object_id"),
        ([row("b", "allow", answered_at="yesterday")], "row 2: answered_at 'yesterday' is no instant"),
        ([row("b", "allow", answered_at="2027-01-01")], "row 2: .* in the future"),
        ([row("b", "allow"), row("b", "block")], "row 3: ada has said allow of this object at the same instant"),
        ([{"object_id": "x"}], "no column answer"),
        ([{"answer": "allow"}], "no column object_id"),
        ([row(key, "no") for key in "abcdefghijklmnopqrstuvwxyz"], r"row 21: .*; and 6 more"),
    ],
)
def test_where_something_is_wrong_nothing_is_taken(untouched, rows, says):
    with pytest.raises(AnswersRefused, match=says):
        take(untouched, *rows)
    assert list(untouched.list("review_answers/")) == []


def test_what_is_another_organisations_cannot_be_answered(results):
    with pytest.raises(AnswersRefused, match="no decision"):
        take(results, row("b", "allow"), org="acme")


@pytest.mark.torture
def test_an_answer_is_about_the_decision_that_stood_when_it_was_given(results):
    stricter = parse_policy(POLICY.text.replace("> 90", "> 50").replace('"loud"', '"louder"'), "stricter")
    decide(results, partial(connect, results.url), Run("20261121T090000Z-111111", "default", NOW), stricter, NOW)
    before, after = (NOW + timedelta(minutes=minutes) for minutes in (-30, 30))
    long_ago = NOW - timedelta(days=9)
    late = NOW + timedelta(hours=1)
    rows = [row("b", "block", answered_at=at.isoformat(), reviewer=who) for at, who in ((before, "x"), (after, "y"), (long_ago, "z"))]
    assert take(results, *rows, now=late) == (3, 0)
    found = ask(results, "SELECT reviewer, decision_before, rule_id FROM review_answers ORDER BY reviewer")
    assert found == [("x", "review", "middle"), ("y", "block", "louder"), ("z", "review", "middle")]


def test_precision_counts_the_last_answer_on_each_object_by_rule_and_month(results):
    told = {"rule_id": "loud", "policy_hash": "0" * 16, "decision_before": "block", "reviewer": "ada", "held_back": None}
    held_out = told | {"rule_id": "rest", "decision_before": "review", "held_back": "hold_out"}
    october, november = datetime(2026, 10, 31, 23, 30, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
    rows = [
        told | {"object_id": "1", "answer": "block", "answered_at": october},
        told | {"object_id": "2", "answer": "block", "answered_at": october},
        told | {"object_id": "2", "answer": "allow", "answered_at": november},
        told | {"object_id": "3", "answer": "unsure", "answered_at": november},
        told | {"object_id": "4", "answer": "block", "answered_at": november, "held_back": "quality_flags"},
        held_out | {"object_id": "5", "answer": "allow", "answered_at": november},
        held_out | {"object_id": "6", "answer": "allow", "answered_at": november},
        held_out | {"object_id": "7", "answer": "block", "answered_at": november},
    ]
    write_rows(results, "review_answers", "20261101T080000Z-abcdef", NOW.date(), "a0001", rows)
    with connect(results.url) as lake:
        [decided] = lake.sql("SELECT * EXCLUDE scan_date FROM decisions LIMIT 1").to_arrow_table().to_pylist()
    decisions = [decided | {"object_id": str(number)} for number in range(1, 8)]
    write_rows(results, "decisions", "20261101T080000Z-abcdef", NOW.date(), "d0001", decisions)
    with connect(results.url) as lake:
        found = precision(lake, "default").select("month", "rule_id", "expected", "agreed", "disagreed", "agreement").rows()
    assert [(f"{month:%Y-%m}", *figures) for month, *figures in found] == [
        ("2026-11", "loud", "block", 0, 1, 0.0),
        ("2026-11", "rest", "allow", 2, 1, pytest.approx(2 / 3)),
        ("2026-10", "loud", "block", 1, 0, 1.0),
    ]


@pytest.mark.torture
def test_a_key_of_a_folder_is_shown_as_it_is(tmp_path: Path):
    """Also one that would be a formula, in the queue that is exported."""
    store = FolderStore(tmp_path / "results")
    fill(store, result("=cmd()", music_pct=60.0))
    decide(store, partial(connect, store.url), Run("20261121T070000Z-000000", "default", NOW), POLICY, NOW)
    file = tmp_path / "q.csv"
    with connect(store.url) as lake:
        write_sheet(queue(lake, "default"), file)
    assert '"\'=cmd()"' in file.read_text(encoding="utf-8")
    [(_, found)] = read_sheet(file)
    assert found["key"] == "=cmd()"


def compacted(results) -> list[str]:
    compact_days(results, NOW.date() + timedelta(days=1), lambda done, of: None)
    return list(results.list("review_answers/"))


def test_answers_given_one_by_one_are_one_file_of_their_day_once_they_are_told(results):
    for number, (key, answer) in enumerate((("b", "allow"), ("c", "block"), ("b", "block"), ("d", "unsure"), ("d", "allow"))):
        take(results, row(key, answer), now=NOW + timedelta(minutes=number), number=number)
    views = ("review_answers ORDER BY ALL", "answers_latest ORDER BY ALL", "decisions_now ORDER BY ALL", "rule_precision ORDER BY ALL")
    before = [ask(results, f"FROM {view}") for view in views]
    *early, last = [each for each in still_untold(results, "default", NOW) if each.policy is None]
    for each in early:
        told(results, each)
    merged, left = sorted(compacted(results), reverse=True)
    assert ("merged-" in merged, left) == (True, last.file), "what is not told yet is asked for by its name"
    assert [ask(results, f"FROM {view}") for view in views] == before
    assert compacted(results) == [left, merged]
    told(results, last)
    take(results, row("c", "allow"), now=NOW + timedelta(hours=1), number=9)
    assert len(compacted(results)) == 3, "the note of the newest is still there, and what would be alone stays as it is"
    assert [finding for finding in verify(results, NOW, lambda done, of: None).findings if "review_answers" in finding.name] == []


def test_a_merged_file_of_answers_whose_originals_were_not_deleted_yet_counts_once_and_is_repaired(results, monkeypatch):
    for number in range(3):
        take(results, row("b", "allow" if number % 2 else "block"), now=NOW + timedelta(minutes=number), number=number)
    for each in still_untold(results, "default", NOW):
        told(results, each)
    before = ask(results, "FROM rule_precision"), ask(results, "FROM decisions_now ORDER BY ALL")
    with monkeypatch.context() as broken:
        broken.setattr(FolderStore, "delete", lambda self, name: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            compacted(results)
    assert len(list(results.list("review_answers/"))) == 4
    assert (ask(results, "FROM rule_precision"), ask(results, "FROM decisions_now ORDER BY ALL")) == before
    assert len(compacted(results)) == 1
    assert ask(results, "SELECT count(*) FROM review_answers") == [(3,)]


def test_rules_of_two_organisations_in_the_same_results_are_two(results):
    """Their policies may have rules of the same id."""
    fill(results, result("x", music_pct=95.0) | {"org": "other"}, name="p0002")
    decide(results, partial(connect, results.url), Run("20261121T070001Z-000000", "other", NOW), POLICY, NOW - timedelta(hours=1))
    take(results, row("c", "block"))
    take(results, row("x", "allow"), org="other", number=1)
    with connect(results.url) as lake:
        found = {org: precision(lake, org).select("rule_id", "agreed", "disagreed").rows() for org in ("default", "other")}
    assert found == {"default": [("loud", 1, 0)], "other": [("loud", 0, 1)]}
