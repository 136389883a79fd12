"""The embedded Prefect server: a private API on loopback for `soundcheck scan` and `demo` when PREFECT_API_URL is not set.

Prefect's own ephemeral server prints to the terminal, lives in ~/.prefect and registers blocks and services that one flow
never uses. This one is a child process with its own home under the state directory: one listening socket handed down (no port
to lose to somebody else), a log file instead of the terminal, a random password, and an end that no kill -9 of the parent can
prevent. Importing this module imports no Prefect, so that the server's long import can run beside the client's:

    async with embedded_prefect(state_dir, wait=False) as server:
        from flows.scan import scan      # Prefect is imported here, with the settings of this server
        await server.ready()
        await scan(...)
"""

import contextlib
import json
import os
import re
import secrets
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from moderation.errors import ConfigurationError, UnreachableError

STARTUP_SECONDS = 180.0
"""How long a server may take to answer: 8 to 15 s on an idle machine, 55 s were seen under load (measurements.md)."""

_ENDING_SECONDS = 10.0
"""How long the server may take to end before it is killed."""

_EVENTS_SECONDS = 5.0
"""How long the client's last events (its task runs) may take to reach the server."""

_CHECK_SECONDS = 10.0
"""How long a server that runs already may take to answer its health check."""

_LOOPBACK = "127.0.0.1"

_SETTINGS = {
    # nothing leaves the machine
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    # client and server are the same installation: no version handshake, no CSRF token, no second server
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    # a child that has died does not come back: each thing that the client has to say to it takes 5 s, and not 71
    "PREFECT_CLIENT_MAX_RETRIES": "1",
    # the log file is the log: nobody reads a copy in the database
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    # one flow needs no UI, blocks, automations or stored events; the task run recorder stays
    "PREFECT_UI_ENABLED": "false",
    "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
    "PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "false",
    "PREFECT_SERVER_EVENTS_STREAM_OUT_ENABLED": "false",
    # the child migrates before it serves, under a lock
    "PREFECT_SERVER_DATABASE_MIGRATE_ON_START": "false",
}


