"""The client of the Velma-2 streaming endpoints: bytes in, a SessionResult out, over one WebSocket (design.md section 4).

Two tasks, always: one sends, one receives. The receiver decides what a session was worth; the sender only ever says that it is through.
"""

import asyncio
import json
import logging
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import NoReturn
from urllib.parse import quote, quote_plus, urlencode, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus
from websockets.uri import parse_uri

from moderation.endpoints import Endpoint
from moderation.errors import ConfigurationError, Phase, SessionError, SoundcheckError
from moderation.formats import StreamParameters
from moderation.pacing import AckWindow, Deadlines, Pace, Watchdog
from moderation.results import SessionResult
from moderation.session import NORMAL_CLOSE, ClientSession, State

CHUNK_BYTES = 64 * 1024
"""Bytes of one binary message: 4 KiB ones cost 25 % more CPU, larger ones gain nothing (measurements.md)."""
MAX_MESSAGE_BYTES = 256 * 1024
RECEIVE_QUEUE = (256, 64)
"""Messages held before reading pauses, and how few let it go on."""
PING_SECONDS = 20
"""Keeps idle balancers open; nobody waits for the pong: it may be late behind a slow upload."""
REDACTED = "[key]"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

_SILENT = logging.Logger("soundcheck.websockets")  # noqa: LOG001 - outside the tree on purpose: websockets logs the URL, and so the key
_SILENT.disabled = True


class ApiKey:
    """The key to the paid account. Nothing that can be shown or stored holds it: only `reveal` gives it, to the function that connects."""

    __slots__ = ("_reveal", "_spellings")

    def __init__(self, key: str) -> None:
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise ConfigurationError("the API key is empty or has characters that no key has: check where it was copied from")
        spellings = frozenset({key, quote(key), quote(key, safe=""), quote_plus(key), json.dumps(key)[1:-1]})
        self._reveal: Callable[[], str] = lambda: key
        self._spellings: Callable[[], frozenset[str]] = lambda: spellings

    def __repr__(self) -> str:
        return "ApiKey(...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an API key is never pickled: hand on where it is found instead")

    def reveal(self) -> str:
        """The key as plain text."""
        return self._reveal()

    def redact(self, text: str) -> str:
        """The text without the key, however a URL or JSON would spell it."""
        for spelling in self._spellings():
            text = text.replace(spelling, REDACTED)
        return text


@dataclass(frozen=True, slots=True)
class VelmaSettings:
    """How to reach the service. hosts maps an endpoint's name to its `wss://host[:port]`; others use the host of their seed page."""

    hosts: Mapping[str, str] = field(default_factory=dict)
    deadlines: Deadlines = field(default_factory=Deadlines)
    pace: Pace = field(default_factory=Pace)
    chunk_bytes: int = CHUNK_BYTES
    window_ms: int = 60_000
    window_bytes: int = 4 * 1024 * 1024
    proxy: str | None = None


class VelmaClient:
    """A client for all endpoints with one key. Raises ConfigurationError for a host that is neither `wss` nor on loopback."""

    def __init__(self, key: ApiKey, settings: VelmaSettings) -> None:
        self._key = key
        self._settings = settings
        for host in settings.hosts.values():
            check_host(host)

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
        on_session: Callable[[ClientSession], None] = lambda _: None,
    ) -> SessionResult:
        """Stream one object's bytes and return what the service found; the slot may be given away when this returns or raises.

        audio is closed at the end where it is a generator. expected_ms is the object's duration where its header is trusted. on_session
        gets the session before the first byte, so that a caller can see how far it came even if this raises. Raises SessionError without
        a valid done, what `audio` raises where reading it fails, and ConfigurationError where the service cannot be trusted (TLS, URL).
        """
        session = ClientSession(endpoint, parameters, expected_ms=expected_ms)
        on_session(session)
        async with self._connection(endpoint, parameters) as connection:
            await _Exchange(connection, session, self._settings, self._key).run(audio)
        session.closed(connection.close_code)
        if not session.over and (complaint := _complaint(connection)) is not None:
            raise SessionError(f"the service broke the protocol ({complaint})", phase=session.phase, protocol="bad_frame")
        return session.result()

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
                connection.transport.abort()
                await connection.wait_closed()
                if connection.keepalive_task is not None:  # cancelled by now, but not always over
                    await asyncio.wait([connection.keepalive_task])

    async def _connect(self, endpoint: Endpoint, parameters: StreamParameters) -> ClientConnection:
        """The only place where the key is plain text: what is raised here is made outside the handler, so that it has no context."""
        host = self.host(endpoint)
        url = f"{host}{endpoint.path}?{urlencode({'api_key': self._key.reveal()} | parameters.query())}"
        try:
            connection = await _Connect(
                url,
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
            )
        except asyncio.CancelledError as cancelled:  # a fresh one: the frames that it came through hold the URL
            failure: BaseException = asyncio.CancelledError(*cancelled.args)
        except Exception as error:  # noqa: BLE001 - anything may carry the URL: only its facts go on
            failure = _connect_failure(error, host, self._key)
        else:
            assert connection.request is not None  # a connected one has made its request
            connection.request.path = endpoint.path
            connection.protocol.uri = parse_uri(f"{host}{endpoint.path}")
            return connection
        finally:
            del url
        raise failure


