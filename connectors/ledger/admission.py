"""Who may stream: the one transaction that admits a session (design.md section 5).

Statements stand ready with named parameters: building them anew took twice as long as running them.
"""

from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from sqlalchemy import and_, bindparam, exists, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from connectors.ledger import turns
from connectors.ledger.gates import OF_ENDPOINT, keep_gates, reserve, usages_of
from connectors.ledger.leases import LEASED, Moment
from connectors.ledger.schema import sessions, tombstones
from moderation import gate
from moderation.admission import DONE, Claim, Denial, Grant, History, Refusal, SessionKind, SessionState
from moderation.errors import ConfigurationError
from moderation.gate import Entry
from moderation.judgement import given_up
from moderation.limits import Stage
from moderation.usage import Usages, decide

OF_OBJECT = and_(
    sessions.c.lake == bindparam("of_lake"),
    sessions.c.object_id == bindparam("of_object_id"),
    sessions.c.endpoint == OF_ENDPOINT,
    sessions.c.params_hash == bindparam("of_params_hash"),
)
"""The sessions of an object with the same endpoint and parameters in the same lake."""
_LATER = sessions.alias("later")
_ENDED_LATER = exists().where(
    _LATER.c.lake == sessions.c.lake,
    _LATER.c.object_id == sessions.c.object_id,
    _LATER.c.endpoint == sessions.c.endpoint,
    _LATER.c.params_hash == sessions.c.params_hash,
    _LATER.c.outcome.is_not(None),
    _LATER.c.session_id > sessions.c.session_id,
)
WITHOUT_AN_END = and_(sessions.c.state == SessionState.AT_RISK, sessions.c.outcome.is_(None), ~_ENDED_LATER)
"""Sessions whose workers died, and since which no other one of their object came to its end: ids are in the order of time."""
_HISTORY = select(
    exists().where(OF_OBJECT, sessions.c.state == SessionState.STREAMING),
    exists().where(OF_OBJECT, sessions.c.state.in_(sorted(DONE))),
    exists().where(OF_OBJECT, sessions.c.state.in_(sorted(DONE)), sessions.c.run_id == bindparam("of_run_id")),
    exists().where(or_(*(tombstones.c.object_key_id == bindparam(name) for name in ("of_object_key_id", "of_object_id")))),
    select(func.count()).select_from(sessions).where(OF_OBJECT, WITHOUT_AN_END).scalar_subquery(),
)
"""The fields of History."""
_ADMITTED = (
    update(sessions)
    .where(sessions.c.session_id == bindparam("of_session_id"), sessions.c.state == SessionState.STREAMING, LEASED)
    .where(sessions.c.admitted.is_(False))
    .values(admitted=True)
    .returning(sessions.c.org, sessions.c.endpoint, sessions.c.month)
)
_ADMITTED_BESIDE = _ADMITTED.where(sessions.c.endpoint == OF_ENDPOINT)
"""Of another endpoint its own gate is to hear, in its own time."""
_CLOSED = (
    update(sessions)
    .where(sessions.c.session_id == bindparam("of_session_id"), sessions.c.state == SessionState.STREAMING, sessions.c.closed.is_(False))
    .values(closed=True)
)

_WAITED_OUT = {Denial.FULL, Denial.BREAKER, Denial.PAUSED}
"""What everybody waits for alike. A cap may hold somebody else's shorter session: who waits for one stands in nobody's way."""


