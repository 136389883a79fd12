"""The review of decisions over the results that settings name: sheets out to people and back, for people and as JSON."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table

from flows.console import shown
from flows.deciding import opened
from flows.notifying import notices_of
from flows.person import who
from flows.settings import Settings
from flows.telling import tell_answers
from moderation.identity import run_id
from moderation.outcomes import ExitCode
from tasks.records import Run
from tasks.review import TO_REVIEW, check_answers, given_answers, overturned, precision, queue, record_answers, standing
from tasks.review_sheets import read_sheet, write_sheet


@dataclass(frozen=True, slots=True)
class Exported:
    """A sheet for people: its file and how many rows it has."""

    org: str
    file: Path
    rows: int

    def as_json(self) -> dict[str, Any]:
        """The same as one JSON object."""
        return {"org": self.org, "file": str(self.file), "rows": self.rows, "exit_code": int(ExitCode.OK)}

    def sentence(self) -> str:
        """The same in a sentence."""
        return f"{self.file} has {self.rows:,} decisions of {self.org} to be answered (allow, block or unsure in the column answer)."


@dataclass(frozen=True, slots=True)
class Imported:
    """What was taken of a sheet that came back; file is in the results, None where nothing in the sheet was new."""

    org: str
    new: int
    repeated: int
    file: str | None
    run: Run
    overturned: pl.DataFrame

    def as_json(self) -> dict[str, Any]:
        """The same as one JSON object."""
        return {"org": self.org, "new": self.new, "repeated": self.repeated, "file": self.file} | {
            "changed_decisions": self.overturned.height,
            "exit_code": int(ExitCode.OK),
        }

    def sentence(self) -> str:
        """The same in a sentence."""
        return f"{self.new:,} answers about objects of {self.org} are new; {self.repeated:,} were on record already."


def export(settings: Settings, file: Path, where: str | None, limit: int | None) -> Exported:
    """Write what waits for a person into a file. Raises as `tasks.review.queue`, AnswersRefused for a file that is no sheet."""
    _, open_lake = opened(settings)
    with open_lake() as lake:
        rows = queue(lake, settings.org, TO_REVIEW if where is None else where, limit)
    write_sheet(rows, file)
    return Exported(settings.org, file, rows.height)


def take_in(settings: Settings, file: Path, reviewer: str | None, now: Callable[[], datetime]) -> Imported:
    """Put the answers of a sheet on record: all of them, or none. Raises AnswersRefused that names the rows."""
    store, open_lake = opened(settings)
    at = now()
    answers = given_answers(read_sheet(file), reviewer or who(), at)
    with open_lake() as lake:
        checked = check_answers(lake, settings.org, answers, at)
        answered = [row["object_id"] for row in checked.rows]
        before = standing(lake, answered)
    run = Run(run_id(at, secrets.token_bytes(3)), settings.org, at)
    written = record_answers(store, run, checked)
    with open_lake() as lake:
        turned = overturned(before, standing(lake, answered))
    return Imported(settings.org, len(checked.rows), checked.repeated, written, run, turned)


async def tell_imported(settings: Settings, done: Imported) -> None:
    """Tell those whom the settings name what the answers have changed."""
    if done.file is not None:
        await tell_answers(notices_of(settings), done.overturned, done.file, done.run)


def rule_precision(settings: Settings) -> pl.DataFrame:
    """How often people agree with each rule, month by month: see `tasks.review.precision`."""
    _, open_lake = opened(settings)
    with open_lake() as lake:
        return precision(lake)


def print_precision(rows: pl.DataFrame, console: Console) -> None:
    """A table of rules and months."""
    if rows.is_empty():
        console.print("Nobody has answered yet: soundcheck review export, then import.", highlight=False)
        return
    table = Table("month", "rule", "expected")
    for name in ("agreed", "disagreed", "precision"):
        table.add_column(name, justify="right")
    for row in rows.iter_rows(named=True):
        figures = (f"{row['agreed']:,}", f"{row['disagreed']:,}", f"{100 * row['agreement']:.1f} %")
        table.add_row(f"{row['month']:%Y-%m}", shown(row["rule_id"]), row["expected"], *figures)
    console.print(table)
