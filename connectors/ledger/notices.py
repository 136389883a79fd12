"""What people have been told of an organisation: one notification per cause, over all processes and hosts (rules.md, 'Stop')."""

from collections.abc import Collection

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from connectors.ledger.leases import Moment
from connectors.ledger.schema import notices


async def first_notice(connection: AsyncConnection, org: str, cause: str, moment: Moment) -> bool:
    """Note that people are being told of a cause; False where they have been."""
    known = select(notices.c.at).where(notices.c.org == org, notices.c.cause == cause)
    if (await connection.execute(known)).one_or_none() is not None:
        return False
    await connection.execute(insert(notices), {"org": org, "cause": cause, "at": moment.at})
    return True


async def clear_notices(connection: AsyncConnection, org: str, causes: Collection[str] | None) -> None:
    """Forget that people have been told of these causes, or of any."""
    forgotten = delete(notices).where(notices.c.org == org)
    await connection.execute(forgotten if causes is None else forgotten.where(notices.c.cause.in_(sorted(causes))))
