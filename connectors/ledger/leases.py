"""Leases: how long a session is held without a sign of life from its worker (design.md section 5).

A lease ends at `lease_until` milliseconds of the ledger's clock, on SQLite the host's boot clock. That clock starts again at a reboot, so a
lease that reaches further ahead than any lease can is one of before the reboot and has expired. At worst, a session that died with the host
is taken for a live one until the first lease length of the new uptime that covers it has passed: a slot unused, never one used twice.
PostgreSQL's clock is a wall clock: it never starts again, and where it is set back leases last longer by so much.

The clock must be read within the transaction: read before waiting for the lock, it would make the leases that others renewed meanwhile look
like such remnants.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import BigInteger, and_, bindparam, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from connectors.ledger.schema import sessions
from moderation.admission import SessionState
from moderation.gate import GateRules

LEASE_MS = 60_000
"""One lease (design.md section 5): workers renew every 15 s and abort their sessions after half a lease without a renewal."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When and by which rules a transaction runs.

    now_ms is the ledger's clock, read under its lock; at the wall clock's instant, which is only written down; chance a random number in
    [0, 1); lease_ms the length of a lease; restarts whether the ledger's clock starts again at a reboot.
    """

    now_ms: int
    at: datetime
    chance: float
    lease_ms: int
    rules: GateRules
    restarts: bool

    @property
    def lease_until(self) -> int:
        """When a lease ends that begins now."""
        return self.now_ms + self.lease_ms

    @property
    def clock(self) -> dict[str, int]:
        """The parameters of LEASED and EXPIRED."""
        return {"now_ms": self.now_ms, "latest_ms": self.lease_until if self.restarts else _NEVER_MS}


_NEVER_MS = 2**62
"""Further ahead than any clock comes."""
_NOW = bindparam("now_ms", type_=BigInteger)
_LATEST = bindparam("latest_ms", type_=BigInteger)
LEASED = and_(sessions.c.lease_until > _NOW, sessions.c.lease_until <= _LATEST)
"""Whether a session's lease is unexpired at the parameter now_ms, where none can reach beyond latest_ms."""
EXPIRED = or_(sessions.c.lease_until <= _NOW, sessions.c.lease_until > _LATEST)
"""Whether it has expired; ended sessions have none."""
LIVE = and_(sessions.c.state == SessionState.STREAMING, LEASED, sessions.c.closed.is_(False))
"""Whether it takes a slot: one whose connection has closed has given that back, though it is not booked yet."""

_RENEW = (
    update(sessions)
    .where(sessions.c.worker == bindparam("of_worker"), sessions.c.state == SessionState.STREAMING, LEASED)
    .values(lease_until=bindparam("new_lease_until", type_=BigInteger))
    .returning(sessions.c.session_id)
)
_EXPIRED_SESSIONS = select(sessions.c.session_id).where(sessions.c.state == SessionState.STREAMING, EXPIRED)


async def renew(connection: AsyncConnection, worker: str, moment: Moment) -> frozenset[str]:
    """Renew what a worker still holds. An expired lease stays expired: its slot may be another's by now."""
    return frozenset(await connection.scalars(_RENEW, {"of_worker": worker, "new_lease_until": moment.lease_until, **moment.clock}))


async def expired_sessions(connection: AsyncConnection, lake: str | None, moment: Moment) -> tuple[str, ...]:
    """The streaming sessions that are to be swept, of one lake or of all, oldest first."""
    query = _EXPIRED_SESSIONS if lake is None else _EXPIRED_SESSIONS.where(sessions.c.lake == lake)
    # sorted here: SQLite would read all sessions in the order wanted rather than the few leased ones (183 ms at a million)
    return tuple(sorted(await connection.scalars(query, moment.clock)))
