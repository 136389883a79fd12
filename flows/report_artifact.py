"""The figures of a report as Markdown, for Prefect: cells are anybody's text, and none of it is markup there."""

import re
from collections.abc import Iterable, Iterator, Sequence

from flows.report import Report
from moderation.printable import printable
from moderation.timeline import clock
from tasks.report import RunReport
from tasks.report_sections import sections

ENTRIES = 20
"""Flagged objects that an artifact names; the page has more."""
_MARKUP = re.compile(r"[\\`*_~|<>&\[\]!#]")


def cell(text: object) -> str:
    """Anybody's text as a cell of a table: what would be markup is a character reference."""
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", printable(str(text)))


def markdown_of(report: Report, figures: RunReport | None) -> str:
    """How a run ended, and where there is a report its tables."""
    counts = [(name, value) for name, value in report.counts().items() if not isinstance(value, dict)]
    tables = [_table(("figure", "value"), counts)]
    if figures is not None:
        tables += [f"## {cell(each.title)}\n\n{cell(each.caption)}\n\n{_table(each.heads, each.rows)}" for each in sections(figures)]
        tables.append(f"## Review list\n\n{figures.flagged.height:,} objects are flagged.\n\n{_flagged(figures)}")
    return "\n\n".join(tables)


def _flagged(figures: RunReport) -> str:
    def rows() -> Iterator[tuple[object, ...]]:
        for entry in figures.entries[:ENTRIES]:
            facts, evidence = entry.facts, entry.timeline.evidence
            where = "" if evidence is None else f"{clock(evidence[0])} to {clock(evidence[1])}"
            yield entry.rank, facts["decision"], facts["key"], facts["rule_id"], where

    return _table(("rank", "decision", "object", "rule", "where"), rows())


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(map(cell, heads))} |", f"|{'---|' * len(heads)}"]
    return "\n".join([*lines, *(f"| {' | '.join(map(cell, row))} |" for row in rows)])
