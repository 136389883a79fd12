"""Reports of runs: their figures, and what a policy has flagged of their objects with the evidence for it, ranked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import polars as pl
from duckdb import DuckDBPyConnection

from connectors.lake.schemas import ENDPOINT_DATASETS
from moderation.endpoints import ENDPOINTS
from moderation.hosts import is_local
from moderation.policy import Decision
from moderation.timeline import Timeline
from tasks.frames import frame_of
from tasks.report_figures import Figures, read_figures
from tasks.review import queue
from tasks.timelines import Subject, timelines

FLAGGED = f"decision IN ('{Decision.REVIEW}', '{Decision.BLOCK}') AND reviewer IS NULL"
"""The predicate over decisions_now of what a report lists: what waits for a person, and what a policy blocks without one."""
Link = Callable[[str, str, str | None, int | None], str | None]
"""Of bucket, key, version and start in ms a link to the audio; None where there is none."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A flagged object: its decision as `tasks.review.queue` has it, what the service said of it, and where that is to be heard.

    labels are by endpoint, local where a server on the scanning machine has made any of its results.
    """

    rank: int
    facts: Mapping[str, Any]
    labels: Mapping[str, str]
    local: bool
    timeline: Timeline
    link: str | None = None


@dataclass(frozen=True, slots=True)
class RunReport:
    """A report of some runs of an organisation, made at an instant. flagged has every row of the list, entries the first of them."""

    org: str
    title: str
    at: datetime
    figures: Figures
    flagged: pl.DataFrame
    entries: Sequence[Entry]
    currency: str | None = None
    prices: Mapping[str, float] | None = None
    """Money an audio-hour, by endpoint."""
    link_hours: float | None = None

    @property
    def local(self) -> bool:
        """Whether a server on the scanning machine has made any of the results."""
        return any(map(is_local, self.figures.labels["host"].to_list()))

    def costs(self) -> dict[str, tuple[float, float]]:
        """What the hours of each endpoint with a price cost, certain and possible: an estimate, at the price that is set now."""
        known = self.prices or {}
        return {
            row["endpoint"]: (row["hours"] * known[row["endpoint"]], row["possible_hours"] * known[row["endpoint"]])
            for row in self.figures.spend.to_dicts()
            if row["endpoint"] in known
        }

    def as_json(self) -> dict[str, Any]:
        """The same figures as plain values, and the entries without their timelines."""
        costs = {
            name: {"currency": self.currency, "estimated_cost": round(certain, 4), "estimated_possible_cost": round(possible, 4)}
            for name, (certain, possible) in self.costs().items()
        }
        return {
            "org": self.org,
            "title": self.title,
            "made_at": self.at.isoformat(),
            "local_results": self.local,
            **self.figures.as_json(),
            "estimated_costs": costs,
            "flagged": self.flagged.height,
            "review_list": [_entry_json(entry) for entry in self.entries],
        }


@dataclass(frozen=True, slots=True)
class Asked:
    """What a report is to be: of whom and of which runs, how many objects it shows, prices for its estimates, and links to audio."""

    org: str
    run_ids: Sequence[str]
    title: str
    items: int
    link: Link
    currency: str | None = None
    prices: Mapping[str, float] | None = None
    link_hours: float | None = None


def make_report(lake: DuckDBPyConnection, asked: Asked, at: datetime) -> RunReport:
    """Read a report from the lake. Nothing is written."""
    figures = read_figures(lake, asked.run_ids)
    flagged = _flagged(lake, asked.org)
    entries = _entries(lake, flagged.head(asked.items), asked.link)
    return RunReport(
        asked.org,
        asked.title,
        at,
        figures,
        flagged,
        entries,
        asked.currency,
        asked.prices,
        asked.link_hours if any(e.link for e in entries) else None,
    )


def _flagged(lake: DuckDBPyConnection, org: str) -> pl.DataFrame:
    """What is flagged of the reported objects: what waits for a person first, each kind as the queue is ranked."""
    own = frame_of(lake.sql("SELECT object_id FROM reported_objects").to_arrow_table())["object_id"]
    rows = queue(lake, org, FLAGGED).filter(pl.col("object_id").is_in(own.implode()))
    waiting = rows.filter(pl.col("decision") == Decision.REVIEW.value)
    return pl.concat([waiting, rows.filter(pl.col("decision") != Decision.REVIEW.value)])


def _entries(lake: DuckDBPyConnection, rows: pl.DataFrame, link: Link) -> list[Entry]:
    facts = rows.to_dicts()
    subjects = [Subject(row["object_id"], [one for one in row["evidence_sessions"].split(",") if one], _evidence(row)) for row in facts]
    drawn = timelines(lake, subjects)
    labels = _labels(lake, [session for subject in subjects for session in subject.sessions])
    entries = []
    for rank, row in enumerate(facts, 1):
        told = labels.get(row["object_id"], {})
        words = {endpoint: label for endpoint, (label, _) in told.items()}
        local = any(is_local(host) for _, host in told.values())
        to_audio = link(row["bucket"], row["key"], row["version_id"], row["evidence_start_ms"])
        entries.append(Entry(rank, row, words, local, drawn[row["object_id"]], to_audio))
    return entries


def _evidence(row: Mapping[str, Any]) -> tuple[int, int] | None:
    start, end = row["evidence_start_ms"], row["evidence_end_ms"]
    return None if start is None or end is None else (start, end)


def _labels(lake: DuckDBPyConnection, sessions: list[str]) -> dict[str, dict[str, tuple[str, str]]]:
    """By object and endpoint what the service said that it is, and the host that said so."""
    lake.register("labelled_sessions", pl.DataFrame({"session_id": sessions}, {"session_id": pl.String()}).to_arrow())
    rows = " UNION ALL ".join(
        f"SELECT object_id, endpoint, coalesce({ENDPOINTS[name].label_field or 'NULL'}, 'none'), host "  # noqa: S608 - names of ours
        f"FROM {kind.summaries.name} SEMI JOIN labelled_sessions USING (session_id)"
        for name, kind in ENDPOINT_DATASETS.items()
    )
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for object_id, endpoint, label, host in lake.sql(rows).fetchall():
        found.setdefault(object_id, {})[endpoint] = (label, host)
    lake.unregister("labelled_sessions")
    return found


def _entry_json(entry: Entry) -> dict[str, Any]:
    told = {name: value.isoformat() if isinstance(value, date) else value for name, value in entry.facts.items()}
    return {"rank": entry.rank, **told, "labels": dict(entry.labels), "local_results": entry.local, "summary": entry.timeline.words()}
