"""Reports of runs over the results that settings name: made, kept beside the run or in files of somebody's own, and told as JSON."""

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from duckdb import Error as DuckDBError
from pyarrow import ArrowException

from connectors.durable import replacing
from connectors.lake.packages import run_file
from connectors.lake.query import one_line
from connectors.lake.store import ResultStore
from connectors.s3 import S3Settings, audio_link, s3_client
from flows.console import shown, stderr
from flows.results import opened
from flows.settings import Settings
from flows.watch import Watch
from flows.wiring import Wired
from moderation.errors import ConfigurationError, SoundcheckError
from moderation.outcomes import ExitCode
from tasks.records import Run
from tasks.report import Asked, Link, RunReport, make_report
from tasks.report_figures import find_run, runs_between
from tasks.report_page import render
from tasks.review_sheets import fill_sheet

logger = logging.getLogger("soundcheck.report")
PAGE = "report.html"
FIGURES = "report.json"
SHEETS = ("flagged.csv", "flagged.parquet")
"""The files of a run's report in its folder."""


PAGES = (".html", ".htm")


class WrongReport(ConfigurationError):
    """A report that cannot be made as it is asked for."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True, slots=True)
class Reported:
    """A report and where its page is."""

    report: RunReport
    page: str

    def as_json(self) -> dict[str, Any]:
        """The same as one JSON object."""
        return {"page": self.page, **self.report.as_json(), "exit_code": int(ExitCode.OK)}

    def sentence(self) -> str:
        """The same in a sentence."""
        return f"{self.page} has {self.report.title}: {self.report.flagged.height:,} objects are flagged."


@dataclass(frozen=True, slots=True)
class Wanted:
    """Of what a report is to be: a run, the runs of some UTC days, or the newest run where nothing is said. out is a page of one's own."""

    run_id: str | None = None
    since: date | None = None
    until: date | None = None
    out: Path | None = None

    @property
    def days(self) -> bool:
        """Whether it is of days."""
        return self.since is not None or self.until is not None

    def title(self, run_id: str) -> str:
        """The title of the page."""
        return f"soundcheck, runs from {self.since or 'the first'} to {self.until or 'now'}" if self.days else f"soundcheck, run {run_id}"


def report_runs(settings: Settings, wanted: Wanted, now: Callable[[], datetime]) -> Reported:
    """Make a report and write it. Raises NoSuchRun, ConfigurationError, and what the store or the disk raises."""
    store, open_lake = opened(settings)
    if wanted.days and wanted.run_id is not None:
        raise WrongReport("a report is of a run or of days: leave one of them out")
    if wanted.days and wanted.out is None:
        raise WrongReport("a report over days belongs to no run: name its file with --out")
    if wanted.out is not None and wanted.out.suffix.lower() not in PAGES:
        raise WrongReport(f"{wanted.out.name} is no name of a page: let it end in .html")
    stderr.print(shown(f"reading {store.url} ..."), style="dim", soft_wrap=True)
    try:
        with open_lake() as lake:
            if wanted.days:
                runs = runs_between(lake, settings.org, wanted.since, wanted.until)
            else:
                runs = [find_run(lake, settings.org, wanted.run_id)]
            report = make_report(lake, asked_of(settings, runs, wanted.title(runs[0])), now())
    except DuckDBError as error:
        raise ConfigurationError(f"the results cannot be read: {one_line(error)}; soundcheck verify says more") from error
    page = _write_files(wanted.out, report) if wanted.out else keep_report(store, runs[0], report)
    return Reported(report, page)


async def leave_report(wired: Wired, run: Run, watch: Watch) -> str | None:
    """Make the report of a run that has just ended, and keep it beside the run: the address of its page.

    None where the settings want none, or where it fails: no run ends for that.
    """
    if not wired.settings.report:
        return None
    watch.progress.step = "writing the report"
    watch.figures = await asyncio.to_thread(_report_of_scan, wired, run)
    watch.progress.step = "finished"
    return None if watch.figures is None else wired.results.address(run_file(run.run_id, PAGE))


def _report_of_scan(wired: Wired, run: Run) -> RunReport | None:
    try:
        with wired.open_lake() as lake:
            report = make_report(lake, asked_of(wired.settings, [run.run_id], Wanted().title(run.run_id)), wired.now())
        keep_report(wired.results, run.run_id, report)
    except (SoundcheckError, DuckDBError, ArrowException, OSError) as error:
        logger.warning("%s has no report: %s; soundcheck report makes one", run.run_id, error)
        return None
    return report


def asked_of(settings: Settings, run_ids: list[str], title: str) -> Asked:
    """What the settings say of a report."""
    return Asked(
        settings.org,
        run_ids,
        title,
        settings.report_items,
        linking(settings),
        settings.currency,
        {name: float(price) for name, price in settings.prices.items()},
        settings.link_hours,
    )


def linking(settings: Settings) -> Link:
    """What makes a link to audio in S3, where the settings want any: presigned, valid for `link_hours`."""
    hours = settings.link_hours
    if hours is None:
        return lambda _bucket, _key, _version, _start: None
    client = s3_client(S3Settings())

    def link(bucket: str, key: str, version_id: str | None, start_ms: int | None) -> str | None:
        return None if bucket.startswith("/") else audio_link(client, bucket, key, version_id, hours, start_ms)

    return link


def keep_report(store: ResultStore, run_id: str, report: RunReport) -> str:
    """Write a report into a run's own folder, in place of an earlier one: its page's address."""
    for name in SHEETS:
        store.put(run_file(run_id, name), _sheet(report, Path(name).suffix))
    store.put(run_file(run_id, FIGURES), json.dumps(report.as_json()).encode())
    store.put(run_file(run_id, PAGE), render(report, *SHEETS).encode())
    return store.address(run_file(run_id, PAGE))


def _write_files(out: Path, report: RunReport) -> str:
    beside = [out.with_suffix(Path(name).suffix) for name in SHEETS]
    for file in beside:
        with replacing(file) as sheet:
            sheet.write(_sheet(report, file.suffix))
    with replacing(out) as page:
        page.write(render(report, *(file.name for file in beside)).encode())
    return str(out)


def _sheet(report: RunReport, kind: str) -> bytes:
    out = BytesIO()
    fill_sheet(report.flagged, out, kind)
    return out.getvalue()
