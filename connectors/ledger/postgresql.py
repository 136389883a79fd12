"""The ledger in PostgreSQL: for the processes of several hosts."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from moderation.errors import AccessDeniedError, ConfigurationError, ResultsNotWritable, SoundcheckError, UnreachableError

CONNECT_SECONDS = 15.0
LOCK_SECONDS = 30
"""How long a transaction waits for those of others; and after which the server ends one whose process was stopped in the middle of it."""
COMMAND_SECONDS = LOCK_SECONDS + 5
"""How long a statement may take before the server counts as away: a little more than the longest that one waits on purpose."""
T = TypeVar("T")
_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('soundcheck.ledger'))")
_NOW = text("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")

_MEANINGS: dict[str, tuple[type[SoundcheckError], str]] = {
    "53100": (ResultsNotWritable, "its disk is full; nothing is admitted until there is room"),
    "25006": (ResultsNotWritable, "it is read-only: point the setting at the primary server"),
    "42501": (AccessDeniedError, "this user may not change its tables: grant it the schema"),
    "28P01": (AccessDeniedError, "user or password are refused: correct the ledger's URL"),
    "28000": (AccessDeniedError, "this user is refused: correct the ledger's URL or the server's pg_hba.conf"),
    "3D000": (ConfigurationError, "the database does not exist: create it, or correct the ledger's URL"),
    "55P03": (UnreachableError, f"it was locked for {LOCK_SECONDS} s: another process holds it; end that one and run again"),
}
"""By SQLSTATE (PostgreSQL's manual, appendix A)."""


class PostgresqlServer:
    """A ledger on a server.

    One advisory lock serves as SQLite's one writer: transactions take a few milliseconds, and with one lock there is no order in which
    two of them could wait for each other. clock_ms takes the place of the database's clock in simulations.
    """

    restarts = False

    def __init__(self, url: URL, clock_ms: Callable[[], int] | None = None) -> None:
        self._clock_ms = clock_ms
        self.place = url.set(query={}).render_as_string(hide_password=True)  # asyncpg takes a password there, too
        settings = {
            "application_name": "soundcheck",
            "lock_timeout": f"{LOCK_SECONDS}s",
            "idle_in_transaction_session_timeout": f"{LOCK_SECONDS}s",
        }
        self._engine: AsyncEngine = create_async_engine(
            url,
            pool_size=1,
            max_overflow=0,
            pool_pre_ping=True,
            pool_timeout=LOCK_SECONDS,
            connect_args={"timeout": CONNECT_SECONDS, "command_timeout": COMMAND_SECONDS, "server_settings": settings},
        )

    async def run(self, step: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run one transaction."""
        async with self._engine.begin() as connection:
            await connection.execute(_LOCK)
            return await step(connection)

    async def now_ms(self, connection: AsyncConnection) -> int:
        """The database's clock, the same for all hosts; read after the lock was taken."""
        return self._clock_ms() if self._clock_ms else int(await connection.scalar(_NOW) or 0)

    def explain(self, error: Exception) -> SoundcheckError:
        """What a failed transaction or connection means."""
        cause: Any = error.orig if isinstance(error, DBAPIError) else error
        kind, meaning = _MEANINGS.get(getattr(cause, "sqlstate", None) or "", (UnreachableError, ""))
        if isinstance(cause, TimeoutError):
            meaning = "it does not answer: check the server and the network, then run again"
        said = str(cause).partition("\n")[0] or type(cause).__name__
        return kind(f"the ledger {self.place} cannot be used: {meaning or said}")

    async def close(self) -> None:
        """Close the connection; another transaction opens a new one."""
        await self._engine.dispose()


CONNECT_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
"""What connecting raises past SQLAlchemy."""
