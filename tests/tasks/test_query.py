import csv
import io
import json
from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from connectors.lake.packages import write_rows
from connectors.lake.query import QueryError, connect
from connectors.lake.store import FolderStore
from moderation.errors import ConfigurationError, ResultsNotWritable
from moderation.outcomes import ExitCode
from tasks.query import TABLE_ROWS, ask, open_results, render_table, save_parquet, to_csv, to_json

VALUES = """
SELECT 1 AS n, 2::HUGEINT << 70 AS huge, 0.5 AS share, 'nan'::DOUBLE AS nothing, '-inf'::DOUBLE AS endless, NULL AS missing,
  'a,"b"' AS text,
  TIMESTAMPTZ '2026-03-01 08:00:00.5+00' AS at, DATE '2026-03-01' AS day, [1.5, NULL] AS many, {'a': TRUE} AS one,
  INTERVAL 2 HOURS AS span, '\\xFF'::BLOB AS raw
"""


@pytest.fixture
def lake(tmp_path):
    with connect(str(tmp_path)) as connection:
        yield connection


def shown(answer, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width, no_color=True)
    render_table(answer, console)
    return console.file.getvalue()


def as_json(answer) -> list[dict]:
    out = io.StringIO()
    to_json(answer, out)
    return json.loads(out.getvalue(), parse_constant=pytest.fail)


def test_json_is_a_list_of_objects(lake):
    assert as_json(ask(lake, VALUES)) == [
        {
            "n": 1,
            "huge": 2 << 70,
            "share": 0.5,
            "nothing": None,
            "endless": None,
            "missing": None,
            "text": 'a,"b"',
            "at": "2026-03-01T08:00:00.500000Z",
            "day": "2026-03-01",
            "many": [1.5, None],
            "one": {"a": True},
            "span": "2:00:00",
            "raw": "ff",
        }
    ]
    assert as_json(ask(lake, "FROM range(3) AS t(i)")) == [{"i": 0}, {"i": 1}, {"i": 2}]
    assert as_json(ask(lake, "FROM music_latest")) == []


def test_csv_has_a_header_and_leaves_nulls_empty(lake):
    out = io.StringIO()
    to_csv(ask(lake, VALUES), out)
    (row,) = csv.DictReader(io.StringIO(out.getvalue()))
    assert row == {
        "n": "1",
        "huge": str(2 << 70),
        "share": "0.5",
        "nothing": "",
        "endless": "",
        "missing": "",
        "text": 'a,"b"',
        "at": "2026-03-01T08:00:00.500000Z",
        "day": "2026-03-01",
        "many": "[1.5, null]",
        "one": '{"a": true}',
        "span": "2:00:00",
        "raw": "ff",
    }


def test_parquet_keeps_types_and_rows(lake, tmp_path):
    file = tmp_path / "new" / "answer.parquet"
    query = "SELECT i, i / 2 AS half, NULL AS missing, TIMESTAMPTZ '2026-03-01 08:00:00.5+00' AS at, [i] AS i FROM range(300000) AS t(i)"
    assert save_parquet(lake, query, file) == 300_000
    table = pq.read_table(file)
    assert table.column_names == ["i", "half", "missing", "at", "i_5"]
    assert table.schema.field("at").type == pa.timestamp("us", tz="UTC")
    assert table.schema.field("i").type == pa.int64()
    assert table.slice(299_999).to_pylist() == [
        {"i": 299_999, "half": 149_999.5, "missing": None, "at": datetime(2026, 3, 1, 8, 0, 0, 500_000, tzinfo=UTC), "i_5": [299_999]}
    ]


def test_parquet_of_no_rows_has_the_columns(lake, tmp_path):
    assert save_parquet(lake, "SELECT key, music_pct FROM music_latest", tmp_path / "none.parquet") == 0
    assert pq.read_schema(tmp_path / "none.parquet").names == ["key", "music_pct"]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELECT INTERVAL 2 HOURS AS span", "interval"),
        ("SELECT CASE WHEN i = 5 THEN error('boom') ELSE i END FROM range(10) AS t(i)", "boom"),
    ],
)
def test_an_answer_that_cannot_be_parquet_leaves_the_earlier_file(lake, tmp_path, query, says):
    file = tmp_path / "answer.parquet"
    file.write_bytes(b"earlier")
    with pytest.raises(QueryError, match=says) as caught:
        save_parquet(lake, query, file)
    assert "\n" not in str(caught.value)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"earlier"]


