"""The figures of a report as sections of tables, in words: the page shows them, and so does whatever else shows tables."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from moderation.chart import Series
from moderation.hosts import LOCAL_RESULTS, is_local
from tasks.report import RunReport


@dataclass(frozen=True, slots=True)
class Curves:
    """Something over time: a caption and its series, over a span that two instants bound."""

    caption: str
    series: Sequence[Series]
    span: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Section:
    """A table with its title, caption and notes; numbers are the places of the columns that are set to the right."""

    anchor: str
    title: str
    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[int] = ()
    notes: Sequence[str] = ()
    curves: Sequence[Curves] = ()


def sections(report: RunReport) -> Iterator[Section]:
    """The sections of a report in their order."""
    yield _scanned(report.figures.runs)
    yield _spend(report)
    yield _outcomes(report.figures.outcomes)
    yield _labels(report.figures.labels)
    yield _decisions(report.figures.decisions)
    yield _course(report)
    yield _troubles(report.figures.troubles)


def instant(at: datetime | None) -> str:
    """An instant for people, in UTC."""
    return "" if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _scanned(runs: pl.DataFrame) -> Section:
    heads = ("run", "source", "state", "began", "ended", "objects", "done", "quarantined", "skipped", "pending")
    rows, notes = [], []
    for run in runs.to_dicts():
        counts = (run[name] for name in ("objects_listed", "done", "quarantined", "skipped", "pending"))
        state = run["state"] if run["exit_code"] is None else f"{run['state']} ({run['exit_code']})"
        times = (instant(run["started_at"]), instant(run["finished_at"]) or "not on record")
        rows.append((run["run_id"], run["source"], state, *times, *(_count(count) for count in counts)))
        if run["stop_cause"]:
            notes.append(f"{run['run_id']}: {run['stop_cause']}")
    caption = "Runs with the exit code of each; objects by what became of them in that run"
    return Section("scanned", "What was scanned", caption, heads, rows, range(5, 10), notes)


def _spend(report: RunReport) -> Section:
    costs = report.costs()
    heads = ["endpoint", "sessions", "hours with a result", "possibly billed hours"]
    heads += [f"estimated cost, {report.currency}", f"estimated possible cost, {report.currency}"] if costs else []
    rows = []
    for row in report.figures.spend.to_dicts():
        money = [f"{cost:,.2f}" for cost in costs.get(row["endpoint"], ())] or ["no price"] * 2
        figures = (_count(row["sessions"]), _hours(row["hours"]), _hours(row["possible_hours"]))
        rows.append((row["endpoint"], *figures, *(money if costs else [])))
    notes = ["Possibly billed is what was sent in sessions without a result; whether the vendor bills it is not known here."]
    if costs:
        notes.append("Costs are estimated: these hours at the prices that are set now.")
    saved_ms = sum(report.figures.runs["audio_ms_saved"].to_list())
    if saved_ms:
        notes.append(f"A cascade left out {_hours(saved_ms / 3.6e6)} hours (estimated).")
    return Section("spend", "Spend", "Hours of audio by endpoint", heads, rows, range(1, len(heads)), notes)


def _outcomes(outcomes: pl.DataFrame) -> Section:
    rows = [(row["endpoint"], row["outcome"], row["reason"] or "", _count(row["objects"])) for row in outcomes.to_dicts()]
    caption = "What has become by now of what these runs planned, whichever run did it"
    return Section("outcomes", "Outcomes by reason", caption, ("endpoint", "outcome", "reason", "objects"), rows, (3,))


def _labels(labels: pl.DataFrame) -> Section:
    rows = [
        (
            row["endpoint"],
            row["label"],
            _count(row["objects"]),
            f"{row['share']:.1%}",
            "local results" if is_local(row["host"]) else row["host"],
        )
        for row in labels.to_dicts()
    ]
    notes = [f"Local results are {LOCAL_RESULTS}."] if any(map(is_local, labels["host"].to_list())) else []
    heads = ("endpoint", "label or verdict", "objects", "share", "by")
    return Section(
        "labels", "Labels and verdicts", "What the service says of the objects streamed in these runs", heads, rows, (2, 3), notes
    )


def _decisions(decisions: pl.DataFrame) -> Section:
    rows = [
        (row["decision"], row["rule_id"], row["held_back"] or "", _count(row["objects"]), f"{row['share']:.1%}")
        for row in decisions.to_dicts()
    ]
    notes = [] if rows else ["No policy has decided about these objects: soundcheck decide does."]
    heads = ("decision", "rule", "held back", "objects", "share")
    return Section(
        "decisions", "Decisions", "What counts for the objects of these runs by now, answers of people included", heads, rows, (3, 4), notes
    )


def _course(report: RunReport) -> Section:
    course, limits = report.figures.course, _limits(report.figures.runs)
    heads = ("endpoint", "from", "minutes", "hours of audio an hour", "sessions at once, on average", "limit")
    rows = []
    for row in course.to_dicts():
        limit = limits.get(row["endpoint"])
        figures = (f"{row['seconds'] / 60:,.2f}", f"{row['audio_hours_per_hour']:,.1f}", f"{row['sessions']:.2f}")
        rows.append((row["endpoint"], instant(row["begins"]), *figures, "" if limit is None else f"{limit:g}"))
    curves = [] if course.is_empty() else [*_over_time(course, limits)]
    caption = "Sessions of these runs over time; audio is spread evenly over its session"
    return Section("course", "Throughput and slot use", caption, heads, rows, range(2, 6), curves=curves)


def _over_time(course: pl.DataFrame, limits: Mapping[str, float]) -> Iterator[Curves]:
    steps = course.to_dicts()
    width = timedelta(seconds=steps[0]["seconds"])
    first, last = min(row["begins"] for row in steps), max(row["begins"] for row in steps) + width
    of_endpoint = {name: [row for row in steps if row["endpoint"] == name] for name in sorted({row["endpoint"] for row in steps})}
    speed, slots = "Hours of audio with a result an hour", "Sessions at once; marks at the sides are the limits set"
    for column, caption in (("audio_hours_per_hour", speed), ("sessions", slots)):
        series = [
            Series(name, list(_shares(rows, column, first, last)), limits.get(name) if column == "sessions" else None)
            for name, rows in of_endpoint.items()
        ]
        yield Curves(caption, series, (instant(first), instant(last)))


def _shares(rows: Sequence[Mapping[str, Any]], column: str, first: datetime, last: datetime) -> Iterator[tuple[float, float, float]]:
    """The steps of a column, their bounds as shares of the span."""
    for row in rows:
        begin = row["begins"]
        end = begin + timedelta(seconds=row["seconds"])
        yield (begin - first) / (last - first), (end - first) / (last - first), float(row[column])


def _limits(runs: pl.DataFrame) -> dict[str, float]:
    """The most sessions at once that the settings of these runs gave each endpoint."""
    found: dict[str, float] = {}
    for text in runs["parameters"].to_list():
        told: Any = json.loads(text)
        for endpoint in told.get("endpoints", []):
            limit = told.get("endpoint_connections", {}).get(endpoint, told.get("connections"))
            if limit is not None:
                found[endpoint] = max(found.get(endpoint, 0), limit)
    return found


def _troubles(troubles: pl.DataFrame) -> Section:
    rows = [
        (
            row["outcome"],
            row["endpoint"],
            row["cause"] or "",
            " ".join(f"{word} {row[name]}" for word, name in (("HTTP", "http_status"), ("code", "close_code")) if row[name] is not None),
            row["error_text"] or "",
            _count(row["sessions"]),
        )
        for row in troubles.to_dicts()
    ]
    heads = ("outcome", "endpoint", "cause", "answer", "text", "sessions")
    return Section("troubles", "Refusals and failures", "Sessions that were refused or broke, the most frequent first", heads, rows, (5,))


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _hours(hours: float) -> str:
    return f"{hours:,.4f}" if hours < 1 else f"{hours:,.2f}"
