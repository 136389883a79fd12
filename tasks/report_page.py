"""A report as one HTML page: it loads nothing, and needs no script to be read; keys in it are anybody's text, and stay text.

Everything that a template puts in is escaped, and what is not printable shows as its escape. Style and script are named in the page's
Content-Security-Policy by their hashes: nothing else would run, whatever came through.
"""

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from moderation.chart import draw_course, legend_swatch
from moderation.hosts import LOCAL_RESULTS
from moderation.printable import printable
from moderation.timeline import STYLES, clock, draw, pattern_definitions, style_of
from tasks.report import Entry, RunReport
from tasks.report_sections import Section, instant, sections

_FOLDER = Path(__file__).parent


def render(report: RunReport, csv: str, parquet: str) -> str:
    """The page; csv and parquet are the names of the files beside it that have the whole list."""
    style, script = ((_FOLDER / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            report=report,
            csv=csv,
            parquet=parquet,
            policy=_content_policy(style, script),
            style=Markup(style),  # noqa: S704 - ours, as every Markup here
            script=Markup(script),  # noqa: S704
            patterns=Markup(pattern_definitions()),  # noqa: S704
            local_results=LOCAL_RESULTS,
            legend=list(STYLES.values()),
            sections=[_with_charts(section) for section in sections(report)],
        )
    )


@cache
def _environment() -> Environment:
    """With the template as it was compiled, which takes longer than to fill it."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, finalize=_shown, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(clock=clock, instant=instant, drawn=_drawn, style=style_of)
    return environment


def _shown(value: object) -> object:
    """What stands in the page for a value of an expression."""
    if value is None:
        return ""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _content_policy(style: str, script: str) -> str:
    hashes = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script))
    return "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; img-src data:; base-uri 'none'; form-action 'none'".format(
        *hashes
    )


def _drawn(entry: Entry) -> Markup:
    return Markup(draw(entry.timeline, f"timeline-{entry.rank}", f"Timeline of {entry.facts['key']}"))  # noqa: S704 - it escapes


def _with_charts(section: Section) -> dict[str, Any]:
    charts = [
        {
            "svg": Markup(draw_course(each.series, f"{section.anchor}-{number}", each.caption, each.span)),  # noqa: S704 - as above
            "caption": f"{each.caption}:",
            "legend": [(one.name, Markup(legend_swatch(place))) for place, one in enumerate(each.series)],  # noqa: S704
        }
        for number, each in enumerate(section.curves)
    ]
    names = ("anchor", "title", "caption", "heads", "rows", "numbers", "notes")
    return {name: getattr(section, name) for name in names} | {"chart": charts}
