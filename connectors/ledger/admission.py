"""Who may stream: gates, budgets and the one transaction that admits a session (design.md section 5).

Statements stand ready with named parameters: building them anew took twice as long as running them.
"""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import String, and_, bindparam, exists, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from connectors.ledger.leases import LEASE_MS, LEASED
from connectors.ledger.schema import budgets, gates, sessions, tombstones
from moderation.admission import DONE, EVERY_ENDPOINT, Claim, Denial, Grant, History, SessionState, Usage, denial_of
from moderation.errors import ConfigurationError

_ORG, _ENDPOINT, _MONTH = (bindparam(name, type_=String) for name in ("of_org", "of_endpoint", "of_month"))

_SET_CEILING = update(gates).where(gates.c.org == _ORG, gates.c.endpoint == _ENDPOINT).values(ceiling=bindparam("new_ceiling"))
_GATE_EXISTS = select(exists().where(gates.c.org == _ORG, gates.c.endpoint == _ENDPOINT))
_SET_PAUSED = update(gates).where(gates.c.org == _ORG, gates.c.endpoint == EVERY_ENDPOINT).values(paused=bindparam("new_paused"))

_THE_BUDGET = and_(budgets.c.org == _ORG, budgets.c.endpoint == _ENDPOINT, budgets.c.month == _MONTH)
_SET_CAP = update(budgets).where(_THE_BUDGET).values(cap_ms=bindparam("new_cap_ms"))

BOTH_BUDGETS = and_(
    budgets.c.org == _ORG, or_(budgets.c.endpoint == EVERY_ENDPOINT, budgets.c.endpoint == _ENDPOINT), budgets.c.month == _MONTH
)
"""The two budgets that hold for an endpoint, its own and the organisation's, in a month."""
_RESERVE = (
    update(budgets).where(BOTH_BUDGETS).values(reserved_ms=budgets.c.reserved_ms + bindparam("more_ms")).returning(budgets.c.endpoint)
)

_LIVE = (
    select(func.count(sessions.c.session_id))
    .where(sessions.c.org == gates.c.org, sessions.c.state == SessionState.STREAMING, LEASED)
    .where(or_(gates.c.endpoint == EVERY_ENDPOINT, sessions.c.endpoint == gates.c.endpoint))
    .scalar_subquery()
)
_USAGE = (
    select(gates.c.org, gates.c.endpoint, _MONTH, gates.c.ceiling, _LIVE, gates.c.paused, gates.c.breaker, budgets.c.cap_ms)
    .add_columns(*(func.coalesce(spent, 0) for spent in (budgets.c.settled_ms, budgets.c.at_risk_ms, budgets.c.reserved_ms)))
    .outerjoin_from(gates, budgets, and_(budgets.c.org == gates.c.org, budgets.c.endpoint == gates.c.endpoint, budgets.c.month == _MONTH))
    .where(gates.c.org == _ORG)
    .order_by(gates.c.endpoint)
)
"""The fields of Usage, a row for each gate of an organisation."""
_USAGE_AT_BOTH_GATES = _USAGE.where(or_(gates.c.endpoint == EVERY_ENDPOINT, gates.c.endpoint == _ENDPOINT))

OF_OBJECT = and_(
    sessions.c.lake == bindparam("of_lake"),
    sessions.c.object_id == bindparam("of_object_id"),
    sessions.c.endpoint == _ENDPOINT,
    sessions.c.params_hash == bindparam("of_params_hash"),
)
"""The sessions of an object with the same endpoint and parameters in the same lake."""
_HISTORY = select(
    exists().where(OF_OBJECT, sessions.c.state == SessionState.STREAMING),
    exists().where(OF_OBJECT, sessions.c.state.in_(sorted(DONE))),
    exists().where(tombstones.c.object_key_id == bindparam("of_object_key_id")),
)
"""The fields of History."""


async def set_gate(connection: AsyncConnection, org: str, endpoint: str, ceiling: int | None) -> None:
    """Write the ceiling of a gate; that of the organisation as a whole comes into being with the first one, without a limit."""
    changed = await connection.execute(_SET_CEILING, {"of_org": org, "of_endpoint": endpoint, "new_ceiling": ceiling})
    if not changed.rowcount:
        await connection.execute(insert(gates), {"org": org, "endpoint": endpoint, "ceiling": ceiling})
    if not await connection.scalar(_GATE_EXISTS, {"of_org": org, "of_endpoint": EVERY_ENDPOINT}):
        await connection.execute(insert(gates), {"org": org, "endpoint": EVERY_ENDPOINT})


