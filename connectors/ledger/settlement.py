"""What a session cost: each end of a session moves its reservation to what is settled or at risk, in the same transaction."""

from dataclasses import asdict, dataclass

from sqlalchemy import BigInteger, String, Update, and_, bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from connectors.ledger.admission import BOTH_BUDGETS, OF_OBJECT, parameters_of_object, reserve, usage_at_both_gates
from connectors.ledger.leases import EXPIRED, LEASED
from connectors.ledger.schema import budgets, sessions
from moderation.admission import SessionState
from moderation.errors import LeaseLost, Scope
from moderation.results import SpooledSession

_SESSION_ID = bindparam("of_session_id", type_=String)
_STREAMING = and_(sessions.c.session_id == _SESSION_ID, sessions.c.state == SessionState.STREAMING)
_MONEY = (sessions.c.org, sessions.c.endpoint, sessions.c.month, sessions.c.reserved_ms, sessions.c.booked_ms)

_HELD = select(*_MONEY).where(_STREAMING, LEASED)
_EXTEND = update(sessions).where(_STREAMING).values(reserved_ms=sessions.c.reserved_ms + bindparam("more_ms"))
_END = (
    update(sessions)
    .where(_STREAMING)
    .values(
        state=bindparam("new_state"),
        booked_ms=func.coalesce(bindparam("new_booked_ms", type_=BigInteger), sessions.c.reserved_ms),
        sent_ms=bindparam("new_sent_ms"),
        outcome=bindparam("new_outcome"),
        scope=bindparam("new_scope"),
        close_code=bindparam("new_close_code"),
        error_text=bindparam("new_error_text"),
        lease_until=None,
    )
    .returning(*_MONEY)
)
_END_LEASED, _END_EXPIRED = _END.where(LEASED), _END.where(EXPIRED)
_MOVE = (
    update(budgets)
    .where(BOTH_BUDGETS)
    .values(
        reserved_ms=budgets.c.reserved_ms - bindparam("less_reserved_ms"),
        settled_ms=budgets.c.settled_ms + bindparam("more_settled_ms"),
        at_risk_ms=budgets.c.at_risk_ms + bindparam("more_at_risk_ms"),
    )
)
_ATTEMPTS = select(func.count()).select_from(sessions).where(OF_OBJECT, sessions.c.scope == Scope.OBJECT)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a session ended. booked_ms counts against the cap; None books the whole reservation, as nobody knows what was sent."""

    state: SessionState
    booked_ms: int | None
    sent_ms: int | None = None
    outcome: str | None = None
    scope: str | None = None
    close_code: int | None = None
    error_text: str | None = None


def failure(sent_ms: int, outcome: str | None, scope: str | None, close_code: int | None, error_text: str | None) -> Ending:
    """The ending of an attempt without a done: at risk with what was sent, released when no audio was."""
    state = SessionState.AT_RISK if sent_ms else SessionState.RELEASED
    return Ending(state, sent_ms, sent_ms, outcome, scope, close_code, error_text)


WORKER_DIED = Ending(SessionState.AT_RISK, booked_ms=None)


async def extend(connection: AsyncConnection, session_id: str, more_ms: int, now_ms: int) -> bool:
    """Add to a live session's reservation if both caps hold it."""
    held = await connection.execute(_HELD, {"of_session_id": session_id, "now_ms": now_ms})
    session = held.one_or_none()
    if session is None:
        raise _lease_lost(session_id)
    usages = await usage_at_both_gates(connection, session.org, session.endpoint, session.month, now_ms)
    if not all(usage.fits(more_ms) for usage in usages):
        return False
    await reserve(connection, session.org, session.endpoint, session.month, more_ms)
    await connection.execute(_EXTEND, {"of_session_id": session_id, "more_ms": more_ms})
    return True


async def finish(connection: AsyncConnection, session_id: str, booked_ms: int, close_code: int | None, now_ms: int) -> None:
    """Book a valid done. It needs an unexpired lease: else it is for the sweeper to find the result in the spool."""
    ending = Ending(SessionState.FINISHED, booked_ms, outcome="done", close_code=close_code)
    if not await _end(connection, session_id, ending, _END_LEASED, now_ms=now_ms):
        raise _lease_lost(session_id)


async def fail(connection: AsyncConnection, session_id: str, ending: Ending) -> None:
    """Book a failed attempt. Until the session is swept its own worker knows best what was sent, lease or not."""
    if not await _end(connection, session_id, ending):
        raise _lease_lost(session_id)


async def withdraw(connection: AsyncConnection, session_id: str) -> None:
    """Release a session that its worker never learned of; nothing when it was not admitted."""
    await _end(connection, session_id, failure(0, "cancelled", None, None, None))


async def recover(connection: AsyncConnection, session_id: str, spooled: SpooledSession | None, now_ms: int) -> SessionState | None:
    """End an expired session by what its worker left in the spool; None when it has not expired or another sweeper was first."""
    ending = _spooled_ending(spooled) if spooled is not None else WORKER_DIED
    return ending.state if await _end(connection, session_id, ending, _END_EXPIRED, now_ms=now_ms) else None


def _spooled_ending(spooled: SpooledSession) -> Ending:
    facts = {name: spooled.attempt.get(name) for name in ("outcome", "scope", "close_code", "error_text")}
    if spooled.summary is None:
        return failure(spooled.sent_ms, **facts)
    return Ending(SessionState.FINISHED, spooled.booked_ms, spooled.sent_ms, **facts)


async def attempts_of(connection: AsyncConnection, lake: str, object_id: str, endpoint: str, params_hash: str) -> int:
    """The object's failures under its own scope."""
    return await connection.scalar(_ATTEMPTS, parameters_of_object(lake, object_id, endpoint, params_hash)) or 0


async def _end(connection: AsyncConnection, session_id: str, ending: Ending, fenced: Update = _END, **fence: int) -> bool:
    """Move a streaming session to its end and its money with it; False when it no longer streams or the fence forbids it."""
    facts = {f"new_{name}": value for name, value in asdict(ending).items()}
    session = (await connection.execute(fenced, {**facts, "of_session_id": session_id, **fence})).one_or_none()
    if session is None:
        return False
    settled = ending.state is SessionState.FINISHED
    await connection.execute(
        _MOVE,
        {
            "of_org": session.org,
            "of_endpoint": session.endpoint,
            "of_month": session.month,
            "less_reserved_ms": session.reserved_ms,
            "more_settled_ms": session.booked_ms if settled else 0,
            "more_at_risk_ms": 0 if settled else session.booked_ms,
        },
    )
    return True


def _lease_lost(session_id: str) -> LeaseLost:
    return LeaseLost(f"session {session_id} is no longer this worker's: its lease expired or it was swept; its result stays in the spool")
