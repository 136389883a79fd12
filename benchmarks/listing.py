"""What listing a catalogue costs: keys for a CPU-second and memory, of plain boto3 pages and of the way to a finished manifest.

A list API of S3 with made-up keys runs in a process of its own, on loopback; each lister runs in a fresh one, and its own CPU time
counts. `boto3` takes the pages of list_objects_v2 and does nothing with them; `pages` are those of our S3Listing; `manifest` is the whole
task, which also computes identities and writes Parquet. As plain boto3 is slow and needs no memory, it lists fewer keys.
"""

import asyncio
import json
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated

import cyclopts
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))

from connectors.catalogue import S3Listing
from connectors.lake.store import open_store
from connectors.s3 import S3Caller, S3Settings, S3Uri, s3_client
from list_api import ListApi
from tasks.list_catalogue import list_catalogue
from tasks.progress import Progress
from tasks.records import Run

BUCKET = "music"
TARGET_MB = 400
"""The most memory that listing a million keys may take, in millions of bytes."""
MIB = 1024 * 1024
WAIT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Cost:
    """What a lister spent: CPU of its own process, seconds of the clock, and the most memory that it had."""

    lister: str
    keys: int
    cpu_s: float
    wall_s: float
    peak_mib: float

    @property
    def keys_per_cpu_s(self) -> float:
        return self.keys / self.cpu_s


def keys(count: int) -> list[str]:
    """Keys as catalogues have them: label, album and track, some with a space or an accent."""
    return sorted(
        f"library/{n // 20_000:04}/album {n // 20 % 1000:04}/{n % 20:02}-{'prélude' if n % 50 == 0 else 'track'}.flac" for n in range(count)
    )


def serve(pipe: Connection, count: int) -> None:
    """Serve that many keys until the pipe is closed; says the port."""

    async def run() -> None:
        api = ListApi({BUCKET: keys(count)})
        server = await asyncio.start_server(api.serve, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await asyncio.to_thread(pipe.poll, None)

    asyncio.run(run())
    os._exit(0)


async def boto3_pages(caller: S3Caller) -> int:
    pages = caller.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    return sum(len(page.get("Contents", [])) for page in pages)


async def our_pages(caller: S3Caller) -> int:
    source = S3Listing(caller, [S3Uri(BUCKET)])
    return sum([len(page.items) for piece in (await source.outline()).pieces async for page in source.pages(piece)])


async def manifest(caller: S3Caller) -> int:
    with tempfile.TemporaryDirectory() as folder:
        run = Run("20260301T120000Z-abcdef", "default", datetime(2026, 3, 1, 12, tzinfo=UTC))
        listed = await list_catalogue(S3Listing(caller, [S3Uri(BUCKET)]), open_store(folder), run, Progress())
        with pq.ParquetFile(f"{folder}/v1/_runs/{run.run_id}/manifest.parquet") as file:
            assert file.metadata.num_rows == listed
        return listed


LISTERS: dict[str, Callable[[S3Caller], Awaitable[int]]] = {"boto3": boto3_pages, "pages": our_pages, "manifest": manifest}


def spend(pipe: Connection, port: int, lister: str) -> None:
    """List everything; says the Cost."""
    os.environ |= {"AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "not-a-secret"}

    async def run() -> Cost:
        client = s3_client(S3Settings(endpoint_url=f"http://127.0.0.1:{port}", region="us-east-1"))
        async with S3Caller(client, threads=16) as caller:
            client.list_objects_v2(Bucket=BUCKET, MaxKeys=1)
            cpu, wall = time.process_time(), time.perf_counter()
            listed = await LISTERS[lister](caller)
            spent = time.process_time() - cpu, time.perf_counter() - wall
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return Cost(lister, listed, *spent, peak)

    pipe.send(asyncio.run(run()))


@contextmanager
def process(target: Callable[..., None], *arguments: object) -> Iterator[Connection]:
    """A fresh process, and the pipe to it; it is gone when the block ends."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=target, args=(theirs, *arguments))
    child.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        child.join(WAIT_SECONDS)
        if child.is_alive():
            child.terminate()
        child.join()


def measure(lister: str, count: int) -> Cost:
    """The cost of listing so many keys."""
    with process(serve, count) as server, process(spend, server.recv(), lister) as pipe:
        cost: Cost = pipe.recv()
    if cost.keys != count:
        raise ValueError(f"{lister} found {cost.keys} of {count} keys")
    return cost


def main(
    *,
    count: Annotated[int, cyclopts.Parameter("--keys")] = 1_000_000,
    json_file: Annotated[Path | None, cyclopts.Parameter("--json")] = None,
) -> None:
    """Measure, and print a table.

    Parameters
    ----------
    count
        Keys to list.
    json_file
        Where to write the figures.
    """
    few = max(1, count // 10)
    costs = [measure("boto3", few), measure("pages", count), measure("manifest", count), measure("boto3", few)]
    plain = sum(cost.keys for cost in costs if cost.lister == "boto3") / sum(cost.cpu_s for cost in costs if cost.lister == "boto3")
    table = Table(title="Listing over loopback", title_justify="left")
    for title in ("lister", "keys", "CPU, s", "time, s", "keys a CPU-second", "of plain boto3", "peak, MiB"):
        table.add_column(title, justify="left" if title == "lister" else "right")
    for cost in costs:
        rate = cost.keys_per_cpu_s
        figures = (
            f"{cost.keys:,}",
            f"{cost.cpu_s:.1f}",
            f"{cost.wall_s:.1f}",
            f"{rate:,.0f}",
            f"{rate / plain:.1f}",
            f"{cost.peak_mib:.0f}",
        )
        table.add_row(cost.lister, *figures)
    peak = max(cost.peak_mib for cost in costs) * MIB / 1e6
    console = Console(width=110)
    console.print(f"{multiprocessing.cpu_count()} cores, Python {platform.python_version()}, boto3 {version('boto3')}", highlight=False)
    console.print(table, f"the peak is {peak:.0f} MB; less than {TARGET_MB} is asked for", highlight=False)
    if json_file:
        json_file.write_text(json.dumps([asdict(cost) for cost in costs], indent=2) + "\n")


if __name__ == "__main__":
    cyclopts.run(main)
