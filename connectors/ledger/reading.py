"""Reading what the ledger has; of a lake's sessions a piece at a time: nobody who streams waits until all of them are read."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from connectors.ledger.admission import WITHOUT_AN_END
from connectors.ledger.schema import gates, sessions
from moderation.admission import DEATHS, SessionRecord, SessionState, Suspect

T = TypeVar("T")
SUSPICIOUS = DEATHS - 1
"""Deaths from which an object is streamed beside no other such one: what only died beside the culprit comes to an end then."""
Transact = Callable[[Callable[[AsyncConnection], Awaitable[T]]], Awaitable[T]]
PIECE = 20_000
"""Sessions of one transaction: some 50 ms on SQLite."""
COLUMNS = [sessions.c[name] for name in ("session_id", "endpoint", "object_id", "params_hash", "run_id", "state", "booked_ms")]


async def sessions_of(transact: Transact[list[Any]], lake: str) -> AsyncIterator[list[Any]]:
    """Rows of COLUMNS, by session_id; a session that is admitted meanwhile may be among them or not."""
    last = ""
    while True:
        # as an expression: by its index on the lake SQLite would sort all sessions for every piece (2 s instead of 50 ms at a million)
        of_lake = sessions.c.lake.concat("") == lake
        asked = select(*COLUMNS).where(of_lake, sessions.c.session_id > last).order_by(sessions.c.session_id).limit(PIECE)

        async def step(connection: AsyncConnection, asked: Any = asked) -> list[Any]:
            return list(await connection.execute(asked))

        piece = await transact(step)
        if not piece:
            return
        yield piece
        last = piece[-1].session_id


async def suspects(connection: AsyncConnection, org: str, lake: str) -> frozenset[Suspect]:
    """The objects of an organisation over which the last workers have died."""
    identity = (sessions.c.endpoint, sessions.c.object_id, sessions.c.params_hash)
    dead = select(*identity).where(sessions.c.org == org, sessions.c.lake == lake, WITHOUT_AN_END)
    found = await connection.execute(dead.group_by(*identity).having(func.count() >= SUSPICIOUS))
    return frozenset(Suspect(*row) for row in found)


async def streaming(connection: AsyncConnection, org: str) -> list[SessionRecord]:
    """The sessions of an organisation that stream, oldest first."""
    query = select(sessions).where(sessions.c.org == org, sessions.c.state == SessionState.STREAMING).order_by(sessions.c.session_id)
    return [SessionRecord(*row) for row in await connection.execute(query)]


async def organisations(connection: AsyncConnection) -> list[str]:
    """Every organisation that there is a gate of."""
    return list(await connection.scalars(select(gates.c.org).distinct().order_by(gates.c.org)))


async def session(connection: AsyncConnection, session_id: str) -> SessionRecord | None:
    """A session as it stands."""
    row = (await connection.execute(select(sessions).where(sessions.c.session_id == session_id))).one_or_none()
    return None if row is None else SessionRecord(*row)