class _Connect(connect):
    """A connect that never follows a redirect: the key would travel along."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _Exchange:
    """One session on the wire: the sender and the receiver, and what they tell each other."""

    def __init__(self, connection: ClientConnection, session: ClientSession, settings: VelmaSettings, key: ApiKey) -> None:
        self._connection = connection
        self._session = session
        self._settings = settings
        self._key = key
        self._clock = asyncio.get_running_loop().time
        rate = session.parameters.bytes_per_second
        self._window = AckWindow(limit_ms=settings.window_ms, limit_bytes=settings.window_bytes, bytes_per_second=rate)
        self._watchdog = Watchdog(settings.deadlines)
        self._deadline: asyncio.Timeout | None = None
        self._news = asyncio.Event()
        self._source_failure: Exception | None = None

    async def run(self, audio: AsyncIterator[bytes]) -> None:
        """Send and receive until the session's verdict is known. Raises what reading `audio` raised, or SessionError for a stall."""
        self._watchdog.touch(self._clock())
        self._window.start(self._clock())
        stalled = False
        sender: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(None) as self._deadline:
                self._rearm()
                sender = asyncio.create_task(self._send(audio))
                await self._receive()
        except TimeoutError:
            stalled = True
        finally:
            self._deadline = None
            if sender is not None:
                sender.cancel()
                await asyncio.wait([sender])
        if self._source_failure is not None and not self._session.over:
            raise self._source_failure
        if stalled and not self._session.over and self._connection.protocol.close_rcvd is None:
            raise SessionError(f"nothing moved at {self._session.acknowledged_ms} ms of audio", phase=self._session.phase)

    def _rearm(self) -> None:
        """Move the deadline to where it belongs now: at once where the source has failed."""
        if self._deadline is not None and not self._deadline.expired():
            now = self._clock()
            self._deadline.reschedule(now + (self._watchdog.left_s(now) if self._source_failure is None else 0.0))

    async def _receive(self) -> None:
        """Read until done, a broken protocol or the close: after an error message a few seconds are left for the close."""
        with suppress(ConnectionClosed):
            while self._session.state not in {State.DONE, State.BROKEN}:
                self._session.receive(self._redacted(await self._connection.recv()))
                now = self._clock()
                self._window.answered(self._session.acknowledged_ms, now)
                self._news.set()
                self._watchdog.touch(now)
                if self._session.state is State.REFUSED:
                    self._watchdog.dying(now)
                self._rearm()

    def _redacted(self, message: str | bytes) -> str | bytes:
        if isinstance(message, str):
            return self._key.redact(message)
        return self._key.redact(message.decode("latin-1")).encode("latin-1")  # the key is ASCII: every other byte stays as it is

    async def _send(self, audio: AsyncIterator[bytes]) -> None:
        try:
            async with aclosing(whole_frames(audio, self._settings.chunk_bytes, self._session.parameters.frame_bytes)) as chunks:
                async for chunk in chunks:
                    await self._wait_for_room()
                    await self._transmit(chunk)
            self._session.end_of_stream()
            self._watchdog.draining(self._clock(), self._session.audio_sent_ms)
            self._rearm()
            await self._connection.send("")
        except SourceFailure as failure:
            self._source_failure = failure.cause
            self._rearm()
        except Exception:  # noqa: BLE001 - a failed send has many shapes (measurements.md); the receiver knows the reason
            self._watchdog.dying(self._clock())
            self._rearm()

    async def _transmit(self, chunk: bytes) -> None:
        self._session.sending(len(chunk))
        self._window.sending(len(chunk), self._clock())
        await self._connection.send(chunk)
        self._watchdog.touch(self._clock())
        self._rearm()

    async def _wait_for_room(self) -> None:
        due = self._window.started_at + self._settings.pace.due_s(self._session.bytes_sent, self._session.parameters.bytes_per_second)
        if (early := due - self._clock()) > 0:
            await asyncio.sleep(early)
            self._watchdog.touch(self._clock())
            self._rearm()
        while (patience := self._window.wait_s(self._clock())) > 0 or (not self._window.has_room and self._unsent()):
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(patience, 0.1)):
                    await self._news.wait()

    def _unsent(self) -> int:
        return self._connection.transport.get_write_buffer_size()


