"""What the result lake costs: frames from messages to Parquet, beside polars' writer and naive pyarrow, and the rate of compaction.

All take the same messages of music sessions whose probabilities are smooth and have four decimals. `ours` reads them as a session does and
publishes them as a package, with its other datasets; `polars` reads them the same way, and writes the rows by its settings; `pyarrow` is
what a script would do: json.loads, a dict a row, Table.from_pylist, write_table as it comes. They take turns in one process, the order
turned each round, so that their ratios can be trusted on a shared machine.
"""

import json
import multiprocessing
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec.structs import replace
from rich.console import Console
from rich.table import Table

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))

from connectors.lake.packages import write_package
from connectors.lake.store import FolderStore
from moderation.endpoints import ENDPOINTS
from moderation.messages import TIMES, Frame, decode, encode
from moderation.results import Columns, SpooledSession
from smooth_frames import RUN, smooth_session
from tasks.compact import compact_days

DAY = date(2026, 3, 1)
MUSIC = ENDPOINTS["music"]
PACKAGES = 8
"""Files that one compaction merges."""
Session = tuple[SpooledSession, list[str]]
"""A session without its items, and its messages."""


def session_of(seed: int, frames: int) -> Session:
    """A session of smooth probabilities."""
    spooled = smooth_session(seed, frames)
    values = (np.frombuffer(spooled.items[name], "<i8" if name in TIMES else "<f8").tolist() for name in MUSIC.item_type.__struct_fields__)
    named = (dict(zip(MUSIC.item_type.__struct_fields__, row, strict=True)) for row in zip(*values, strict=True))
    return replace(spooled, items={}), [encode(Frame(**row)) for row in named]


def columns_of(messages: Sequence[str]) -> Columns:
    """The frames of messages, as a session keeps them."""
    columns = Columns(MUSIC)
    for message in messages:
        columns.append(decode(message, MUSIC.item_name, MUSIC.item_type, MUSIC.done_type).message)
    return columns


def ours(sessions: Sequence[Session], folder: Path) -> int:
    """Publish a package; the bytes of its frames."""
    store = FolderStore(folder)
    spooled = [replace(session, items=columns_of(messages).packed()) for session, messages in sessions]
    [frames, *_] = write_package(store, f"{RUN}-p0001", RUN, DAY, spooled)
    return store.size(frames)


def with_polars(sessions: Sequence[Session], folder: Path) -> int:
    """Write the same rows with polars."""
    frames = []
    for session, messages in sessions:
        columns = columns_of(messages)
        named = {name: np.frombuffer(values, values.typecode) for name, values in (columns.times | columns.measures).items()}
        identity = [pl.lit(session.object_id).alias("object_id"), pl.lit(session.session_id).alias("session_id")]
        frames.append(pl.DataFrame(named).select(*identity, pl.int_range(pl.len()).alias("frame_index"), pl.all()))
    pl.concat(frames).sort("object_id", "session_id", "frame_index").write_parquet(folder / "x.parquet", compression_level=3)
    return (folder / "x.parquet").stat().st_size


def naive_pyarrow(sessions: Sequence[Session], folder: Path) -> int:
    """Write the same rows as a script would."""
    rows = [
        {"object_id": session.object_id, "session_id": session.session_id, "frame_index": place, **json.loads(message)["frame"]}
        for session, messages in sessions
        for place, message in enumerate(messages)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "x.parquet")
    return (folder / "x.parquet").stat().st_size


WRITERS: dict[str, Callable[[Sequence[Session], Path], int]] = {"ours": ours, "polars": with_polars, "pyarrow": naive_pyarrow}


def compacted(sessions: Sequence[Session]) -> float:
    """CPU-seconds of merging packages of these sessions, which includes that each file is verified."""
    with tempfile.TemporaryDirectory() as folder:
        store = FolderStore(Path(folder))
        for number in range(PACKAGES):
            members = [replace(session, items=columns_of(messages).packed()) for session, messages in sessions[number::PACKAGES]]
            write_package(store, f"{RUN}-p{number:04}", RUN, DAY, members)
        before = time.process_time()
        done = compact_days(store, date(2026, 3, 9), lambda *_: None)
        assert done.merged == 2 * PACKAGES
        return time.process_time() - before


