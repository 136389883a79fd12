"""What a session cost: each end of a session moves its reservation to what is settled or at risk, in the same transaction."""

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import BigInteger, Row, String, Update, and_, bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from connectors.ledger.admission import OF_OBJECT, admitted, parameters_of_object
from connectors.ledger.gates import BOTH_BUDGETS, keep_gates, reserve, usages_of
from connectors.ledger.leases import EXPIRED, LEASED, Moment
from connectors.ledger.schema import budgets, sessions
from moderation import gate
from moderation.admission import SessionState
from moderation.errors import LeaseLost, Scope
from moderation.judgement import Failure, judge
from moderation.refusals import Cause
from moderation.results import SpooledSession

_SESSION_ID = bindparam("of_session_id", type_=String)
_STREAMING = and_(sessions.c.session_id == _SESSION_ID, sessions.c.state == SessionState.STREAMING)
_FACTS = (
    sessions.c.session_id,
    sessions.c.org,
    sessions.c.endpoint,
    sessions.c.month,
    sessions.c.reserved_ms,
    sessions.c.booked_ms,
    sessions.c.admitted,
    sessions.c.closed,
)

_HELD = select(*_FACTS).where(_STREAMING, LEASED)
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
    .returning(*_FACTS)
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


async def extend(connection: AsyncConnection, session_id: str, more_ms: int, moment: Moment) -> bool:
    """Add to a live session's reservation if both caps hold it."""
    held = await connection.execute(_HELD, {"of_session_id": session_id, **moment.clock})
    session = held.one_or_none()
    if session is None:
        raise _lease_lost(session_id)
    usages = await usages_of(connection, session.org, session.endpoint, session.month, moment)
    if not usages.fit(more_ms):
        return False
    await reserve(connection, session.org, session.endpoint, session.month, more_ms)
    await connection.execute(_EXTEND, {"of_session_id": session_id, "more_ms": more_ms})
    return True


async def finish(connection: AsyncConnection, session_id: str, booked_ms: int, close_code: int | None, moment: Moment) -> None:
    """Book a valid done. It needs an unexpired lease: else it is for the sweeper to find the result in the spool."""
    ending = Ending(SessionState.FINISHED, booked_ms, outcome="done", close_code=close_code)
    session = await _end(connection, session_id, ending, _END_LEASED, **moment.clock)
    if session is None:
        raise _lease_lost(session_id)
    if not session.admitted:  # too short for an item, yet the service has taken it
        await admitted(connection, session_id, session.org, session.endpoint, session.month, moment, counted=session.closed)


async def fail(connection: AsyncConnection, ending: Ending, failure: Failure, moment: Moment) -> Cause:
    """Book a failed attempt and judge what it means. Until the session is swept its own worker knows best what was sent, lease or not."""
    session = await _end(connection, failure.session_id, ending)
    if session is None:
        raise _lease_lost(failure.session_id)
    usages = await usages_of(connection, session.org, session.endpoint, session.month, moment)
    judgement = judge(usages.gates, usages.crowd, failure, moment.now_ms, moment.chance, moment.rules)
    await keep_gates(connection, session.org, session.endpoint, usages.gates, judgement.gates)
    return judgement.cause


async def withdraw(connection: AsyncConnection, session_id: str, moment: Moment) -> None:
    """Release a session that its worker never learned of; nothing when it was not admitted."""
    await _leave(connection, await _end(connection, session_id, failure(0, "cancelled", None, None, None)), moment)


async def recover(connection: AsyncConnection, session_id: str, spooled: SpooledSession | None, moment: Moment) -> SessionState | None:
    """End an expired session by what its worker left in the spool; None when it has not expired or another sweeper was first."""
    ending = _spooled_ending(spooled) if spooled is not None else WORKER_DIED
    session = await _end(connection, session_id, ending, _END_EXPIRED, **moment.clock)
    await _leave(connection, session, moment)
    return None if session is None else ending.state


async def _leave(connection: AsyncConnection, session: Row[*tuple[Any, ...]] | None, moment: Moment) -> None:
    """Take out of its gates a session of which nothing was heard."""
    if session is not None:
        usages = await usages_of(connection, session.org, session.endpoint, session.month, moment)
        after = gate.left(usages.gates, session.session_id, moment.now_ms, moment.chance, moment.rules)
        await keep_gates(connection, session.org, session.endpoint, usages.gates, after)


def _spooled_ending(spooled: SpooledSession) -> Ending:
    facts = {name: spooled.attempt.get(name) for name in ("outcome", "scope", "close_code", "error_text")}
    if spooled.summary is None:
        return failure(spooled.sent_ms, **facts)
    return Ending(SessionState.FINISHED, spooled.booked_ms, spooled.sent_ms, **facts)


async def attempts_of(connection: AsyncConnection, lake: str, object_id: str, endpoint: str, params_hash: str) -> int:
    """The object's failures under its own scope."""
    return await connection.scalar(_ATTEMPTS, parameters_of_object(lake, object_id, endpoint, params_hash)) or 0


async def _end(
    connection: AsyncConnection, session_id: str, ending: Ending, fenced: Update = _END, **fence: int
) -> Row[*tuple[Any, ...]] | None:
    """Move a streaming session to its end and its money with it; None when it no longer streams or the fence forbids it."""
    facts = {f"new_{name}": value for name, value in asdict(ending).items()}
    session = (await connection.execute(fenced, {**facts, "of_session_id": session_id, **fence})).one_or_none()
    if session is None:
        return None
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
    return session


def _lease_lost(session_id: str) -> LeaseLost:
    return LeaseLost(f"session {session_id} is no longer this worker's: its lease expired or it was swept; its result stays in the spool")
