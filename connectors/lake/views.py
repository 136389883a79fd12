"""The views of the lake in SQL that DuckDB, Athena and Trino all take: the same four for every endpoint, those of views.sql over all."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template

from connectors.lake.columns import Dataset
from connectors.lake.evidence import evidence_columns, evidence_source
from connectors.lake.schemas import ENDPOINT_DATASETS, datasets
from connectors.lake.tables import table_columns

_VIEWS = Template(Path(__file__).with_name("views.sql").read_text(encoding="utf-8"))
_ENDPOINT_VIEWS = Template(Path(__file__).with_name("endpoint_views.sql").read_text(encoding="utf-8"))
_SPENT = Template("SELECT started_at, org, endpoint, duration_ms, covered_ms FROM $summaries")
_RESULT = Template("SELECT endpoint, object_id, params_hash FROM $summaries")
_NEWEST = Template("SELECT object_id, session_id FROM ${endpoint}_latest")
_OUTCOME = Template(
    "coalesce(of_$endpoint.outcome, CASE WHEN listed.object_id IN (SELECT object_id FROM $summaries) THEN 'done' END) "
    "AS ${endpoint}_outcome, of_$endpoint.reason AS ${endpoint}_reason"
)
_OUTCOME_JOIN = Template(
    "LEFT JOIN known AS of_$endpoint "
    "ON of_$endpoint.run_id = listed.run_id AND of_$endpoint.object_id = listed.object_id AND of_$endpoint.endpoint = '$endpoint'"
)
_VIEW = re.compile(
    r"^-- (?P<description>.+)\n-- Example: (?P<example>.+)\nCREATE VIEW (?P<name>\w+) AS\n(?P<query>[^;]+);$",
    re.MULTILINE,
)
_READ = re.compile(r"\b(?:FROM|JOIN) (\w+)")
DAY_OF_ZONED = "CAST(started_at AT TIME ZONE 'UTC' AS DATE)"
"""The UTC day of a session's start where instants have a zone: another is told where the session has another."""
DAY_OF_PLAIN = "CAST(started_at AS DATE)"
"""The same where instants are plain and in UTC, as in tables of Hive: a zone would be the session's there."""


@dataclass(frozen=True, slots=True)
class View:
    """One view: its SELECT without a semicolon, a sentence on what it is, and a query that shows its use."""

    name: str
    query: str
    description: str
    example: str

    @property
    def reads(self) -> frozenset[str]:
        """The names of the tables and views that it reads, and those of its own WITH."""
        return frozenset(_READ.findall(self.query))


def views(start_day: str = DAY_OF_ZONED) -> list[View]:
    """Every view, each after those that it reads; start_day is DAY_OF_ZONED or DAY_OF_PLAIN."""
    ours = [
        _ENDPOINT_VIEWS.substitute(
            endpoint=endpoint,
            summaries=kind.summaries.name,
            items=kind.items.name,
            items_view=kind.items_view,
            columns=_columns(kind.summaries),
        )
        for endpoint, kind in ENDPOINT_DATASETS.items()
    ]
    over_all = _VIEWS.substitute(
        every_summary=" UNION ALL ".join(_of_each(_SPENT)),
        every_result=" UNION ALL ".join(_of_each(_RESULT)),
        every_newest=" UNION ALL ".join(_of_each(_NEWEST)),
        endpoint_outcomes=", ".join(_of_each(_OUTCOME)),
        endpoint_joins=" ".join(_of_each(_OUTCOME_JOIN)),
        runs_columns=_columns(datasets()["runs"]),
        manifests_columns=_columns(datasets()["manifests"]),
        decisions_columns=_columns(datasets()["decisions"]),
        answers_columns=_columns(datasets()["review_answers"]),
        evidence_columns=evidence_columns(),
        evidence_source=evidence_source(),
        start_day=start_day,
        answer_day=start_day.replace("started_at", "answered_at"),
    )
    return [View(**found.groupdict()) for found in _VIEW.finditer("\n".join([*ours, over_all]))]


def _columns(dataset: Dataset) -> str:
    return ", ".join(table_columns(dataset))


def _of_each(template: Template) -> Iterator[str]:
    """The template filled in for every endpoint."""
    for endpoint, kind in ENDPOINT_DATASETS.items():
        yield template.substitute(endpoint=endpoint, summaries=kind.summaries.name)
