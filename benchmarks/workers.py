"""How much of a connection limit 1, 2 and 4 workers use, with a Prefect server, PostgreSQL and the local server at five times real time.

The catalogue is raw audio of 8 kHz and of every length from half a minute to three and a half. What counts is the server's journal, from
the first connection to the last one's end: the first object alone, and the time that a worker takes to begin a shard, are in it. Processes
are those that we deploy: `deployments/worker` with two shards at once each, and `soundcheck scan` with fan_out = "workers". It needs
PostgreSQL, as the tests do.
"""

import asyncio
import json
import os
import random
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import cyclopts
from measuring import Told

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from fleet import SHARDS, Server, fleet, server
from postgresql import Cluster, cluster
from processes import free_port
from scanning import BYTES_PER_SECOND, KEY, Scanning, scanning

LIMIT = 16
SPEED = 5.0
LENGTHS_S = (30.0, 210.0)
OBJECTS_A_SHARD = 100
"""Some three minutes of all slots: a worker's shards end together, and it takes ten seconds and more to begin the next ones."""
SHARDS_A_WORKER = 2
TARGET = 0.9
"""Of limit x speed x wall."""


@dataclass(frozen=True, slots=True)
class Use:
    """What some workers made of the limit. wall_s is from the first connection to the last one's end, command_s the command's own."""

    workers: int
    processes: int
    objects: int
    audio_s: float
    wall_s: float
    command_s: float
    peak: int
    share: float
    steady: float
    """The same between the first moment with all slots taken and the last connection: without the way there, and the end."""
    busy: float
    """Of the slots' time, how much a connection had: what is missing of share and not of this, sessions take besides their audio."""
    load: float
    """Processes that wanted to run on this machine when it ended, over five minutes."""


def catalogue(folder: Path, minutes: float) -> float:
    """Objects enough for so many minutes at the limit, in lengths that are the same each time; their seconds."""
    folder.mkdir()
    chance, audio_s, number = random.Random(8000), 0.0, 0
    while audio_s < LIMIT * SPEED * 60 * minutes:
        seconds = round(chance.uniform(*LENGTHS_S))
        (folder / f"{number:05}.ulaw").write_bytes(b"\xff" * (seconds * BYTES_PER_SECOND))
        audio_s += seconds
        number += 1
    return audio_s


async def use(folder: Path, source: Path, prefect: Server, database: Cluster, workers: int) -> Use:
    """Scan the catalogue by so many workers, with what belongs to that in a folder."""
    async with scanning(folder, speed=SPEED) as world:
        settings = {
            "api_key": KEY,
            "results": str(world.settings.results),
            "velma_url": world.velma.url,
            "endpoints": '["music"]',
            "raw_rules": json.dumps([rule.model_dump(mode="json") for rule in world.settings.raw_rules]),
            "connections": str(LIMIT),
            "fan_out": "workers",
            "shards": json.dumps({"max_objects": OBJECTS_A_SHARD}),
            "ledger_url": database.url(),
            "report": "false",
        }
        with fleet(folder, prefect, settings) as made:
            for _ in range(workers):
                made.worker(SHARDS, free_port(), limit=SHARDS_A_WORKER)
            began = datetime.now(UTC)
            scan = made.scan(source)
            if await made.code(scan):
                raise SystemExit(made.said(scan))
        return _use(world, workers, (datetime.now(UTC) - began).total_seconds())


def _use(world: Scanning, workers: int, command_s: float) -> Use:
    connects, closes, done = (world.seen.events(name) for name in ("connect", "close", "done"))
    opened = {line["session"]: datetime.fromisoformat(line["at"]) for line in connects}
    closed = {line["session"]: datetime.fromisoformat(line["at"]) for line in closes}
    wall_s = (max(closed.values()) - min(opened.values())).total_seconds()
    held_s = sum((closed[session] - opened[session]).total_seconds() for session in opened)
    audio = {line["session"]: line["summary"]["duration_ms"] / 1000 for line in done}
    audio_s = sum(audio.values())
    full = min((datetime.fromisoformat(line["at"]) for line in connects if line["live"] == LIMIT), default=min(opened.values()))
    window = full, max(opened.values())
    ((processes,),) = world.ask("SELECT count(DISTINCT worker) FROM attempts")
    return Use(
        workers=workers,
        processes=processes,
        objects=len(done),
        audio_s=round(audio_s, 1),
        wall_s=round(wall_s, 1),
        command_s=round(command_s, 1),
        peak=max(line["live"] for line in connects),
        share=round(audio_s / (LIMIT * SPEED * wall_s), 3),
        steady=round(_steady(opened, closed, audio, *window), 3),
        busy=round(held_s / (LIMIT * wall_s), 3),
        load=round(os.getloadavg()[1], 1),
    )


def _steady(
    opened: Mapping[int, datetime], closed: Mapping[int, datetime], audio: Mapping[int, float], begin: datetime, end: datetime
) -> float:
    """What was streamed between two instants, of what the limit allows; the audio of a session is spread evenly over its time."""
    streamed_s = 0.0
    for session, audio_s in audio.items():
        within = (min(closed[session], end) - max(opened[session], begin)) / (closed[session] - opened[session])
        streamed_s += audio_s * max(0.0, within)
    return streamed_s / (LIMIT * SPEED * (end - begin).total_seconds())


def show(report: Told, uses: Sequence[Use]) -> None:
    """The uses as a table, and whether each is what was asked for."""
    columns = (
        "workers",
        "objects",
        "audio-h",
        "wall, s",
        "of the limit",
        "once it was reached",
        "slots held",
        "peak",
        "command, s",
        "load",
    )
    rows = [
        (
            f"{each.workers}",
            f"{each.objects:,}",
            f"{each.audio_s / 3600:.2f}",
            f"{each.wall_s:,.0f}",
            f"{each.share:.1%}",
            f"{each.steady:.1%}",
            f"{each.busy:.1%}",
            f"{each.peak}",
            f"{each.command_s:,.0f}",
            f"{each.load}",
        )
        for each in uses
    ]
    report.table(f"limit {LIMIT}, {SPEED:.0f} times real time, raw audio of 8 kHz", columns, rows)
    report.figures["uses"] = [asdict(each) for each in uses]
    for each in uses:
        report.verdict(f"share of the limit with {each.workers} workers", each.share, f">= {TARGET}", reached=each.share >= TARGET)


def main(
    *,
    workers: tuple[int, ...] = (1, 2, 4),
    minutes: float = 10.0,
    json_file: Annotated[Path | None, cyclopts.Parameter("--json")] = None,
) -> None:
    """Measure, and print a table.

    Parameters
    ----------
    workers
        How many workers, one number for each run.
    minutes
        How long the catalogue takes at the limit.
    json_file
        Where to write the figures.
    """
    report = Told(json_file)
    with tempfile.TemporaryDirectory() as place, cluster() as database:
        folder = Path(place)
        catalogue(folder / "catalogue", minutes)
        with server(folder, free_port(), database) as prefect:
            uses = []
            for number in workers:
                own = folder / f"{number}"
                own.mkdir()
                uses.append(asyncio.run(use(own, folder / "catalogue", prefect, database, number)))
    show(report, uses)
    report.end()


if __name__ == "__main__":
    cyclopts.run(main)
