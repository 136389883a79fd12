"""Looks through every published file of a lake for what is damaged, missing, twice, misplaced or foreign: what `soundcheck verify` does."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from connectors.lake.current_files import current_name
from connectors.lake.findings import Finding, Problem
from connectors.lake.names import Place, Spooled, is_canary, is_own_of_run, is_policy, is_report, place_of, spooled_by
from connectors.lake.packages import publishing_order
from connectors.lake.query import summary_files
from connectors.lake.receipts import is_receipt
from connectors.lake.refresh import differing
from connectors.lake.schemas import ENDPOINT_DATASETS
from connectors.lake.session_facts import Kind, facts_of, kind_of
from connectors.lake.soundness import examine
from connectors.lake.store import ResultStore
from connectors.lake.untold import is_note
from connectors.lake.value_rules import misfits
from tasks.session_counts import NO_FACTS, disagreements

LIVE_WRITE = timedelta(hours=1)
"""How long an unfinished file may be somebody's who still writes it."""
Tell = Callable[[int, int], None]
"""Hears how many files of how many were looked at."""


@dataclass(slots=True)
class Verified:
    """What a verification found.

    unproven counts files that another version of Arrow wrote: all of them is checked but their filters and page indexes.
    """

    files: int = 0
    rows: int = 0
    unproven: int = 0
    findings: list[Finding] = field(default_factory=list)

    def add(self, name: str, problem: Problem, what: str) -> None:
        """Note a finding."""
        self.findings.append(Finding(name, problem, what))


def verify(store: ResultStore, now: datetime, tell: Tell, since: date | None = None) -> Verified:
    """Look through a lake, or through what its runs since a day have left, a file at a time.

    Of a file a row group is held in memory, and of a day a row a session. A package that is published meanwhile is not held against the
    lake. Raises what the store raises.
    """
    found = Verified()
    days, strangers = _sorted_out(store, found)
    wanted = sorted(day for day in days if since is None or day >= since)
    files = sum(len(days[day]) for day in wanted)
    for day in wanted:
        _verify_day(store, days[day], found, lambda: tell(found.files, files))
    for name in strangers:
        if not is_canary(name) or store.exists(name):  # a run that begins takes its own away at once
            found.add(name, Problem.FOREIGN, "it is no file of a dataset")
    if since is None:
        _verify_copies(store, found)
    for name in store.leftovers(now - LIVE_WRITE):
        found.add(name, Problem.LEFTOVER, "it is unfinished")
    return found


def _sorted_out(store: ResultStore, found: Verified) -> tuple[Mapping[date, dict[str, Place]], list[str]]:
    """The files of datasets by their day, and names that nobody knows."""
    days: defaultdict[date, dict[str, Place]] = defaultdict(dict)
    strangers: list[str] = []
    for name in _names(store):
        place = place_of(name)
        if place is not None:
            days[place.day][name] = place
        elif (entry := spooled_by(name)) is not None:
            if entry is Spooled.DAMAGED:
                found.add(name, Problem.LOST, "it could not be read back")
        elif not (is_own_of_run(name) or is_report(name) or is_receipt(name) or is_policy(name) or is_note(name)):
            strangers.append(name)
    return days, strangers


def _names(store: ResultStore) -> Iterator[str]:
    """Every name; of packages summaries before what they speak of: one that is published meanwhile shows no summary without its rows."""
    packaged = {dataset.name for dataset in publishing_order()}
    for dataset in reversed(publishing_order()):
        yield from store.list(f"{dataset.name}/")
    yield from (name for name in store.list("") if name.partition("/")[0] not in packaged)


def _verify_copies(store: ResultStore, found: Verified) -> None:
    """Hold the materialised `current` against the summaries; where these cannot be read that was found before."""
    for endpoint, kind in ENDPOINT_DATASETS.items():
        with suppress(duckdb.Error):
            if rows := differing(store, endpoint):
                name = current_name(endpoint, summary_files(store, endpoint))
                found.add(name, Problem.COPY, f"{rows:,} rows are not the newest of {kind.summaries.name}")


def _verify_day(store: ResultStore, places: Mapping[str, Place], found: Verified, tell: Callable[[], None]) -> None:
    """Look at each file of a day, then hold them against each other, but for the packages of which a file could not be read."""
    facts: dict[Kind, list[pl.DataFrame]] = {kind: [frame] for kind, frame in NO_FACTS.items()}
    unread = set()
    for name, place in places.items():
        if not _verify_file(store, name, place, found, facts):
            unread.add(place)
        found.files += 1
        tell()
    if any(place.digest for place in unread):
        return  # nobody knows which sessions are in it
    packages = [place.package for place in unread]
    tables = {kind: pl.concat(frames).filter(~pl.col("package").is_in(packages)) for kind, frames in facts.items()}
    for finding in disagreements(tables, places.keys()):
        # its summaries may have come since the lake was listed
        if finding.problem is not Problem.UNFINISHED or not store.exists(finding.name):
            found.findings.append(finding)


def _verify_file(store: ResultStore, name: str, place: Place, found: Verified, facts: Mapping[Kind, list[pl.DataFrame]]) -> bool:
    """Look at a file, and add what its rows say of their sessions; whether all of it could be read."""
    wrong: Counter[str] = Counter()

    def look(rows: pa.Table) -> None:
        wrong.update(dict(misfits(place.dataset, rows)))
        wrong.update(dict(_of_others(place, rows)))
        kind, said = kind_of(place.dataset), facts_of(place.dataset, rows)
        if kind is not None and said is not None:
            named = pl.DataFrame(said).with_columns(name=pl.lit(name), package=pl.lit(place.package))
            facts[kind].append(named.select(NO_FACTS[kind].columns))

    with store.reading(name) as file:
        if file is None:
            if not place.is_copy:  # a run has made another one
                found.add(name, Problem.GONE, "it is not there any more")
            return place.is_copy
        soundness = examine(file, place, look)
    for problem, what in soundness.problems:
        found.add(name, Problem.COPY if place.is_copy else problem, what)
    for what, rows in wrong.items():
        found.add(name, Problem.VALUES, f"{what} in {rows:,} of {soundness.rows:,} rows")
    if not place.is_of_its_day:
        found.add(name, Problem.MISPLACED, "its run did not begin on the day of its folder")
    found.rows += soundness.rows
    found.unproven += soundness.read and not soundness.proven
    return soundness.read


def _of_others(place: Place, rows: pa.Table) -> Iterator[tuple[str, int]]:
    """Rows that say that they are another run's, or another package's, than the name of their file."""
    if place.digest:
        return
    for column, own in (("run_id", place.run_id), ("package", place.package)):
        if column in rows.column_names and (others := rows.filter(pc.not_equal(rows[column], pa.scalar(own))).num_rows):
            yield f"{column} is another than its name's", others
