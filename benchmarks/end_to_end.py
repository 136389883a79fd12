"""What a scan costs beside what people would write instead: wall time, CPU, memory, rows, and what is left after a kill -9 at half way.

soundcheck runs beside (a) the vendor's sample in a loop, (b) the asyncio script of one afternoon and (c) a Prefect flow with a task per
object (`rivals/`), over the same objects in the local S3 and the same local Velma server, which admits LIMIT connections and has the stub
detector: what is compared is the client. S3, Velma and Prefect's server are processes of their own. Each client runs in a fresh process,
imports everything and scans two objects before it is measured; clients take turns, A B B A, at each turn over another catalogue. What
soundcheck does beyond its rivals (manifest, plan, ledger, spool, segments, attempts, report) is in its figures.
"""

import asyncio
import importlib
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import pyarrow.parquet as pq
from measuring import Told, process, spending, spread, told
from services import BUCKET, KEY, Lengths, Service, local_s3, of_folder, prefect_server, put, recordings, velma

from flows.console import stderr
from flows.launch import scan_as_flow, scan_directly
from flows.settings import fixed_settings
from flows.watch import Watch

RIVALS = Path(__file__).parent / "rivals"
LIMIT = 5
SPEED = 40.0
"""Of the service: a machine of two cores keeps up with that, and both clients wait for the service as they would elsewhere."""
WARMING = "warming/"
LENGTHS = Lengths(median_s=190.0, sigma=0.45, shortest_s=60.0, longest_s=1800.0)
"""Those of a catalogue of music: most tracks last two to five minutes, a few far longer."""
FEW = 10
"""The loop scans one in so many: it takes as much longer as the limit allows connections."""
FRAME_S = 0.192
SHORT_SECONDS = 5.0
CPU_BOUND = 1.3
"""CPU of soundcheck beside that of the script, at most."""
TASKS_BOUND = 5.0
"""CPU of a task per object beside that of soundcheck, at least."""
POLL_SECONDS = 0.01

CLIENTS = {
    "soundcheck": "soundcheck",
    "soundcheck, flow": "soundcheck as a Prefect flow",
    "sample_in_a_loop": "(a) the sample in a loop",
    "one_afternoon": "(b) the script of an afternoon",
    "task_per_object": "(c) a Prefect task per object",
}


@dataclass(frozen=True, slots=True)
class Cost:
    """What one scan of so many objects took. prefect_s is CPU of Prefect's server meanwhile."""

    client: str
    cpu_s: float
    wall_s: float
    peak_mib: float
    before_mib: float
    rows: int
    objects: int
    prefect_s: float = 0.0

    @property
    def audio_s(self) -> float:
        """What its frames cover."""
        return self.rows * FRAME_S


@dataclass(frozen=True, slots=True)
class Batch:
    """The objects below a prefix, and how many there are."""

    prefix: str
    objects: int

    @classmethod
    def of(cls, prefix: str, objects: Sequence[tuple[str, bytes]]) -> "Batch":
        """Put objects below a prefix."""
        if not objects:
            raise SystemExit("there is no audio to scan")
        put(prefix, objects)
        return cls(prefix, len(objects))


# -- the clients' process ---------------------------------------------------------------------------------------------------------------


def run(pipe: Connection, client: str, prefix: str, out: str, url: str) -> None:
    """Warm up, say so, and scan when told to; says what that took."""
    logging.disable(logging.WARNING)
    stderr.quiet = True
    sys.path.insert(0, str(RIVALS))
    scan = _soundcheck(as_flow="flow" in client) if client.startswith("soundcheck") else importlib.import_module(client).main
    with tempfile.TemporaryDirectory() as folder:
        scan(BUCKET, WARMING, folder, url, KEY, LIMIT)
    pipe.send("ready")
    pipe.recv()
    with spending() as spent:
        scan(BUCKET, prefix, out, url, KEY, LIMIT)
    pipe.send(asdict(spent))
    pipe.poll(None)
    os._exit(0)


def _soundcheck(*, as_flow: bool) -> Any:
    def scan(bucket: str, prefix: str, out: str, url: str, key: str, limit: int) -> None:
        settings = fixed_settings(api_key=key, results=out, velma_url=url, connections=limit, endpoints=["music"])
        report = asyncio.run((scan_as_flow if as_flow else scan_directly)(settings, f"s3://{bucket}/{prefix}", Watch()))
        if report.exit_code:
            raise SystemExit(f"soundcheck ended with {report.exit_code}: {report.message}")

    return scan


def rows_in(out: str) -> int:
    """Rows of frames in the Parquet files that can be read."""
    found = 0
    for path in Path(out).rglob("*.parquet"):
        if "_" in {part[0] for part in path.relative_to(out).parts} or path.name == "summaries.parquet":
            continue
        try:
            with pq.ParquetFile(path) as file:
                found += file.metadata.num_rows if {"music_prob", "speech_prob"} <= set(file.schema_arrow.names) else 0
        except (OSError, ValueError):
            continue
    return found


