"""The ledger in a SQLite file: for the processes of one host."""

import asyncio
import contextlib
import fcntl
import sqlite3
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy import URL, Connection, CursorResult, ScalarResult, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import QueuePool

from moderation.errors import ResultsNotWritable, SoundcheckError, UnreachableError

BUSY_TIMEOUT_S = 30.0
"""How long a transaction waits for those of other processes (faults.toml, 77)."""
_UNWRITABLE = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "it is read-only",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    sqlite3.SQLITE_PERM: "access to it is denied",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_ERROR}
"""The last one is what a statement gets whose table or column is no longer there."""
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_PRIMARY_CODE = 0xFF
"""SQLite's extended result codes keep the primary one in their lowest byte."""
T = TypeVar("T")


class LedgerDamaged(UnreachableError):
    """The ledger's file is no database any more, or not all of it."""

    is_resumable = False


def host_boot_ms() -> int:
    """Milliseconds since the host booted, sleep included: no clock setting moves it, and all processes of the host see the same.

    Where the system has no CLOCK_BOOTTIME its monotonic clock must do.
    """
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1_000_000


def is_locked(error: Exception) -> bool:
    """Whether a statement failed because of another connection's lock."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & _PRIMARY_CODE in _LOCKED


class SqliteServer:
    """A ledger in a file: one connection, and every transaction is a writer's from its first statement.

    SQLite has one writer at a time anyway; coroutines queue for the connection in order instead of polling each other's locks. Each
    transaction is one visit to the connection's thread: handing over its statements one by one took longer than running them.
    clock_ms takes the place of the host's boot clock in simulations.
    """

    restarts = True

    def __init__(self, url: URL, clock_ms: Callable[[], int] | None = None) -> None:
        self.place = url.database or ""
        self._clock_ms = clock_ms or host_boot_ms
        _make_file(Path(self.place))
        self._engine = create_engine(
            url,
            poolclass=QueuePool,
            pool_size=1,
            max_overflow=0,
            # sqlite3's own transactions begin late and as readers: two of them that turn writers deadlock
            connect_args={"timeout": BUSY_TIMEOUT_S, "isolation_level": None},
        )
        event.listen(self._engine, "connect", _prepare)
        event.listen(self._engine, "begin", _begin)
        self._thread: ThreadPoolExecutor | None = None
        self._turn = asyncio.Lock()

    async def run(self, step: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run one transaction, whose step may wait for nothing but its connection, and reads its results itself."""
        try:
            async with asyncio.timeout(BUSY_TIMEOUT_S):
                await self._turn.acquire()
        except TimeoutError:
            raise PoolTimeout from None
        try:
            self._thread = self._thread or ThreadPoolExecutor(1, "ledger")
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._transaction, step)
        finally:
            self._turn.release()

    def _transaction(self, step: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        with self._engine.begin() as connection:
            return _at_once(cast("Coroutine[None, None, T]", step(cast("AsyncConnection", _Here(connection)))))

    async def close(self) -> None:
        """Close the connection and end its thread; another transaction begins both anew."""
        if self._thread is not None:
            thread, self._thread = self._thread, None
            await asyncio.get_running_loop().run_in_executor(thread, self._engine.dispose)
            thread.shutdown()

    async def now_ms(self, connection: AsyncConnection) -> int:  # noqa: ARG002 - all processes of the host see the same clock
        """The host's boot clock."""
        return self._clock_ms()

    def explain(self, error: Exception) -> SoundcheckError:
        """What a failed transaction means."""
        cause = error.orig if isinstance(error, DBAPIError) else None
        code = getattr(cause, "sqlite_errorcode", None)
        primary = sqlite3.SQLITE_BUSY if isinstance(error, PoolTimeout) else (code or 0) & _PRIMARY_CODE
        if primary in _UNWRITABLE:
            return ResultsNotWritable(
                f"the ledger {self.place} takes no writes: {_UNWRITABLE[primary]} ({cause}); nothing is admitted until it does"
            )
        if primary in _LOCKED:
            return UnreachableError(
                f"the ledger {self.place} was locked for {BUSY_TIMEOUT_S:g} s: another process holds it; end that one and run again"
            )
        if primary in _DAMAGED or isinstance(error, UnicodeDecodeError):  # of its words, or of what SQLite says about them
            return LedgerDamaged(f"the ledger {self.place} is damaged ({cause or error}): restore it with `soundcheck ledger rebuild`")
        return UnreachableError(f"the ledger {self.place} does not answer: {cause or error}")


class _Here:
    """A connection as the steps of a transaction know it, whose statements run when they are called."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def execute(self, *statement: Any) -> CursorResult[Any]:
        return self._connection.execute(*statement)

    async def scalar(self, *statement: Any) -> Any:
        return self._connection.scalar(*statement)

    async def scalars(self, *statement: Any) -> ScalarResult[Any]:
        return self._connection.scalars(*statement)

    async def run_sync(self, step: Callable[..., T], *arguments: Any, **options: Any) -> T:
        return step(self._connection, *arguments, **options)


def _at_once(step: Coroutine[None, None, T]) -> T:
    """What a coroutine returns that never has to wait."""
    try:
        step.send(None)
    except StopIteration as ended:
        return cast("T", ended.value)
    step.close()
    raise AssertionError("a transaction waited for something else than its connection")


def _make_file(path: Path) -> None:
    """A database in WAL mode, made when missing, one process at a time: SQLite waits for no lock while it changes the mode.

    A path that cannot be opened is found here, too. The lock is a file of its own:
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
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        return  # a damaged file is named by the first transaction


def _prepare(connection: Any, _record: object) -> None:
    try:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()
    except (sqlite3.Error, UnicodeDecodeError):
        connection.close()  # the pool does not know it yet
        raise


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
