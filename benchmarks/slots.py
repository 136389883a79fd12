"""How much of an organisation's limit a scan uses: audio-hours over limit x speed x wall, on a catalogue of which few objects are long.

The lengths are log-normal between 10 s and 2 h; the local Velma server has the stub detector, admits LIMIT connections and analyses at
SPEED times real time, so that a slot that is used gives SPEED seconds of audio a second. What counts is what the server's journal says:
from the moment when the limit is first reached until the queue is empty (the last object's connection begins), and over the whole scan,
which ends with a tail that no order of the objects avoids.
"""

import asyncio
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from measuring import Told, process, spending
from services import BUCKET, KEY, Lengths, Service, local_s3, put, velma

from flows.console import stderr
from flows.launch import scan_directly
from flows.setting_types import RawRule
from flows.settings import fixed_settings
from flows.watch import Watch

LIMIT = 5
SPEED = 60.0
LENGTHS = Lengths(median_s=180.0, sigma=1.1, shortest_s=10.0, longest_s=7200.0)
"""One object in fifty is longer than half an hour."""
RATE = 16_000
RAW = RawRule(glob="*.ulaw", audio_format="mulaw", sample_rate=RATE, num_channels=1)
"""Small audio whose length is exact, at the rate at which the local server listens: to resample so much would keep it from its pace."""
ASKED = 0.97


@dataclass(frozen=True, slots=True)
class Use:
    """Shares of the slots' time in which audio flowed. open_share is that in which a connection was open at all."""

    filled: float
    open_share: float
    overall: float
    reached_after_s: float
    filled_s: float
    wall_s: float
    peak: int


def scan(pipe: Connection, url: str, out: str) -> None:
    """Scan the catalogue; says what that took."""
    logging.disable(logging.WARNING)
    stderr.quiet = True
    settings = fixed_settings(api_key=KEY, results=out, velma_url=url, connections=LIMIT, endpoints=["music"], raw_rules=[RAW])
    with spending() as spent:
        report = asyncio.run(scan_directly(settings, f"s3://{BUCKET}/", Watch()))
    pipe.send((report.counts(), spent.cpu_s, spent.wall_s))
    pipe.poll(None)
    os._exit(0)


def use(events: Sequence[dict[str, Any]], wall_s: float, speed: float) -> Use:
    """The shares by the journal: a session gives its audio evenly between its first byte and its done."""
    sessions: dict[int, dict[str, Any]] = {}
    for event in events:
        if "session" in event:
            sessions.setdefault(event["session"], {})[event["event"]] = datetime.fromisoformat(event["at"]).timestamp()
            if event["event"] == "close":
                sessions[event["session"]]["audio_s"] = event["audio_ms"] / 1000
    whole = [each for each in sessions.values() if {"connect", "first_audio", "done", "close"} <= each.keys()]
    starts = sorted(each["connect"] for each in whole)
    full_from = next(at for at in starts if sum(each["connect"] <= at < each["close"] for each in whole) >= LIMIT)
    full_until = starts[-1]
    span = full_until - full_from
    heard = sum(_share(each["first_audio"], each["done"], full_from, full_until) * each["audio_s"] for each in whole)
    opened = sum(max(0.0, min(each["close"], full_until) - max(each["connect"], full_from)) for each in whole)
    total = sum(each["audio_s"] for each in whole)
    peak = max(sum(other["connect"] <= each["connect"] < other["close"] for other in whole) for each in whole)
    return Use(
        filled=heard / (LIMIT * speed * span),
        open_share=opened / (LIMIT * span),
        overall=total / (LIMIT * speed * wall_s),
        reached_after_s=full_from - starts[0],
        filled_s=span,
        wall_s=wall_s,
        peak=peak,
    )


def _share(begin: float, end: float, low: float, high: float) -> float:
    """How much of a span lies between two instants."""
    return max(0.0, min(end, high) - max(begin, low)) / (end - begin) if end > begin else 0.0


def measure(service: Service, journal: Path, speed: float) -> tuple[Use, dict[str, Any], float]:
    """One scan of everything in the bucket."""
    with tempfile.TemporaryDirectory() as out, process(scan, service.url, out) as (pipe, _):
        counts, cpu_s, wall_s = pipe.recv()
    events = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    return use(events, wall_s, speed), counts, cpu_s


def main(
    *,
    hours: float = 6.0,
    speed: float = SPEED,
    json_file: Annotated[Path | None, cyclopts.Parameter("--json")] = None,
) -> None:
    """Measure, and print a table.

    Parameters
    ----------
    hours
        Audio-hours of the catalogue.
    speed
        Times real time at which the server analyses.
    json_file
        Where to write the figures.
    """
    report = Told(json_file)
    seconds = LENGTHS.drawn(hours)
    with tempfile.TemporaryDirectory() as name, local_s3():
        put("", [(f"{number:05}.ulaw", b"\xff" * round(length * RATE)) for number, length in enumerate(seconds)])
        journal = Path(name) / "journal"
        with velma(LIMIT, speed=speed, journal=journal) as service:
            found, counts, cpu_s = measure(service, journal, speed)
    catalogue = f"{len(seconds)} objects of {min(seconds):.0f} to {max(seconds):.0f} s, {sum(seconds) / 3600:.1f} audio-hours"
    title = f"{catalogue}, limit {LIMIT}, {speed:g} x real time"
    columns = ("", "audio / (limit x speed x wall)", "slots open", "s")
    rows = [
        ("limit reached until queue empty", f"{found.filled:.1%}", f"{found.open_share:.1%}", f"{found.filled_s:.1f}"),
        ("the whole scan", f"{found.overall:.1%}", "", f"{found.wall_s:.1f}"),
    ]
    report.table(title, columns, rows)
    report.say(f"limit reached {found.reached_after_s:.1f} s after the first connection, never passed: {found.peak}; {cpu_s:.1f} CPU-s")
    report.figures["slots"] = {name: getattr(found, name) for name in Use.__slots__} | {"counts": counts, "cpu_s": cpu_s}
    report.verdict("slot use while there is enough to do", found.filled, f">= {ASKED}", reached=found.filled >= ASKED)
    report.end()


if __name__ == "__main__":
    cyclopts.run(main)
