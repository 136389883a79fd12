"""Who waits for a slot, over all processes: so that each gets its turn (moderation.turns has the rule)."""

from collections.abc import Sequence

from sqlalchemy import BigInteger, bindparam, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from connectors.ledger.leases import LIVE, Moment
from connectors.ledger.schema import sessions, waiting
from moderation.admission import Claim
from moderation.turns import FRESH_MS, Waiting, yields

SEEN_EVERY_MS = FRESH_MS // 3
"""How often a waiting worker is written down again: a poll in between writes nothing."""
_AT = (waiting.c.org == bindparam("of_org"), waiting.c.endpoint == bindparam("of_endpoint"))
_MINE = (*_AT, waiting.c.worker == bindparam("of_worker"))
_LIVE = (
    select(func.count(sessions.c.session_id))
    .where(sessions.c.org == waiting.c.org, sessions.c.endpoint == waiting.c.endpoint, sessions.c.worker == waiting.c.worker, LIVE)
    .scalar_subquery()
)
_WAITING = select(waiting.c.worker, waiting.c.priority, _LIVE, waiting.c.since_ms, waiting.c.seen_ms).where(*_AT)
_IN_LINE = (
    select(waiting.c.endpoint, waiting.c.worker, waiting.c.priority, _LIVE, waiting.c.since_ms, waiting.c.seen_ms)
    .where(waiting.c.org == bindparam("of_org"))
    .order_by(waiting.c.since_ms, waiting.c.worker)
)
_MY_LIVE = (
    select(func.count(sessions.c.session_id))
    .where(sessions.c.org == bindparam("of_org"), sessions.c.endpoint == bindparam("of_endpoint"))
    .where(sessions.c.worker == bindparam("of_worker"), LIVE)
)
_SEEN = update(waiting).where(*_MINE).values(seen_ms=bindparam("now_ms", type_=BigInteger), priority=bindparam("of_priority"))
_LEAVE = delete(waiting).where(*_MINE)
_FORGET = delete(waiting).where(*_AT, waiting.c.seen_ms <= bindparam("now_ms", type_=BigInteger) - 10 * FRESH_MS)


async def line_at(connection: AsyncConnection, claim: Claim, moment: Moment) -> list[Waiting]:
    """Who waits at the endpoint of a claim, or has waited: its own worker, too."""
    rows = await connection.execute(_WAITING, _parameters(claim) | moment.clock)
    return [Waiting(*row) for row in rows]


async def is_anothers(connection: AsyncConnection, claim: Claim, line: Sequence[Waiting], moment: Moment) -> bool:
    """Whether a free slot should go to another worker in the line."""
    mine = _of(claim, line)
    if all(found is mine for found in line):
        return False
    live = mine.live if mine else await connection.scalar(_MY_LIVE, _parameters(claim) | moment.clock) or 0
    since_ms = mine.since_ms if mine else moment.now_ms
    return yields(Waiting(claim.worker, claim.priority, live, since_ms, moment.now_ms), line, moment.now_ms)


async def wait(connection: AsyncConnection, claim: Claim, line: Sequence[Waiting], moment: Moment) -> None:
    """Note that a worker of the line, or one that is new to it, has asked in vain."""
    mine = _of(claim, line)
    parameters = _parameters(claim) | {"now_ms": moment.now_ms}
    if mine is not None and 0 <= moment.now_ms - mine.seen_ms < SEEN_EVERY_MS:
        return
    if mine is not None and 0 <= moment.now_ms - mine.seen_ms < FRESH_MS:
        await connection.execute(_SEEN, parameters | {"of_priority": claim.priority})
        return
    await connection.execute(_LEAVE, _parameters(claim))
    await connection.execute(_FORGET, parameters)
    row = {"org": claim.org, "endpoint": claim.endpoint, "worker": claim.worker, "priority": claim.priority}
    await connection.execute(insert(waiting), row | {"since_ms": moment.now_ms, "seen_ms": moment.now_ms})


async def leave(connection: AsyncConnection, claim: Claim, line: Sequence[Waiting]) -> None:
    """Note that a worker of the line has got its slot; nothing for one that did not wait."""
    if _of(claim, line) is not None:
        await connection.execute(_LEAVE, _parameters(claim))


async def in_line(connection: AsyncConnection, org: str, moment: Moment) -> dict[str, list[Waiting]]:
    """Who waits for a slot of an organisation, by endpoint, the longest first."""
    found: dict[str, list[Waiting]] = {}
    for endpoint, *row in await connection.execute(_IN_LINE, {"of_org": org, **moment.clock}):
        if (waits := Waiting(*row)).is_there(moment.now_ms):
            found.setdefault(endpoint, []).append(waits)
    return found


def _of(claim: Claim, line: Sequence[Waiting]) -> Waiting | None:
    return next((waits for waits in line if waits.worker == claim.worker), None)


def _parameters(claim: Claim) -> dict[str, str]:
    return {"of_org": claim.org, "of_endpoint": claim.endpoint, "of_worker": claim.worker}