def _cost(writer: str, sessions: Sequence[Session]) -> tuple[float, int]:
    """CPU-seconds and bytes."""
    with tempfile.TemporaryDirectory() as folder:
        before = time.process_time()
        size = WRITERS[writer](sessions, Path(folder))
        return time.process_time() - before, size


def main(
    *,
    sessions: int = 32,
    frames: int = 18_750,
    rounds: int = 5,
    json_file: Annotated[Path | None, cyclopts.Parameter("--json")] = None,
) -> None:
    """Measure, and print a table.

    Parameters
    ----------
    sessions
        Sessions of a package.
    frames
        Frames of a session; 18,750 are an hour.
    rounds
        How often each writer has its turn.
    json_file
        Where to write the figures.
    """
    made = [session_of(seed, frames) for seed in range(sessions)]
    rows = sessions * frames
    spent: dict[str, list[float]] = {writer: [] for writer in WRITERS}
    sizes = {}
    for number in range(rounds):
        for writer in list(WRITERS)[:: -1 if number % 2 else 1]:
            cpu_s, sizes[writer] = _cost(writer, made)
            spent[writer].append(cpu_s)
    merging = [compacted(made) for _ in range(rounds)]
    report = machine() | {"rows": rows, "rounds": rounds}
    report["writers"] = {writer: _figures(spent[writer], spent["ours"], rows) | {"bytes_a_row": sizes[writer] / rows} for writer in WRITERS}
    report["compaction"] = _figures(merging, merging, rows) | {"packages": PACKAGES}
    show(report)
    if json_file:
        json_file.write_text(json.dumps(report, indent=2) + "\n")


def _figures(spent: Sequence[float], of_ours: Sequence[float], rows: int) -> dict[str, Any]:
    rates = sorted(rows / cpu_s for cpu_s in spent)
    ratios = sorted(own / cpu_s for own, cpu_s in zip(of_ours, spent, strict=True))
    return {
        "rows_per_cpu_s": round(statistics.median(rates)),
        "range": [round(rates[0]), round(rates[-1])],
        "of_ours": round(statistics.median(ratios), 3),
        "of_ours_range": [round(ratios[0], 3), round(ratios[-1], 3)],
    }


def machine() -> dict[str, Any]:
    """Where this was measured, and with which versions."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.system()} {platform.machine()}, {multiprocessing.cpu_count()} cores",
        "python": platform.python_version(),
        "versions": {package: version(package) for package in ("pyarrow", "polars", "msgspec", "numpy")},
    }


def show(report: dict[str, Any]) -> None:
    """The report as a table."""
    console = Console(width=120)
    versions = ", ".join(f"{package} {number}" for package, number in report["versions"].items())
    console.print(f"{report['machine']}; Python {report['python']}, {versions}", highlight=False)
    table = Table(title=f"{report['rows']:,} frames from messages to Parquet, {report['rounds']} rounds", title_justify="left")
    for title in ("writer", "rows a CPU-second", "range", "of ours, by rounds", "bytes a row"):
        table.add_column(title, justify="left" if title == "writer" else "right")
    for writer, row in report["writers"].items():
        low, high = row["of_ours_range"]
        rates = (f"{row['rows_per_cpu_s']:,}", "{:,} to {:,}".format(*row["range"]), f"{row['of_ours']:.2f} ({low:.2f} to {high:.2f})")
        table.add_row(writer, *rates, f"{row['bytes_a_row']:.2f}")
    merging = report["compaction"]
    console.print(table)
    console.print(
        f"compaction of {merging['packages']} packages: {merging['rows_per_cpu_s']:,} rows a CPU-second "
        "({:,} to {:,}), every file verified".format(*merging["range"]),
        highlight=False,
    )


if __name__ == "__main__":
    cyclopts.run(main)