# -- measuring --------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ground:
    """What all scans of this benchmark share."""

    velma: Service
    prefect: Service | None
    folder: Path

    def cost(self, client: str, batch: Batch) -> Cost:
        """One scan, from its first step to its end."""
        with self.results() as out, process(run, client, batch.prefix, out, self.velma.url) as (pipe, _):
            pipe.recv()
            before = self.prefect.ask() if self.prefect else 0.0
            pipe.send("go")
            spent = pipe.recv()
            prefect_s = self.prefect.ask() - before if self.prefect else 0.0
            return Cost(client, **spent, rows=rows_in(out), objects=batch.objects, prefect_s=prefect_s)

    def results(self) -> "tempfile.TemporaryDirectory[str]":
        """A new folder for results."""
        return tempfile.TemporaryDirectory(dir=self.folder)

    def killed(self, client: str, prefix: str, objects: int) -> dict[str, Any]:
        """What a scan leaves that is killed when half of its objects are done, and what the same again pays for."""
        with self.results() as out:
            with process(run, client, prefix, out, self.velma.url) as (pipe, child):
                pipe.recv()
                warmed = self.velma.ask()
                pipe.send("go")
                while self.velma.ask()["done"] < warmed["done"] + objects // 2 and not pipe.poll():
                    time.sleep(POLL_SECONDS)
                child.kill()
            left = rows_in(out)
            again = self.cost_again(client, prefix, out)
            heard_s = self.velma.ask()["audio_s"] - warmed["audio_s"] - again["warming_s"]
            return {"client": client, "rows_left": left, "rows_in_the_end": rows_in(out), "audio_s": heard_s}

    def cost_again(self, client: str, prefix: str, out: str) -> dict[str, float]:
        """Run the same scan into the same results; says what its warming up had the service hear."""
        before = self.velma.ask()["audio_s"]
        with process(run, client, prefix, out, self.velma.url) as (pipe, _):
            pipe.recv()
            warming_s = self.velma.ask()["audio_s"] - before
            pipe.send("go")
            pipe.recv()
        return {"warming_s": warming_s}


def taken_turn(ground: Ground, clients: Sequence[str], batch: Batch, turn: int) -> list[Cost]:
    """The costs of some clients over the same objects, turn by turn A B B A. Raises SystemExit where one has lost rows: it is no client."""
    costs = [ground.cost(client, batch) for client in list(clients)[:: -1 if turn % 2 else 1]]
    if len({cost.rows for cost in costs}) > 1 or not costs[0].rows:
        raise SystemExit(f"rows: {', '.join(f'{cost.client} {cost.rows}' for cost in costs)} of the same {batch.objects} objects")
    return costs


def by_client(costs: Sequence[Cost]) -> Iterator[tuple[str, list[Cost]]]:
    """The costs of each client."""
    for client in dict.fromkeys(cost.client for cost in costs):
        yield client, [cost for cost in costs if cost.client == client]


def ratio(costs: Sequence[Cost], of: str, beside: str, name: str = "cpu_s") -> dict[str, float]:
    """By turns, what one client took for what another did."""
    found = dict(by_client(costs))
    return spread(getattr(a, name) / getattr(b, name) for a, b in zip(found[of], found[beside], strict=True))


def show(report: Told, title: str, costs: Sequence[Cost]) -> None:
    """A table of scans."""
    objects = " to ".join(f"{count:,}" for count in sorted({min(cost.objects for cost in costs), max(cost.objects for cost in costs)}))
    rows = []
    for client, each in by_client(costs):
        cells = (
            told(spread(cost.wall_s for cost in each), ".1f"),
            told(spread(cost.cpu_s * 3600 / cost.audio_s for cost in each)),
            told(spread(1000 * cost.cpu_s / cost.objects for cost in each), ".1f"),
            told(spread(1000 * cost.prefect_s / cost.objects for cost in each), ".1f"),
            f"{max(cost.peak_mib for cost in each):.0f} ({max(cost.before_mib for cost in each):.0f})",
            ", ".join(f"{count:,}" for count in sorted({cost.rows for cost in each})),
        )
        rows.append((CLIENTS[client], *cells))
    columns = ("client", "wall, s", "CPU-s an audio-hour", "CPU-ms an object", "Prefect's server, ms", "peak, MiB (before)", "rows")
    hours = statistics.median(cost.audio_s for cost in costs) / 3600
    report.table(f"{title}: {objects} objects, {hours:.2f} audio-hours, limit {LIMIT}", columns, rows)
    report.figures[title] = [asdict(cost) | {"audio_s": cost.audio_s} for cost in costs]


