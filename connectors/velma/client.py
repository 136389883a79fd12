"""The client of the Velma-2 streaming endpoints: one object's bytes in, a SessionResult out, over one WebSocket."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import cached_property
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.uri import parse_uri

from connectors.velma.exchange import Exchange
from connectors.velma.failures import closed_by_service, complaint, connect_failure
from connectors.velma.key import ApiKey
from connectors.velma.settings import VelmaSettings
from connectors.velma.transcripts import written
from moderation.endpoints import Endpoint
from moderation.errors import SessionError
from moderation.formats import StreamParameters
from moderation.refusals import classify
from moderation.results import SessionResult
from moderation.session import ClientSession, State
from moderation.transcript import RecordedSession

MAX_MESSAGE_BYTES = 256 * 1024
RECEIVE_QUEUE = (256, 64)
"""Messages held before reading pauses, and how few let it go on."""
PING_SECONDS = 20
"""Keeps idle balancers open; nobody waits for the pong: it may be late behind a slow upload."""

_SILENT = logging.Logger("soundcheck.websockets")  # noqa: LOG001 - outside the tree on purpose: websockets logs the URL, and so the key
_SILENT.disabled = True


class VelmaClient:
    """A client for all endpoints with one key."""

    def __init__(self, key: ApiKey, settings: VelmaSettings) -> None:
        self._key = key
        self._settings = settings

    def renewed(self, key: ApiKey) -> "VelmaClient | None":
        """The same with another key; None where it has that one. Sessions that are under way keep theirs."""
        return None if key.is_same(self._key) else VelmaClient(key, self._settings)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one binary message, where a session does not ask for fewer."""
        return self._settings.chunk_bytes

    def host(self, endpoint: Endpoint) -> str:
        """Where sessions of this endpoint go: scheme, host and port."""
        return self._settings.hosts.get(endpoint.name, endpoint.default_host).rstrip("/")

    async def analyse(
        self,
        endpoint: Endpoint,
        parameters: StreamParameters,
        audio: AsyncIterator[bytes],
        *,
        expected_ms: int | None = None,
        chunk_bytes: int | None = None,
        session_id: str | None = None,
        cautious: bool = False,
        on_session: Callable[[ClientSession], None] = lambda _: None,
        on_result: Callable[[], None] = lambda: None,
    ) -> SessionResult:
        """Stream one object's bytes and return what the service found; the slot may be given away when this returns or raises.

        audio is closed at the end where it is a generator. expected_ms is the object's duration where its header is trusted; chunk_bytes
        the size of a message, where the service took no larger ones; session_id names the transcript; a cautious session listens
        for a refusal after its first message. on_result is called with the first item, on_session gets the session before
        the first byte, so that a caller can see how far it came even if this raises. Raises SessionError, with the scope of its cause,
        without a valid done; what `audio` raises where reading it fails; and ConfigurationError where the service cannot be trusted (TLS).
        """
        with ExitStack() as transcripts:
            session = self._session(endpoint, parameters, expected_ms, session_id, transcripts)
            on_session(session)
            try:
                async with self._connection(endpoint, parameters) as connection:
                    exchange = Exchange(connection, session, self._settings, self._key)
                    await exchange.run(audio, chunk_bytes or self.chunk_bytes, cautious=cautious, on_result=on_result)
                await self._hear_out(session, connection)
                self._note_end(session, connection)
                return session.result()
            except SessionError as error:
                error.scope = classify(error).scope
                raise

    def _session(
        self, endpoint: Endpoint, parameters: StreamParameters, expected_ms: int | None, session_id: str | None, transcripts: ExitStack
    ) -> ClientSession:
        folder = self._settings.transcripts
        if folder is None:
            return ClientSession(endpoint, parameters, expected_ms=expected_ms)
        tell = transcripts.enter_context(written(folder, session_id or uuid4().hex))
        return RecordedSession(endpoint, parameters, expected_ms=expected_ms, tell=tell)

    async def _hear_out(self, session: ClientSession, connection: ClientConnection) -> None:
        """Take what came after done, of a connection that has ended: it is never waited for, and changes nothing but a flag."""
        with suppress(ConnectionClosed):
            while session.state is State.DONE:
                session.receive(self._key.redact_message(await connection.recv()))

    def _note_end(self, session: ClientSession, connection: ClientConnection) -> None:
        """Tell the session how its connection ended, where that says anything about the service."""
        if session.state is State.DONE or closed_by_service(connection):
            session.closed(connection.close_code, self._key.redact(connection.close_reason or ""))
        if not session.over and (complained := complaint(connection)) is not None:
            session.garbled(complained)

    @asynccontextmanager
    async def _connection(self, endpoint: Endpoint, parameters: StreamParameters) -> AsyncIterator[ClientConnection]:
        connection = await self._connect(endpoint, parameters)
        try:
            yield connection
        finally:
            try:
                with suppress(Exception):
                    async with asyncio.timeout(self._settings.deadlines.close_s):
                        await connection.close()
            finally:  # whatever happens while closing, a cancellation included, the transport goes down
                await _abort(connection)

    async def _connect(self, endpoint: Endpoint, parameters: StreamParameters) -> ClientConnection:
        """The only place where the key is plain text: what is raised here is made outside the handler, so that it has no context."""
        host = self.host(endpoint)
        attempt = _Connect(
            f"{host}{endpoint.path}?{urlencode({'api_key': self._key.reveal()} | parameters.query())}",
            compression=None,
            open_timeout=self._settings.deadlines.connect_s,
            close_timeout=self._settings.deadlines.close_s,
            ping_interval=PING_SECONDS,
            ping_timeout=None,
            max_size=MAX_MESSAGE_BYTES,
            max_queue=RECEIVE_QUEUE,
            proxy=self._settings.proxy,
            user_agent_header="soundcheck",
            logger=_SILENT,
            **(self._tls if host.startswith("wss:") else {}),
        )
        try:
            connection = await attempt
        except asyncio.CancelledError as cancelled:  # a fresh one: the frames that it came through hold the URL
            failure: BaseException = asyncio.CancelledError(*cancelled.args)
        except Exception as error:  # noqa: BLE001 - anything may carry the URL: only its facts go on
            failure = connect_failure(error, host, self._key)
        else:
            assert connection.request is not None  # a connected one has made its request
            connection.request.path = endpoint.path
            connection.protocol.uri = parse_uri(f"{host}{endpoint.path}")
            return connection
        finally:
            attempt.uri = host
        if (half_made := getattr(attempt, "connection", None)) is not None:
            await _abort(half_made)
        raise failure

    @cached_property
    def _tls(self) -> dict[str, Any]:
        """The trusted certificates, read once: that takes 40 ms (measured), and a session would do it on the event loop."""
        return {"ssl": ssl.create_default_context()}


class _Connect(connect):
    """A connect that never follows a redirect: the key would travel along."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


async def _abort(connection: ClientConnection) -> None:
    """Take the transport down and wait until nothing of the connection is left: its keepalive is cancelled by then, but not always over."""
    connection.transport.abort()
    await connection.wait_closed()
    if connection.keepalive_task is not None:
        await asyncio.wait([connection.keepalive_task])
