"""Maintenance of the results that settings name: what was found in them, for people and as JSON."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from connectors.lake.store import FolderStore, ResultStore, open_store
from flows.console import stderr
from flows.places import results_of
from flows.results import s3_of
from flows.settings import Settings
from flows.teller import Teller
from moderation.errors import ConfigurationError
from moderation.outcomes import ExitCode
from moderation.printable import printable
from tasks.compact import Compacted, compact_days
from tasks.verify import Verified, verify

MOVE = (
    "Until this has ended, whoever reads the files by a bare glob can see rows twice, in a merged file and in its originals; "
    "where it breaks off, until it is run again."
)
SHOWN_ROWS = 100
"""Findings that a table shows; --json has all."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found in the results at an address."""

    results: str
    found: Verified

    @property
    def exit_code(self) -> ExitCode:
        """0 where nothing is wrong."""
        return ExitCode.FOUND if self.found.findings else ExitCode.OK

    def as_json(self) -> dict[str, Any]:
        """The same as one JSON object, with every finding."""
        found = self.found
        findings = [
            {"file": each.name, "problem": each.problem.value, "what": each.what, "remedy": each.problem.remedy} for each in found.findings
        ]
        counts = {"files": found.files, "rows": found.rows, "unproven": found.unproven}
        return {"results": self.results, **counts, "findings": findings, "exit_code": int(self.exit_code)}

    def sentence(self) -> str:
        """The same in a sentence."""
        found = self.found
        wrong = f"{len(found.findings):,} things are wrong" if found.findings else "nothing is wrong"
        unproven = f"; {found.unproven:,} files are of another version of Arrow: their filters and page indexes could not be checked"
        return f"{found.files:,} files with {found.rows:,} rows in {self.results}: {wrong}{unproven if found.unproven else ''}."

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """The first findings: file, what is wrong, what to do; what is not printable is escaped, since names can be anybody's."""
        for each in self.found.findings[:SHOWN_ROWS]:
            yield printable(each.name), printable(each.what), each.problem.remedy


@dataclass(frozen=True, slots=True)
class Compaction:
    """What was done with the results at an address."""

    results: str
    before: date
    done: Compacted

    def as_json(self) -> dict[str, Any]:
        """The same as one JSON object."""
        return {"results": self.results, "before": self.before.isoformat(), **asdict(self.done), "exit_code": int(ExitCode.OK)}

    def sentence(self) -> str:
        """The same in a sentence."""
        done = self.done
        nothing = "nothing is left to compact"
        moved = f"{done.merged:,} files have become {done.made:,}, and {done.deleted:,} were deleted" if done.deleted else nothing
        return f"{done.days:,} days before {self.before} in {self.results}: {moved}."


def verify_results(settings: Settings, now: Callable[[], datetime], since: date | None = None) -> Verification:
    """Look through the results of the settings. Raises ConfigurationError where there are none, and what the store raises."""
    store = _open_results(settings)
    return Verification(store.url, verify(store, now(), Teller("files verified"), since))


def compact_results(settings: Settings, now: Callable[[], datetime], before: date | None = None) -> Compaction:
    """Compact the days before one, or before yesterday. Raises as `compact_days` does, and ConfigurationError without results."""
    before = before or now().date() - timedelta(days=1)
    store = _open_results(settings)
    stderr.print(MOVE, highlight=False, soft_wrap=True)
    return Compaction(store.url, before, compact_days(store, before, Teller("datasets of days compacted")))


def print_verification(done: Verification, console: Console) -> None:
    """A table of findings, if there are any, and a sentence."""
    if done.found.findings:
        table = Table("file", "what is wrong", "what to do", show_lines=True)
        for row in done.rows():
            table.add_row(*(Text(cell, overflow="fold") for cell in row))
        console.print(table)
    if (more := len(done.found.findings) - SHOWN_ROWS) > 0:
        console.print(f"... and {more:,} more: --json has all.", highlight=False)
    console.print(Text(done.sentence()), soft_wrap=True)


def _open_results(settings: Settings) -> ResultStore:
    url = results_of(settings)
    store = open_store(url, s3_of(url))
    if isinstance(store, FolderStore) and not Path(store.url).is_dir():
        raise ConfigurationError(f"There is no results folder {store.url}: check --results, or run a scan first.")
    if not any(True for _ in store.list("")):
        raise ConfigurationError(f"There are no results in {store.url} yet: run a scan first.")
    return store
