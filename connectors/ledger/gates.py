"""Gates and budgets as the database keeps them: read and written under its lock, judged by moderation alone."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import msgspec
from sqlalchemy import String, and_, bindparam, case, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from connectors.ledger.leases import LIVE, Moment
from connectors.ledger.schema import budgets, gates, sessions
from connectors.ledger.sqlite import LedgerDamaged
from moderation.admission import EVERY_ENDPOINT
from moderation.errors import ConfigurationError
from moderation.gate import Gate, Gates
from moderation.usage import Usage, Usages

OF_ORG, OF_ENDPOINT, OF_MONTH = (bindparam(name, type_=String) for name in ("of_org", "of_endpoint", "of_month"))

_THE_GATE = and_(gates.c.org == OF_ORG, gates.c.endpoint == OF_ENDPOINT)
_GATE = select(gates.c.gate).where(_THE_GATE)
_SET_GATE = update(gates).where(_THE_GATE).values(gate=bindparam("new_gate"))

BOTH_BUDGETS = and_(
    budgets.c.org == OF_ORG, or_(budgets.c.endpoint == EVERY_ENDPOINT, budgets.c.endpoint == OF_ENDPOINT), budgets.c.month == OF_MONTH
)
"""The two budgets that hold for an endpoint, its own and the organisation's, in a month."""
_RESERVE = (
    update(budgets).where(BOTH_BUDGETS).values(reserved_ms=budgets.c.reserved_ms + bindparam("more_ms")).returning(budgets.c.endpoint)
)

_LIVE = (
    select(
        sessions.c.endpoint,
        func.count(sessions.c.session_id).label("live"),
        func.sum(case((sessions.c.admitted, 1), else_=0)).label("admitted"),
    )
    .where(sessions.c.org == OF_ORG, LIVE)
    .group_by(sessions.c.endpoint)
)
_LIVE_THERE = _LIVE.subquery("live_there")
_OF_MONTH = and_(budgets.c.org == gates.c.org, budgets.c.endpoint == gates.c.endpoint, budgets.c.month == OF_MONTH)
_COUNTS = (_LIVE_THERE.c.live, _LIVE_THERE.c.admitted, budgets.c.settled_ms, budgets.c.at_risk_ms, budgets.c.reserved_ms)
_USAGE = (
    select(gates.c.endpoint, gates.c.gate, *(func.coalesce(count, 0) for count in _COUNTS))
    .select_from(gates.outerjoin(_LIVE_THERE, _LIVE_THERE.c.endpoint == gates.c.endpoint).outerjoin(budgets, _OF_MONTH))
    .where(gates.c.org == OF_ORG)
    .order_by(gates.c.endpoint)
)
"""Every gate of an organisation with who is live there and what its month has taken: one statement, as each admission asks for it."""


async def gate_of(connection: AsyncConnection, org: str, endpoint: str) -> Gate | None:
    """A gate as it stands; None for one that was never written."""
    found = await connection.scalar(_GATE, {"of_org": org, "of_endpoint": endpoint})
    return None if found is None else _decoded(found)


async def keep_gate(connection: AsyncConnection, org: str, endpoint: str, gate: Gate) -> None:
    """Write a gate, which may be new."""
    text = msgspec.json.encode(gate).decode()
    changed = await connection.execute(_SET_GATE, {"of_org": org, "of_endpoint": endpoint, "new_gate": text})
    if not changed.rowcount:
        await connection.execute(insert(gates), {"org": org, "endpoint": endpoint, "gate": text})


async def keep_gates(connection: AsyncConnection, org: str, endpoint: str, before: Gates, after: Gates) -> None:
    """Write those of the two gates of an endpoint that changed."""
    for name, old, new in zip((endpoint, EVERY_ENDPOINT), before, after, strict=True):
        if new != old:
            await keep_gate(connection, org, name, new)


