"""Changed decisions as events, some objects in each: who acts on them learns what has changed, and of nothing else.

They are worked out from what is stored, whichever process stored it: one that dies before it has told anybody leaves that to the next.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from datetime import datetime

from duckdb import DuckDBPyConnection

from connectors.lake.store import ResultStore
from connectors.lake.untold import still_untold, told
from connectors.notices import Notices
from moderation.errors import SoundcheckError
from moderation.events import Event, EventKind
from moderation.identity import event_id
from tasks.changes import Changes, read_changes

PART_OBJECTS = 500
"""Objects of an event: its body stays below a megabyte, whatever keys there are but the longest."""
logger = logging.getLogger("soundcheck.notices")


async def tell_changes(
    notices: Notices, results: ResultStore, open_lake: Callable[..., DuckDBPyConnection], org: str, now: datetime
) -> None:
    """Tell what decisions and answers of an organisation have changed, but for what was told; what fails is told the next time."""
    try:
        for untold in await asyncio.to_thread(still_untold, results, org, now):
            events = list(events_of(await asyncio.to_thread(read_changes, results, open_lake, untold)))
            if events:
                await notices.send_events(events)
            await asyncio.to_thread(told, results, untold)
    except SoundcheckError as error:
        logger.warning("changed decisions of %s are not told yet, the next soundcheck decide does: %s", org, error)


def events_of(changes: Changes) -> Iterator[Event]:
    """The events of what a file has changed; none where that is nothing. The same file gives the same ids."""
    of, rows = changes.of, changes.listed.to_dicts()
    text = f"soundcheck, {of.org}: {changes.total:,} decisions have changed by {_by(changes)}"
    parts = -(-len(rows) // PART_OBJECTS)
    for part in range(parts):
        facts = {
            "run_id": of.run_id,
            "policy": of.policy,
            "policy_hash": of.policy_hash,
            "changed": changes.total,
            "file": of.file,
            "part": part + 1,
            "parts": parts,
            "not_listed": changes.total - len(rows),
            "decisions": rows[part * PART_OBJECTS : (part + 1) * PART_OBJECTS],
        }
        yield Event(event_id("decisions", of.org, of.file, str(part)), EventKind.DECISIONS_CHANGED, of.org, of.at, text, facts)


def _by(changes: Changes) -> str:
    of = changes.of
    if of.policy is None:
        return "what people answered"
    turns = ", ".join(f"{row['objects']:,} {row['before'] or 'new'} to {row['after']}" for row in changes.counts.to_dicts())
    return f"policy {of.policy} in run {of.run_id}: {turns}"