@dataclass(frozen=True, slots=True)
class EmbeddedPrefect:
    """A Prefect server that is starting or running as a child of this process."""

    api_url: str
    log_file: Path
    """What the server and the Prefect client of this process say; nothing of it reaches the terminal."""
    process: subprocess.Popen[bytes]

    async def ready(self, timeout_s: float = STARTUP_SECONDS) -> None:
        """Return when the server answers; raise UnreachableError when it does not within timeout_s seconds.

        The socket listens from the start: one request waits in its backlog until the server takes it, and breaks if the child ends.
        """
        import httpx  # noqa: PLC0415

        try:
            # trust_env would send a loopback request through a proxy
            async with httpx.AsyncClient(trust_env=False, timeout=timeout_s) as client:
                (await client.get(f"{self.api_url}/health")).raise_for_status()
        except httpx.HTTPError as error:
            raise UnreachableError(f"the embedded Prefect server did not start ({type(error).__name__}): see {self.log_file}") from error

    def end(self) -> None:
        """End the server: the closed pipe asks it to, and it is killed if that takes too long."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(_ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.asynccontextmanager
async def embedded_prefect(
    state_dir: Path, *, wait: bool = True, template_dir: Path | None = None, log_level: str = "INFO"
) -> AsyncIterator[EmbeddedPrefect]:
    """A Prefect server of our own for as long as the block runs, with this process's Prefect client pointed at it.

    With wait=False the block begins at once and calls ready() itself. template_dir keeps a freshly migrated, empty database
    from which the next new state directory starts, which saves the migrations (about 6 s). Raises UnreachableError if the
    server does not start, ConfigurationError if state_dir cannot be used.
    """
    home = _prepare_home(state_dir, log_level)
    listener = socket.create_server((_LOOPBACK, 0))
    settings = _settings_for(home, listener.getsockname()[1])
    with _client_settings(settings):
        server = _launch(home, listener, settings["PREFECT_API_URL"], template_dir)
        try:
            if wait:
                await server.ready()
            yield server
        finally:
            try:
                if server.process.poll() is None:
                    await _deliver_events()
            finally:
                # a short wait for a child, without a thread: nothing else of ours runs here any more
                server.end()


def check_api(api_url: str) -> None:
    """A health check of the Prefect API that PREFECT_API_URL names; raises UnreachableError with one line that says what to do."""
    import httpx  # noqa: PLC0415

    try:
        status = httpx.get(f"{api_url.rstrip('/')}/health", timeout=_CHECK_SECONDS).status_code
        problem = "" if status in {httpx.codes.OK, httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN} else f"HTTP {status}"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        problem = type(error).__name__
    if problem:
        without_password = re.sub(r"//[^/]*@", "//", api_url)
        what_to_do = "start that server, or unset PREFECT_API_URL to use the embedded one"
        raise UnreachableError(f"Prefect at {without_password} did not answer ({problem}): {what_to_do}")


def _prepare_home(state_dir: Path, log_level: str) -> Path:
    home = state_dir.resolve() / "prefect"
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / "logging.yml").write_text(_logging_config(home / "prefect.log", log_level), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"the state directory {state_dir} cannot be used ({error.strerror}): name another") from error
    return home


def _logging_config(log_file: Path, log_level: str) -> str:
    """Prefect's logging configuration as it reads it from its home, in JSON, which is YAML: a file and no console.

    It configures no root logger, which stays the program's own. Prefect substitutes $NAME in it.
    """
    to_file = {"level": log_level, "handlers": ["file"], "propagate": False}
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"}},
        "handlers": {"file": {"class": "logging.FileHandler", "filename": str(log_file), "encoding": "utf-8", "formatter": "line"}},
        "loggers": {"prefect": to_file}
        | {name: to_file | {"level": "WARNING"} for name in ("prefect.server", "uvicorn", "fastapi", "docket")},
    }
    return json.dumps(config).replace("$", "$$")


def _settings_for(home: Path, port: int) -> dict[str, str]:
    # anybody on this host can reach the port, and so can a web page in a browser
    password = f"soundcheck:{secrets.token_urlsafe(24)}"
    exempt = ",".join(filter(None, [os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), _LOOPBACK]))
    return _SETTINGS | {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://{_LOOPBACK}:{port}/api",
        "PREFECT_API_AUTH_STRING": password,
        "PREFECT_SERVER_API_AUTH_STRING": password,
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{_database(home)}",
        "no_proxy": exempt,
        "NO_PROXY": exempt,
    }


def _database(home: Path) -> Path:
    # a database a version: this history is no source of truth, and never worth a migration of old data or a failed downgrade
    return home / f"server-{version('prefect')}.db"


@contextlib.contextmanager
def _client_settings(settings: Mapping[str, str]) -> Iterator[None]:
    """The environment that Prefect reads, for the block: these settings instead of whatever PREFECT_* the user has.

    The environment, and not temporary_settings: it also reaches Prefect's threads, and a Prefect that is imported only later.
    """
    before = {name: value for name, value in os.environ.items() if name.startswith("PREFECT_") or name in settings}
    for name in before:
        del os.environ[name]
    os.environ.update(settings)
    _reload_settings(logs=True)
    try:
        yield
    finally:
        for name in settings:
            os.environ.pop(name, None)
        os.environ.update(before)
        _reload_settings(logs=False)


def _reload_settings(*, logs: bool) -> None:
    """Let a Prefect that is imported already read the environment again; its log goes to the file from then on."""
    if "prefect.main" in sys.modules:
        from prefect.context import refresh_global_settings_context  # noqa: PLC0415
        from prefect.logging.configuration import setup_logging  # noqa: PLC0415

        refresh_global_settings_context()
        if logs:
            setup_logging(incremental=False)


async def _deliver_events() -> None:
    """Send what Prefect's background thread still holds: later it would find no server and say so on the terminal."""
    if "prefect.events.worker" in sys.modules:
        from prefect.events.worker import EventsWorker  # noqa: PLC0415

        delivered = EventsWorker.drain_all(timeout=_EVENTS_SECONDS, at_exit=False)
        assert not isinstance(delivered, tuple)
        await delivered


def _without_secrets() -> dict[str, str]:
    """The environment less what is ours: the server has no use for the API key."""
    return {name: value for name, value in os.environ.items() if not name.upper().startswith("SOUNDCHECK_")}


def _launch(home: Path, listener: socket.socket, api_url: str, template_dir: Path | None) -> EmbeddedPrefect:
    command = [
        sys.executable,
        "-P",
        "-m",
        "flows.embedded_prefect_server",
        "--socket",
        str(listener.fileno()),
        "--parent",
        str(os.getpid()),
    ]
    command += ["--database", str(_database(home))]
    command += [] if template_dir is None else ["--template", str(template_dir.resolve() / _database(home).name)]
    log_file = home / "prefect.log"
    with listener, log_file.open("ab") as log:
        process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[listener.fileno()],
            # its own session, so that Ctrl-C reaches the flow first; its own folder, so that no .env or prefect.toml is read
            start_new_session=True,
            cwd=home,
            env=_without_secrets()
            | {"PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))},
        )
    return EmbeddedPrefect(api_url, log_file, process)
