"""What a scan takes before its first audio byte, and what one takes that finds nothing new among many objects.

Each scan is the command itself, in a process of its own, so imports count here. The list API of S3 with made-up keys, the local S3 and
the local Velma server are processes of their own. The results of the unchanged objects are written by the lake's code, unmeasured.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import polars as pl
from listing import BUCKET, keys, serve
from measuring import Told, peak_mib, process, spread, told
from published import publish
from services import BUCKET as AUDIO_BUCKET
from services import KEY, local_s3, prefect_server, put, recordings, velma

from connectors.lake.store import FolderStore
from moderation.endpoints import ENDPOINTS
from moderation.identity import object_id, object_key_id

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))

from list_api import changed, etag

CPU_SECONDS = 60
"""What a scan of 10^5 unchanged objects may take."""
POLL_SECONDS = 0.05
COMMAND = [sys.executable, "-c", "from flows.cli import main; main()"]


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command took, its whole process with what it started."""

    cpu_s: float
    wall_s: float
    peak_mib: float
    counts: dict[str, Any]


def command(*arguments: str, **variables: str) -> Ran:
    """Run soundcheck, which must end well; counts is what it says with --json."""
    with tempfile.TemporaryFile("w+") as output:
        started = time.perf_counter()
        child = subprocess.Popen([*COMMAND, *arguments, "--json"], stdout=output, env=os.environ | variables)
        peak, ended = 0.0, 0
        while not ended:
            peak = max(peak, peak_mib(child.pid))
            time.sleep(POLL_SECONDS)
            ended, status, usage = os.wait4(child.pid, os.WNOHANG)
        wall_s = time.perf_counter() - started
        if code := os.waitstatus_to_exitcode(status):
            raise SystemExit(f"soundcheck {' '.join(arguments)} ended with {code}")
        output.seek(0)
        return Ran(usage.ru_utime + usage.ru_stime, wall_s, peak, json.loads(output.read()))


# -- a catalogue without news -----------------------------------------------------------------------------------------------------------


def fill(results: Path, names: list[str]) -> None:
    """Write a result of every key at both endpoints, as its object is listed."""
    etags = [etag(key) for key in names]
    objects = pl.DataFrame(
        {
            "bucket": BUCKET,
            "key": names,
            "etag": etags,
            "size_bytes": [len(key) for key in names],
            "last_modified": [changed(key) for key in names],
            "storage_class": "STANDARD",
            "object_id": [object_id(BUCKET, key, tag) for key, tag in zip(names, etags, strict=True)],
            "object_key_id": [object_key_id(BUCKET, key) for key in names],
        },
        schema_overrides={"last_modified": pl.Datetime("us", "UTC")},
    ).with_columns(pl.lit("default").alias("org"))
    for endpoint in ENDPOINTS:
        publish(FolderStore(results), endpoint, objects)


def unchanged(report: Told, objects: int, runs: int) -> None:
    """Scan a catalogue of which everything is done, some times into the same results."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results"
        results.mkdir()
        fill(results, keys(objects))
        with process(serve, objects) as (pipe, _):
            aws = {"AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "not-a-secret", "AWS_REGION": "us-east-1"}
            aws["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{pipe.recv()}"
            ran = [
                command("scan", f"s3://{BUCKET}/", "--results", str(results), "--direct", SOUNDCHECK_API_KEY=KEY, **aws)
                for _ in range(runs)
            ]
    sessions = sum(each.counts["sessions"] for each in ran)
    done = {each.counts["done"] for each in ran}
    if done != {objects}:
        raise ValueError(f"{done} of {objects} objects are done")
    cpu, wall, peak = (spread(getattr(each, name) for each in ran) for name in ("cpu_s", "wall_s", "peak_mib"))
    row = (f"{objects:,}", f"{runs}", told(cpu, ".1f"), told(wall, ".1f"), told(peak, ".0f"), str(sessions))
    report.table("scan --direct of unchanged objects", ("objects", "runs", "CPU, s", "wall, s", "peak, MiB", "sessions"), [row])
    report.figures["unchanged"] = {"objects": objects, "runs": [asdict(each) for each in ran]}
    bound = CPU_SECONDS * max(1.0, objects / 100_000)
    report.verdict(
        "CPU-seconds of a scan that finds nothing new", cpu["max"], f"< {bound:.0f}", reached=cpu["max"] < bound and not sessions
    )


# -- the first audio byte ---------------------------------------------------------------------------------------------------------------


def first_audio(report: Told, runs: int, *, prefect: bool) -> None:
    """Scan two objects, and ask the server's journal when the first of their bytes came."""
    waits: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name, local_s3():
        folder = Path(name)
        put("", recordings([20.0, 20.0]))
        for number in range(runs):
            waits.setdefault("--direct", []).append(_wait(folder / f"direct-{number}", "--direct"))
        if prefect:
            for number in range(runs):
                waits.setdefault("embedded Prefect, new state", []).append(_wait(folder / f"embedded-{number}"))
            with prefect_server(folder / "prefect"):
                for number in range(runs):
                    waits.setdefault("a Prefect server that runs", []).append(_wait(folder / f"flow-{number}"))
    rows = [(how, str(len(each)), told(spread(each), ".1f")) for how, each in waits.items()]
    report.table("from the command to the first audio byte at the service", ("scan", "runs", "s"), rows)
    report.figures["first_audio_s"] = waits


def _wait(folder: Path, *flags: str) -> float:
    folder.mkdir()
    journal = folder / "journal"
    with velma(5, journal=journal) as service:
        started = time.time()
        where = ("--results", str(folder / "results"), "--velma-url", service.url, "--endpoint", "music")
        command("scan", f"s3://{AUDIO_BUCKET}/", *where, *flags, SOUNDCHECK_API_KEY=KEY)
    events = (json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines())
    first = next(event["at"] for event in events if event["event"] == "first_audio")
    return datetime.fromisoformat(first).timestamp() - started


def main(
    *,
    objects: int = 100_000,
    runs: int = 1,
    prefect: bool = True,
    json_file: Annotated[Path | None, cyclopts.Parameter("--json")] = None,
) -> None:
    """Measure, and print tables.

    Parameters
    ----------
    objects
        Unchanged objects.
    runs
        How often each scan is run.
    prefect
        Whether to scan as a flow run, too.
    json_file
        Where to write the figures.
    """
    report = Told(json_file)
    unchanged(report, objects, runs)
    first_audio(report, runs, prefect=prefect)
    report.end()


if __name__ == "__main__":
    cyclopts.run(main)
