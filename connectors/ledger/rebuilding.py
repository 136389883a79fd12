"""A place for a ledger that is made anew: an old file is moved aside, a database that is in use is refused."""

import fcntl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from connectors.durable import make_folder, sync_folder, writing_to
from connectors.ledger.database import SQLITE, Database, url_of
from connectors.ledger.ledger import Ledger
from connectors.ledger.schema import sessions
from connectors.ledger.sqlite import LedgerDamaged
from moderation.admission import SessionState
from moderation.errors import ConfigurationError

_COMPANIONS = ("", "-wal", "-shm")
"""What SQLite keeps beside its file belongs to that file alone: it would take what they hold into the new one."""


@asynccontextmanager
async def rebuilding(path_or_url: Path | str, *, replace: bool, now: Callable[[], datetime]) -> AsyncIterator[Ledger]:
    """A ledger to `restore`, which takes the place of the one at a path or URL when the block ends well.

    A file, which may be damaged, is moved aside, never deleted. A PostgreSQL ledger must have no sessions, unless it is to be replaced.
    Raises ConfigurationError where sessions stream, and what `Ledger.open` raises.
    """
    url = url_of(path_or_url)
    if url.drivername != SQLITE:
        async with Database.open(path_or_url, None) as old:
            await old.transact(_refuse_while_streaming)
            if not replace:
                await old.transact(_refuse_unless_empty)
        async with Ledger.open(path_or_url, now=now) as ledger:
            yield ledger
        return
    path = Path(url.database or "")
    with _in_place_of(path, now()) as (new, is_there):
        if is_there:  # opening it would make it
            with suppress(LedgerDamaged):
                async with Database.open(path, None) as old:
                    await old.transact(_refuse_while_streaming)
        async with Ledger.open(new, now=now) as ledger:
            yield ledger


def aside(path: Path, at: datetime) -> Path:
    """Where a file that was replaced at this instant (UTC) lies."""
    return path.with_name(f"{path.name}.before-rebuild-{at:%Y%m%dT%H%M%SZ}")


async def _refuse_while_streaming(connection: AsyncConnection) -> None:
    """Of a session that streams this ledger alone knows that money may have gone."""
    streaming = await connection.scalar(select(func.count()).select_from(sessions).where(sessions.c.state == SessionState.STREAMING))
    if streaming:
        raise ConfigurationError(
            f"{streaming} sessions stream, or their workers have died: stop every run, settle the rest with `soundcheck ledger sweep`, "
            "then begin again"
        )


async def _refuse_unless_empty(connection: AsyncConnection) -> None:
    if await connection.scalar(select(sessions.c.session_id).limit(1)) is not None:
        raise ConfigurationError("this ledger has sessions: keep a dump of it, then begin again with --replace")


@contextmanager
def _in_place_of(path: Path, at: datetime) -> Iterator[tuple[Path, bool]]:
    """A path for a new file, which is moved to `path` at the end, and whether anything lies there, which is moved aside then."""
    with writing_to(path.parent):
        make_folder(path.parent)
        with TemporaryDirectory(dir=path.parent, prefix="rebuild-") as folder:
            new = Path(folder) / path.name
            yield new, path.exists()
            with path.with_name(f"{path.name}.lock").open("ab") as lock:  # as whoever opens the ledger does
                fcntl.flock(lock, fcntl.LOCK_EX)
                for companion in _COMPANIONS:
                    old, kept = (place.with_name(place.name + companion) for place in (path, aside(path, at)))
                    if old.exists():
                        old.rename(kept)
                new.rename(path)
                sync_folder(path.parent)
