"""What a plan costs: time and peak memory for a million listed objects against a million done ones, and what looking at one object costs.

Every scenario is planned in a process of its own, so that its peak is its own; making the manifest and the lake is not measured. Objects
that remain are looked at in a store in memory, since the network is not what is measured here.
"""

import asyncio
import hashlib
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import polars as pl
from published import START, publish
from rich.console import Console
from rich.table import Table

from connectors.lake.packages import rows_sink
from connectors.lake.query import connect
from connectors.lake.store import FolderStore
from connectors.s3 import S3Uri
from moderation.catalogue import AudioObject
from moderation.endpoints import ENDPOINTS
from moderation.identity import object_id, object_key_id
from tasks.plan import PlanRules, make_plan
from tasks.progress import Progress
from tasks.records import Run

OBJECTS = 1_000_000
DEADLINE_S = 60
PEAK_MIB = 2048
"""What a plan of a million objects may take at most."""
BUCKET = "music-uploads"
HEADER = (
    b"RIFF\xff\xff\xff\x7fWAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0data"
    + (4_000_000 - 44).to_bytes(4, "little")
    + bytes(4052)
)
SIZE = 4_000_000
SCENARIOS = ((1.0, 0.0), (1.0, 0.01), (0.1, 1.0))
"""Listed objects as a share of all, and of those the share that no run has seen."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What planning took: seconds, the peak of the process in MiB, and what came out."""

    objects: int
    done: int
    new: int
    wall_s: float
    cpu_s: float
    peak_mib: float
    before_mib: float
    sessions: int
    unchanged: int


class WavesInMemory:
    """A store of which every object is the same wav."""

    async def find(self, bucket: str, key: str, version_id: str | None = None) -> AudioObject:
        raise NotImplementedError

    async def head(self, item: AudioObject, size: int, offset: int = 0) -> bytes:
        assert item.size_bytes == SIZE
        return HEADER[offset : offset + size]

    async def metadata(self, item: AudioObject) -> Mapping[str, str]:
        raise NotImplementedError

    def stream(self, item: AudioObject, offset: int = 0) -> AsyncGenerator[bytes, None]:
        raise NotImplementedError


def catalogue(first: int, last: int) -> pl.DataFrame:
    """Rows of `manifests`, in the order of a listing."""
    keys = [f"labels/{number // 5000:05}/releases/track-{number:08}.wav" for number in range(first, last)]
    etags = [hashlib.md5(key.encode(), usedforsecurity=False).hexdigest() for key in keys]
    return pl.DataFrame(
        {
            "bucket": BUCKET,
            "key": keys,
            "etag": etags,
            "size_bytes": SIZE,
            "last_modified": START,
            "storage_class": "STANDARD",
            "object_id": [object_id(BUCKET, key, etag) for key, etag in zip(keys, etags, strict=True)],
            "object_key_id": [object_key_id(BUCKET, key) for key in keys],
        },
        schema_overrides={"last_modified": pl.Datetime("us", "UTC")},
    )


def prepare(folder: str, objects: int, new: int) -> None:
    """A manifest of all objects, and results of all but the new ones at both endpoints."""
    results = FolderStore(Path(folder))
    rows = catalogue(0, objects)
    with rows_sink(results, "manifests", "bench", START.date(), "manifest") as sink:
        sink.write(rows.to_arrow())
    for endpoint in ENDPOINTS:
        publish(results, endpoint, rows.head(objects - new))


def measure(folder: str, objects: int, new: int, answer: Any) -> None:
    """Plan once, and say what it took."""
    results, progress = FolderStore(Path(folder)), Progress()
    before = _peak_mib()
    wall, cpu = time.perf_counter(), time.process_time()
    planned = asyncio.run(
        make_plan(
            WavesInMemory(),
            results,
            partial(connect, results.url, frugal=True),
            Run("bench", "acme", START),
            tuple(ENDPOINTS.values()),
            PlanRules(),
            progress,
            sources=[S3Uri(BUCKET, "labels/")],
        )
    )
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    first = planned.forecast.endpoints[0]
    sessions = sum(endpoint.sessions for endpoint in planned.forecast.endpoints)
    assert (first.changes.new, first.changes.unchanged) == (new, objects - new)
    answer.send(Cost(objects, objects - new, new, wall, cpu, _peak_mib(), before, sessions, first.changes.unchanged))


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _in_a_process(target: Any, *arguments: Any) -> None:
    worker = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    worker.start()
    worker.join()
    if worker.exitcode:
        raise SystemExit(f"{target.__name__} ended with {worker.exitcode}")


def cost(objects: int, new: int) -> Cost:
    """One scenario."""
    ours, theirs = multiprocessing.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        _in_a_process(prepare, folder, objects, new)
        _in_a_process(measure, folder, objects, new, theirs)
    found: Cost = ours.recv()
    return found


def main(*, objects: int = OBJECTS, json_file: Annotated[Path | None, cyclopts.Parameter("--json")] = None) -> None:
    """Measure, and print a table.

    Parameters
    ----------
    objects
        Listed objects.
    json_file
        Where to write the figures.
    """
    costs = [cost(round(objects * listed), round(objects * listed * new)) for listed, new in SCENARIOS]
    table = Table(title="Planning for both endpoints", title_justify="left")
    for title in ("objects", "done", "new", "sessions", "s", "CPU s", "peak MiB", "before"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in costs:
        figures = (row.objects, row.done, row.new, row.sessions)
        table.add_row(
            *(f"{figure:,}" for figure in figures),
            f"{row.wall_s:.1f}",
            f"{row.cpu_s:.1f}",
            f"{row.peak_mib:,.0f}",
            f"{row.before_mib:,.0f}",
        )
    within = all(row.wall_s < DEADLINE_S and row.peak_mib < PEAK_MIB for row in costs)
    console = Console()
    console.print(table)
    console.print(
        f"Under {DEADLINE_S} s and {PEAK_MIB} MiB is asked for, which is {'reached' if within else 'NOT reached'}.", highlight=False
    )
    if json_file:
        json_file.write_text(json.dumps([asdict(row) for row in costs], indent=2) + "\n")


if __name__ == "__main__":
    cyclopts.run(main)
