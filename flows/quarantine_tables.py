"""Held and released objects on a terminal, and as JSON."""

from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.console import shown, stdout

NAMED_ROWS = 25
"""Objects that a table names; --json has all."""


def print_held(held: pl.DataFrame, title: str, console: Console = stdout) -> None:
    """How many rows of `held_now` there are by endpoint and reason, then the newest."""
    counts = Table("endpoint", "reason", title=Text(title), title_justify="left")
    counts.add_column("objects", justify="right")
    for row in _counts(held):
        counts.add_row(row["endpoint"], row["reason"], str(row["objects"]))
    console.print(counts)
    newest = Table(title="the newest", title_justify="left")
    for name in ("object", "endpoint", "reason", "detail", "since"):
        newest.add_column(name, overflow="fold")
    for row in held.head(NAMED_ROWS).iter_rows(named=True):
        since = f"{row['happened_at']:%Y-%m-%d %H:%M} UTC"
        newest.add_row(shown(row["key"]), row["endpoint"], row["reason"], shown(row["detail"] or ""), since)
    console.print(newest)
    if (more := held.height - NAMED_ROWS) > 0:
        console.print(f"... and {more} more: --json has all, and soundcheck sql.", highlight=False)


def as_json(held: pl.DataFrame) -> dict[str, Any]:
    """The same as plain values, with every row."""
    rows = held.with_columns(pl.col("happened_at").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")).to_dicts()
    return {"counts": _counts(held), "objects": rows}


def _counts(held: pl.DataFrame) -> list[dict[str, Any]]:
    """By endpoint, the most frequent reason first."""
    counts = held.group_by("endpoint", "reason").len("objects")
    return counts.sort("endpoint", "objects", "reason", descending=[False, True, False]).to_dicts()
