"""An S3 on loopback that now and then behaves as S3 does on a bad day: it stands in front of another one and passes on the rest."""

import http.client
from collections.abc import Callable
from contextlib import closing
from enum import Enum, auto
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Self
from urllib.parse import urlsplit

SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
HOP = {"connection", "transfer-encoding", "keep-alive", "expect"}


class Fault(Enum):
    """What happens to a request."""

    SLOW_DOWN = auto()
    """It is refused with 503."""
    LOST_REPLY = auto()
    """It is done, and the connection breaks before that is said."""
    TRUNCATED = auto()
    """The connection breaks in the middle of the body, whoever sends one."""


class FaultyS3:
    """A server for as long as the block runs. choose gets the number of a request, from 1, and says what happens to it."""

    def __init__(self, endpoint_url: str, choose: Callable[[int], Fault | None] = lambda _: None) -> None:
        self.target = urlsplit(endpoint_url).netloc
        self.choose = choose
        self.requests = 0
        self._lock = Lock()

    @property
    def endpoint_url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def fate(self) -> Fault | None:
        """What happens to the request that has just come."""
        with self._lock:
            self.requests += 1
            return self.choose(self.requests)

    def __enter__(self) -> Self:
        faulty = self

        class Handler(_Handler):
            owner = faulty

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self._thread = Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FaultyS3

    def answer(self) -> None:
        """One request, after which the connection is closed."""
        self.close_connection = True
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.owner.fate()
        if fault is Fault.SLOW_DOWN:
            self.say(HTTPStatus.SERVICE_UNAVAILABLE, {}, SLOW_DOWN)
            return
        half = len(body) // 2 if fault is Fault.TRUNCATED and body else len(body)
        with closing(http.client.HTTPConnection(self.owner.target, timeout=60)) as beyond:
            beyond.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in HOP:
                    beyond.putheader(name, value)
            beyond.endheaders(body[:half])
            if half < len(body):
                return
            answer = beyond.getresponse()
            content = answer.read()
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in HOP}
        if fault is Fault.TRUNCATED:
            self.say(answer.status, headers, content, content[: len(content) // 2])
        elif fault is not Fault.LOST_REPLY:
            self.say(answer.status, headers, content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815 - names of http.server

    def say(self, status: int, headers: dict[str, str], content: bytes, sent: bytes | None = None) -> None:
        """Answer, or with a part of it."""
        self.send_response_only(status)
        for name, value in ({"Content-Length": str(len(content))} | headers | {"Connection": "close"}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content if sent is None else sent)

    def log_message(self, *_: object) -> None:
        """Says nothing."""
