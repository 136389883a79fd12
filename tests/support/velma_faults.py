"""Everything that can go wrong with one session, each with the facts that its error has."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode

from canary import CANARY
from connectors.velma import VelmaClient
from moderation.errors import Phase, Scope, SessionError
from moderation.formats import StreamParameters
from moderation.pacing import Deadlines
from velma_services import (
    CORRUPTED,
    FLAC,
    KEY,
    MUSIC,
    NOT_PERMITTED,
    PATIENT,
    RAW,
    SECOND,
    SOON,
    UNSEEN,
    all_audio,
    closed_port,
    done,
    error,
    http,
    item,
    last_words,
    leaves,
    listening,
    pieces,
    refusal,
    scripted,
    service,
)


@dataclass(frozen=True)
class Fault:
    """A service with a fault, as a context that gives its host; and what the error says about it."""

    host: Callable[..., Any]
    says: dict[str, Any]
    audio: bytes = bytes(SECOND)
    parameters: StreamParameters = RAW
    error: type[Exception] = SessionError
    deadlines: Deadlines = PATIENT

    async def meet(self, velma, client_to: Callable[..., VelmaClient]) -> Exception:
        """What comes of a session there; no variable here holds the key."""
        async with self.host(velma) as host:
            client = client_to(host, deadlines=self.deadlines)
            try:
                await client.analyse(MUSIC, self.parameters, pieces(self.audio))
            except self.error as failure:
                return failure
        raise AssertionError("nothing was raised")


async def no_answer(connection: ServerConnection) -> None:
    await all_audio(connection)
    await connection.wait_closed()


async def no_done(connection: ServerConnection) -> None:
    await connection.recv()
    await connection.send(item())
    await all_audio(connection)
    await connection.wait_closed()


async def chatty(connection: ServerConnection) -> None:
    """Signs of life after the end of the stream, but never done."""
    await all_audio(connection)
    with contextlib.suppress(Exception):
        while True:
            await connection.send(json.dumps({"type": "progress"}))
            await asyncio.sleep(0.02)


async def error_without_close(connection: ServerConnection) -> None:
    await connection.send(error("Internal server error"))
    await connection.wait_closed()


async def reset_in_mid_stream(connection: ServerConnection) -> None:
    await connection.recv()
    await connection.send(item())
    connection.transport.abort()


async def error_and_reset(connection: ServerConnection) -> None:
    await connection.recv()
    await connection.send(error("Unable to complete the request"))
    await all_audio(connection)
    connection.transport.abort()


async def reason_alone(connection: ServerConnection) -> None:
    """Admitted, then closed with a reason where a message should have been."""
    await connection.close(4003, "Could not be validated, try again.")


async def reason_with_the_key(connection: ServerConnection) -> None:
    await connection.close(4003, ECHO)


async def done_too_early(connection: ServerConnection) -> None:
    await connection.recv()
    await connection.send(done())
    await connection.wait_closed()


async def bad_utf8(connection: ServerConnection) -> None:
    await connection.recv()
    connection.transport.write(Frame(Opcode.TEXT, b'{"type": "\xff"}').serialize(mask=False))
    await connection.wait_closed()


def with_extension(_: ServerConnection, __: Any, response: Any) -> Any:
    response.headers["Sec-WebSocket-Extensions"] = "permessage-deflate"
    return response


@asynccontextmanager
async def tls_expected(_: Any) -> AsyncIterator[str]:
    async with service(leaves) as host:
        yield host.replace("ws://", "wss://")


def limited(**limits: Any) -> Callable[..., Any]:
    """The local server with these limits of its organisation."""

    @asynccontextmanager
    async def host(velma) -> AsyncIterator[str]:
        velma.organisation.api_keys = frozenset({KEY, CANARY})
        for name, value in limits.items():
            setattr(velma.organisation, name, value)
        yield velma.url

    return host


@asynccontextmanager
async def local_without_key(velma) -> AsyncIterator[str]:
    velma.organisation.api_keys = frozenset()
    yield velma.url


@asynccontextmanager
async def full(velma) -> AsyncIterator[str]:
    async with limited()(velma) as host:
        while velma.organisation.live["music"]:
            await asyncio.sleep(0.01)
        velma.organisation.max_connections = 1
        async with connect(f"{host}{MUSIC.path}?api_key={KEY}&audio_format=wav", proxy=None, logger=UNSEEN):
            yield host


NO_HEADERS = {"retry_after": None, "http_status": None, "protocol": None}
PUBLISHED_1003 = (
    "audio_format query parameter is required. Valid values: ['wav']",
    "Invalid audio_format='mp4'. Valid values: ['wav', 'mp3']",
    "Raw audio formats require sample_rate and num_channels query parameters",
    "sample_rate and num_channels require audio_format to be specified",
    "Invalid sample_rate=50000. Valid values: [8000, 11025]",
    "Invalid num_channels=12. Must be between 1 and 8",
)
CONNECTING = {"phase": Phase.CONNECTING, "close_code": None}
STALLED = {"close_code": None, "text": None, "protocol": None}
ECHO = f"what you sent was {CANARY}"

FAULTS: dict[str, Fault] = {
    # refusals of the local server
    "wrong key": Fault(local_without_key, NO_HEADERS | {"close_code": 4003, "text": NOT_PERMITTED, "scope": Scope.KEY}),
    "too many connections": Fault(full, {"close_code": 4029, "text": "Too many concurrent connections."}),
    "no credits": Fault(
        limited(credit_hours=0), {"close_code": 4029, "text": "Insufficient credits.", "scope": Scope.ORGANISATION, "phase": Phase.ADMITTED}
    ),
    "no hours": Fault(limited(monthly_hours=0), {"close_code": 4029, "text": "Monthly usage limit reached."}),
    "credits used up": Fault(
        limited(credit_hours=5 / 3600), {"close_code": 4029, "text": "Insufficient credits."}, audio=bytes(SECOND * 300)
    ),
    "undecodable": Fault(
        limited(), {"close_code": 4002, "text": CORRUPTED, "scope": Scope.OBJECT}, audio=b"fLaC" + bytes(9000), parameters=FLAC
    ),
    "undecodable while uploading": Fault(
        limited(), {"close_code": 4002, "text": CORRUPTED}, audio=b"fLaC" + bytes(9_000_000), parameters=FLAC
    ),
    # published texts and others
    **{f"1003 {text}": Fault(refusal(text, 1003), {"close_code": 1003, "text": text, "scope": Scope.CONFIG}) for text in PUBLISHED_1003},
    "not validated": Fault(
        refusal("Unable to validate request. Please try again.", 4003),
        {"close_code": 4003, "text": "Unable to validate request. Please try again."},
    ),
    "an unknown code": Fault(refusal("?", 4031), {"close_code": 4031, "text": "?", "phase": Phase.ADMITTED}, audio=bytes(SECOND * 600)),
    "error after the end": Fault(
        last_words(item(), error(CORRUPTED), code=4002), {"close_code": 4002, "text": CORRUPTED, "phase": Phase.DRAINING}
    ),
    "refused when all was sent": Fault(
        last_words(error("Too many concurrent connections."), code=4029), {"close_code": 4029, "phase": Phase.ADMITTED}
    ),
    "a reason alone": Fault(
        scripted(reason_alone),
        {"close_code": 4003, "close_reason": "Could not be validated, try again.", "scope": Scope.SERVICE, "text": None, "protocol": None},
    ),
    # ends without done
    "1000 without done": Fault(last_words(item()), {"close_code": 1000, "text": None, "protocol": None, "phase": Phase.DRAINING}),
    "1001 without done": Fault(last_words(item(), code=1001), {"close_code": 1001, "text": None, "protocol": None}),
    "1011 without a word": Fault(last_words(code=1011), {"close_code": 1011, "text": None, "protocol": None}),
    "closed at once": Fault(scripted(leaves), {"close_code": 4004, "text": None, "protocol": None}),
    "closed while uploading": Fault(scripted(leaves), {"close_code": 4004, "text": None, "protocol": None}, audio=bytes(SECOND * 600)),
    "broken off": Fault(last_words(item(), code=None), {"close_code": 1006, "text": None, "protocol": None}),
    "reset in mid-stream": Fault(scripted(reset_in_mid_stream), {"close_code": 1006, "text": None}, audio=bytes(SECOND * 600)),
    "error and reset": Fault(scripted(error_and_reset), {"close_code": 1006, "text": "Unable to complete the request"}),
    "error without close": Fault(scripted(error_without_close), {"text": "Internal server error", "close_code": None}, deadlines=SOON),
    # nothing happens
    "no answer": Fault(scripted(no_answer), STALLED | {"phase": Phase.ADMITTED, "scope": Scope.SERVICE}, deadlines=SOON),
    "no done": Fault(scripted(no_done), STALLED | {"phase": Phase.DRAINING}, audio=bytes(SECOND * 20), deadlines=SOON),
    "signs of life, never done": Fault(scripted(chatty), STALLED | {"phase": Phase.ADMITTED}, deadlines=SOON),
    # what the protocol does not allow
    "done too early": Fault(
        scripted(done_too_early), {"protocol": "done_before_end", "text": None, "close_code": None}, audio=bytes(SECOND * 600)
    ),
    "not JSON": Fault(last_words("hello"), {"protocol": "not_json"}),
    "binary": Fault(last_words(b"\x00\xff"), {"protocol": "binary_message"}),
    "no measurement": Fault(last_words('{"type": "done"}'), {"protocol": "empty_done"}),
    "bad UTF-8": Fault(scripted(bad_utf8), {"protocol": "bad_frame", "close_code": None}),
    "a message too large": Fault(last_words("x" * 300_000), {"protocol": "bad_frame", "close_code": None}),
    # no connection at all
    **{
        f"HTTP {status}": Fault(http(status, "no"), CONNECTING | {"http_status": status, "text": "no", "retry_after": None})
        for status in (401, 403, 404, 500, 503)
    },
    "HTTP 429": Fault(http(429, headers=[("Retry-After", "7")]), CONNECTING | {"http_status": 429, "text": None, "retry_after": 7.0}),
    "HTTP 503 until a date": Fault(
        http(503, headers=[("Retry-After", "Wed, 21 Oct 2037 07:28:00 GMT"), ("Date", "Wed, 21 Oct 2037 07:26:30 GMT")], dated=False),
        {"http_status": 503, "retry_after": 90.0},
    ),
    "HTTP 503 until a date of no known day": Fault(
        http(503, headers=[("Retry-After", "Wed, 21 Oct 2037 07:28:00 GMT")], dated=False), {"http_status": 503, "retry_after": None}
    ),
    "HTTP 429 said twice": Fault(http(429, headers=[("Retry-After", "7"), ("Retry-After", "9")]), {"http_status": 429, "retry_after": 7.0}),
    "HTTP 429 for ever": Fault(http(429, headers=[("Retry-After", "inf")]), {"http_status": 429, "retry_after": None}),
    "HTTP 302": Fault(http(302, headers=[("Location", "ws://127.0.0.1:9{path}")]), CONNECTING | {"http_status": 302, "protocol": None}),
    "closed port": Fault(closed_port, CONNECTING | {"http_status": None, "protocol": None, "scope": Scope.NETWORK}),
    "closed TLS port": Fault(partial(closed_port, scheme="wss"), CONNECTING | {"http_status": None, "protocol": None}),
    "no TLS there": Fault(tls_expected, CONNECTING | {"http_status": None, "protocol": None}),
    "no answer to the handshake": Fault(
        partial(listening, None), CONNECTING | {"http_status": None, "protocol": None}, deadlines=Deadlines(connect_s=0.2)
    ),
    "no answer in TLS": Fault(
        partial(listening, None, scheme="wss"), CONNECTING | {"http_status": None, "protocol": None}, deadlines=Deadlines(connect_s=0.2)
    ),
    "hung up before the answer": Fault(partial(listening, b""), CONNECTING | {"http_status": None, "protocol": None}),
    "hung up in the answer": Fault(partial(listening, b"HTTP/1.1 101 Sw"), CONNECTING | {"http_status": None, "protocol": None}),
    "another protocol": Fault(partial(listening, b"220 ready\r\n\r\n"), CONNECTING | {"protocol": "handshake"}),
    "an upgrade to something else": Fault(
        partial(listening, b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
        CONNECTING | {"protocol": "handshake"},
    ),
    "an extension that nobody asked for": Fault(scripted(leaves, process_response=with_extension), CONNECTING | {"protocol": "handshake"}),
}

ECHOES: dict[str, Fault] = {
    "error text": Fault(refusal(ECHO, 4003), {"close_code": 4003, "text": "what you sent was [key]"}),
    "not JSON": Fault(last_words(ECHO), {"protocol": "not_json"}),
    "binary": Fault(last_words(ECHO.encode()), {"protocol": "binary_message"}),
    "close reason": Fault(scripted(reason_with_the_key), {"close_code": 4003, "close_reason": "what you sent was [key]"}),
    "HTTP body": Fault(http(403, "no {path} " + ECHO), {"http_status": 403}),
    "HTTP 302": Fault(http(302, headers=[("Location", "wss://localhost{path}")]), {"http_status": 302}),
    "header said twice": Fault(http(429, headers=[("Retry-After", ECHO), ("Retry-After", ECHO)]), {"retry_after": None}),
}
"""What the service says with the key in it."""