async def set_ceiling(connection: AsyncConnection, org: str, endpoint: str, ceiling: int | None) -> None:
    """Write the ceiling of a gate; that of the organisation as a whole comes into being with the first one, without a limit."""
    gate = await gate_of(connection, org, endpoint) or Gate()
    await keep_gate(connection, org, endpoint, replace(gate, ceiling=ceiling))
    if await gate_of(connection, org, EVERY_ENDPOINT) is None:
        await keep_gate(connection, org, EVERY_ENDPOINT, Gate())


async def change_gate(connection: AsyncConnection, org: str, endpoint: str, **changes: Any) -> None:
    """Write what a person has set about a gate that there is: a pause, a cap, a price."""
    gate = await gate_of(connection, org, endpoint)
    if gate is None:
        raise ConfigurationError(f"the ledger has no gate for organisation {org!r}, endpoint {endpoint!r}: check the name, or run it once")
    await keep_gate(connection, org, endpoint, replace(gate, **changes))


async def reopen(connection: AsyncConnection, org: str, endpoints: Iterable[str], moment: Moment) -> None:
    """Begin a run at these endpoints: see Gate.reopened."""
    live = await _live(connection, org, moment)
    for endpoint in (*endpoints, EVERY_ENDPOINT):
        gate = await gate_of(connection, org, endpoint)
        if gate is not None:
            count = sum(found for found, _ in live.values()) if endpoint == EVERY_ENDPOINT else live.get(endpoint, (0, 0))[0]
            await keep_gate(connection, org, endpoint, gate.reopened(moment.now_ms, count))


async def reserve(connection: AsyncConnection, org: str, endpoint: str, month: str, more_ms: int) -> None:
    """Add to what is reserved in both budgets, which come into being when the month's first session starts."""
    reserved = await connection.scalars(_RESERVE, {"of_org": org, "of_endpoint": endpoint, "of_month": month, "more_ms": more_ms})
    for missing in {EVERY_ENDPOINT, endpoint} - set(reserved):
        await connection.execute(insert(budgets), {"org": org, "endpoint": missing, "month": month, "reserved_ms": more_ms})


async def usage(connection: AsyncConnection, org: str, month: str, moment: Moment) -> list[Usage]:
    """Every gate of an organisation with its budget of the month, "*" first."""
    rows = await connection.execute(_USAGE, {"of_org": org, "of_month": month, **moment.clock})
    found = [
        Usage(org, endpoint, month, _decoded(text).at(moment.now_ms, moment.rules), int(live), int(admitted), *spent)
        for endpoint, text, live, admitted, *spent in rows
    ]
    endpoints = tuple(each for each in found if each.endpoint != EVERY_ENDPOINT)
    live, admitted = sum(each.live for each in endpoints), sum(each.admitted for each in endpoints)
    return [replace(each, live=live, admitted=admitted, endpoints=endpoints) if each.endpoint == EVERY_ENDPOINT else each for each in found]


async def usages_of(connection: AsyncConnection, org: str, endpoint: str, month: str, moment: Moment) -> Usages:
    """The two gates that hold for an endpoint, its own and the organisation's, each with its budget of the month.

    Raises ConfigurationError when a gate is missing: a missing limit must never mean an unlimited one (faults.toml, 61).
    """
    found = {each.endpoint: each for each in await usage(connection, org, month, moment)}
    for missing in {EVERY_ENDPOINT, endpoint} - found.keys():
        raise ConfigurationError(
            f"the ledger has no gate for organisation {org!r}, endpoint {missing!r}: nothing is admitted without one; "
            "check the organisation's settings and start the run again, which writes it"
        )
    return Usages(found[endpoint], found[EVERY_ENDPOINT])


async def _live(connection: AsyncConnection, org: str, moment: Moment) -> dict[str, tuple[int, int]]:
    rows = await connection.execute(_LIVE, {"of_org": org, **moment.clock})
    return {endpoint: (int(live), int(admitted or 0)) for endpoint, live, admitted in rows}


def _decoded(text: str) -> Gate:
    try:
        return msgspec.json.decode(text, type=Gate)
    except msgspec.MsgspecError as error:
        raise LedgerDamaged(f"a gate of the ledger is damaged ({error}): restore it with `soundcheck ledger rebuild`") from error
