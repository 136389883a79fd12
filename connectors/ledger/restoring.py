"""A ledger restored from what is known without it: the sessions of the lake and of the spool (design.md section 5)."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, replace

import msgspec
from sqlalchemy import Table, case, delete, func, insert, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from connectors.ledger.gates import keep_gate
from connectors.ledger.leases import Moment
from connectors.ledger.schema import adjustments, budgets, gates, notices, packages, sessions, waiting
from moderation.admission import EVERY_ENDPOINT, Remains, SessionState
from moderation.errors import ConfigurationError
from moderation.gate import Gate
from moderation.turns import FRESH_MS

_FORGOTTEN: tuple[Table, ...] = (sessions, packages, budgets, gates, adjustments, waiting, notices)
"""All but the tombstones: what was erased by request stays erased."""
_SETTLED = (SessionState.FINISHED, SessionState.PUBLISHED, SessionState.LOST)


async def refuse_while_used(connection: AsyncConnection, moment: Moment) -> int:
    """How many sessions there are, of which nobody may add any. Raises ConfigurationError while sessions stream, or wait for a slot."""
    every = select(func.count()).select_from(sessions)
    refuse_streaming(await connection.scalar(every.where(sessions.c.state == SessionState.STREAMING)) or 0)
    fresh = waiting.c.seen_ms > moment.now_ms - FRESH_MS
    if workers := await connection.scalar(select(func.count()).select_from(waiting).where(fresh)):
        raise ConfigurationError(f"{workers} workers wait for a slot: stop every run, then begin again")
    return await connection.scalar(every) or 0


def refuse_streaming(count: int) -> None:
    """Raise ConfigurationError while sessions stream: of those the ledger alone knows that money may have gone."""
    if count:
        raise ConfigurationError(
            f"{count} sessions stream, or their workers have died: stop every run, settle the rest with `soundcheck ledger sweep`, "
            "then begin again"
        )


async def packed(remains: AsyncIterator[Remains]) -> list[bytes]:
    """All of it, in as little memory as does: no transaction is to wait until the lakes are read."""
    return [msgspec.msgpack.encode(each) async for each in remains]


async def restore(connection: AsyncConnection, remains: Sequence[bytes], known: int, moment: Moment) -> None:
    """Write every session and package anew, and the months' counters as their sums; all gates but the organisations' are closed.

    remains as `packed` has them. Raises ConfigurationError where the ledger is used, or no longer has so many sessions as were known.
    """
    if await refuse_while_used(connection, moment) != known:
        raise ConfigurationError("sessions have come into the ledger meanwhile: stop every run, then begin again")
    for table in _FORGOTTEN:
        await connection.execute(delete(table))
    for each in remains:
        await _keep(connection, msgspec.msgpack.decode(each, type=Remains), moment)
    await _sum_up(connection)
    found = (await connection.execute(select(sessions.c.org, sessions.c.endpoint).distinct())).all()
    for org in sorted({org for org, _ in found}):
        await keep_gate(connection, org, EVERY_ENDPOINT, Gate())
    for org, endpoint in found:  # the next run writes its limit; until then a missing one must not mean an unlimited one
        await keep_gate(connection, org, endpoint, Gate(ceiling=0))


async def _keep(connection: AsyncConnection, remains: Remains, moment: Moment) -> None:
    if remains.sessions:
        rows = [asdict(replace(session, package=remains.package)) for session in remains.sessions]
        await connection.execute(insert(sessions), rows)
    if remains.package is not None:
        names = {"package": remains.package, "lake": remains.lake, "run_id": remains.run_id, "org": remains.org}
        times = {"created_at": moment.at, "published_at": moment.at if remains.published else None}
        await connection.execute(insert(packages), names | {"scan_date": remains.scan_date} | times)


async def _sum_up(connection: AsyncConnection) -> None:
    settled = func.sum(case((sessions.c.state.in_(_SETTLED), sessions.c.booked_ms), else_=0))
    at_risk = func.sum(case((sessions.c.state == SessionState.AT_RISK, sessions.c.booked_ms), else_=0))
    whole = literal(EVERY_ENDPOINT)
    for endpoint in (sessions.c.endpoint, whole):
        place = (sessions.c.org, endpoint, sessions.c.month)
        groups = place if endpoint is not whole else (sessions.c.org, sessions.c.month)
        sums = select(*place, settled, at_risk).group_by(*groups)
        await connection.execute(insert(budgets).from_select(["org", "endpoint", "month", "settled_ms", "at_risk_ms"], sums))
