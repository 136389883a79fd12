"""Changed decisions as events, some objects in each: who acts on them learns what has changed, and of nothing else."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import polars as pl

from connectors.notices import Notices
from moderation.events import Event, EventKind
from moderation.identity import event_id
from tasks.decide import Decided
from tasks.records import Run

PART_OBJECTS = 500
"""Objects of an event: its body stays below a megabyte, whatever keys there are but the longest."""


def events_of(done: Decided, run: Run, at: datetime) -> Iterator[Event]:
    """The events of what a policy has decided otherwise than before; none where that is nothing."""
    if done.file is None or not done.turned_total:
        return
    turns = [row for row in done.changes.to_dicts() if row["before"] != row["after"]]
    told = ", ".join(f"{row['objects']:,} {row['before'] or 'new'} to {row['after']}" for row in turns)
    text = f"soundcheck, {run.org}: {done.turned_total:,} decisions have changed by policy {done.policy} in run {run.run_id}: {told}"
    by = {"policy": done.policy, "policy_hash": done.policy_hash}
    yield from _parts(done.turned.to_dicts(), done.turned_total, done.file, text, run, at, by)


def events_of_answers(turned: pl.DataFrame, file: str, run: Run) -> Iterator[Event]:
    """The events of what people have overturned, as `tasks.review.overturned` has it; file is the one of their answers."""
    text = f"soundcheck, {run.org}: {turned.height:,} decisions have changed by what people answered"
    yield from _parts(turned.to_dicts(), turned.height, file, text, run, run.started_at, {"policy": None, "policy_hash": None})


async def tell_decisions(notices: Notices, done: Decided, run: Run, at: datetime) -> None:
    """Tell what a policy has changed, where it has changed anything."""
    await _send(notices, list(events_of(done, run, at)))


async def tell_answers(notices: Notices, turned: pl.DataFrame, file: str, run: Run) -> None:
    """Tell what people's answers have changed, where they have changed anything."""
    await _send(notices, list(events_of_answers(turned, file, run)))


async def _send(notices: Notices, events: list[Event]) -> None:
    if events:
        await notices.send_events(events)


def _parts(
    rows: Sequence[Mapping[str, Any]], total: int, file: str, text: str, run: Run, at: datetime, by: Mapping[str, Any]
) -> Iterator[Event]:
    """The same in events of so many objects each; file has all of them."""
    parts = -(-len(rows) // PART_OBJECTS)
    for part in range(parts):
        facts = {
            "run_id": run.run_id,
            **by,
            "changed": total,
            "file": file,
            "part": part + 1,
            "parts": parts,
            "not_listed": total - len(rows),
            "decisions": rows[part * PART_OBJECTS : (part + 1) * PART_OBJECTS],
        }
        yield Event(event_id("decisions", run.org, file, str(part)), EventKind.DECISIONS_CHANGED, run.org, at, text, facts)