async def admit(connection: AsyncConnection, claim: Claim, closed: Collection[str], moment: Moment) -> Grant | Refusal:
    """Grant a claim, writing the session, its reservation and what it changes about its gates; or say why not.

    closed are sessions that have given their slots back.
    """
    await _close(connection, closed)
    usages = await usages_of(connection, claim.org, claim.endpoint, claim.month, moment)
    history = await _history(connection, claim)
    entered = decide(claim, history, usages, moment.now_ms, moment.rules)
    if isinstance(entered, Denial) and entered not in _WAITED_OUT:
        return _refusal(entered, usages, moment, claim.estimate_ms)
    line = await turns.line_at(connection, claim, moment)
    if isinstance(entered, Entry) and entered.kind is SessionKind.OBJECT and await turns.is_anothers(connection, claim, line, moment):
        await turns.wait(connection, claim, line, moment)
        return Refusal(Denial.FULL)
    if isinstance(entered, Denial):
        await turns.wait(connection, claim, line, moment)
        return _refusal(entered, usages, moment, claim.estimate_ms)
    after = gate.started(usages.gates, claim.session_id, entered, moment.now_ms, moment.rules)
    await keep_gates(connection, claim.org, claim.endpoint, usages.gates, after)
    await turns.leave(connection, claim, line)
    await reserve(connection, claim.org, claim.endpoint, claim.month, claim.estimate_ms)
    row = _session_of(claim) | {"kind": entered.kind, "started_at": moment.at, "lease_until": moment.lease_until}
    await connection.execute(insert(sessions), row)
    alone = usages.endpoint.gate.limit.stage is Stage.PREFLIGHT
    kind = SessionKind.PROBE if alone else entered.kind
    awaited = gate.awaited(usages.gates, entered)
    return Grant(claim.session_id, moment.lease_until, kind, usages.spent_with(claim.estimate_ms), history.deaths, awaited)


def _refusal(denial: Denial, usages: Usages, moment: Moment, estimate_ms: int) -> Refusal:
    """Raises ConfigurationError where money cannot be reckoned: a missing price must never mean that audio costs nothing."""
    if denial is Denial.BREAKER:
        return Refusal(denial, given_up(usages.gates, moment.now_ms, moment.rules), *gate.closure(usages.gates, moment.now_ms))
    if denial is Denial.BUDGET and usages.unpriced is not None:
        raise ConfigurationError(
            f"{usages.whole.org} has a cap in money, but endpoint {usages.unpriced!r} has no price: nothing is admitted without one"
        )
    if denial is Denial.FULL:
        return Refusal(denial, live=None if usages.endpoint.gate.limit.rests(moment.now_ms) else usages.whole.live)
    return Refusal(denial, cap=usages.full(estimate_ms) if denial is Denial.BUDGET else None)


async def _close(connection: AsyncConnection, closed: Collection[str]) -> None:
    for session_id in closed:
        await connection.execute(_CLOSED, {"of_session_id": session_id})


async def note_result(
    connection: AsyncConnection, session_id: str, beside: Collection[str], closed: Collection[str], moment: Moment
) -> None:
    """Let the gates know that a session has its first result, beside others of its endpoint; nothing for one that is no longer held.

    closed as with `admit`.
    """
    await _close(connection, closed)
    session = (await connection.execute(_ADMITTED, {"of_session_id": session_id, **moment.clock})).one_or_none()
    if session is None:
        return
    for other in beside:
        await connection.execute(_ADMITTED_BESIDE, {"of_session_id": other, "of_endpoint": session.endpoint, **moment.clock})
    await admitted(connection, session_id, session.org, session.endpoint, session.month, moment, counted=True)


async def admitted(
    connection: AsyncConnection, session_id: str, org: str, endpoint: str, month: str, moment: Moment, *, counted: bool
) -> None:
    """Take into its gates that the service has admitted a session; counted is whether it, or who may have its slot, is among the live."""
    usages = await usages_of(connection, org, endpoint, month, moment)
    crowd = usages.crowd.without_one() if counted else usages.crowd
    after = gate.admitted(usages.gates, crowd, session_id, moment.now_ms, moment.chance, moment.rules)
    await keep_gates(connection, org, endpoint, usages.gates, after)


async def _history(connection: AsyncConnection, claim: Claim) -> History:
    parameters = {
        **parameters_of_object(claim.lake, claim.object_id, claim.endpoint, claim.params_hash),
        "of_object_key_id": claim.object_key_id,
        "of_run_id": claim.run_id,
    }
    return History(*(await connection.execute(_HISTORY, parameters)).one())


def parameters_of_object(lake: str, object_id: str, endpoint: str, params_hash: str) -> dict[str, str]:
    """The parameters of OF_OBJECT."""
    return {"of_lake": lake, "of_object_id": object_id, "of_endpoint": endpoint, "of_params_hash": params_hash}


def _session_of(claim: Claim) -> dict[str, Any]:
    wanted = asdict(claim)
    row = {column.name: wanted[column.name] for column in sessions.c if column.name in wanted}
    return row | {"reserved_ms": claim.estimate_ms, "state": SessionState.STREAMING}
