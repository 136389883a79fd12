"""Leases: how long a session is held without a sign of life from its worker (design.md section 5).

A lease ends at `lease_until` milliseconds of the ledger's clock, on SQLite the host's boot clock. That clock starts again at a reboot, so a
lease that reaches further ahead than any lease can is one of before the reboot and has expired. At worst, a session that died with the host
is taken for a live one until the first lease length of the new uptime that covers it has passed: a slot unused, never one used twice.

The clock must be read within the transaction: read before waiting for the lock, it would make the leases that others renewed meanwhile look
like such remnants.
"""

from sqlalchemy import BigInteger, and_, bindparam, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from connectors.ledger.schema import sessions
from moderation.admission import SessionState

LEASE_MS = 60_000
"""One lease (design.md section 5): workers renew every 15 s and abort their sessions after half a lease without a renewal."""


_NOW = bindparam("now_ms", type_=BigInteger)
LEASED = and_(sessions.c.lease_until > _NOW, sessions.c.lease_until <= _NOW + LEASE_MS)
"""Whether a session's lease is unexpired at the parameter now_ms."""
EXPIRED = or_(sessions.c.lease_until <= _NOW, sessions.c.lease_until > _NOW + LEASE_MS)
"""Whether it has expired; ended sessions have none."""

_RENEW = (
    update(sessions)
    .where(sessions.c.worker == bindparam("of_worker"), sessions.c.state == SessionState.STREAMING, LEASED)
    .values(lease_until=_NOW + LEASE_MS)
    .returning(sessions.c.session_id)
)
_EXPIRED_SESSIONS = select(sessions.c.session_id).where(sessions.c.state == SessionState.STREAMING, EXPIRED)


async def renew(connection: AsyncConnection, worker: str, now_ms: int) -> frozenset[str]:
    """Renew what a worker still holds. An expired lease stays expired: its slot may be another's by now."""
    return frozenset(await connection.scalars(_RENEW, {"of_worker": worker, "now_ms": now_ms}))


async def expired_sessions(connection: AsyncConnection, now_ms: int) -> tuple[str, ...]:
    """The streaming sessions that are to be swept, oldest first."""
    # sorted here: SQLite would read all sessions in the order wanted rather than the few leased ones (183 ms at a million)
    return tuple(sorted(await connection.scalars(_EXPIRED_SESSIONS, {"now_ms": now_ms})))
