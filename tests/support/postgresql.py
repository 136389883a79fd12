"""A private PostgreSQL cluster for tests: made in a temporary folder, run as an unprivileged user, reached by a socket in it."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

USER = "soundcheck"
_CANDIDATES = ("postgres", "nobody")
"""Who runs the server where the tests run as root, which PostgreSQL refuses."""


def programs() -> Path | None:
    """The folder of initdb and postgres; None where PostgreSQL is not installed."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    return next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


class Cluster:
    """A running server: `url()` is that of a fresh, empty database."""

    def __init__(self, programs: Path, folder: Path, user: dict[str, object]) -> None:
        self._programs = programs
        self._folder = folder
        self._user = user
        self._numbers = count(1)

    def sql(self, statement: str, database: str = "postgres") -> str:
        command = ["psql", "-h", str(self._folder), "-U", USER, "-d", database, "-v", "ON_ERROR_STOP=1", "-qAtc", statement]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def url(self) -> str:
        name = f"ledger_{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name}")
        return f"postgresql+asyncpg://{USER}@/{name}?host={self._folder}"


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A server for as long as the block runs. Raises LookupError where PostgreSQL is not installed."""
    found = programs()
    if found is None:
        raise LookupError("PostgreSQL is not installed: make system-deps")
    user = _unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path may have 107 bytes at most
    try:
        if user:
            os.chown(folder, user["user"], user["group"])
        data = folder / "data"
        initdb = [str(found / "initdb"), "-D", str(data), "-U", USER, "--auth=trust", "--no-sync", "--locale=C", "--encoding=UTF8"]
        subprocess.run(initdb, check=True, capture_output=True, cwd=folder, **user)
        settings = {"listen_addresses": "", "unix_socket_directories": str(folder), "fsync": "off", "max_connections": "60"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen([str(found / "postgres"), "-D", str(data), *options], stdout=log, stderr=log, cwd=folder, **user)
        try:
            ready = [str(found / "pg_isready"), "-h", str(folder), "-q", "-t", "1"]
            while subprocess.run(ready, check=False).returncode:
                if server.poll() is not None:
                    raise RuntimeError((folder / "log").read_text())
            yield Cluster(found, folder, user)
        finally:
            server.terminate()
            server.wait()
    finally:
        shutil.rmtree(folder)


def _unprivileged() -> dict[str, object]:
    if os.geteuid():
        return {}
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise LookupError("no unprivileged user to run PostgreSQL as")
