"""The database under the ledger: one connection, whole transactions, and failures in words."""

import asyncio
import contextlib
import fcntl
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from sqlalchemy import URL, Connection, event, insert, make_url, select
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from connectors.ledger import schema
from moderation.errors import ConfigurationError, ResultsNotWritable, SoundcheckError, UnreachableError

BUSY_TIMEOUT_S = 30.0
"""How long a transaction waits for those of other processes (faults.toml, 77)."""
_DRIVER = "sqlite+aiosqlite"
_UNWRITABLE = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "it is read-only",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    sqlite3.SQLITE_PERM: "access to it is denied",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_PRIMARY_CODE = 0xFF
"""SQLite's extended result codes keep the primary one in their lowest byte."""

T = TypeVar("T")


def host_boot_ms() -> int:
    """Milliseconds since the host booted, sleep included: no clock setting moves it, and all processes of the host see the same.

    Where the system has no CLOCK_BOOTTIME its monotonic clock must do.
    """
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1_000_000


class Database:
    """One connection to the ledger's database, which runs whole transactions.

    SQLite has one writer at a time anyway; coroutines queue for the connection in order instead of polling each other's locks.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._place = engine.url.database or ""

    @classmethod
    @asynccontextmanager
    async def open(cls, path_or_url: Path | str) -> AsyncIterator[Self]:
        """The database at a path (made with its folder when missing) or an SQLAlchemy URL.

        Raises ConfigurationError for another database or schema than this one, else what `transact` raises.
        """
        engine = _engine(_url(path_or_url))
        try:
            database = cls(engine)
            await database.transact(_make_schema)
            yield database
        finally:
            await engine.dispose()

    async def transact(self, step: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run one transaction: all of it is kept, or nothing when `step` raises.

        A cancelled caller waits for the end, so that money is never booked by half. Raises ResultsNotWritable when the database takes
        no writes and UnreachableError when it is locked or damaged.
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
            async with self._engine.begin() as connection:
                return await step(connection)
        except IntegrityError:
            raise  # a mistake of ours, no trouble with the database
        except (DBAPIError, PoolTimeout) as error:
            raise self._failure(error) from error

    def _failure(self, error: DBAPIError | PoolTimeout) -> SoundcheckError:
        cause = error.orig if isinstance(error, DBAPIError) else None
        code = getattr(cause, "sqlite_errorcode", None)
        primary = sqlite3.SQLITE_BUSY if isinstance(error, PoolTimeout) else (code or 0) & _PRIMARY_CODE
        if primary in _UNWRITABLE:
            return ResultsNotWritable(
                f"the ledger {self._place} takes no writes: {_UNWRITABLE[primary]} ({cause}); nothing is admitted until it does"
            )
        if primary in _LOCKED:
            return UnreachableError(
                f"the ledger {self._place} was locked for {BUSY_TIMEOUT_S:g} s: another process holds it; end that one and run again"
            )
        if primary in _DAMAGED:
            return UnreachableError(f"the ledger {self._place} is damaged ({cause}): restore it with `soundcheck ledger rebuild`")
        return UnreachableError(f"the ledger {self._place} does not answer: {cause or error}")


def _url(path_or_url: Path | str) -> URL:
    is_url = isinstance(path_or_url, str) and "://" in path_or_url
    url = make_url(str(path_or_url)) if is_url else URL.create(_DRIVER, database=str(path_or_url))
    if url.drivername != _DRIVER:
        raise ConfigurationError(f"the ledger's URL must begin with {_DRIVER}://, not {url.drivername}://")
    return url


def _engine(url: URL) -> AsyncEngine:
    _make_file(Path(url.database or ""))
    engine = create_async_engine(
        url,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=BUSY_TIMEOUT_S,
        # sqlite3's own transactions begin late and as readers: two of them that turn writers deadlock
        connect_args={"timeout": BUSY_TIMEOUT_S, "isolation_level": None},
    )
    event.listen(engine.sync_engine, "connect", _prepare)
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _make_file(path: Path) -> None:
    """A database in WAL mode, made when missing, one process at a time: SQLite waits for no lock while it changes the mode.

    A path that cannot be opened is found here, too: aiosqlite's thread would outlive its failed start. The lock is a file of its own:
    closing the database's would drop every lock that this process has on it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f"{path.name}.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with contextlib.closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as database:
                database.execute("PRAGMA journal_mode = WAL")
    except OSError as error:
        raise ResultsNotWritable(f"the ledger {path} cannot be opened for writing: {error.strerror}") from error
    except sqlite3.OperationalError as error:  # others show at the first transaction
        if error.sqlite_errorcode & _PRIMARY_CODE == sqlite3.SQLITE_CANTOPEN:
            raise ResultsNotWritable(f"the ledger {path} cannot be opened for writing: {error}") from error
    except sqlite3.DatabaseError:
        return  # a damaged file is named by the first transaction


def _prepare(connection: Any, _record: object) -> None:
    try:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()
    except sqlite3.Error:
        connection.close()  # the pool does not know it yet and would leave its thread behind
        raise


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


async def _make_schema(connection: AsyncConnection) -> None:
    await connection.run_sync(schema.metadata.create_all)
    version = await connection.scalar(select(schema.schema_version.c.version))
    if version is None:
        await connection.execute(insert(schema.schema_version).values(version=schema.SCHEMA_VERSION))
    elif version != schema.SCHEMA_VERSION:
        raise ConfigurationError(
            f"the ledger has schema version {version}, this soundcheck knows {schema.SCHEMA_VERSION}: "
            "use the soundcheck that wrote it, or start a new one with `soundcheck ledger rebuild`"
        )
