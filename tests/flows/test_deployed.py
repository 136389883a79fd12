"""What `make deploy` makes of a clean clone on a fresh Prefect server: every deployment, run by real workers."""

import os
import signal
from pathlib import Path

import pytest

from connectors.lake.query import connect
from connectors.local_s3 import LocalS3
from deployed import POOLS, Deployed, deployed, until, velma_service
from processes import FINAL, SOUNDCHECK, descendants, free_port
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


DEFAULTS = {
    "scan": ("Completed", "Completed"),
    "backfill": ("Configuration", "no source"),
    "verify": ("Completed", "nothing is wrong"),
    "reconcile": ("Completed", "all are explained"),
    "compact": ("Completed", "nothing is left to compact"),
    "decide": ("Completed", f"{OBJECTS} objects"),
    "overdue": ("Completed", "in time"),
}
NEEDED = {"retry": "where", "stream-shard": "run_id"}
"""Deployments whose runs somebody has to say something for, and what."""
WRONG = [
    ("scan", {"source": 7}, "source"),
    ("scan", {"endpoints": ["voices"]}, "voices"),
    ("backfill", {"portion": {"limit": -1}}, "-1"),
    ("retry", {"where": "true", "portion": {"max_hours": "many"}}, "many"),
    ("stream-shard", {"run_id": "20261121T101500Z-3fa2c1", "shard": "first"}, "first"),
    ("verify", {"since": "yesterday"}, "yesterday"),
    ("reconcile", {"results": 7}, "results"),
    ("compact", {"before": 20261101}, "before"),
    ("decide", {"policy": ["policy.toml"]}, "policy"),
    ("overdue", {"every_hours": 0}, "0"),
]
"""Parameters that Prefect refuses, and what its answer names."""
REFUSED = [
    ("scan", {"source": "s3://your-bucket/your-prefix/"}, "your-bucket"),
    ("backfill", {"source": "s3://short-objects/", "cascade": "pct >"}, "pct >"),
    ("backfill", {"resume": "20261121T101500Z-3fa2c1"}, "there is no run 20261121T101500Z-3fa2c1"),
    ("retry", {"where": "colour = 'red'"}, "colour"),
    ("stream-shard", {"run_id": "20261121T101500Z-3fa2c1", "shard": 1}, "there is no run 20261121T101500Z-3fa2c1"),
    ("verify", {"results": "nowhere"}, "nowhere"),
    ("reconcile", {"results": "nowhere"}, "nowhere"),
    ("compact", {"results": "nowhere"}, "nowhere"),
    ("decide", {"policy": "absent.toml"}, "absent.toml"),
    ("overdue", {"org": "acme", "results": "ftp://nowhere"}, "ftp://nowhere"),
]
"""Parameters that only a run can find wrong, and what its state names."""


def test_every_deployment_is_tried_here(made):
    deployments = set(made[0].deployments())
    assert deployments == {*DEFAULTS, *NEEDED} == {name for name, *_ in WRONG} == {name for name, *_ in REFUSED}


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_deployment_runs_with_its_default_parameters(fleet, name):
    state = fleet.ended(fleet.begun(name))
    expected, words = DEFAULTS[name]
    assert (state["name"], words in state["message"]) == (expected, True), state["message"]


@pytest.mark.parametrize("name", NEEDED)
def test_what_a_deployment_must_be_told_is_asked_for(made, name):
    answer = made[0].submit(name)
    assert answer.is_client_error
    assert NEEDED[name] in answer.text


@pytest.mark.parametrize(("name", "parameters", "named"), WRONG)
def test_a_wrong_parameter_is_refused_before_a_run_begins(made, name, parameters, named):
    answer = made[0].submit(name, parameters)
    assert answer.is_client_error, answer.text
    assert named in answer.text


def test_what_a_run_finds_wrong_is_said_by_its_state(fleet):
    runs = [fleet.begun(name, parameters) for name, parameters, _ in REFUSED]
    states = [fleet.ended(run) for run in runs]
    assert [state["name"] for state in states] == ["Configuration"] * len(REFUSED), states
    assert [named for (_, _, named), state in zip(REFUSED, states, strict=True) if named not in state["message"]] == [], states


def test_a_retry_for_which_nothing_is_held_says_so(fleet):
    state = fleet.ended(fleet.begun("retry", {"where": "reason = 'undecodable'"}))
    assert state["type"] == "FAILED"
    assert "nothing satisfies" in state["message"]


def test_a_flow_run_that_was_killed_goes_on_with_its_run_when_it_is_run_again(made, fleet):
    _, put, journal = made
    for number in range(24):
        put(f"again/{number:02}.ulaw", 3.0)
    before = done_in(journal)
    run = fleet.begun("backfill", {"source": "s3://short-objects/", "force": True})
    until(lambda: done_in(journal) >= before + 10)
    os.kill(process_of(fleet, run), signal.SIGKILL)
    assert fleet.ended(run)["type"] == "CRASHED"

    def ended_again():
        found = fleet.flow_run(run)
        if found["run_count"] == 1 and found["state"]["type"] == "CRASHED":
            fleet.do(
                "prefect", "flow-run", "retry", run
            )  # anew where the worker has reported the crash once more, over one that was too quick
        return found["run_count"] > 1 and found["state"]["type"] in FINAL and found["state"]

    state = until(ended_again)
    assert state["name"] == "Completed", state["message"]
    record = f"SELECT run_id, state, done, pending FROM runs_latest WHERE prefect_flow_run_id = '{run}'"
    [(run_id, _, done, pending)] = ask(fleet, record)
    assert (done, pending) == (OBJECTS + 24, 0)
    sessions = f"SELECT count(DISTINCT object_id) FROM music_summaries WHERE run_id = '{run_id}'"
    assert ask(fleet, sessions) == [(OBJECTS + 24,)]
    assert done_in(journal) - before <= OBJECTS + 24 + 2, "only what was live when it was killed is streamed again"


def done_in(journal: Path) -> int:
    return journal.read_text().count('"event": "done"')


def process_of(fleet: Deployed, run: str) -> int:
    """The process in which a flow run goes on: one of a worker's that has its id in its environment."""
    for worker in fleet.started:
        for process in descendants(worker.pid):
            if run.encode() in Path(f"/proc/{process}/environ").read_bytes():
                return process
    raise AssertionError(f"nobody runs {run}")
