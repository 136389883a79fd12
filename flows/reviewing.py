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

from connectors.lake.untold import Untold
from flows.console import shown
from flows.notifying import notices_of
from flows.person import who
from flows.results import opened
from flows.settings import Settings
from flows.telling import tell_changes
from moderation.identity import run_id
from moderation.outcomes import ExitCode
from tasks.changes import read_changes
from tasks.records import Run
from tasks.review import TO_REVIEW, check_answers, given_answers, precision, queue, record_answers
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
    """What was taken of a sheet that came back; file is in the results, None where nothing in the sheet was new.

    changed counts objects whose decision the answers, taken at that instant, have made another.
    """

    org: str
    new: int
    repeated: int
    file: str | None
    changed: int
    at: datetime

    def as_json(self) -> dict[str, Any]:
        """The same as one JSON object."""
        return {"org": self.org, "new": self.new, "repeated": self.repeated, "file": self.file} | {
            "changed_decisions": self.changed,
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
    run = Run(run_id(at, secrets.token_bytes(3)), settings.org, at)
    written = record_answers(store, run, checked)
    changed = 0 if written is None else read_changes(store, open_lake, Untold(written, run.org, run.run_id, at)).total
    return Imported(settings.org, len(checked.rows), checked.repeated, written, changed, at)


async def tell_imported(settings: Settings, done: Imported) -> None:
    """Tell those whom the settings name what the answers have changed."""
    store, open_lake = opened(settings)
    await tell_changes(notices_of(settings), store, open_lake, settings.org, done.at)


def rule_precision(settings: Settings) -> pl.DataFrame:
    """How often people agree with each rule, month by month: see `tasks.review.precision`."""
    _, open_lake = opened(settings)
    with open_lake() as lake:
        return precision(lake, settings.org)


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
