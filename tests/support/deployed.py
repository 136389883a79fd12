"""A Prefect server with our deployments and a worker for each pool, made from a clone of the project as docs/operations.md says."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx

from processes import FINAL, ROOT, SOUNDCHECK, Processes, free_port

BIN = Path(sys.executable).parent
POOLS = ("soundcheck", "soundcheck-shards")
PATIENCE_S = 400.0
T = TypeVar("T")


def until(look: Callable[[], T]) -> T:
    """The first answer that is one."""
    end = time.monotonic() + PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.1)
    return found


def clone(folder: Path) -> Path:
    """What a clone has of this tree: the files that git knows, or would."""
    told = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    for name in filter(None, told.decode().split("\0")):
        if (ROOT / name).is_file():  # one that was deleted is still in the index
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


class Deployed(Processes):
    """The clone, the environment of everybody in it, and what runs there."""

    def __init__(self, clone: Path, environment: Mapping[str, str], logs: Path) -> None:
        super().__init__(logs, environment, clone)
        self.clone = clone

    @property
    def api(self) -> str:
        """The address of Prefect's API."""
        return self.environment["PREFECT_API_URL"]

    def do(self, *command: str, **more: str) -> str:
        """Run a command in the clone to its good end, and give what it says."""
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.clone, env=self.environment | more, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def make(self, *targets: str) -> str:
        """Make targets with the environment that the tests have, where a user has the clone's own."""
        return self.do("make", "-o", "setup", f"BIN={BIN}", *targets)

    def ask(self, method: str, path: str, **body: Any) -> httpx.Response:
        """Ask Prefect's API, again where its SQLite is busy, as its own clients do."""

        def answer() -> httpx.Response | None:
            found = httpx.request(method, f"{self.api}/{path}", json=body or None, timeout=60, trust_env=False)
            return None if found.status_code == httpx.codes.SERVICE_UNAVAILABLE else found

        return until(lambda: [found] if (found := answer()) is not None else [])[0]

    def deployments(self) -> dict[str, dict[str, Any]]:
        """All of them by name."""
        return {each["name"]: each for each in self.ask("POST", "deployments/filter", sort="NAME_ASC").json()}

    def submit(self, name: str, parameters: dict[str, Any] | None = None) -> httpx.Response:
        """Ask for a run of a deployment, with its default parameters or these over them."""
        return self.ask("POST", f"deployments/{self.deployments()[name]['id']}/create_flow_run", parameters=parameters or {})

    def begun(self, name: str, parameters: dict[str, Any] | None = None) -> str:
        """The id of a run that Prefect has taken."""
        answer = self.submit(name, parameters)
        assert answer.is_success, answer.text
        return str(answer.json()["id"])

    def flow_run(self, run: str) -> dict[str, Any]:
        """A flow run as Prefect knows it."""
        found: dict[str, Any] = self.ask("GET", f"flow_runs/{run}").json()
        return found

    def ended(self, run: str) -> dict[str, Any]:
        """The state of a run once it is a final one."""

        def look() -> dict[str, Any] | None:
            state: dict[str, Any] | None = self.flow_run(run)["state"]
            return state if state is not None and state["type"] in FINAL else None

        return until(look)


@contextmanager
def deployed(folder: Path, environment: dict[str, str]) -> Iterator[Deployed]:
    """A server that answers, in an environment where nothing of Prefect's is set but what leads there. Nothing is deployed yet."""
    port = free_port()
    prefect = {
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    given = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "SOUNDCHECK_"))}
    paths = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(folder / "clone")}
    (folder / "logs").mkdir()
    made = Deployed(clone(folder / "clone"), given | prefect | paths | environment, folder / "logs")
    try:
        made.start("prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui")

        def answers() -> bool:
            with suppress(httpx.HTTPError):
                return made.ask("GET", "health").is_success
            return False

        until(answers)
        yield made
    finally:
        made.end()


@contextmanager
def velma_service(key: str, folder: Path, *flags: str) -> Iterator[str]:
    """The local service in a process of its own, with the stub detector; gives its address."""
    command = [*SOUNDCHECK, "serve", "--api-key", key, "--port", "0", "--detector", "stub", "--json", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=folder, text=True) as process:
        try:
            assert process.stdout is not None
            yield str(json.loads(process.stdout.readline())["url"])
        finally:
            process.terminate()
