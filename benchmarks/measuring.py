"""What the benchmarks of whole runs share: processes of their own, what they spend, and how that is told.

CPU is of the measured process and of the children that it has waited for; the servers are never among them. Memory is the peak of the
process alone, as the kernel keeps it.
"""

import json
import multiprocessing
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

PEAK = "VmHWM:"
KIB = 1024
WAIT_SECONDS = 30.0
PACKAGES = ("prefect", "websockets", "aiohttp", "boto3", "polars", "pyarrow", "duckdb", "sqlalchemy")


@dataclass(slots=True)
class Spent:
    """What a block of a process took: seconds of CPU and of the clock, the peak of its memory in MiB, and what it held before."""

    cpu_s: float = 0.0
    wall_s: float = 0.0
    peak_mib: float = 0.0
    before_mib: float = 0.0


@contextmanager
def spending() -> Iterator[Spent]:
    """The figures of the block, known when it has ended."""
    spent = Spent(before_mib=peak_mib())
    cpu, wall = cpu_seconds(), time.perf_counter()
    yield spent
    spent.cpu_s, spent.wall_s = cpu_seconds() - cpu, time.perf_counter() - wall
    spent.peak_mib = peak_mib()


def cpu_seconds() -> float:
    """CPU of this process and of the children that it has waited for."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def peak_mib(pid: int | str = "self") -> float:
    """The most memory that a process has had, 0 where the system does not say. ru_maxrss would begin with that of whoever started it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / KIB for line in lines if line.startswith(PEAK)), 0.0)


@contextmanager
def process(target: Callable[..., None], *arguments: Any) -> Iterator[tuple[Connection, BaseProcess]]:
    """A fresh interpreter that runs target(pipe, *arguments), and the pipe to it; the closed pipe is its word to end."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=target, args=(theirs, *arguments))
    child.start()
    theirs.close()
    try:
        yield ours, child
    finally:
        ours.close()
        child.join(WAIT_SECONDS)
        if child.is_alive():
            child.kill()
        child.join()


def spread(values: Iterable[float], digits: int = 3) -> dict[str, float]:
    """The median of some figures, and the least and the greatest."""
    ordered = sorted(values)
    return {"median": round(statistics.median(ordered), digits), "min": round(ordered[0], digits), "max": round(ordered[-1], digits)}


def told(figures: Mapping[str, float], form: str = ".2f") -> str:
    """A spread in words: the median, and in brackets from where to where."""
    median, low, high = (format(figures[name], form) for name in ("median", "min", "max"))
    return median if low == high else f"{median} ({low} to {high})"


def machine() -> dict[str, Any]:
    """Where and when this was measured, with which versions, and how busy the machine was when it began."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.system()} {platform.machine()}, {multiprocessing.cpu_count()} cores",
        "load_before": round(_load(), 2),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
    }


def _load() -> float:
    try:
        lines = Path("/proc/loadavg").read_text(encoding="ascii")
    except OSError:
        return 0.0
    return float(lines.split()[0])


class Told:
    """The output of a benchmark: tables and sentences as they come, and one JSON file at the end."""

    def __init__(self, json_file: Path | None) -> None:
        self.console = Console(width=140)
        self._json_file = json_file
        self.figures: dict[str, Any] = machine()
        versions = ", ".join(f"{package} {number}" for package, number in self.figures["versions"].items())
        self.say(f"{self.figures['machine']}, load {self.figures['load_before']}; Python {self.figures['python']}, {versions}")

    def say(self, sentence: str) -> None:
        """A sentence."""
        self.console.print(sentence, highlight=False)

    def verdict(self, name: str, figure: float, bound: str, *, reached: bool) -> None:
        """Whether a figure is what was asked for."""
        self.figures.setdefault("asked", {})[name] = {"figure": round(figure, 3), "bound": bound, "reached": reached}
        self.say(f"{name}: {figure:.3f}, asked for {bound}: {'reached' if reached else 'NOT reached'}")

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """A table; only its first column is words."""
        table = Table(title=title, title_justify="left")
        for number, column in enumerate(columns):
            table.add_column(column, justify="right" if number else "left")
        for row in rows:
            table.add_row(*row)
        self.console.print(table)

    def end(self) -> None:
        """Write the figures."""
        if self._json_file:
            self._json_file.write_text(json.dumps(self.figures, indent=2) + "\n")
