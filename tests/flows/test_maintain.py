"""`soundcheck verify` over what a scan has left, as a command and as a flow."""

import json
from datetime import date

import pytest

from connectors.lake.findings import Finding, Problem
from flows import teller
from flows.cli import app, run
from flows.maintain import compact_lake, state_of_verification, verify_lake
from flows.maintenance import Verification
from flows.rebuild import rebuild
from flows.wiring import now
from moderation.packaging import PackageRules
from tasks.verify import Verified

pytestmark = pytest.mark.torture


def command(*words: str, name: str = "verify") -> int:
    return app([name, *words], exit_on_error=False, result_action="return_value")


@pytest.fixture
async def results(world, make_wav):
    """What a scan of a good and an undecodable object leaves."""
    world.put("one.wav", make_wav(1.0))
    world.put("bad.flac", b"fLaC" + bytes(range(256)) * 16)
    await world.scan()
    return world.results


async def test_what_a_scan_leaves_is_clean(results, capsys):
    assert command("--results", str(results)) == 0
    said = capsys.readouterr().out
    assert "nothing is wrong" in said
    assert command("--results", str(results), "--since", "2199-01-01", "--json") == 0
    assert json.loads(capsys.readouterr().out)["files"] == 0


async def test_what_is_wrong_is_said_with_what_to_do(results, capsys, monkeypatch):
    monkeypatch.setattr(teller, "TELL_SECONDS", 0.0)
    [path] = (results / "v1" / "music_summaries").rglob("*.parquet")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    (results / "v1" / "music_frames" / "a\x1b[31m.txt").write_text("mine")
    assert command("--results", str(results), "--json") == 1
    out, err = capsys.readouterr()
    done = json.loads(out)
    assert {(each["file"].partition("/")[0], each["problem"]) for each in done["findings"]} == {
        ("music_summaries", "damaged"),
        ("music_frames", "foreign"),
    }
    assert all(each["remedy"] for each in done["findings"])
    assert f"{done['files']} of {done['files']} files verified" in err
    assert command("--results", str(results)) == 1
    said = capsys.readouterr().out
    assert "2 things are wrong" in said
    assert "\x1b[31m" not in said


def test_results_that_are_not_there_are_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for results, says in (("gone", "There is no results folder"), ("empty", "There are no results in")):
        assert run(["verify", "--results", results]) == 78
        assert says in capsys.readouterr().err


async def test_the_flow_ends_as_the_command_does(results):
    state = await verify_lake.fn(str(results))
    assert (state.name, state.is_completed(), "(exit code 0)" in state.message) == ("Completed", True, True)
    state = await verify_lake.fn(str(results / "gone"))
    assert (state.name, "There is no results folder" in state.message) == ("Configuration", True)


def test_a_flow_run_that_finds_something_fails_as_found():
    wrong = Verified(files=3, rows=7, unproven=1, findings=[Finding("runs/x", Problem.FOREIGN, "it is no file of a dataset")])
    state = state_of_verification(Verification("out", wrong))
    assert (state.name, state.is_failed()) == ("Found", True)
    assert "3 files with 7 rows in out: 1 things are wrong; 1 files are of another version" in state.message


async def test_what_a_scan_has_left_in_many_packages_is_compacted(world, make_wav, capsys):
    """And a ledger that is lost then is made anew: nothing is streamed again."""
    for name in ("one.wav", "two.wav"):
        world.put(name, make_wav(1.0))
    await world.scan(packages=PackageRules(max_sessions=1))
    before = world.ask("SELECT * FROM frames_latest ORDER BY ALL")
    results = ("--results", str(world.results))
    assert command(*results, name="compact") == 0
    out, err = capsys.readouterr()
    assert "nothing is left to compact" in out
    assert "can see rows twice" in " ".join(err.split())
    assert command(*results, "--before", "2199-01-01", "--json", name="compact") == 0
    assert json.loads(capsys.readouterr().out).items() >= {"days": 1, "made": 4, "merged": 8, "deleted": 8, "exit_code": 0}.items()
    assert world.ask("SELECT * FROM frames_latest ORDER BY ALL") == before
    assert command(*results) == 0
    for path in (world.results / "_state").glob("ledger.db*"):
        path.unlink()
    rebuilt = await rebuild(world.settings, now, replace=False)
    assert (rebuilt.found.published, rebuilt.found.lost, rebuilt.found.unknown) == (4, 0, 0)
    assert (await world.scan()).progress.sessions == 0


async def test_the_flow_compacts(results):
    state = await compact_lake.fn(str(results), date(2199, 1, 1))
    assert (state.name, "days before 2199-01-01" in state.message) == ("Completed", True)
    state = await compact_lake.fn(str(results / "gone"))
    assert state.name == "Configuration"
