"""Packages: fixed sets of ended sessions that are published exactly once (design.md section 7)."""

from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Row, and_, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from connectors.ledger.schema import packages, sessions
from moderation.admission import ENDED, Member, Package, SessionState, UnpackagedRun
from moderation.errors import ConfigurationError

IDS_OF_QUERY = 500
"""Ids that one statement names: SQLite takes some thousands."""
GIVEN_UP = datetime(1970, 1, 1, tzinfo=UTC)
"""In place of the instant at which a package was published: it was undone, and nothing of it is to be published."""
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


async def mark_published(connection: AsyncConnection, package: str, published_at: datetime) -> bool:
    """Confirm a package and its finished sessions; repeating it changes nothing. False for one that was given up meanwhile."""
    confirmed = update(packages).where(packages.c.package == package, packages.c.published_at.is_(None))
    await connection.execute(confirmed.values(published_at=published_at))
    finished = update(sessions).where(sessions.c.package == package, sessions.c.state == SessionState.FINISHED)
    await connection.execute(finished.values(state=SessionState.PUBLISHED))
    return not await is_given_up(connection, package)


async def is_given_up(connection: AsyncConnection, package: str) -> bool:
    """Whether a package was undone."""
    query = select(packages.c.package).where(packages.c.package == package, packages.c.published_at == GIVEN_UP)
    return await connection.scalar(query) is not None


async def confirmed(connection: AsyncConnection, session_ids: Collection[str]) -> frozenset[str]:
    """Which of these sessions are in a package that is confirmed."""
    found: set[str] = set()
    for some in _batched(sorted(session_ids), IDS_OF_QUERY):
        of_published = sessions.join(packages, packages.c.package == sessions.c.package)
        query = select(sessions.c.session_id).select_from(of_published)
        found |= set(await connection.scalars(query.where(sessions.c.session_id.in_(some), packages.c.published_at.is_not(None))))
    return frozenset(found)


async def give_up(connection: AsyncConnection, package: str, lost: Collection[str]) -> None:
    """Undo a package: lost sessions stay in it as such, the others have none again, and nothing of it is to be published."""
    waiting = update(packages).where(packages.c.package == package, packages.c.published_at.is_(None))
    undone = await connection.execute(waiting.values(published_at=GIVEN_UP).returning(packages.c.package))
    if undone.one_or_none() is None:
        raise ConfigurationError(f"package {package} is published, or the ledger does not know it: nothing of it was changed")
    own = sessions.c.package == package
    for some in _batched(sorted(lost), IDS_OF_QUERY):
        results = and_(own, sessions.c.state == SessionState.FINISHED, sessions.c.session_id.in_(some))
        await connection.execute(update(sessions).where(results).values(state=SessionState.LOST))
    await connection.execute(update(sessions).where(own, sessions.c.state != SessionState.LOST).values(package=None))


def _batched(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """The items, so many at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))


def _number(package: str | None) -> int:
    """Which of its run's packages this is: after a rebuild there may be gaps, and no name is used twice."""
    return 0 if package is None else int(package.rpartition("-p")[2])


async def _package(connection: AsyncConnection, row: Row[*tuple[Any, ...]]) -> Package:
    return Package(row.package, row.lake, row.run_id, row.org, row.scan_date, await _members(connection, row.package))


async def _members(connection: AsyncConnection, package: str) -> tuple[Member, ...]:
    facts = (sessions.c.session_id, sessions.c.endpoint, sessions.c.state, sessions.c.outcome)
    members = select(*facts).where(sessions.c.package == package, sessions.c.state != SessionState.ERASED)
    rows: Sequence[Row[*tuple[Any, ...]]] = (await connection.execute(members.order_by(sessions.c.session_id))).all()
    return tuple(Member(*row) for row in rows)
