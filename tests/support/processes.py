"""Processes that a test starts beside itself, and kills as if their host had gone."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOUNDCHECK = (sys.executable, "-c", "from flows.cli import main; main()")
FINAL = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}
"""The types of state in which Prefect ends a flow run."""


class Processes:
    """What is started in an environment and a folder, each with a log of its own."""

    def __init__(self, logs: Path, environment: Mapping[str, str], cwd: Path = ROOT) -> None:
        self.environment = dict(environment)
        self.started: list[subprocess.Popen[bytes]] = []
        self._logs = logs
        self._cwd = cwd

    def start(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        """A process with more in its environment, which ends with everything else."""
        with self._log(len(self.started)).open("wb") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env=self.environment | environment, cwd=self._cwd, start_new_session=True
            )
        self.started.append(process)
        return process

    def said(self, process: subprocess.Popen[bytes]) -> str:
        """What a process has put out."""
        return self._log(self.started.index(process)).read_text()

    def end(self) -> None:
        """Kill what still runs, and what was left behind by those that do not."""
        for process in self.started:
            kill(process)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _log(self, number: int) -> Path:
        return self._logs / f"{type(self).__name__.lower()}-{number}.log"


def descendants(process: int) -> Iterator[int]:
    """The processes that one has started, also in sessions of their own, and those that they have."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for path in Path(f"/proc/{process}/task").glob("*/children"):
            for child in map(int, path.read_text().split()):
                yield child
                yield from descendants(child)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and what it has started, as the end of its host would."""
    if process.poll() is not None:
        return
    for each in [process.pid, *descendants(process.pid)]:
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
