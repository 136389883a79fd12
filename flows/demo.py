"""The demonstration: a catalogue on an S3 and a Velma server of our own on loopback, scanned through the real flow."""

import asyncio
import csv
import os
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from connectors.lake.query import connect
from connectors.local_s3 import LocalS3
from connectors.local_velma.organisation import Organisation
from connectors.local_velma.server import NOTICE, local_velma
from connectors.s3 import S3Settings, s3_client
from flows.console import stderr, stdout
from flows.embedded_prefect import embedded_prefect
from flows.launch import scan_as_flow, scan_directly
from flows.logs import logging_to
from flows.places import state_of
from flows.report import Report
from flows.settings import Settings, fixed_settings
from flows.watch import Watch
from moderation.errors import ConfigurationError
from moderation.outcomes import ExitCode

BUCKET = "soundcheck-demo"
CONNECTIONS = 4
TRUTH_FILE = "catalogue.csv"
"""A folder's own list of what its files are (columns file, truth); it is read, not scanned."""
_LABELS = """
    SELECT key, m.primary_label, m.music_pct, m.speech_pct, a.primary_verdict, m.duration_ms
    FROM music_latest AS m FULL JOIN ai_music_latest AS a USING (object_id, key) ORDER BY key
"""


@dataclass(frozen=True, slots=True)
class Exhibit:
    """One object of the demonstration: its body, what it is (truth), and how a scan should end with it; None where nobody said."""

    key: str
    body: bytes
    metadata: Mapping[str, str]
    truth: str | None = None
    expected: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """How one exhibit ended: done or its reason, and what the service said of it."""

    exhibit: Exhibit
    outcome: str
    detail: str
    result: Mapping[str, Any]

    @property
    def as_expected(self) -> bool:
        """Whether it ended as its expectation says; true where nobody said."""
        return self.exhibit.expected in {None, self.outcome}

    @property
    def labelled_right(self) -> bool | None:
        """Whether speech or music got its label; None where there is nothing to compare."""
        label = self.result.get("primary_label")
        return label == self.exhibit.truth if label and self.exhibit.truth in {"speech", "music"} else None


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A finished demonstration."""

    report: Report
    rows: list[Row]

    @property
    def exit_code(self) -> ExitCode:
        """0 when every object ended as its expectation says; without expectations that of the scan."""
        if self.report.exit_code not in {ExitCode.OK, ExitCode.QUARANTINED, ExitCode.MANY_QUARANTINED}:
            return self.report.exit_code
        if all(row.exhibit.expected is None for row in self.rows):
            return self.report.exit_code
        return ExitCode.OK if all(row.as_expected for row in self.rows) else ExitCode.FOUND

    def counts(self) -> dict[str, Any]:
        """The figures as JSON has them."""
        compared = [row.labelled_right for row in self.rows if row.labelled_right is not None]
        return self.report.counts() | {
            "exit_code": int(self.exit_code),
            "as_expected": sum(row.as_expected for row in self.rows),
            "labelled_right": sum(compared),
            "labels_compared": len(compared),
            "detector": NOTICE,
        }


async def demonstrate(results: Path, catalogue: Path | None, *, direct: bool) -> Demonstration:
    """Scan the sample catalogue, or the files of a folder, and compare. Raises ConfigurationError for a folder that cannot be read."""
    key = f"demo-{secrets.token_hex(16)}"
    settings = fixed_settings(api_key=key, results=str(results), connections=CONNECTIONS)
    watch = Watch()
    with logging_to(state_of(settings), settings.log_level), LocalS3() as s3, environment(s3.environment()):
        async with _maybe_prefect(settings, direct=direct) as ready, local_velma(Organisation(frozenset({key}))) as velma:
            _say("making the catalogue" if catalogue is None else f"reading {catalogue}")
            exhibits = await asyncio.to_thread(exhibits_of, catalogue)
            await asyncio.to_thread(put_exhibits, exhibits, BUCKET)
            if not direct:
                _say("waiting for the embedded Prefect server")
            await ready()
            settings = settings.model_copy(update={"velma_url": velma.url})
            scan = scan_directly if direct else scan_as_flow
            report = await scan(settings, f"s3://{BUCKET}/", watch)
    return Demonstration(report, await asyncio.to_thread(_compare, exhibits, report, str(results)))


@asynccontextmanager
async def _maybe_prefect(settings: Settings, *, direct: bool) -> AsyncIterator[Any]:
    if direct:
        yield _nothing
        return
    async with embedded_prefect(state_of(settings), wait=False) as server:
        yield server.ready


async def _nothing() -> None:
    return


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """The environment with these variables, for AWS clients made in the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def exhibits_of(folder: Path | None) -> list[Exhibit]:
    """The files of a folder, or the generated samples. Raises ConfigurationError for a folder that cannot be read."""
    return _samples() if folder is None else _files(folder)


