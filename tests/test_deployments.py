"""What lies in deployments/: the files name what there is, and fit each other and the code. No engine runs them here."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from flows.scan import RUNNER_GRACE_SECONDS
from flows.settings import Settings

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deployments"
DOCKERFILE = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
MANIFESTS = list(yaml.safe_load_all((FOLDER / "kubernetes" / "soundcheck.yaml").read_text(encoding="utf-8")))
TEMPLATE = json.loads((FOLDER / "kubernetes" / "base-job-template.json").read_text(encoding="utf-8"))
POOLS = {deployment["work_pool"]["name"] for deployment in yaml.safe_load((FOLDER / "prefect.yaml").read_text())["deployments"]}
WORKLOADS = {each["metadata"]["name"]: each["spec"]["template"]["spec"] for each in MANIFESTS if each["kind"] == "Deployment"}
PUBLISHING_S = 30.0
"""What a run has on top of its grace to publish."""


def settings_named_in(text):
    return {name.lower() for name in re.findall(r"\bSOUNDCHECK_([A-Z_]+)\b", text)}


def strings_of(value):
    if isinstance(value, dict):
        return [text for each in value.values() for text in strings_of(each)]
    if isinstance(value, list):
        return [text for each in value for text in strings_of(each)]
    return [value] if isinstance(value, str) else []


def workers():
    """The commands of all workers, by where they are started."""
    services = {name: service["command"] for name, service in COMPOSE["services"].items() if service.get("command", [""])[0] == "worker"}
    return services | {name: pod["containers"][0]["command"] for name, pod in WORKLOADS.items()}


def test_no_schedule_starts_anything_by_itself():
    deployments = yaml.safe_load((FOLDER / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    schedules = {each["name"]: each["schedules"] for each in deployments if "schedules" in each}
    assert {name: [schedule["active"] for schedule in given] for name, given in schedules.items()} == {"scan": [False], "overdue": [False]}


def test_every_path_that_the_image_copies_exists():
    copied = [line.split()[1:-1] for line in re.findall(r"^COPY .+$", DOCKERFILE, re.MULTILINE) if "--from" not in line]
    paths = [path for line in copied for path in line if not path.startswith("--")]
    names = [path.replace("${REQUIREMENTS}", "requirements.txt") for path in paths]
    assert {"moderation", "connectors", "tasks", "flows", "requirements.txt"} <= set(names)
    assert [name for name in names if not (ROOT / name).exists()] == []
    kept = {line[1:] for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    assert [name for name in names if name.split("/")[0] not in kept] == [], "the build context lacks them"


def test_the_image_installs_what_is_locked_alone_and_runs_as_nobody_special():
    installs = re.findall(r"pip .*?install (.+)", DOCKERFILE)
    assert len(installs) == 3
    assert all("--require-hashes" in line or "--no-index" in line for line in installs)
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE)[-1] not in {"root", "0"}
    assert not settings_named_in(DOCKERFILE) & {"api_key", "ledger_url"}


def test_the_wheel_of_the_image_is_built_by_locked_packages():
    program = re.search(r"awk '(.+?)'", DOCKERFILE)[1]
    done = subprocess.run(["awk", program, ROOT / "requirements-dev.txt"], capture_output=True, text=True, check=True)
    names = re.findall(r"^([a-z-]+)==", done.stdout, re.MULTILINE)
    assert names == ["hatchling", "packaging", "pathspec", "pluggy", "trove-classifiers"]
    assert done.stdout.count("--hash=") >= len(names)


@pytest.mark.parametrize("file", [path for path in FOLDER.rglob("*") if path.is_file()], ids=lambda path: path.name)
def test_every_setting_that_is_set_exists(file):
    assert settings_named_in(file.read_text(encoding="utf-8")) - {*Settings.model_fields, ""} == set()


def test_workers_ask_pools_that_deployments_are_for():
    asked = {name: command[command.index("--pool") + 1] for name, command in workers().items()}
    assert set(asked.values()) == POOLS
    unit = (FOLDER / "systemd" / "soundcheck-worker@.service").read_text()
    assert {f"soundcheck-worker@{pool}.service" for pool in POOLS} <= set(re.findall(r"soundcheck-worker@[\w-]+\.service", unit))


def test_everybody_waits_long_enough_for_a_drained_run():
    least = RUNNER_GRACE_SECONDS + PUBLISHING_S
    graces = {
        name: float(service["stop_grace_period"].removesuffix("s")) for name, service in COMPOSE["services"].items() if "command" in service
    }
    graces |= {name: pod["terminationGracePeriodSeconds"] for name, pod in WORKLOADS.items()}
    graces["job"] = TEMPLATE["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    for unit in (FOLDER / "systemd").glob("*.service"):
        graces[unit.name] = float(re.search(r"^TimeoutStopSec=(\d+)$", unit.read_text(), re.MULTILINE)[1])
    assert {name: grace for name, grace in graces.items() if grace < least} == {}


def test_the_workers_of_the_trial_share_a_network_but_no_port():
    services = {name: service for name, service in COMPOSE["services"].items() if name != "postgres"}
    assert {service["network_mode"] for service in services.values()} == {"service:postgres"}
    ports = [COMPOSE["services"][name]["environment"]["PREFECT_WORKER_WEBSERVER_PORT"] for name in workers() if name in services]
    assert len(ports) == len(set(ports)) == 3
    published = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_cluster_gets_the_key_from_its_secret_alone():
    text = (FOLDER / "kubernetes" / "soundcheck.yaml").read_text(encoding="utf-8")
    assert "kind: Secret\n" not in text
    assert "SOUNDCHECK_API_KEY:" not in text
    for pod in (*WORKLOADS.values(), TEMPLATE["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]):
        secrets = {volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
        assert secrets == {"soundcheck-key"}
        container = pod["containers"][0]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert pod["securityContext"]["runAsNonRoot"]


def test_the_job_template_fills_in_only_what_it_declares():
    used = {name for text in strings_of(TEMPLATE["job_configuration"]) for name in re.findall(r"\{\{ (\w+) \}\}", text)}
    assert used == set(TEMPLATE["variables"]["properties"])


def test_the_lifecycle_rules_are_rules(s3_client_of_moto):
    rules = json.loads((FOLDER / "s3" / "lifecycle.json").read_text(encoding="utf-8"))
    s3_client_of_moto.create_bucket(Bucket="moderation")
    s3_client_of_moto.put_bucket_lifecycle_configuration(Bucket="moderation", LifecycleConfiguration=rules)
    found = s3_client_of_moto.get_bucket_lifecycle_configuration(Bucket="moderation")["Rules"]
    assert found[0]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 3}


@pytest.fixture
def s3_client_of_moto(monkeypatch):
    from connectors.local_s3 import LocalS3  # noqa: PLC0415
    from connectors.s3 import S3Settings, s3_client  # noqa: PLC0415

    with LocalS3() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        client = s3_client(S3Settings())
        yield client
        client.close()


WORKER = """#!/bin/sh
# stands for Prefect's worker: SIGTERM makes it kill its run, and end
sh -c 'trap "sleep 0.5; echo drained >>log; exit" TERM; echo run >>log; while :; do sleep 0.05; done' &
trap 'echo told >>log; kill -9 $! 2>/dev/null; exit 7' TERM
while :; do sleep 0.05; done
"""


def test_a_worker_that_is_told_to_end_lets_its_runs_drain_first(tmp_path):
    (tmp_path / "prefect").write_text(WORKER)
    (tmp_path / "prefect").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/local/bin:/usr/bin:/bin"}
    log = tmp_path / "log"
    with subprocess.Popen([sys.executable, FOLDER / "worker", "--pool", "p"], cwd=tmp_path, env=environment) as worker:
        try:
            until = time.monotonic() + 60
            while not log.exists() and time.monotonic() < until:
                time.sleep(0.05)
            worker.terminate()
            assert worker.wait(60) == 7
        finally:
            worker.kill()
    assert log.read_text().split() == ["run", "drained", "told"]
