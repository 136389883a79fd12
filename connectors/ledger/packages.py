"""Packages: fixed sets of ended sessions that are published exactly once (design.md section 7)."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from sqlalchemy import Row, and_, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from connectors.ledger.schema import packages, sessions
from moderation.admission import ENDED, Member, Package, SessionState, UnpackagedRun

_UNPACKAGED = and_(sessions.c.package.is_(None), sessions.c.state.in_(sorted(ENDED)))


async def assign_package(
    connection: AsyncConnection, lake: str, run_id: str, scan_date: date, max_sessions: int, created_at: datetime
) -> Package | None:
    """Fix the membership of a run's next package: its oldest ended sessions without one. None when there are none."""
    waiting = and_(sessions.c.lake == lake, sessions.c.run_id == run_id, _UNPACKAGED)
    org = await connection.scalar(select(sessions.c.org).where(waiting).limit(1))
    if org is None:
        return None
    longest_first = (func.length(packages.c.package).desc(), packages.c.package.desc())
    last = await connection.scalar(select(packages.c.package).where(packages.c.run_id == run_id).order_by(*longest_first).limit(1))
    name = f"{run_id}-p{_number(last) + 1:04d}"
    oldest = select(sessions.c.session_id).where(waiting).order_by(sessions.c.session_id).limit(max_sessions)
    await connection.execute(update(sessions).where(sessions.c.session_id.in_(oldest)).values(package=name))
    package = {"package": name, "lake": lake, "run_id": run_id, "org": org, "scan_date": scan_date}
    await connection.execute(insert(packages).values(**package, created_at=created_at))
    return Package(**package, members=await _members(connection, name))


async def unpublished(connection: AsyncConnection, lake: str) -> list[Package]:
    """The packages whose publication has not been confirmed, oldest first."""
    waiting = (
        select(packages)
        .where(packages.c.lake == lake, packages.c.published_at.is_(None))
        .order_by(packages.c.created_at, packages.c.package)
    )
    return [await _package(connection, row) for row in (await connection.execute(waiting)).all()]


async def runs_with_unpackaged(connection: AsyncConnection, lake: str) -> list[UnpackagedRun]:
    """The runs that have ended sessions without a package."""
    waiting = (
        select(sessions.c.run_id, func.min(sessions.c.org).label("org"), func.count().label("sessions"))
        .where(sessions.c.lake == lake, _UNPACKAGED)
        .group_by(sessions.c.run_id)
        .order_by(sessions.c.run_id)
    )
    return [UnpackagedRun(**row._mapping) for row in await connection.execute(waiting)]  # noqa: SLF001 - the public name of a row's mapping


async def mark_published(connection: AsyncConnection, package: str, published_at: datetime) -> None:
    """Confirm a package and its finished sessions; repeating it changes nothing."""
    confirmed = update(packages).where(packages.c.package == package, packages.c.published_at.is_(None))
    await connection.execute(confirmed.values(published_at=published_at))
    finished = update(sessions).where(sessions.c.package == package, sessions.c.state == SessionState.FINISHED)
    await connection.execute(finished.values(state=SessionState.PUBLISHED))


def _number(package: str | None) -> int:
    """Which of its run's packages this is: after a rebuild there may be gaps, and no name is used twice."""
    return 0 if package is None else int(package.rpartition("-p")[2])


async def _package(connection: AsyncConnection, row: Row[*tuple[Any, ...]]) -> Package:
    return Package(row.package, row.lake, row.run_id, row.org, row.scan_date, await _members(connection, row.package))


async def _members(connection: AsyncConnection, package: str) -> tuple[Member, ...]:
    kept = and_(sessions.c.package == package, sessions.c.state != SessionState.ERASED)
    members = select(sessions.c.session_id, sessions.c.endpoint, sessions.c.state).where(kept)
    rows: Sequence[Row[*tuple[Any, ...]]] = (await connection.execute(members.order_by(sessions.c.session_id))).all()
    return tuple(Member(*row) for row in rows)
