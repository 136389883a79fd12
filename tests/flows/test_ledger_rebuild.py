"""`soundcheck ledger rebuild` after a scan: nothing that is published is streamed again, whatever became of the ledger."""

import contextlib
import json
import sqlite3

import pytest

from flows.cli import app
from flows.rebuild import Rebuilding, rebuild
from flows.wiring import now
from tasks.rebuild import Rebuilt


def standing(path):
    """States and money, as they must be again."""
    with contextlib.closing(sqlite3.connect(path)) as ledger:
        facts = "session_id, object_id, endpoint, params_hash, month, state, booked_ms, package, outcome, scope, worker, attempt"
        sessions = ledger.execute(f"SELECT {facts} FROM sessions ORDER BY session_id").fetchall()
        spent = "SELECT endpoint, month, settled_ms, at_risk_ms, reserved_ms FROM budgets ORDER BY endpoint, month"
        return sessions, ledger.execute(spent).fetchall(), ledger.execute("SELECT package FROM packages ORDER BY package").fetchall()


async def scanned(world, make_wav):
    """A catalogue with good, undecodable and raw objects, scanned in two runs; the path of its ledger."""
    world.put("one.wav", make_wav(1.0))
    world.put("bad.flac", b"fLaC" + bytes(range(256)) * 16)
    await world.scan()
    world.put("late.mulaw", b"\x80\xff" * 8000, audio_format="mulaw", sample_rate="8000", num_channels="1")
    await world.scan()
    return world.results / "_state" / "ledger.db"


@pytest.mark.fault(78)
async def test_a_lost_or_damaged_ledger_is_made_anew_and_a_scan_streams_nothing(world, make_wav):
    place = await scanned(world, make_wav)
    before = standing(place)
    assert {row[5] for row in before[0]} == {"published", "at_risk", "released"}
    for path in place.parent.glob("ledger.db*"):
        path.unlink()
    gone = await rebuild(world.settings, now, replace=False)
    assert (standing(place), gone.kept) == (before, None)
    damaged = bytearray(place.read_bytes())
    damaged[100:9000:7] = bytes(byte ^ 0x55 for byte in damaged[100:9000:7])
    place.write_bytes(damaged)
    done = await rebuild(world.settings, now, replace=False)
    assert standing(place) == before
    assert done.kept.read_bytes() == damaged
    assert done.found == gone.found == Rebuilt(packages=2, published=4, failed=4)
    again = await world.scan()
    assert (again.progress.sessions, again.progress.newly_quarantined) == (0, 0)
    world.put("new.wav", make_wav(1.0))
    assert (await world.scan()).progress.sessions == 2
    assert len(standing(place)[2]) == len(before[2]) + 1


def test_the_command_says_what_it_found_and_what_it_could_not(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert app(["ledger", "rebuild", "--results", "out"], exit_on_error=False, result_action="return_value") == 0
    said = capsys.readouterr().out
    for word in ("0 packages", "corrections", "what erased results cost", "pauses", "learned limits"):
        assert word in said
    assert app(["ledger", "rebuild", "--results", "out", "--json"], exit_on_error=False, result_action="return_value") == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["published"], figures["kept"][-1]) == (0, "Z")


def test_every_lake_of_the_settings_is_read(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "soundcheck.toml").write_text(
        'results = "ours"\n[organisations.acme]\napi_key_file = "k"\n[organisations.other]\napi_key_file = "k"\nresults = "theirs"\n'
    )
    assert app(["ledger", "rebuild", "--json"], exit_on_error=False, result_action="return_value") == 0
    assert json.loads(capsys.readouterr().out)["lakes"] == [str(tmp_path / "ours"), str(tmp_path / "theirs")]


def test_what_was_lost_is_said():
    found = Rebuilt(packages=2, published=3, failed=1, spooled=4, lost=5, unknown=6, erased=7, damaged=["entry x is damaged"])
    said = "\n".join(Rebuilding(found, ("a", "b"), None).lines())
    for words in (
        "2 packages in a, b: 3 results and 1 failed",
        "4 results wait",
        "5 results",
        "6 sessions",
        "entry x",
        "7 tombstones restored",
    ):
        assert words in said
