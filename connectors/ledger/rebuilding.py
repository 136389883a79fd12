"""A place for a ledger that is made anew: an old file is moved aside, a database that is in use is refused."""

import contextlib
import fcntl
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from connectors.durable import make_folder, sync_folder, writing_to
from connectors.ledger.database import Database, url_of
from connectors.ledger.ledger import Ledger
from connectors.ledger.restoring import refuse_streaming
from connectors.ledger.schema import sessions
from connectors.ledger.sqlite import is_locked
from moderation.admission import SessionState
from moderation.errors import ConfigurationError

PATIENCE_S = 1.0
"""How long whoever has the file open may take to close it."""
_COMPANIONS = ("", "-wal", "-shm")
"""What SQLite keeps beside its file belongs to that file alone: it would take what they hold into the new one."""


@asynccontextmanager
async def rebuilding(path_or_url: Path | str, *, replace: bool, now: Callable[[], datetime]) -> AsyncIterator[Ledger]:
    """A ledger to `restore`, which takes the place of the one at a path or URL when the block ends well.

    A file, which may be damaged, is moved aside, never deleted. A PostgreSQL ledger must have no sessions, unless it is to be replaced.
    Nobody else can use the old file meanwhile. Raises ConfigurationError where somebody does, and what `Ledger.open` raises.
    """
    url = url_of(path_or_url)
    if url.get_backend_name() != "sqlite":
        async with Database.open(path_or_url, None) as old:
            if not replace:
                await old.transact(_refuse_unless_empty)
        async with Ledger.open(path_or_url, now=now) as ledger:
            yield ledger
        return
    path = Path(url.database or "")
    with _kept_from_others(path), _in_place_of(path, now()) as new:
        async with Ledger.open(new, now=now) as ledger:
            yield ledger


def aside(path: Path, at: datetime) -> Path:
    """Where a file that was replaced at this instant (UTC) lies."""
    return path.with_name(f"{path.name}.before-rebuild-{at:%Y%m%dT%H%M%SZ}")


async def _refuse_unless_empty(connection: AsyncConnection) -> None:
    if await connection.scalar(select(sessions.c.session_id).limit(1)) is not None:
        raise ConfigurationError("this ledger has sessions: keep a dump of it, then begin again with --replace")


@contextmanager
def _kept_from_others(path: Path) -> Iterator[None]:
    """Keep the file that lies there, if any, from every other process: what a run wrote to it meanwhile would be lost.

    Whoever has it open holds a lock of SQLite's for as long. Raises ConfigurationError where anybody does, or where sessions stream.
    """
    if not path.exists():  # opening it would make it
        yield
        return
    with contextlib.closing(sqlite3.connect(path, timeout=PATIENCE_S, isolation_level=None)) as old:
        try:
            old.execute("PRAGMA locking_mode = EXCLUSIVE")
            old.execute("BEGIN IMMEDIATE")
            refuse_streaming(*old.execute("SELECT count(*) FROM sessions WHERE state = ?", (SessionState.STREAMING,)).fetchone())
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if is_locked(error):
                raise ConfigurationError(f"another process has the ledger {path} open: stop every run, then begin again") from error
            # a damaged file is used by nobody
        yield


@contextmanager
def _in_place_of(path: Path, at: datetime) -> Iterator[Path]:
    """A path for a new file, which is moved to `path` at the end; what lies there is moved aside then."""
    with writing_to(path.parent):
        make_folder(path.parent)
        with TemporaryDirectory(dir=path.parent, prefix="rebuild-") as folder:
            new = Path(folder) / path.name
            yield new
            with path.with_name(f"{path.name}.lock").open("ab") as lock:  # as whoever opens the ledger does
                fcntl.flock(lock, fcntl.LOCK_EX)
                for companion in _COMPANIONS:
                    old, kept = (place.with_name(place.name + companion) for place in (path, aside(path, at)))
                    if old.exists():
                        old.rename(kept)
                new.rename(path)
                sync_folder(path.parent)