def test_parquet_that_cannot_be_written_is_told(lake, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ResultsNotWritable):
        save_parquet(lake, "SELECT 1", tmp_path / "file" / "answer.parquet")


def test_a_table_shows_text_as_it_is(lake):
    text = shown(
        ask(lake, r"SELECT '[bold]x[/]' AS a, E'\x1b[31mred\n' AS b, NULL AS c, TIMESTAMPTZ '2026-03-01 08:00:00+00' AS d, [1] AS e")
    )
    for part in ("[bold]x[/]", r"\x1b[31mred\n", "null", "2026-03-01T08:00:00Z", "[1]"):
        assert part in text
    assert "\x1b[31m" not in text


def test_a_long_table_is_cut_and_says_so(lake):
    text = shown(ask(lake, f"FROM range({TABLE_ROWS + 1}) AS t(i)"))
    assert f" {TABLE_ROWS - 1} " in text
    assert f" {TABLE_ROWS} " not in text
    assert "Only the first 1,000 rows are shown" in text
    assert "Only the first" not in shown(ask(lake, f"FROM range({TABLE_ROWS}) AS t(i)"))


def test_a_repeated_name_is_told_apart(lake):
    assert as_json(ask(lake, "SELECT 1 AS a, 2 AS b, 3 AS a")) == [{"a": 1, "b": 2, "a_3": 3}]


@pytest.mark.parametrize(
    "query", ["DESCRIBE music_latest", "SHOW TABLES", "SUMMARIZE music_latest", "WITH x AS (SELECT 1) FROM x", "FROM runs;"]
)
def test_whatever_reads_is_a_select(lake, query):
    assert ask(lake, query).columns


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELCT 1", "syntax error"),
        ("SELECT nope FROM runs", 'Referenced column "nope" not found'),
        ("FROM nowhere", "nowhere does not exist"),
        ("SELECT ?", "parameter"),
        ("", "single SELECT"),
        ("SELECT 1; SELECT 2", "single SELECT"),
        ("COPY runs TO 'x.parquet'", "single SELECT"),
        ("EXPLAIN ANALYZE COPY runs TO 'x.parquet'", "single SELECT"),
        ("CREATE TABLE x AS FROM runs", "single SELECT"),
        ("DROP VIEW runs", "single SELECT"),
        ("FROM '/etc/passwd'", "does not exist"),
    ],
)
def test_what_cannot_be_answered_is_told_in_one_line(lake, query, says):
    with pytest.raises(QueryError, match=says) as caught:
        ask(lake, query)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == ExitCode.USAGE


def test_an_error_while_rows_are_read_is_told_the_same_way(lake):
    with pytest.raises(QueryError, match="boom"):
        as_json(ask(lake, "SELECT CASE WHEN i = 5 THEN error('boom') ELSE i END FROM range(10) AS t(i)"))


def test_without_results_there_is_nothing_to_ask_about(tmp_path):
    with pytest.raises(ConfigurationError, match="no results folder"):
        open_results(str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match="no results in"):
        open_results(str(tmp_path))


def test_with_results_there_is(tmp_path):
    counts = (
        "objects_listed",
        "planned",
        "done",
        "quarantined",
        "skipped",
        "pending",
        "audio_ms_settled",
        "audio_ms_at_risk",
        "audio_ms_saved",
    )
    words = ("run_id", "flow", "org", "source", "parameters", "fingerprint", "code_version", "state")
    run = {**dict.fromkeys(counts, 0), **dict.fromkeys(words, "x"), "started_at": datetime(2026, 3, 1, tzinfo=UTC)}
    write_rows(FolderStore(tmp_path), "runs", "r1", date(2026, 3, 1), "start", [run])
    with open_results(str(tmp_path)) as connection:
        assert as_json(ask(connection, "SELECT flow, started_at, scan_date FROM runs_latest")) == [
            {"flow": "x", "started_at": "2026-03-01T00:00:00Z", "scan_date": "2026-03-01"}
        ]
