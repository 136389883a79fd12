"""What people see of a run on a terminal: its progress on standard error, its summary on standard output."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from time import monotonic

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from flows.console import shown, stderr, stdout
from flows.report import CHANGE_COUNTS, Report, hours
from flows.watch import Watch
from moderation.outcomes import Reason
from moderation.printable import printable

REFRESH_SECONDS = 0.5
PLAIN_SECONDS = 10.0
"""How often a progress line is written where standard error is no terminal."""
NOT_DONE_ROWS = 25
"""Objects that are not done which a summary names; SQL has the rest."""


@asynccontextmanager
async def progress_shown(watch: Watch) -> AsyncIterator[None]:
    """Show a run's progress while the block runs: a live line on a terminal, else a line every ten seconds."""
    show = _live(watch) if stderr.is_terminal else _plain(watch)
    showing = asyncio.create_task(show)
    try:
        yield
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)


async def _plain(watch: Watch) -> None:
    started = monotonic()
    while True:
        await asyncio.sleep(PLAIN_SECONDS)
        stderr.print(shown(f"{watch.progress.line()}{_rate(watch, started)}"), soft_wrap=True)


async def _live(watch: Watch) -> None:
    started = monotonic()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn())
    with Progress(*columns, console=stderr, transient=True) as live:
        task = live.add_task("", total=1.0)
        while True:
            live.update(task, completed=watch.progress.share, description=printable(f"{watch.progress.line()}{_rate(watch, started)}"))
            await asyncio.sleep(REFRESH_SECONDS)


def _rate(watch: Watch, started: float) -> str:
    """The speed so far, as times real time, and the time left by it, an estimate as the plan's hours are."""
    progress, elapsed = watch.progress, monotonic() - started
    if not progress.audio_ms or not progress.share:
        return ""
    left = elapsed * (1 - progress.share) / progress.share
    return f", {progress.audio_ms / 1000 / elapsed:.0f} x real time, about {left / 60:.0f} min left (estimated)"


def print_summary(report: Report) -> None:
    """The end of a run: counts per endpoint, what is not done and why, where the Parquet lies."""
    counts = report.counts()
    table = Table(title=f"run {report.run_id}: {report.state}", title_justify="left")
    names = ("planned", "done", "quarantined", "skipped", "pending", "sessions", "audio_hours")
    table.add_column("endpoint")
    for name in names:
        table.add_column(name.replace("_", "-"), justify="right")
    for endpoint, figures in counts["endpoints"].items():
        table.add_row(endpoint, *(str(figures[name]) for name in names))
    stdout.print(table)
    _print_changes(counts["endpoints"])
    _print_not_done(report)
    if report.progress.at_risk_ms:
        stdout.print(f"Possibly billed without a result: {hours(report.progress.at_risk_ms)} audio-hours.")
    left_out = sum(figures["reasons"].get(Reason.SECOND_STAGE, 0) for figures in counts["endpoints"].values())
    if left_out:
        stdout.print(f"The cascade left out {left_out} objects: {hours(report.progress.saved_ms)} audio-hours saved.", highlight=False)
    if report.recovered:
        stdout.print(f"{report.recovered} sessions of earlier runs were published on the way.")
    stdout.print(f"{report.progress.sessions} sessions were streamed for {counts['objects']} objects.", highlight=False)
    if not report.progress.sessions:
        stdout.print("Nothing was paid.", highlight=False)
    if counts["decisions"]:
        decided = ", ".join(f"{count} {decision}" for decision, count in counts["decisions"].items())
        stdout.print(f"The policy's decisions on all that is known: {decided}.", highlight=False)
    if counts["left_out"]:
        reasons = ", ".join(f"{count} {why}" for why, count in counts["left_out"].items())
        stdout.print(f"Left out of the catalogue: {reasons}.", highlight=False)
    _print_skew(report)
    _print_places(report)
    if report.message:
        stderr.print(shown(f"soundcheck: {report.message}"), style="red", soft_wrap=True)


def _print_skew(report: Report) -> None:
    if report.skew_s:
        stdout.print(f"Clock skew: this host's clock was {report.skew_s:+d} s off. Stamps and months follow it: set it.", highlight=False)


def _print_places(report: Report) -> None:
    stdout.print(Text(f"Results: {report.results}"), soft_wrap=True)
    if report.page is not None:
        stdout.print(Text(f"Report: {report.page}"), soft_wrap=True)


def _print_changes(endpoints: Mapping[str, Mapping[str, object]]) -> None:
    for endpoint, figures in endpoints.items():
        if changes := ", ".join(f"{figures[name]} {name}" for name in CHANGE_COUNTS if figures[name] is not None):
            stdout.print(f"Against earlier results of {endpoint}: {changes}.", highlight=False)


def _print_not_done(report: Report) -> None:
    outcomes = {(outcome.object_id, outcome.reason): outcome for outcome in report.progress.outcomes}
    if not outcomes:
        return
    table = Table(title="not done", title_justify="left")
    for name in ("object", "standing", "reason", "detail"):
        table.add_column(name, overflow="fold")
    for outcome in list(outcomes.values())[:NOT_DONE_ROWS]:
        reason = outcome.reason.value if outcome.reason else ""
        table.add_row(shown(outcome.key), outcome.standing.value, reason, shown(outcome.detail))
    stdout.print(table)
    if len(outcomes) > NOT_DONE_ROWS:
        stdout.print(f"... and {len(outcomes) - NOT_DONE_ROWS} more: ask with soundcheck sql.", highlight=False)
