"""The views of the lake as SQL for DuckDB: the same four for every endpoint, and those of views.sql over all of them."""

import re
from pathlib import Path
from string import Template

from connectors.lake.schemas import ENDPOINT_DATASETS

_VIEWS = Template(Path(__file__).with_name("views.sql").read_text(encoding="utf-8"))
_ENDPOINT_VIEWS = Template(Path(__file__).with_name("endpoint_views.sql").read_text(encoding="utf-8"))
_VIEW = re.compile(r"^-- (?P<description>.+)\nCREATE VIEW (?P<name>\w+)", re.MULTILINE)


def views_sql() -> str:
    """The statements that make every view, in an order in which they can be executed."""
    ours = [
        _ENDPOINT_VIEWS.substitute(endpoint=endpoint, summaries=kind.summaries.name, items=kind.items.name, items_view=kind.items_view)
        for endpoint, kind in ENDPOINT_DATASETS.items()
    ]
    rows = [f"SELECT started_at, org, endpoint, duration_ms, covered_ms FROM {kind.summaries.name}" for kind in ENDPOINT_DATASETS.values()]  # noqa: S608 - names of ours
    return "\n".join([*ours, _VIEWS.substitute(every_summary=" UNION ALL ".join(rows))])


def descriptions() -> dict[str, str]:
    """What each view is, by its name: the line above it."""
    return {found["name"]: found["description"] for found in _VIEW.finditer(views_sql())}
