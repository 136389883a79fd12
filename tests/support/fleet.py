"""A Prefect server on PostgreSQL with our deployments, and workers for them: processes that can be killed as if their host went."""

import asyncio
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from postgresql import Cluster
from processes import FINAL, SOUNDCHECK, Processes, kill

PREFECT = [sys.executable, "-m", "prefect"]
PATIENCE_S = 1500.0
SCANS, SHARDS = "soundcheck", "soundcheck-shards"
"""The work pools."""


class Server(Processes):
    """A Prefect server, which can be killed and started again."""

    def __init__(self, folder: Path, port: int, database_url: str) -> None:
        self.api = f"http://127.0.0.1:{port}/api"
        self.home = folder / "home"
        self._port = port
        settings = {
            "PREFECT_HOME": str(self.home),
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": database_url,
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        super().__init__(folder, os.environ | settings)

    def serve(self) -> None:
        """Start it, and wait until it answers."""
        self._process = self.start(*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(self._port), "--no-ui")
        while not self._answers():
            assert self._process.poll() is None, self.said(self._process)
            time.sleep(0.2)

    def kill(self) -> None:
        kill(self._process)
        self._process.wait()

    def deploy(self) -> None:
        """What `make deploy` does."""
        for pool in (SCANS, SHARDS):
            self._run("work-pool", "create", pool, "--type", "process")
        self._run("--no-prompt", "deploy", "--prefect-file", "deployments/prefect.yaml", "--all")

    def _run(self, *command: str) -> None:
        process = self.start(*PREFECT, *command)
        assert process.wait(PATIENCE_S) == 0, self.said(process)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.api}/health", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False


class Fleet(Processes):
    """Workers and scans with the same settings, and what Prefect's API says of them."""

    def __init__(self, folder: Path, server: Server, settings: Mapping[str, str]) -> None:
        super().__init__(folder, server.environment | {f"SOUNDCHECK_{name.upper()}": value for name, value in settings.items()})
        self.server = server

    def scan(self, source: Path) -> subprocess.Popen[bytes]:
        return self.start(*SOUNDCHECK, "scan", str(source))

    def worker(self, pool: str, port: int, *, limit: int = 1) -> subprocess.Popen[bytes]:
        """A worker as we deploy it; port is that of its health."""
        command = [sys.executable, "deployments/worker", "--pool", pool, "--limit", str(limit)]
        return self.start(*command, PREFECT_WORKER_WEBSERVER_PORT=str(port))

    async def code(self, process: subprocess.Popen[bytes]) -> int:
        """The exit code of a process, once it has ended."""
        return await asyncio.to_thread(process.wait, PATIENCE_S)

    async def ask(self, method: str, path: str, **body: Any) -> Any:
        """An answer of Prefect's API."""
        async with aiohttp.request(method, f"{self.server.api}/{path}", json=body or None) as answer:
            assert answer.status < 300, await answer.text()
            return await answer.json()

    async def submit(self, deployment: str, **parameters: Any) -> str:
        """The id of a new run of a deployment."""
        found = await self.ask("GET", f"deployments/name/{deployment}")
        return (await self.ask("POST", f"deployments/{found['id']}/create_flow_run", parameters=parameters))["id"]

    async def cancel(self, flow_run: str) -> None:
        await self.ask("POST", f"flow_runs/{flow_run}/set_state", state={"type": "CANCELLING", "name": "Cancelling"})

    async def final_state(self, flow_run: str) -> tuple[str, str]:
        """The type and name of the state in which a flow run ends."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                state = (await self.ask("GET", f"flow_runs/{flow_run}"))["state"]
                if state["type"] in FINAL:
                    return state["type"], state["name"]
                await asyncio.sleep(0.2)


@contextmanager
def server(folder: Path, port: int, database: Cluster) -> Iterator[Server]:
    """A server with our deployments."""
    made = Server(folder, port, database.url())
    try:
        made.serve()
        made.deploy()
        yield made
    finally:
        made.end()


@contextmanager
def fleet(folder: Path, server: Server, settings: Mapping[str, str]) -> Iterator[Fleet]:
    """Whatever is started with settings of soundcheck, named without their prefix; what runs at the end is killed."""
    made = Fleet(folder, server, settings)
    try:
        yield made
    finally:
        made.end()
