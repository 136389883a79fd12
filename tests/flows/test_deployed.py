"""What `make deploy` makes of a clean clone on a fresh Prefect server: every deployment, run by real workers."""

import os
import signal
from pathlib import Path

import pytest

from connectors.lake.query import connect
from connectors.local_s3 import LocalS3
from deployed import FINAL, POOLS, SOUNDCHECK, Deployed, deployed, descendants, free_port, until, velma_service
from scanning import RAW, bucket

KEY = "canary-3e8d21f07a"
OBJECTS = 12
CHANGED = (("s3://your-bucket/your-prefix/", "s3://short-objects/"),)
"""What a user is told to put into the file."""

pytestmark = [pytest.mark.torture, pytest.mark.prefect, pytest.mark.slow]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The deployments with a source of their own, what puts an object into that, and the service's journal."""
    folder = tmp_path_factory.mktemp("deployed")
    with pytest.MonkeyPatch.context() as patch, LocalS3() as s3:
        for name, value in s3.environment().items():
            patch.setenv(name, value)
        journal = folder / "journal.jsonl"
        with bucket() as put, velma_service(KEY, folder, "--speed", "4", "--journal", str(journal)) as url:
            for number in range(OBJECTS):
                put(f"{number:02}.ulaw", 2.0)
            environment = {
                "SOUNDCHECK_API_KEY": KEY,
                "SOUNDCHECK_VELMA_URL": url,
                "SOUNDCHECK_RESULTS": str(folder / "results"),
                "SOUNDCHECK_ENDPOINTS": '["music"]',
                "SOUNDCHECK_RAW_RULES": f"[{RAW.model_dump_json()}]",
                "SOUNDCHECK_CONNECTIONS": "2",
                "SOUNDCHECK_POLICY": str(folder / "policy.toml"),
            }
            with deployed(folder, environment) as fleet:
                (folder / "policy.toml").write_text(fleet.do(*SOUNDCHECK, "decide", "--starter"))
                file = fleet.clone / "deployments" / "prefect.yaml"
                for placeholder, value in CHANGED:
                    file.write_text(file.read_text().replace(placeholder, value))
                fleet.make("deploy")
                yield fleet, put, journal


@pytest.fixture(scope="module")
def fleet(made):
    """A worker for each pool, and the results of a scan by its defaults."""
    fleet, _, _ = made
    for pool in POOLS:
        fleet.start("deployments/worker", "--pool", pool, PREFECT_WORKER_WEBSERVER_PORT=str(free_port()))
    state = fleet.ended(fleet.begun("scan"))
    assert state["name"] == "Completed", state["message"]
    assert ask(fleet, "SELECT count(*) FROM music_latest") == [(OBJECTS,)]
    return fleet


def ask(fleet: Deployed, query: str) -> list[tuple]:
    with connect(fleet.environment["SOUNDCHECK_RESULTS"]) as lake:
        return lake.execute(query).fetchall()


def test_a_flow_run_that_was_killed_goes_on_with_its_run_when_it_is_run_again(made, fleet):
    _, put, journal = made
    for number in range(24):
        put(f"again/{number:02}.ulaw", 3.0)
    before = done_in(journal)
    run = fleet.begun("backfill", {"source": "s3://short-objects/", "force": True})
    until(lambda: done_in(journal) >= before + 10)
    os.kill(process_of(fleet, run), signal.SIGKILL)
    assert fleet.ended(run)["type"] == "CRASHED"
    fleet.do("prefect", "flow-run", "retry", run)
    state = until(lambda: (found := fleet.flow_run(run))["run_count"] == 2 and found["state"]["type"] in FINAL and found["state"])
    assert state["name"] == "Completed", state["message"]
    record = f"SELECT run_id, state, done, pending FROM runs_latest WHERE prefect_flow_run_id = '{run}'"
    [(run_id, _, done, pending)] = ask(fleet, record)
    assert (done, pending) == (OBJECTS + 24, 0)
    sessions = f"SELECT count(DISTINCT object_id) FROM music_summaries WHERE run_id = '{run_id}'"
    assert ask(fleet, sessions) == [(OBJECTS + 24,)]
    assert done_in(journal) - before <= OBJECTS + 24 + 2, "only what was live when it was killed is streamed again"


def done_in(journal: Path) -> int:
    return journal.read_text().count('"event":"done"')


def process_of(fleet: Deployed, run: str) -> int:
    """The process in which a flow run goes on: one of a worker's that has its id in its environment."""
    for worker in fleet.processes:
        for process in descendants(worker.pid):
            if run.encode() in Path(f"/proc/{process}/environ").read_bytes():
                return process
    raise AssertionError(f"nobody runs {run}")
