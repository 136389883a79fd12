"""Corrections of what a month has cost, each on record with who made it and why."""

from dataclasses import asdict

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from connectors.ledger.gates import BOTH_BUDGETS, reserve
from connectors.ledger.leases import Moment
from connectors.ledger.schema import adjustments, budgets
from moderation.admission import Adjustment
from moderation.errors import ConfigurationError

_ADJUST = (
    update(budgets)
    .where(BOTH_BUDGETS)
    .values(settled_ms=budgets.c.settled_ms + bindparam("more_settled_ms"), at_risk_ms=budgets.c.at_risk_ms + bindparam("more_at_risk_ms"))
    .returning(budgets.c.settled_ms, budgets.c.at_risk_ms)
)


async def adjust(connection: AsyncConnection, adjustment_id: str, adjustment: Adjustment, moment: Moment) -> None:
    """Add to what is settled and at risk in a budget and in the organisation's; nothing may become less than nothing."""
    place = {"of_org": adjustment.org, "of_endpoint": adjustment.endpoint, "of_month": adjustment.month}
    await reserve(connection, adjustment.org, adjustment.endpoint, adjustment.month, 0)
    more = {"more_settled_ms": adjustment.settled_ms, "more_at_risk_ms": adjustment.at_risk_ms}
    if any(min(row) < 0 for row in await connection.execute(_ADJUST, place | more)):
        raise ConfigurationError(
            f"{adjustment.org}, {adjustment.endpoint}, {adjustment.month}: less than nothing would be spent; see the figures first"
        )
    await connection.execute(insert(adjustments), {"adjustment_id": adjustment_id, "at": moment.at, **asdict(adjustment)})


async def adjustments_of(connection: AsyncConnection, org: str, month: str) -> list[Adjustment]:
    """The corrections of a month, oldest first."""
    columns = [column for column in adjustments.c if column.name not in {"adjustment_id", "at"}]
    found = select(*columns).where(adjustments.c.org == org, adjustments.c.month == month).order_by(adjustments.c.adjustment_id)
    return [Adjustment(*row) for row in await connection.execute(found)]