class SourceFailure(Exception):
    """What reading the audio raised, told apart from what sending it raised."""

    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause


async def whole_frames(audio: AsyncIterator[bytes], chunk_bytes: int, frame_bytes: int | None) -> AsyncGenerator[bytes, None]:
    """The same bytes in chunks of at most chunk_bytes, each of whole sample frames where frame_bytes is known.

    What is left over at the end is dropped. Raises SourceFailure around whatever reading raises. Closing this closes `audio`, too.
    """
    frame = frame_bytes or 1
    size = max(frame, chunk_bytes - chunk_bytes % frame)
    held = bytearray()
    async with aclosing(_pieces(audio)) as pieces:
        async for piece in pieces:
            held += piece
            while len(held) >= size:
                yield bytes(held[:size])
                del held[:size]
    if whole := len(held) - len(held) % frame:
        yield bytes(held[:whole])


def _complaint(connection: ClientConnection) -> str | None:
    """What this side failed the connection for (RFC 6455, section 7.1.7); the close code that came back is then but an echo."""
    sent = connection.protocol.close_sent
    if sent is None or sent.code == NORMAL_CLOSE or connection.protocol.close_rcvd_then_sent:
        return None
    return sent.reason or str(sent.code)


async def _pieces(audio: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """What `audio` gives, with its failures told apart, and itself closed whenever this ends."""
    try:
        async for piece in audio:
            yield piece
    except Exception as error:
        raise SourceFailure(error) from error
    finally:
        if isinstance(audio, AsyncGenerator):
            await audio.aclose()


def check_host(host: str) -> None:
    """Refuse a service URL over which the key could be read on the way, or which carries more than a host. Raises ConfigurationError."""
    try:
        parts = urlsplit(host)
        has_address = parts.scheme in {"ws", "wss"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        has_address = False
    if not has_address:
        raise ConfigurationError(f"{_shown(host)} is no service URL: give wss://host, or ws://127.0.0.1:PORT for a local one")
    if parts.scheme == "ws" and parts.hostname not in _LOOPBACK:
        raise ConfigurationError(f"ws://{parts.hostname} would send the API key in plain text: use wss:// (ws:// is for loopback alone)")
    if "@" in parts.netloc or "?" in host or "#" in host or parts.path not in {"", "/"}:
        raise ConfigurationError(f"{_shown(host)} must be scheme, host and port alone: the path and the key are added by soundcheck")


def _shown(host: str) -> str:
    """A URL without what may be secret in it: user and password, path and query."""
    scheme, found, rest = host.partition("://")
    address = re.split(r"[/?#]", rest if found else host)[0].rpartition("@")[2]
    return repr(f"{scheme}{found}{address}" if found else address)


def _connect_failure(error: Exception, host: str, key: ApiKey) -> SoundcheckError:
    """What a failed connect means, in our words and without its exception."""
    if isinstance(error, InvalidStatus):
        response = error.response
        text = key.redact(response.body.decode("utf-8", "replace"))[:200].strip() if response.body else None
        retry_after = _seconds(response.headers.get_all("Retry-After"))
        detail = f"{host} refused the connection"
        return SessionError(detail, phase=Phase.CONNECTING, http_status=response.status_code, text=text, retry_after=retry_after)
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConfigurationError(f"the TLS certificate of {host} cannot be trusted ({error.verify_message}): nothing was sent")
    if isinstance(error, InvalidHandshake) and not _hung_up(error):
        return SessionError(f"{host} does not speak WebSocket ({type(error).__name__})", phase=Phase.CONNECTING, protocol="handshake")
    return SessionError(_no_connection(error, host), phase=Phase.CONNECTING)


def _hung_up(error: InvalidHandshake) -> bool:
    """Whether the other side has left before it answered: a fault of the network, not of the protocol."""
    return isinstance(error, InvalidMessage) and isinstance(error.__cause__, EOFError)


def _no_connection(error: Exception, host: str) -> str:
    if isinstance(error, InvalidHandshake):
        return f"{host} closed the connection before it answered"
    if isinstance(error, TimeoutError):
        return f"{host} did not answer in time"
    if isinstance(error, OSError):
        return f"{host} cannot be reached ({error.strerror or type(error).__name__})"
    return f"connecting to {host} failed ({type(error).__name__})"


def _seconds(retry_after: Sequence[str]) -> float | None:
    """The seconds of the first Retry-After header; None without one, and for a date, which nobody sends here."""
    said = retry_after[0].strip() if retry_after else ""
    return float(said) if said.isascii() and said.isdecimal() else None
