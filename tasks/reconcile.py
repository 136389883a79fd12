"""Holds catalogue, ledger and lake against each other, object by object: what `soundcheck reconcile` does.

The ledger is read before the lake is listed, so that what is published meanwhile is no finding.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import pyarrow as pa
from duckdb import DuckDBPyConnection

from connectors.lake.reconciliation import BOOKED, Reconciliation, read_errors
from connectors.ledger import Ledger

CLOCKS = timedelta(minutes=1)
"""How far the clocks of hosts may be apart: a session that began so shortly before the ledger was read may have been admitted after."""


@asynccontextmanager
async def reconciled(
    ledger: Ledger,
    lake: str,
    open_lake: Callable[[], DuckDBPyConnection],
    at: datetime,
    sources: Sequence[str],
    tell: Callable[[int], None],
) -> AsyncIterator[Reconciliation]:
    """What there is, to be asked as long as the block runs; at is this instant (UTC), lake the id of the lake that is opened.

    With sources only what they list counts. tell hears how many sessions of the ledger are read. Raises ConfigurationError where
    files cannot be read, and what ledger and store raise.
    """
    pieces = [_table(piece) async for piece in _told(ledger.sessions_of(lake), tell)]
    buried = await ledger.buried()
    with read_errors():
        connection = await asyncio.to_thread(open_lake)
    with connection:
        found = Reconciliation(connection)

        def run() -> None:
            while pieces:
                found.book(pieces.pop())
            found.run(at - CLOCKS, buried, sources)

        with read_errors():
            await asyncio.to_thread(run)
        yield found


async def _told(pieces: AsyncIterator[list[tuple[object, ...]]], tell: Callable[[int], None]) -> AsyncIterator[list[tuple[object, ...]]]:
    read = 0
    async for piece in pieces:
        read += len(piece)
        tell(read)
        yield piece


def _table(piece: Sequence[tuple[object, ...]]) -> pa.Table:
    """Sessions of the ledger as Arrow has them, which takes a tenth of the memory."""
    return pa.table(dict(zip(BOOKED.names, map(list, zip(*piece, strict=True)), strict=True)), schema=BOOKED)
