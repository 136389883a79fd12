"""The database under the ledger: one connection, whole transactions, and failures in words."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol, Self, TypeVar

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection

from connectors.ledger.migrations import make_schema
from connectors.ledger.postgresql import CONNECT_ERRORS, PostgresqlServer
from connectors.ledger.sqlite import SqliteServer
from moderation.errors import ConfigurationError, SoundcheckError

_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+asyncpg"}
"""Of each database the ledger can be in: SQLAlchemy's name of what drives it, whatever driver its URL names."""

T = TypeVar("T")


class Server(Protocol):
    """What keeps the tables: SQLite's file or a PostgreSQL server.

    place names it to people, without a password; restarts is whether its clock starts again at a reboot.
    """

    place: str
    restarts: bool

    async def run(self, step: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run one transaction as the one writer of all processes; what `step` returns is no open result."""

    async def now_ms(self, connection: AsyncConnection) -> int:
        """Milliseconds of a clock that all processes of this ledger share and no wall clock moves."""

    def explain(self, error: Exception) -> SoundcheckError:
        """What a failed transaction means."""

    async def close(self) -> None:
        """Close the connection; another transaction would open a new one."""


class Database:
    """One connection to the ledger's database, which runs whole transactions, one at a time over all processes."""

    def __init__(self, server: Server) -> None:
        self._server = server

    @classmethod
    @asynccontextmanager
    async def open(cls, path_or_url: Path | str, clock_ms: Callable[[], int] | None) -> AsyncIterator[Self]:
        """The database at a path (made with its folder when missing) or an SQLAlchemy URL.

        Raises ConfigurationError for another database or a newer schema than this one, else what `transact` raises.
        """
        url = url_of(path_or_url)
        server: Server = (SqliteServer if url.get_backend_name() == "sqlite" else PostgresqlServer)(url, clock_ms)
        try:
            database = cls(server)
            await database.transact(make_schema)
            yield database
        finally:
            await server.close()

    @property
    def restarts(self) -> bool:
        """Whether the ledger's clock starts again at a reboot."""
        return self._server.restarts

    async def now_ms(self, connection: AsyncConnection) -> int:
        """The ledger's clock, within a transaction."""
        return await self._server.now_ms(connection)

    async def transact(self, step: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run one transaction: all of it is kept, or nothing when `step` raises.

        A cancelled caller waits for the end, so that money is never booked by half. Raises ResultsNotWritable when the database takes
        no writes and UnreachableError when it is locked, away or damaged.
        """
        transaction = asyncio.create_task(self._run(step))
        try:
            return await asyncio.shield(transaction)
        except asyncio.CancelledError:
            await asyncio.wait({transaction})
            transaction.exception()  # seen: the caller is gone and asyncio would log it
            raise

    async def _run(self, step: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        try:
            return await self._server.run(step)
        except IntegrityError:
            raise  # a mistake of ours, no trouble with the database
        except (DBAPIError, PoolTimeout, UnicodeDecodeError, *CONNECT_ERRORS) as error:
            raise self._server.explain(error) from error


def url_of(path_or_url: Path | str) -> URL:
    """The SQLAlchemy URL of a path, or a URL. Raises ConfigurationError for another database than the two."""
    is_url = isinstance(path_or_url, str) and "://" in path_or_url
    try:
        url = make_url(str(path_or_url)) if is_url else URL.create("sqlite", database=str(path_or_url))
    except ArgumentError as error:
        raise ConfigurationError("the ledger's URL cannot be read: write postgresql+asyncpg://user:password@host/database") from error
    if url.get_backend_name() not in _DRIVERS:
        raise ConfigurationError(f"the ledger's URL must begin with postgresql:// or sqlite://, not {url.drivername}://")
    return url.set(drivername=_DRIVERS[url.get_backend_name()])
