"""The views of the lake as SQL for DuckDB: the same four for every endpoint, and those of views.sql over all of them."""

import re
from collections.abc import Iterator
from pathlib import Path
from string import Template

from connectors.lake.schemas import ENDPOINT_DATASETS

_VIEWS = Template(Path(__file__).with_name("views.sql").read_text(encoding="utf-8"))
_ENDPOINT_VIEWS = Template(Path(__file__).with_name("endpoint_views.sql").read_text(encoding="utf-8"))
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
_VIEW = re.compile(r"^-- (?P<description>.+)\nCREATE VIEW (?P<name>\w+)", re.MULTILINE)


def views_sql() -> str:
    """The statements that make every view, in an order in which they can be executed."""
    ours = [
        _ENDPOINT_VIEWS.substitute(endpoint=endpoint, summaries=kind.summaries.name, items=kind.items.name, items_view=kind.items_view)
        for endpoint, kind in ENDPOINT_DATASETS.items()
    ]
    rows = [f"SELECT started_at, org, endpoint, duration_ms, covered_ms FROM {kind.summaries.name}" for kind in ENDPOINT_DATASETS.values()]  # noqa: S608 - names of ours
    every = _VIEWS.substitute(
        every_summary=" UNION ALL ".join(rows),
        every_result=" UNION ALL ".join(_of_each(_RESULT)),
        every_newest=" UNION ALL ".join(_of_each(_NEWEST)),
        endpoint_outcomes=", ".join(_of_each(_OUTCOME)),
        endpoint_joins=" ".join(_of_each(_OUTCOME_JOIN)),
    )
    return "\n".join([*ours, every])


def _of_each(template: Template) -> Iterator[str]:
    """The template filled in for every endpoint."""
    for endpoint, kind in ENDPOINT_DATASETS.items():
        yield template.substitute(endpoint=endpoint, summaries=kind.summaries.name)


def descriptions() -> dict[str, str]:
    """What each view is, by its name: the line above it."""
    return {found["name"]: found["description"] for found in _VIEW.finditer(views_sql())}