def _samples() -> list[Exhibit]:
    from tasks.sample_catalogue import sample_catalogue  # noqa: PLC0415 - synthesis needs numpy and PyAV, nothing else here does

    return [Exhibit(sample.key, sample.body, sample.metadata, sample.truth, sample.expected) for sample in sample_catalogue()]


def _files(folder: Path) -> list[Exhibit]:
    try:
        truths = _truths(folder / TRUTH_FILE)
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / TRUTH_FILE)
        exhibits = [Exhibit(path.relative_to(folder).as_posix(), path.read_bytes(), {}, truths.get(path.name)) for path in files]
    except OSError as error:
        raise ConfigurationError(f"the catalogue {folder} cannot be read: {error.strerror}") from error
    if not exhibits:
        raise ConfigurationError(f"there are no files in {folder}: check --catalogue")
    return exhibits


def _truths(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {row["file"]: row["truth"] for row in csv.DictReader(file) if "file" in row and "truth" in row}


def put_exhibits(exhibits: list[Exhibit], bucket: str) -> None:
    """Put them into a new bucket of the S3 of the environment."""
    client = s3_client(S3Settings())
    client.create_bucket(Bucket=bucket)
    for exhibit in exhibits:
        client.put_object(Bucket=bucket, Key=exhibit.key, Body=exhibit.body, Metadata=exhibit.metadata)


def _compare(exhibits: list[Exhibit], report: Report, results: str) -> list[Row]:
    with connect(results) as lake:
        found = lake.execute(_LABELS)
        names = [column[0] for column in found.description or ()]
        labels = {row[0]: dict(zip(names, row, strict=True)) for row in found.fetchall()}
    ends = {outcome.key: outcome for outcome in report.progress.outcomes}
    rows = []
    for exhibit in exhibits:
        end = ends.get(exhibit.key)
        outcome = end.reason.value if end and end.reason else "done"
        rows.append(Row(exhibit, outcome, end.detail if end else "", labels.get(exhibit.key, {})))
    return rows


def print_demonstration(shown: Demonstration) -> None:
    """The table of results: what each object is, and what the service made of it."""
    table = Table(title=f"by {NOTICE}", title_justify="left")
    table.add_column("object", overflow="fold", min_width=20)
    for name in ("s", "truth", "label", "music %", "speech %", "AI verdict", "outcome"):
        table.add_column(name, justify="right" if name in {"s", "music %", "speech %"} else "left", overflow="fold")
    for row in shown.rows:
        result = row.result
        seconds = f"{result['duration_ms'] / 1000:.1f}" if result.get("duration_ms") is not None else ""
        outcome = row.outcome if row.as_expected else f"{row.outcome}, expected {row.exhibit.expected}"
        said = (result.get("primary_label"), result.get("music_pct"), result.get("speech_pct"), result.get("primary_verdict"))
        cells = (seconds, row.exhibit.truth, *said)
        table.add_row(Text(row.exhibit.key), *("" if cell is None else str(cell) for cell in cells), outcome)
    stdout.print(table)
    counts = shown.counts()
    if counts["labels_compared"]:
        stdout.print(
            f"{counts['labelled_right']} of {counts['labels_compared']} clips of speech or music got their label.", highlight=False
        )


def _say(step: str) -> None:
    stderr.print(f"{step} ...", style="dim", highlight=False)
