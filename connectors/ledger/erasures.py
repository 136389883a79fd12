"""What was erased by request: tombstones, which admission honours, and the sessions whose results are gone with it.

A tombstone is of a key or of one version of it: it has an object_key_id or an object_id, which are never the same.
"""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from connectors.ledger.schema import sessions, tombstones
from moderation.admission import SessionState
from moderation.errors import ConfigurationError

ASKED_AT_A_TIME = 10_000
"""Ids of one statement: SQLite takes 32,766, PostgreSQL's driver 32,767."""


async def bury(
    connection: AsyncConnection, erased_id: str, receipt: str, lakes: Collection[str], object_ids: Collection[str], at: datetime
) -> tuple[str, ...]:
    """Set a tombstone, and the sessions that these objects have had in these lakes to erased, which changes no figure of what they cost.

    The ids of the sessions. Raises ConfigurationError, and does nothing, while one of them streams.
    """
    of_objects = (sessions.c.lake.in_(sorted(lakes)), sessions.c.object_id.in_(sorted(object_ids)))
    streaming = select(sessions.c.session_id, sessions.c.run_id).where(*of_objects, sessions.c.state == SessionState.STREAMING)
    if held := (await connection.execute(streaming.limit(1))).one_or_none():
        raise ConfigurationError(
            f"session {held.session_id} of run {held.run_id} streams it: wait until that has ended, or stop the run; "
            "where its worker has died, `soundcheck ledger sweep` ends it. Then erase again"
        )
    if await connection.scalar(select(tombstones.c.at).where(tombstones.c.object_key_id == erased_id)) is None:
        await connection.execute(insert(tombstones), {"object_key_id": erased_id, "at": at, "receipt": receipt})
    await connection.execute(update(sessions).where(*of_objects).values(state=SessionState.ERASED))
    return tuple(await connection.scalars(select(sessions.c.session_id).where(*of_objects).order_by(sessions.c.session_id)))


async def buried(connection: AsyncConnection) -> frozenset[str]:
    """The ids that have a tombstone."""
    return frozenset(await connection.scalars(select(tombstones.c.object_key_id)))


async def erased(connection: AsyncConnection, session_ids: Collection[str]) -> frozenset[str]:
    """Those of these sessions of which nothing must be published."""
    found: set[str] = set()
    for some in _in_pieces(sorted(session_ids)):
        found.update(
            await connection.scalars(
                select(sessions.c.session_id).where(sessions.c.session_id.in_(some), sessions.c.state == SessionState.ERASED)
            )
        )
    return frozenset(found)


def _in_pieces(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), ASKED_AT_A_TIME):
        yield ids[start : start + ASKED_AT_A_TIME]