def main(
    *,
    hours: float = 1.0,
    rounds: int = 2,
    short_objects: int = 60,
    killed_objects: int = 40,
    audio: Path | None = None,
    prefect: bool = True,
    speed: float = SPEED,
    json_file: Annotated[Path | None, cyclopts.Parameter("--json")] = None,
) -> None:
    """Measure, and print tables.

    Parameters
    ----------
    hours
        Audio-hours of the long objects; 0 leaves that comparison out.
    rounds
        How often each client has its turn: each time over other long objects, unless they are those of a folder.
    short_objects
        Objects of 5 s each; 0 leaves that comparison out.
    killed_objects
        Objects of the scans that are killed at half way; 0 leaves those out.
    audio
        A folder of audio to scan as the long objects instead of what is made here; its length is what the service hears.
    prefect
        Whether to start a Prefect server: without one the comparisons with flows are left out.
    speed
        Times real time at which the service analyses; 0: as fast as it can, where wall time is that of this machine's cores.
    json_file
        Where to write the figures.
    """
    report = Told(json_file)
    with tempfile.TemporaryDirectory() as name, local_s3(), velma(LIMIT, speed=speed or None) as service:
        folder = Path(name)
        put(WARMING, recordings([SHORT_SECONDS] * 2))
        ground = Ground(service, None, folder)
        if hours or audio:
            long(report, ground, lambda turn: of_folder(audio) if audio else recordings(LENGTHS.drawn(hours, turn)), rounds)
        if short_objects and prefect:
            with prefect_server(folder / "prefect") as server:
                short(report, Ground(service, server, folder), short_objects, rounds)
                if killed_objects:
                    killed(report, Ground(service, server, folder), killed_objects)
        report.end()


def long(report: Told, ground: Ground, catalogue: Callable[[int], Sequence[tuple[str, bytes]]], rounds: int) -> None:
    """soundcheck beside the script, at each turn over the catalogue of that turn, and the loop over a few objects of the first."""
    pair, costs = ("soundcheck", "one_afternoon"), []
    for turn in range(rounds):
        objects = catalogue(turn)
        if not turn:
            few = Batch.of("few/", objects[: max(1, len(objects) // FEW)])
        costs += taken_turn(ground, pair, Batch.of(f"long/{turn}/", objects), turn)
    show(report, "long objects", costs)
    show(report, "a few of them", [ground.cost("sample_in_a_loop", few)])
    cpu = ratio(costs, *pair)
    wall = ratio(costs, *pair, "wall_s")
    report.verdict("CPU of soundcheck beside the script's", cpu["median"], f"<= {CPU_BOUND}", reached=cpu["median"] <= CPU_BOUND)
    report.verdict("wall time of soundcheck beside the script's", wall["median"], "<= 1", reached=wall["median"] <= 1)
    report.say(f"from turn to turn: CPU {told(cpu, '.3f')}, wall time {told(wall, '.3f')}")
    report.figures.setdefault("ratios", {}).update(cpu=cpu, wall=wall)


def short(report: Told, ground: Ground, count: int, rounds: int) -> None:
    """soundcheck beside a task per object."""
    batch = Batch.of("short/", recordings([SHORT_SECONDS] * count))
    clients = ("soundcheck, flow", "task_per_object", "soundcheck")
    costs = [cost for turn in range(rounds) for cost in taken_turn(ground, clients, batch, turn)]
    show(report, "short objects", costs)
    found = dict(by_client(costs))
    with_server = spread(
        (theirs.cpu_s + theirs.prefect_s) / (ours.cpu_s + ours.prefect_s)
        for theirs, ours in zip(found["task_per_object"], found["soundcheck, flow"], strict=True)
    )
    alone = ratio(costs, "task_per_object", "soundcheck")
    report.figures.setdefault("ratios", {}).update({"tasks, with Prefect's server": with_server, "tasks, client alone": alone})
    reached = with_server["median"] >= TASKS_BOUND
    report.verdict(
        "CPU of a task per object beside soundcheck's, both with Prefect's server",
        with_server["median"],
        f">= {TASKS_BOUND}",
        reached=reached,
    )
    report.say(f"their clients alone: {told(alone)}")


def killed(report: Told, ground: Ground, count: int) -> None:
    """What each leaves after a kill -9 at half way."""
    put("killed/", recordings([60.0] * count))
    found = [ground.killed(client, "killed/", count) for client in CLIENTS if client != "soundcheck, flow"]
    whole = count * 60.0
    rows = [
        (CLIENTS[each["client"]], f"{each['rows_left']:,}", f"{each['rows_in_the_end']:,}", f"{each['audio_s'] / whole:.2f}")
        for each in found
    ]
    columns = ("client", "rows left", "rows after the same again", "paid, times the audio")
    report.table(f"killed when half of {count} objects of 60 s were done, then run again", columns, rows)
    report.say("rows are what a reader finds: the sessions that soundcheck had ended lay in its spool, and the next run published them")
    report.figures["killed"] = found


if __name__ == "__main__":
    cyclopts.run(main)
