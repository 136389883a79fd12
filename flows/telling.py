"""Changed decisions as events, some objects in each: who acts on them learns what has changed, and of nothing else."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from connectors.notices import Notices
from moderation.events import Event, EventKind
from moderation.identity import event_id
from tasks.decide import Decided
from tasks.records import Run

PART_OBJECTS = 500
"""Objects of an event: its body stays below a megabyte, whatever keys there are but the longest."""


def events_of(done: Decided, run: Run, at: datetime) -> Iterator[Event]:
    """The events of what a policy has decided otherwise than before; none where that is nothing."""
    total = done.turned_total
    if done.file is None or not total:
        return
    rows = done.turned.to_dicts()
    parts = -(-len(rows) // PART_OBJECTS)
    told = ", ".join(
        f"{row['objects']:,} {row['before'] or 'new'} to {row['after']}" for row in done.changes.to_dicts() if row["before"] != row["after"]
    )
    text = f"soundcheck, {run.org}: {total:,} decisions have changed by policy {done.policy} in run {run.run_id}: {told}"
    for part in range(parts):
        facts: dict[str, Any] = {
            "run_id": run.run_id,
            "policy": done.policy,
            "policy_hash": done.policy_hash,
            "changed": total,
            "file": done.file,
            "part": part + 1,
            "parts": parts,
            "not_listed": total - len(rows),
            "decisions": rows[part * PART_OBJECTS : (part + 1) * PART_OBJECTS],
        }
        known_by = (run.org, done.file, str(part))
        yield Event(event_id("decisions", *known_by), EventKind.DECISIONS_CHANGED, run.org, at, text, facts)


async def tell_decisions(notices: Notices, done: Decided, run: Run, at: datetime) -> int:
    """Tell what has changed, and return in how many events that is."""
    events = list(events_of(done, run, at))
    if events:
        await notices.send_events(events)
    return len(events)
