"""An S3 on loopback for the demo and the tests: moto's server application, in this process and its memory. Needs the `local` extra."""

import contextlib
import socket
from threading import Lock, Thread
from types import TracebackType
from typing import TYPE_CHECKING, Self

from moderation.errors import ConfigurationError

if TYPE_CHECKING:
    from werkzeug.serving import BaseWSGIServer

_HOST = "127.0.0.1"
_POLL_SECONDS = 0.05


class LocalS3:
    """An S3-compatible server on a port of 127.0.0.1 (0 takes any free one) that forgets everything when its context ends.

    It takes any credentials; these are made up. moto keeps one state a process: a second LocalS3 in it would start by emptying the first,
    so use one at a time. moto's own ThreadedMotoServer is not used because it leaves the threads and sockets of idle connections behind.
    Raises ConfigurationError on entry where the `local` extra is not installed, or the port is taken.
    """

    region = "us-east-1"
    access_key_id = "soundcheck-local"
    secret_access_key = "not-a-secret"  # noqa: S105 - moto does not look at it

    def __init__(self, port: int = 0) -> None:
        self._port = port
        self._connections = _Connections()
        self._server: BaseWSGIServer | None = None
        self._thread: Thread | None = None

    @property
    def endpoint_url(self) -> str:
        """Where the server listens, as http://127.0.0.1:PORT."""
        assert self._server is not None, "LocalS3 listens only inside its context"
        return f"http://{_HOST}:{self._server.port}"

    def environment(self) -> dict[str, str]:
        """Environment variables that lead every AWS client here, and nowhere else, whatever the environment said before."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_SESSION_TOKEN": "",
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ENDPOINT_URL": self.endpoint_url,
            # these two would outrank it
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false",
        }

    def __enter__(self) -> Self:
        self._connections = _Connections()
        self._server = _server(self._connections, self._port)
        _empty()
        self._thread = Thread(target=self._server.serve_forever, args=(_POLL_SECONDS,), name="local-s3", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._stop()
        _empty()

    def _stop(self) -> None:
        """Ends the accepting thread, then the connections, whose threads the accepting thread waits for."""
        assert self._server is not None
        assert self._thread is not None
        self._server.shutdown()
        self._connections.close()
        self._thread.join()
        self._server = self._thread = None


class _Connections:
    """The open connections of a server, so that the idle ones do not outlive it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._open: set[socket.socket] = set()
        self._closing = False

    def add(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.add(connection)
            if self._closing:
                _hang_up(connection)

    def discard(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)

    def close(self) -> None:
        """Hangs up everywhere, also on connections that are accepted but not added yet."""
        with self._lock:
            self._closing = True
            for connection in self._open:
                _hang_up(connection)


def _hang_up(connection: socket.socket) -> None:
    # the other side may have gone first
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _empty() -> None:
    """Empty every bucket of this process, which also closes the temporary files that moto keeps bodies in."""
    from moto.core.model_instances import reset_model_data  # noqa: PLC0415 - the local extra may be missing
    from moto.s3.models import s3_backends  # noqa: PLC0415

    s3_backends.reset()
    reset_model_data()


def _server(connections: _Connections, port: int) -> "BaseWSGIServer":
    """The server: moto behind werkzeug's threaded server: listening, not yet serving, and silent about requests.

    It is moto's S3 alone: to find out for each request which of its services is meant takes moto as long as to answer it.
    """
    try:
        from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app  # noqa: PLC0415 - as above
        from werkzeug.serving import ThreadedWSGIServer  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(f"the local S3 needs {error.name}: install soundcheck with its `local` extra") from error

    class Handler(MotoRequestHandler):
        def setup(self) -> None:
            super().setup()
            connections.add(self.connection)

        def finish(self) -> None:
            connections.discard(self.connection)
            super().finish()

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Says nothing: a line for each request would drown the demo."""

    class Server(ThreadedWSGIServer):
        # threads that are no daemons are waited for when the server closes
        daemon_threads = False

    try:
        listening = socket.create_server((_HOST, port))  # werkzeug would end the process where it cannot
    except OSError as error:
        raise ConfigurationError(f"the local S3 cannot listen on port {port}: {error.strerror}") from error
    with listening:
        return Server(_HOST, port, create_backend_app("s3"), Handler, fd=listening.fileno())
