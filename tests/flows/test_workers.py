"""A run over several workers of a real Prefect server, with one PostgreSQL: who takes shards, and what becomes of it when one is killed."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from connectors.local_s3 import LocalS3
from postgresql import cluster
from scanning import BUCKET, KEY, bucket, scanning

ROOT = Path(__file__).parents[2]
PREFECT = [sys.executable, "-m", "prefect"]
SOUNDCHECK = [sys.executable, "-c", "from flows.cli import main; main()"]
PATIENCE_S = 900

pytestmark = [pytest.mark.torture, pytest.mark.prefect, pytest.mark.slow]


@pytest.fixture
def put(monkeypatch):
    with LocalS3() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        with bucket() as put:
            yield put


@pytest.fixture
def ledger_url():
    try:
        with cluster() as running:
            yield running.url()
    except LookupError as absent:
        pytest.skip(str(absent))


class Fleet:
    """A Prefect server with our deployments, and workers for them."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self.processes: list[asyncio.subprocess.Process] = []

    async def start(self, *command: str) -> asyncio.subprocess.Process:
        with (self.folder / f"{len(self.processes)}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *command, stdout=log, stderr=subprocess.STDOUT, env=self.environment, cwd=ROOT, start_new_session=True
            )
        self.processes.append(process)
        return process

    async def worker(self, pool: str, *, limit: int = 1) -> asyncio.subprocess.Process:
        return await self.start(*PREFECT, "worker", "start", "--pool", pool, "--type", "process", "--limit", str(limit))

    async def run(self, *command: str) -> None:
        process = await self.start(*command)
        assert await process.wait() == 0, (self.folder / f"{len(self.processes) - 1}.log").read_text()


def kill(process: asyncio.subprocess.Process) -> None:
    """Kill a worker and what it has started, as the end of its host would."""
    os.killpg(process.pid, signal.SIGKILL)


@asynccontextmanager
async def fleet(folder: Path, port: int, settings: dict[str, str]) -> AsyncIterator[Fleet]:
    prefect = {
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    made = Fleet(folder, os.environ | prefect | {f"SOUNDCHECK_{name.upper()}": value for name, value in settings.items()})
    try:
        await made.start(*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui")
        async with asyncio.timeout(180):
            while not await answers(f"{prefect['PREFECT_API_URL']}/health"):
                await asyncio.sleep(0.5)
        for pool in ("soundcheck", "soundcheck-shards"):
            await made.run(*PREFECT, "work-pool", "create", pool, "--type", "process")
        await made.run(*PREFECT, "--no-prompt", "deploy", "--prefect-file", "deployments/prefect.yaml", "--all")
        yield made
    finally:
        for process in made.processes:
            if process.returncode is None:
                kill(process)
            await process.wait()


async def answers(url: str) -> bool:
    try:
        async with aiohttp.request("GET", url) as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


@pytest.mark.parametrize("killed", [False, True])
async def test_every_worker_takes_shards_and_each_object_goes_out_once(put, tmp_path, ledger_url, unused_tcp_port, killed):
    """With one endpoint, 3,000 objects of a second and a half, 250 a shard."""
    for number in range(3000):
        put(f"{number:04}.ulaw", 1.5)
    folders = {name: tmp_path / name for name in ("world", "fleet")}
    for folder in folders.values():
        folder.mkdir()
    async with scanning(folders["world"], connections=8) as world:
        settings = {
            "api_key": KEY,
            "results": str(world.settings.results),
            "velma_url": world.velma.url,
            "endpoints": '["music"]',
            "raw_rules": json.dumps([rule.model_dump(mode="json") for rule in world.settings.raw_rules]),
            "connections": "8",
            "fan_out": "workers",
            "shards": '{"max_objects": 250}',
            "shards_in_flight": "4",
            "ledger_url": ledger_url,
            "lease_seconds": "10",
        }
        async with fleet(folders["fleet"], unused_tcp_port, settings) as made:
            workers = [await made.worker("soundcheck-shards") for _ in range(3)]
            out = tmp_path / "out.json"
            with out.open("wb") as stdout:
                command = [*SOUNDCHECK, "scan", f"s3://{BUCKET}/", "--json"]
                scan = await asyncio.create_subprocess_exec(
                    *command, stdout=stdout, stderr=subprocess.DEVNULL, env=made.environment, cwd=ROOT
                )
            if killed:
                await world.until_done(700)
                kill(workers[0])
                await made.worker("soundcheck-shards")
            async with asyncio.timeout(PATIENCE_S):
                assert await scan.wait() == 0, out.read_text()
        report = json.loads(out.read_text())
        assert (report["done"], report["pending"], report["quarantined"]) == (3000, 0, 0)
        assert world.ask("SELECT count(*), count(DISTINCT object_id) FROM music_summaries") == [(3000, 3000)]
        took = world.ask("SELECT worker, count(*) FROM attempts WHERE outcome = 'done' GROUP BY worker")
        assert sum(count for _, count in took) == 3000
        assert len(took) >= 3
        connected = world.seen.events("connect")
        assert max(line["live"] for line in connected) <= 8
        assert len(connected) == 3000 if not killed else len(connected) <= 3000 + 8
        assert world.ask("SELECT done, pending FROM runs_latest") == [(3000, 0)]
