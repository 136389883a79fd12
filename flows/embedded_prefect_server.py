"""The child process of flows.embedded_prefect: a Prefect API server on an inherited socket, for as long as its parent lives.

It ends when its standard input does, which is what happens to a pipe when the parent closes it or is killed.
"""

import argparse
import fcntl
import gc
import os
import select
import shutil
import socket
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import uvicorn

_WATCH_SECONDS = 1.0
"""How often the parent is looked for, if another child of it holds the pipe open."""

_CLOSING_SECONDS = 2
"""How long open connections may take to close."""

_MIGRATED = 1
"""The user_version of a database whose migrations have all run. SQLite leaves that number to the application; Prefect does not use it."""


class _ParentWatch:
    """A daemon thread that ends this process when the parent has gone: at once while it starts, in order once it serves."""

    def __init__(self, parent: int) -> None:
        self._parent = parent
        self._end: Callable[[], None] = lambda: os._exit(0)
        threading.Thread(target=self._watch, name="parent-watch", daemon=True).start()

    def serve(self, server: "uvicorn.Server") -> None:
        """From now on, let this server finish instead."""

        def finish() -> None:
            server.should_exit = True

        self._end = finish

    def _watch(self) -> None:
        while os.getppid() == self._parent and not select.select([sys.stdin], [], [], _WATCH_SECONDS)[0]:
            pass
        self._end()


def _prepare_database(database: Path, template: Path | None) -> None:
    """Bring a new database to the head of Prefect's migrations: by the migrations, or from a copy of one that they made.

    A schema from SQLAlchemy's metadata would be quicker, but it is not the same: some tables and indexes exist in migrations only.
    """
    with _locked(database.with_suffix(".lock")):
        if not database.exists() and template is not None and template.exists():
            partial = database.with_suffix(".partial")
            shutil.copyfile(template, partial)
            partial.replace(database)
        if not _is_migrated(database):
            _migrate(database)
            if template is not None:
                _keep_as_template(database, template)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two scans may start at once on one state directory."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_migrated(database: Path) -> bool:
    with closing(sqlite3.connect(database)) as connection:
        found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return found == _MIGRATED


def _migrate(database: Path) -> None:
    import asyncio  # noqa: PLC0415

    from prefect.server.database import provide_database_interface  # noqa: PLC0415

    asyncio.run(provide_database_interface().create_db())
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(f"PRAGMA user_version = {_MIGRATED}")


def _keep_as_template(database: Path, template: Path) -> None:
    """Save the migrated, empty database for the next new state directory; a cache, so its failure is only logged."""
    partial = template.with_suffix(f".{os.getpid()}")
    try:
        template.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(partial)) as target:
            source.backup(target)
        partial.replace(template)
    except (OSError, sqlite3.Error) as error:
        print(f"no template kept at {template}: {error}", file=sys.stderr)  # noqa: T201  # stderr is the log file
        partial.unlink(missing_ok=True)


def _serve(listener: socket.socket, watch: _ParentWatch, database: Path, template: Path | None) -> None:
    # some 10^6 objects that stay are made while Prefect is imported: collecting them again and again costs 0.4 s
    gc.disable()
    import uvicorn  # noqa: PLC0415
    from prefect.server.api.server import create_app  # noqa: PLC0415

    _prepare_database(database, template)
    app = create_app(ephemeral=True, final=True)
    gc.freeze()
    gc.enable()
    # log_config None: Prefect has configured uvicorn's loggers from its home
    config = uvicorn.Config(app, lifespan="on", log_config=None, access_log=False, timeout_graceful_shutdown=_CLOSING_SECONDS)
    server = uvicorn.Server(config)
    watch.serve(server)
    server.run(sockets=[listener])


def main() -> None:
    """Serve on the socket that was handed down until the parent has gone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--database", type=Path, required=True)
    parser.add_argument("--template", type=Path)
    arguments = parser.parse_args()
    watch = _ParentWatch(arguments.parent)
    _serve(socket.socket(fileno=arguments.socket), watch, arguments.database, arguments.template)


if __name__ == "__main__":
    main()
