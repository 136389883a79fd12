"""The scan as a Prefect flow, through the command line, on an embedded server."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from prefect_homes import migrated_home

ROOT = Path(__file__).parents[2]
KEY = "canary-5f0e9d1c7b"
COMMAND = [sys.executable, "-c", "from flows.cli import main; main()"]

pytestmark = [pytest.mark.prefect, pytest.mark.slow]


def files_with(folder: Path, text: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


async def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, while this one goes on serving."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | environment, cwd=ROOT
    )
    out, err = await process.communicate()
    return subprocess.CompletedProcess(arguments, process.returncode or 0, out.decode(), err.decode())


async def test_a_flow_at_debug_level_leaves_results_a_quiet_terminal_and_no_key(world, make_wav, tmp_path):
    world.put("one.wav", make_wav(2.0))
    world.put("two.wav", make_wav(1.0))
    world.put("bad.flac", b"fLaC" + os.urandom(2000))
    migrated_home(world.results / "_state")
    settings = {"SOUNDCHECK_API_KEY": KEY, "SOUNDCHECK_VELMA_URL": world.velma.url, "SOUNDCHECK_LOG_LEVEL": "DEBUG"}
    scan = ("scan", "s3://catalogue/", "--results", str(world.results), "--json")
    done = await run(*scan, **settings)
    assert done.returncode == 3, done.stderr
    counts = json.loads(done.stdout)
    assert (counts["objects"], counts["done"], counts["quarantined"], counts["sessions"]) == (3, 2, 1, 6)
    assert "Traceback" not in done.stderr
    assert "nanobind" not in done.stderr
    assert world.ask("SELECT count(*) FROM music_latest") == [(2,)]
    [(flow_run_id,)] = world.ask("SELECT prefect_flow_run_id FROM runs_latest")

    [database] = (world.results / "_state" / "prefect").glob("server-*.db")
    with sqlite3.connect(database) as prefect:
        [(run_id, state)] = prefect.execute("SELECT id, state_name FROM flow_run").fetchall()
        assert (run_id, state) == (flow_run_id, "CompletedWithQuarantine")
        tasks = {name for (name,) in prefect.execute("SELECT name FROM task_run")}
        assert {"list", "plan", "publish"} <= tasks
        assert len([name for name in tasks if name.startswith("stream ")]) == 4, "a task a shard: two that go first, two with the rest"
    prefect.close()

    assert (world.results / "_state" / "soundcheck.log").stat().st_size > 10_000, "DEBUG was not on"
    assert files_with(tmp_path, KEY) == []
    assert KEY not in done.stdout + done.stderr

    world.velma.organisation.api_keys = frozenset({"another"})
    world.put("three.wav", make_wav(1.5))
    refused = await run(*scan, "--direct", **settings, SOUNDCHECK_BREAKER='{"pause_factor": 0}')
    assert refused.returncode == 77, refused.stderr
    assert json.loads(refused.stdout)["pending"] == 1
    assert files_with(tmp_path, KEY) == []


def demo(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "demo", "--results", str(folder / "results"), *options], capture_output=True, text=True, cwd=ROOT, check=False
    )


@pytest.mark.torture
@pytest.mark.parametrize("executor", [["--direct"], []], ids=["direct", "prefect"])
def test_the_demo_ends_as_expected(tmp_path, executor):
    shown = demo(tmp_path, "--json", *executor)
    assert shown.returncode == 0, shown.stderr
    counts = json.loads(shown.stdout)
    assert counts["objects"] >= 14
    assert counts["as_expected"] == counts["objects"]
    assert counts["labelled_right"] == counts["labels_compared"] > 0
    assert "reference detector" in counts["detector"]
    assert set(shown.stderr.splitlines()) <= {"making the catalogue ...", "waiting for the embedded Prefect server ..."} | {
        line for line in shown.stderr.splitlines() if " objects listed, " in line
    }


@pytest.mark.torture
def test_the_demo_streams_nothing_again(tmp_path):
    assert demo(tmp_path, "--direct").returncode == 0
    again = demo(tmp_path)
    assert again.returncode == 0, again.stderr
    assert "0 sessions were streamed" in again.stdout


AUDIO = ROOT.parent / "shared" / "audio"


@pytest.mark.torture
@pytest.mark.skipif(not (AUDIO / "catalogue.csv").is_file(), reason="the folder of real audio is not part of the project")
def test_a_folder_of_real_audio_ends_as_its_truth_says(tmp_path):
    done = demo(tmp_path, "--catalogue", str(AUDIO), "--direct", "--json")
    assert done.returncode == 3, done.stderr
    counts = json.loads(done.stdout)
    assert counts["labelled_right"] >= 0.85 * counts["labels_compared"] > 0
    reasons = {"undecodable": 1, "empty": 1, "not_audio": 1, "sidecar": 4}
    assert counts["endpoints"]["music"]["reasons"] == counts["endpoints"]["ai_music"]["reasons"] == reasons
    assert counts["done"] + sum(reasons.values()) == counts["objects"]
    frames: list[int] = []
    ask = [*COMMAND, "sql", "--results", str(tmp_path / "results"), "--json"]
    for query in ("select count(*) as frames from music_frames", "select sum(frame_count)::bigint as frames from music_summaries"):
        answer = subprocess.run([*ask, query], capture_output=True, text=True, cwd=ROOT, check=True).stdout
        frames.append(json.loads(answer)[0]["frames"])
    assert frames[0] == frames[1] > 3000
