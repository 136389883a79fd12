"""The command `soundcheck sql` from its command line."""

import io
import json
import sys
from datetime import UTC, date, datetime

import duckdb
import pyarrow.parquet as pq
import pytest

from connectors.lake.packages import write_rows
from connectors.lake.schemas import datasets
from connectors.lake.store import FolderStore
from flows.cli import run

pytestmark = pytest.mark.torture

WORDS = ("run_id", "flow", "org", "source", "parameters", "fingerprint", "code_version", "state")
COUNTS = ("objects_listed", "planned", "done", "quarantined", "skipped", "pending")
HOURS = ("audio_ms_settled", "audio_ms_at_risk", "audio_ms_saved")


@pytest.fixture
def results(tmp_path, monkeypatch) -> str:
    """Results with one run, and a working directory without settings."""
    monkeypatch.chdir(tmp_path)
    row = {**dict.fromkeys(WORDS, "x"), **dict.fromkeys(COUNTS + HOURS, 0), "started_at": datetime(2026, 3, 1, tzinfo=UTC)}
    write_rows(FolderStore(tmp_path / "results"), "runs", "r1", date(2026, 3, 1), "start", [row])
    return str(tmp_path / "results")


def test_parquet_goes_to_a_file(results, tmp_path):
    assert run(["sql", "--results", results, "--parquet", "answer.parquet", "select run_id, scan_date from runs"]) == 0
    assert pq.read_table(tmp_path / "answer.parquet").to_pylist() == [{"run_id": "x", "scan_date": date(2026, 3, 1)}]


def test_without_a_terminal_the_query_is_read_from_standard_input(results, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("select run_id\nfrom runs_latest\n"))
    assert run(["sql", "--results", results, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"run_id": "x"}]


@pytest.mark.parametrize("engine", ["duckdb", "athena", "trino"])
def test_ddl_needs_no_results(tmp_path, monkeypatch, capsys, engine):
    monkeypatch.chdir(tmp_path)
    assert run(["sql", "--emit", engine]) == 0
    assert "s3://YOUR-BUCKET/YOUR-PREFIX/v1/music_frames/" in capsys.readouterr().out
    assert run(["sql", "--emit", engine, "--results", "s3://moderation/velma"]) == 0
    assert "s3://moderation/velma/v1/music_frames/" in capsys.readouterr().out


def test_a_database_is_written_and_told(results, tmp_path, capsys):
    assert run(["sql", "--results", results, "--duckdb", "velma.duckdb"]) == 0
    assert f"velma.duckdb has {len(datasets())} tables" in capsys.readouterr().out
    with duckdb.connect(tmp_path / "velma.duckdb", read_only=True) as database:
        assert database.execute("SELECT state FROM runs_latest").fetchall() == [("x",)]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--csv", "--json", "select 1"], 2),
        (["--emit", "duckdb", "select 1"], 2),
        (["--duckdb", "x.duckdb", "select 1"], 2),
        (["--emit", "oracle"], 2),
        (["--emit", "athena"], 78),
        (["--duckdb", "results"], 78),
    ],
)
def test_what_does_not_go_together_is_refused(results, arguments, code):
    assert run(["sql", "--results", results, *arguments]) == code


def test_a_database_over_nothing_is_not_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["sql", "--results", "none", "--duckdb", "velma.duckdb"]) == 78
    assert list(tmp_path.iterdir()) == []
