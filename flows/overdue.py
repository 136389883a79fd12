"""Whether scans complete as often as they are to: what no run can tell, as there may be none. Told once until one is in time again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from connectors.lake.query import connect
from connectors.notices import Notice
from flows.notifying import forget, notices_of, tell_once
from flows.places import open_ledger, results_of
from flows.report import COMPLETED
from flows.request import FlowName
from flows.results import s3_of
from flows.settings import Settings
from moderation.outcomes import ExitCode

CAUSE = "Overdue"
"""The cause of a notice about it, with the source where one was named."""


@dataclass(frozen=True, slots=True)
class LastRun:
    """A scan by its name, its start, and the state that it is in or has ended with."""

    run_id: str
    started_at: datetime
    state: str


@dataclass(frozen=True, slots=True)
class Punctuality:
    """How an organisation's scans of a source, or of any, have kept to an interval, at an instant.

    A scan is to have completed before the next one is due; so one is overdue when the last that completed began two intervals ago.
    """

    results: str
    org: str
    source: str | None
    every: timedelta
    at: datetime
    completed: LastRun | None
    newest: LastRun | None

    @property
    def is_overdue(self) -> bool:
        """Whether a scan should have completed that has not."""
        return self.completed is None or self.at - self.completed.started_at > 2 * self.every

    @property
    def exit_code(self) -> ExitCode:
        """0 where scans are in time."""
        return ExitCode.FOUND if self.is_overdue else ExitCode.OK

    @property
    def cause(self) -> str:
        """The word by which people are told of it once."""
        return CAUSE if self.source is None else f"{CAUSE}:{self.source}"

    def sentence(self) -> str:
        """The same in a sentence."""
        scans = f"scan of {self.source or 'any source'} by {self.org} in {self.results}"
        last = "none is on record" if self.completed is None else f"the last one that did began {_when(self.completed)}"
        if not self.is_overdue:
            return f"The {scans} is in time for one every {self._hours}: {last}."
        newest = "" if self.newest in {None, self.completed} else f"; the newest, {self.newest.run_id}, is {self.newest.state}"
        return f"No {scans} has completed in time for one every {self._hours}: {last}{newest}."

    @property
    def _hours(self) -> str:
        return f"{self.every / timedelta(hours=1):g} h"

    def as_json(self) -> dict[str, Any]:
        """The same as one JSON object."""
        return {
            "results": self.results,
            "org": self.org,
            "source": self.source,
            "every_hours": self.every / timedelta(hours=1),
            "overdue": self.is_overdue,
            "completed": _as_json(self.completed),
            "newest": _as_json(self.newest),
            "exit_code": int(self.exit_code),
        }


async def look_for_scans(settings: Settings, sources: Sequence[str], every: timedelta, now: Callable[[], datetime]) -> Punctuality:
    """Look at the records of an organisation's scans, and tell its people once where one is overdue.

    sources are those of the scan, written as for it; without any every scan counts. Settings are the organisation's own.
    """
    found = _look(settings, ", ".join(sources) or None, every, now())
    async with open_ledger(settings) as ledger:
        if found.is_overdue:
            newest = None if found.newest is None else found.newest.run_id
            notice = Notice(found.org, found.cause, newest, found.sentence(), found.exit_code)
            await tell_once(ledger, notices_of(settings), notice)
        else:
            await forget(ledger, found.org, [found.cause])
    return found


def _look(settings: Settings, source: str | None, every: timedelta, at: datetime) -> Punctuality:
    url = results_of(settings)
    query = """
        SELECT run_id, started_at, state FROM runs_latest
        WHERE org = ? AND flow = ? AND (source = ? OR ? IS NULL) AND (state = ? OR NOT ?)
        ORDER BY run_id DESC LIMIT 1
    """
    with connect(url, s3_of(url), only=("runs",)) as lake:
        asked = (settings.org, FlowName.SCAN.value, source, source, COMPLETED)
        rows = [lake.execute(query, [*asked, only_completed]).fetchone() for only_completed in (True, False)]
    completed, newest = (None if row is None else LastRun(*row) for row in rows)
    return Punctuality(url, settings.org, source, every, at, completed, newest)


def _when(run: LastRun) -> str:
    return f"{run.started_at:%Y-%m-%d %H:%M} UTC"


def _as_json(run: LastRun | None) -> dict[str, str] | None:
    return None if run is None else {"run_id": run.run_id, "started_at": run.started_at.isoformat(), "state": run.state}