async def set_cap(connection: AsyncConnection, org: str, endpoint: str, month: str, cap_ms: int | None) -> None:
    """Write the cap of a month."""
    changed = await connection.execute(_SET_CAP, {"of_org": org, "of_endpoint": endpoint, "of_month": month, "new_cap_ms": cap_ms})
    if not changed.rowcount:
        await connection.execute(insert(budgets), {"org": org, "endpoint": endpoint, "month": month, "cap_ms": cap_ms})


async def set_paused(connection: AsyncConnection, org: str, *, paused: bool) -> None:
    """Close or open the gate of the organisation as a whole."""
    changed = await connection.execute(_SET_PAUSED, {"of_org": org, "new_paused": paused})
    if not changed.rowcount:
        raise ConfigurationError(f"the ledger knows no organisation {org!r}: check the name, or run it once")


async def usage(connection: AsyncConnection, org: str, month: str, now_ms: int) -> list[Usage]:
    """Every gate of an organisation with its budget of the month, "*" first."""
    rows = await connection.execute(_USAGE, {"of_org": org, "of_month": month, "now_ms": now_ms})
    return [Usage(*row) for row in rows]


async def admit(connection: AsyncConnection, claim: Claim, now_ms: int, started_at: datetime) -> Grant | Denial:
    """Grant a claim, writing the session and its reservation, or say why not."""
    usages = await usage_at_both_gates(connection, claim.org, claim.endpoint, claim.month, now_ms)
    if denial := denial_of(claim, usages, await _history(connection, claim)):
        return denial
    await reserve(connection, claim.org, claim.endpoint, claim.month, claim.estimate_ms)
    lease_until = now_ms + LEASE_MS
    await connection.execute(insert(sessions), _session_of(claim, lease_until, started_at))
    return Grant(claim.session_id, lease_until)


async def usage_at_both_gates(connection: AsyncConnection, org: str, endpoint: str, month: str, now_ms: int) -> list[Usage]:
    """The two gates that hold for an endpoint, its own and the organisation's, each with its budget of the month.

    Raises ConfigurationError when a gate is missing: a missing limit must never mean an unlimited one (faults.toml, 61).
    """
    parameters = {"of_org": org, "of_endpoint": endpoint, "of_month": month, "now_ms": now_ms}
    usages = [Usage(*row) for row in await connection.execute(_USAGE_AT_BOTH_GATES, parameters)]
    for missing in {EVERY_ENDPOINT, endpoint} - {found.endpoint for found in usages}:
        raise ConfigurationError(
            f"the ledger has no gate for organisation {org!r}, endpoint {missing!r}: nothing is admitted without one; "
            "check the organisation's settings and start the run again, which writes it"
        )
    return usages


async def reserve(connection: AsyncConnection, org: str, endpoint: str, month: str, more_ms: int) -> None:
    """Add to what is reserved in both budgets, which come into being when the month's first session starts."""
    reserved = await connection.scalars(_RESERVE, {"of_org": org, "of_endpoint": endpoint, "of_month": month, "more_ms": more_ms})
    for missing in {EVERY_ENDPOINT, endpoint} - set(reserved):
        await connection.execute(insert(budgets), {"org": org, "endpoint": missing, "month": month, "reserved_ms": more_ms})


async def _history(connection: AsyncConnection, claim: Claim) -> History:
    parameters = {
        **parameters_of_object(claim.lake, claim.object_id, claim.endpoint, claim.params_hash),
        "of_object_key_id": claim.object_key_id,
    }
    return History(*(await connection.execute(_HISTORY, parameters)).one())


def parameters_of_object(lake: str, object_id: str, endpoint: str, params_hash: str) -> dict[str, str]:
    """The parameters of OF_OBJECT."""
    return {"of_lake": lake, "of_object_id": object_id, "of_endpoint": endpoint, "of_params_hash": params_hash}


def _session_of(claim: Claim, lease_until: int, started_at: datetime) -> dict[str, Any]:
    wanted = asdict(claim)
    row = {column.name: wanted[column.name] for column in sessions.c if column.name in wanted}
    return row | {"reserved_ms": claim.estimate_ms, "state": SessionState.STREAMING, "started_at": started_at, "lease_until": lease_until}
