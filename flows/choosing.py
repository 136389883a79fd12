"""What a run lists: its sources, or the objects that a predicate chooses."""

import asyncio

from connectors.catalogue import Source
from flows.request import Request
from flows.sources import prefixes_of
from flows.wiring import Wired, WiredToPlan
from tasks.choose import choose, predicates
from tasks.records import Run


async def source_of(wired: Wired | WiredToPlan, request: Request, run: Run) -> Source:
    """The source of a run. Raises QueryError for a predicate that cannot be asked, ConfigurationError where it chooses nothing."""
    if request.where is None:
        return wired.source
    asked = await asyncio.to_thread(predicates, request.where)
    address = await asyncio.to_thread(choose, wired.open_lake, wired.results, run, asked, prefixes_of(request.sources))
    return wired.key_list(address)
