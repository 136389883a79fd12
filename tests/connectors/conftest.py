"""One local Velma server in a thread with its own event loop, so that a test's loop has nothing but the client in it."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from connectors.local_velma.fault_script import FaultScript, Scene
from connectors.local_velma.journal import Journal
from connectors.local_velma.organisation import Organisation
from connectors.local_velma.server import LocalVelma, local_velma

KEY = "sk-live-0123456789abcdef"
SAMPLE_KEY = "YOUR_API_KEY"
"""What the vendor's sample connects with."""
KEYS = frozenset({KEY, SAMPLE_KEY})


@dataclass(frozen=True)
class RunningVelma:
    """The local server as a test sees it: with fresh limits and no faults, and what happened since the test began."""

    url: str
    organisation: Organisation
    journal: Journal
    faults: FaultScript
    path: Path
    skip: int

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()[self.skip :]]

    def named(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.events() if line["event"] == event]


@contextmanager
def in_a_thread(journal: Journal, organisation: Organisation, **options: Any) -> Iterator[LocalVelma]:
    ready: Future[tuple[LocalVelma, Callable[[], object]]] = Future()

    async def serve() -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        async with local_velma(organisation, journal=journal, **options) as server:
            ready.set_result((server, lambda: loop.call_soon_threadsafe(ended.set)))
            await ended.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    thread = threading.Thread(target=run, name="local-velma")
    thread.start()
    try:
        server, end = ready.result()
        try:
            yield server
        finally:
            end()
    finally:
        thread.join()


@pytest.fixture(scope="session")
def velma_in_a_thread() -> Callable[..., AbstractContextManager[LocalVelma]]:
    return in_a_thread


@pytest.fixture(scope="session")
def shared_velma(tmp_path_factory) -> Iterator[tuple[LocalVelma, Path]]:
    path = tmp_path_factory.mktemp("velma") / "journal.jsonl"
    with Journal(path) as journal, in_a_thread(journal, Organisation(KEYS)) as server:
        yield server, path


@pytest.fixture
def velma(shared_velma) -> RunningVelma:
    server, path = shared_velma
    organisation = server.organisation
    organisation.api_keys = KEYS
    organisation.max_connections = organisation.total_connections = organisation.monthly_hours = organisation.credit_hours = None
    organisation.new_month()
    server.faults.play(Scene())
    return RunningVelma(server.url, organisation, server.journal, server.faults, path, len(path.read_text().splitlines()))
