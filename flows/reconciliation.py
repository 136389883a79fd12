"""`soundcheck reconcile`: catalogue, ledger and lake of the settings held against each other, for people and as JSON."""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any

from rich.console import Console
from rich.table import Table

from connectors.lake.reconciliation import Reconciled, Reconciliation
from connectors.lake.store import open_store
from flows.console import shown
from flows.places import open_ledger, results_of
from flows.results import s3_of
from flows.settings import Settings
from flows.teller import Teller
from moderation.identity import lake_id
from moderation.outcomes import ExitCode
from moderation.printable import printable
from moderation.reconciliation import Symbol, Why
from tasks.query import open_results
from tasks.reconcile import reconciled

SHOWN_ROWS = 100
"""Objects that a table shows; --json has all that are not explained."""
Counts = list[tuple[str, Why, str, int]]
"""(endpoint, why, reason, objects)."""


@dataclass(frozen=True, slots=True)
class ReconciliationReport:
    """What was found in the results at an address; objects are asked for as they are needed."""

    results: str
    counts: Counts
    found: Reconciliation

    @property
    def symbols(self) -> dict[str, Counter[Symbol]]:
        """How many objects of each endpoint have each symbol."""
        told: defaultdict[str, Counter[Symbol]] = defaultdict(Counter)
        for endpoint, why, _, objects in self.counts:
            told[endpoint][why.symbol] += objects
        return told

    @property
    def unexplained(self) -> int:
        """How many are not explained."""
        return sum(objects for _, why, _, objects in self.counts if not why.symbol.is_explained)

    @property
    def exit_code(self) -> ExitCode:
        """0 where all is explained."""
        return ExitCode.FOUND if self.unexplained else ExitCode.OK

    def as_json(self, *, every: bool) -> dict[str, Any]:
        """The same as one JSON object, with all that is not explained, or with every object."""
        rows = self.found.rows(unexplained=not every)
        return {
            "results": self.results,
            "endpoints": {
                endpoint: {"skipped" if symbol is Symbol.SKIPPED else symbol.value: told[symbol] for symbol in Symbol}
                for endpoint, told in self.symbols.items()
            },
            "reasons": [
                {"endpoint": endpoint, "symbol": why.symbol.value, "why": why.name.lower(), "reason": reason or None, "objects": objects}
                for endpoint, why, reason, objects in self.counts
            ],
            "objects" if every else "unexplained": [_as_json(row) for row in rows],
            "exit_code": int(self.exit_code),
        }

    def lines(self) -> Iterator[str]:
        """Every object on a line: symbol, endpoint, where it is or, where nobody knows that, its id."""
        for row in self.found.rows(unexplained=False):
            yield f"{row.why.symbol.value} {row.endpoint} {printable(_place(row))}"

    def sentence(self) -> str:
        """The same in a sentence."""
        objects = sum(objects for _, _, _, objects in self.counts)
        end = f"{self.unexplained:,} are not explained" if self.unexplained else "all are explained"
        return f"{objects:,} objects and endpoints in {self.results}: {end}."

    def rows(self) -> Iterator[tuple[str, str, str, str, str]]:
        """The first that are not explained: symbol, endpoint, object, what is wrong, what to do."""
        for row in islice(self.found.rows(unexplained=True), SHOWN_ROWS):
            yield row.why.symbol.value, row.endpoint, printable(_place(row)), row.why.words, row.why.remedy


@asynccontextmanager
async def reconciled_results(
    settings: Settings, now: Callable[[], datetime], sources: Sequence[str]
) -> AsyncIterator[ReconciliationReport]:
    """Reconcile the results of the settings. Raises ConfigurationError where there are none, or nobody has listed a source."""
    url = results_of(settings)
    s3 = s3_of(url)
    lake, tell = lake_id(open_store(url, s3).url), Teller("sessions of the ledger read")
    open_lake = partial(open_results, url, s3)
    async with (
        open_ledger(settings) as ledger,
        reconciled(ledger, lake, open_lake, now(), sources, tell) as found,
    ):
        yield ReconciliationReport(url, found.counts(), found)


def print_reconciliation(done: ReconciliationReport, console: Console) -> None:
    """How many objects have each symbol, and why; those that are not explained; and a sentence."""
    table = Table("endpoint", "", "objects", "why")
    table.columns[2].justify = "right"
    for endpoint, why, reason, objects in done.counts:
        table.add_row(endpoint, why.symbol.value, f"{objects:,}", f"{why.words}{f' ({reason})' if reason else ''}")
    console.print(table)
    if done.unexplained:
        wrong = Table("", "endpoint", "object", "what is wrong", "what to do", show_lines=True)
        for row in done.rows():
            wrong.add_row(*map(shown, row))
        console.print(wrong)
    if (more := done.unexplained - SHOWN_ROWS) > 0:
        console.print(f"... and {more:,} more: --json has all.", highlight=False)
    console.print(shown(done.sentence()), soft_wrap=True)


def _place(row: Reconciled) -> str:
    if row.key is None:
        return row.object_id
    return f"{row.bucket}/{row.key}"


def _as_json(row: Reconciled) -> dict[str, Any]:
    place = {"endpoint": row.endpoint, "bucket": row.bucket, "key": row.key, "object_id": row.object_id}
    said = {"symbol": row.why.symbol.value, "why": row.why.name.lower(), "reason": row.reason or None}
    return place | said | {"what": row.why.words, "remedy": row.why.remedy or None}
