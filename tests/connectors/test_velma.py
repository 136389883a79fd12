"""The client over real sockets: against the local server, and against small servers that do one thing wrong each."""

import asyncio
import contextlib
import copy
import datetime as dt
import io
import ipaddress
import json
import logging
import pickle
import socket
import ssl
import threading
import traceback
import wave
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha1
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import Close, Frame, Opcode

from connectors import velma as velma_module
from connectors.velma import ApiKey, SourceFailure, VelmaClient, VelmaSettings, check_host, whole_frames
from moderation.endpoints import ENDPOINTS
from moderation.errors import ConfigurationError, Phase, SessionError, SourceGone
from moderation.formats import AudioFormat, StreamParameters
from moderation.messages import AiMusicDone, ErrorMessage, MusicDone, encode
from moderation.messages import Frame as FrameItem
from moderation.pacing import AckWindow, Deadlines, Pace
from moderation.results import Flag
from moderation.session import ClientSession

pytestmark = pytest.mark.net

KEY = "sk-live-0123456789abcdef"
CANARY_HEAD = "CANARY-4d1f"
CANARY = CANARY_HEAD + "/+=%"
"""A key that URLs spell in another way."""
MUSIC, AI_MUSIC = ENDPOINTS["music"], ENDPOINTS["ai_music"]
RAW = StreamParameters(AudioFormat.S16LE, 16000, 1)
WAV = StreamParameters(AudioFormat.WAV)
FLAC = StreamParameters(AudioFormat.FLAC)
SECOND = 32_000
"""Bytes of a second of RAW."""
SOON = Deadlines(connect_s=0.3, progress_s=0.3, done_s=0.3, done_share=0.0, error_s=0.2, close_s=0.2)
PATIENT = Deadlines(close_s=0.5)
UNSEEN = logging.Logger("a test's server", logging.CRITICAL + 1)  # noqa: LOG001 - outside the tree
"""websockets' server logs the request line, and so the key: that is the service's affair."""

NOT_PERMITTED = "This request is not permitted."
CORRUPTED = "The audio could not be processed. It may be corrupted or in an unsupported format."


def item(start: int = 0) -> str:
    return encode(FrameItem(start_time_ms=start, end_time_ms=start + 192, music_prob=0.5, speech_prob=0.25))


def done(frames: int = 0) -> str:
    return encode(MusicDone(duration_ms=192 * frames, frame_count=frames, music_pct=0.0, speech_pct=0.0, primary_label="neither"))


def error(text: str) -> str:
    return encode(ErrorMessage(text))


async def pieces(audio: bytes, size: int = 10_000) -> AsyncIterator[bytes]:
    for start in range(0, len(audio), size):
        yield audio[start : start + size]


def as_wav(samples: bytes) -> bytes:
    sink = io.BytesIO()
    with wave.open(sink, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16000)
        out.writeframes(samples)
    return sink.getvalue()


def client_of(host: str, **settings: Any) -> VelmaClient:
    return VelmaClient(ApiKey(KEY), settings_for(host, **settings))


def canary_client_of(host: str, **settings: Any) -> VelmaClient:
    return VelmaClient(ApiKey(CANARY), settings_for(host, **settings))


def settings_for(host: str, **settings: Any) -> VelmaSettings:
    return VelmaSettings(**{"hosts": dict.fromkeys(ENDPOINTS, host), "deadlines": PATIENT} | settings)


Handler = Callable[[ServerConnection], Any]


@asynccontextmanager
async def service(handler: Handler, **options: Any) -> AsyncIterator[str]:
    """A WebSocket server of the test's own: the host to give to a client."""
    async with serve(handler, "127.0.0.1", 0, **{"logger": UNSEEN, "ping_interval": None, "close_timeout": 0.1} | options) as server:
        yield f"ws{'s' if 'ssl' in options else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def all_audio(connection: ServerConnection) -> int:
    """Read to the end of the stream; how many bytes of audio there were."""
    size = 0
    while message := await connection.recv():
        size += len(message)
    return size


# -- a session that goes well -----------------------------------------------------------------------------------------------------------

LENGTH_MS = 8300
SAMPLES = bytes(SECOND * LENGTH_MS // 1000)


@pytest.mark.parametrize(("parameters", "audio"), [(RAW, SAMPLES), (WAV, as_wav(SAMPLES))], ids=["raw", "wav"])
@pytest.mark.parametrize(("endpoint", "items", "duration"), [(MUSIC, 43, 43 * 192), (AI_MUSIC, 2, LENGTH_MS)], ids=["music", "ai_music"])
async def test_a_good_session(velma, endpoint, items, duration, parameters, audio):
    sessions: list[ClientSession] = []
    result = await client_of(velma.url).analyse(
        endpoint, parameters, pieces(audio, 9_999), expected_ms=LENGTH_MS, on_session=sessions.append
    )
    assert len(result.columns) == items
    assert result.columns.covered_ms() == result.covered_ms == items * endpoint.item_ms
    assert isinstance(result.done, endpoint.done_type)
    assert (result.done.duration_ms, getattr(result.done, endpoint.count_field)) == (duration, items)
    assert getattr(result.done, endpoint.label_field) == ("neither" if endpoint is MUSIC else "not-ai-music")
    assert (result.flags, result.extra, result.close_code) == (frozenset(), {}, 1000)
    (session,) = sessions
    assert session.bytes_sent == len(audio)


@pytest.mark.parametrize(("endpoint", "type_"), [(MUSIC, MusicDone), (AI_MUSIC, AiMusicDone)])
async def test_no_audio_at_all(velma, endpoint, type_):
    result = await client_of(velma.url).analyse(endpoint, RAW, pieces(b""))
    assert isinstance(result.done, type_)
    assert not result.sufficient
    assert result.flags == frozenset()


async def test_many_sessions_at_once(velma):
    client = client_of(velma.url)
    results = await asyncio.gather(*(client.analyse(MUSIC, RAW, pieces(bytes(SECOND * seconds))) for seconds in range(1, 9)))
    assert [len(result.columns) for result in results] == [seconds * 1000 // 192 for seconds in range(1, 9)]


async def test_the_request():
    requests = []

    async def handler(connection: ServerConnection) -> None:
        requests.append((connection.request, connection.response))
        await all_audio(connection)
        await connection.send(done())

    async with service(handler, compression="deflate") as host:
        await canary_client_of(f"{host}/").analyse(MUSIC, RAW, pieces(b""))
        await canary_client_of(host).analyse(AI_MUSIC, WAV, pieces(b""))
    (music, answer), (ai_music, _) = requests
    assert urlsplit(music.path).path == "/api/velma-2-music-detection-streaming"
    assert parse_qs(urlsplit(music.path).query) == {
        "api_key": [CANARY],
        "audio_format": ["s16le"],
        "sample_rate": ["16000"],
        "num_channels": ["1"],
    }
    assert urlsplit(ai_music.path).path == "/api/velma-2-ai-music-detection-streaming"
    assert parse_qs(urlsplit(ai_music.path).query) == {"api_key": [CANARY], "audio_format": ["wav"]}
    assert "Sec-WebSocket-Extensions" not in music.headers
    assert "Sec-WebSocket-Extensions" not in answer.headers
    assert music.headers["User-Agent"] == "soundcheck"


async def test_no_proxy_of_the_environment(velma, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "socks_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert await client_of(velma.url).analyse(MUSIC, RAW, pieces(b""))


async def test_raw_audio_comes_in_whole_sample_frames():
    sizes = []

    async def handler(connection: ServerConnection) -> None:
        while message := await connection.recv():
            sizes.append(len(message))
        await connection.send(done())

    stereo = StreamParameters(AudioFormat.S24LE, 48000, 2)
    async with service(handler) as host:
        await client_of(host, chunk_bytes=1000).analyse(MUSIC, stereo, pieces(bytes(5003), 777))
    assert sizes == [996] * 5 + [18]  # 5003 bytes are 833 frames of 6 bytes, and 5 bytes that are none


async def test_a_pace_slower_than_the_deadline_is_no_stall(velma):
    client = client_of(velma.url, chunk_bytes=3200, pace=Pace(10.0), deadlines=Deadlines(progress_s=0.2, close_s=0.5))
    assert len((await client.analyse(MUSIC, RAW, pieces(bytes(SECOND * 5)))).columns) == 26


# -- audio in flight --------------------------------------------------------------------------------------------------------------------


async def test_audio_in_flight_is_bounded():
    """The server answers only when no more comes: one second of audio is on its way then, and no less."""
    bursts = []

    async def handler(connection: ServerConnection) -> None:
        size = answered = 0
        for _ in range(3):
            with contextlib.suppress(TimeoutError):
                while True:
                    size += len(await asyncio.wait_for(connection.recv(), 0.2))
            bursts.append(size)
            while (answered + 1) * 192 * 32 <= size:
                await connection.send(item(answered * 192))
                answered += 1
        await all_audio(connection)
        await connection.send(done(answered))

    async with service(handler) as host:
        client = client_of(host, window_ms=1000, chunk_bytes=3200)
        result = await client.analyse(MUSIC, RAW, pieces(bytes(SECOND * 7 // 2)))
    assert bursts == [32_000, 64_000, 96_000]  # 1000 ms, then 1000 ms more than the 960 and 1920 ms that were answered, in whole chunks
    assert len(result.columns) == 15


async def test_containers_are_bounded_in_bytes():
    burst = []

    async def handler(connection: ServerConnection) -> None:
        size = 0
        with contextlib.suppress(TimeoutError):
            while True:
                size += len(await asyncio.wait_for(connection.recv(), 0.2))
        burst.append(size)
        await connection.send(item())
        await all_audio(connection)
        await connection.send(done(1))

    async with service(handler) as host:
        client = client_of(host, window_bytes=10_000, chunk_bytes=1000)
        assert len((await client.analyse(MUSIC, WAV, pieces(bytes(15_000)))).columns) == 1
    assert burst == [10_000]


async def test_a_server_that_waits_for_more_than_the_window_is_not_starved(monkeypatch):
    monkeypatch.setattr(velma_module, "AckWindow", partial(AckWindow, patience_s=0.01))
    received = []

    async def handler(connection: ServerConnection) -> None:
        received.append(await all_audio(connection))
        await connection.send(done())

    async with service(handler) as host:
        await client_of(host, window_ms=1000, chunk_bytes=3200).analyse(MUSIC, RAW, pieces(bytes(SECOND * 2)))
    assert received == [SECOND * 2]


async def test_a_server_that_answers_late():
    """Ten minutes of audio, answered 20 s behind, while the server reads nothing as long as it writes."""

    async def handler(connection: ServerConnection) -> None:
        size = answered = 0
        while message := await connection.recv():
            size += len(message)
            while (answered + 1) * 192 * 32 <= size - 20 * SECOND:
                await connection.send(item(answered * 192))
                answered += 1
        for frame in range(answered, 3125):
            await connection.send(item(frame * 192))
        await connection.send(done(3125))

    async with service(handler) as host:
        result = await client_of(host).analyse(MUSIC, RAW, pieces(bytes(SECOND * 600), 1 << 18))
    assert (len(result.columns), result.flags) == (3125, frozenset())


async def test_a_server_that_says_more_than_it_hears():
    """A client that sends everything before it reads would wait for this server, which waits for the client."""
    chatter = json.dumps({"type": "progress", "note": "x" * 10_000})

    async def handler(connection: ServerConnection) -> None:
        while await connection.recv():
            for _ in range(20):
                await connection.send(chatter)
        await connection.send(done())

    async with service(handler, max_queue=1) as host:
        result = await client_of(host).analyse(MUSIC, RAW, pieces(bytes(SECOND * 50), 1 << 18))
    assert result.flags == {Flag.SHAPE}


# -- sessions that fail, each in its own way --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """A service with a fault, as a context that gives its host; and what the error says about it."""

    host: Callable[..., Any]
    says: dict[str, Any]
    audio: bytes = bytes(SECOND)
    parameters: StreamParameters = RAW
    error: type[Exception] = SessionError
    settings: dict[str, Any] = field(default_factory=lambda: {"deadlines": SOON})

    async def meet(self, velma, client_to: Callable[..., VelmaClient]) -> Exception:
        """What comes of a session there; no variable here holds the key."""
        async with self.host(velma) as host:
            client = client_to(host, **self.settings)
            try:
                await client.analyse(MUSIC, self.parameters, pieces(self.audio))
            except self.error as failure:
                return failure
        raise AssertionError("nothing was raised")


def scripted(handler: Handler, **options: Any) -> Callable[..., Any]:
    return lambda _: service(handler, **options)


def refusal(text: str, code: int) -> Callable[..., Any]:
    """A server that admits, then refuses at once, as the real one is said to do."""

    async def handler(connection: ServerConnection) -> None:
        await connection.send(error(text))
        await connection.close(code)

    return scripted(handler)


def last_words(*messages: str | bytes, code: int | None = 1000, first: int = 0) -> Callable[..., Any]:
    """A server that takes all audio, says these messages and closes; without a code it goes without a word."""

    async def handler(connection: ServerConnection) -> None:
        await all_audio(connection)
        for message in messages:
            await connection.send(message)
        if code is None:
            connection.transport.abort()
        else:
            await connection.close(code)

    return scripted(handler)


async def no_answer(connection: ServerConnection) -> None:
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


async def done_too_early(connection: ServerConnection) -> None:
    await connection.recv()
    await connection.send(done())
    await connection.wait_closed()


async def bad_utf8(connection: ServerConnection) -> None:
    await connection.recv()
    connection.transport.write(Frame(Opcode.TEXT, b'{"type": "\xff"}').serialize(mask=False))
    await connection.wait_closed()


async def leaves(connection: ServerConnection) -> None:
    await connection.close(4004)


def http(status: int, body: str = "", headers: list[tuple[str, str]] | None = None) -> Callable[..., Any]:
    """A server that refuses the upgrade; {path} in body and headers is the request's own."""

    def answer(connection: ServerConnection, request: Any) -> Any:
        response = connection.respond(HTTPStatus(status), body.replace("{path}", request.path))
        for name, value in headers or []:
            response.headers[name] = value.replace("{path}", request.path)
        return response

    return scripted(leaves, process_request=answer)


def with_extension(_: ServerConnection, __: Any, response: Any) -> Any:
    response.headers["Sec-WebSocket-Extensions"] = "permessage-deflate"
    return response


@asynccontextmanager
async def listening(answer: bytes | None, _: Any = None, scheme: str = "ws") -> AsyncIterator[str]:
    """A TCP server that is none of WebSocket: it gives this answer to a request and hangs up, or gives none and does not."""
    gone = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer is None:
            await gone.wait()
        else:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        gone.set()
        await asyncio.sleep(0)


@asynccontextmanager
async def closed_port(_: Any, scheme: str = "ws") -> AsyncIterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    yield f"{scheme}://127.0.0.1:{port}"


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
ECHO = f"what you sent was {CANARY}"

FAULTS: dict[str, Fault] = {
    # refusals of the local server
    "wrong key": Fault(local_without_key, NO_HEADERS | {"close_code": 4003, "text": NOT_PERMITTED}),
    "too many connections": Fault(full, {"close_code": 4029, "text": "Too many concurrent connections."}),
    "no credits": Fault(limited(credit_hours=0), {"close_code": 4029, "text": "Insufficient credits."}),
    "no hours": Fault(limited(monthly_hours=0), {"close_code": 4029, "text": "Monthly usage limit reached."}),
    "credits used up": Fault(
        limited(credit_hours=5 / 3600), {"close_code": 4029, "text": "Insufficient credits."}, audio=bytes(SECOND * 300)
    ),
    "undecodable": Fault(limited(), {"close_code": 4002, "text": CORRUPTED}, audio=b"fLaC" + bytes(9000), parameters=FLAC),
    "undecodable while uploading": Fault(
        limited(), {"close_code": 4002, "text": CORRUPTED}, audio=b"fLaC" + bytes(9_000_000), parameters=FLAC
    ),
    # published texts and others
    **{f"1003 {text}": Fault(refusal(text, 1003), {"close_code": 1003, "text": text}) for text in PUBLISHED_1003},
    "not validated": Fault(
        refusal("Unable to validate request. Please try again.", 4003),
        {"close_code": 4003, "text": "Unable to validate request. Please try again."},
    ),
    "an unknown code": Fault(refusal("?", 4031), {"close_code": 4031, "text": "?", "phase": Phase.ADMITTED}, audio=bytes(SECOND * 600)),
    "error after the end": Fault(
        last_words(item(), error(CORRUPTED), code=4002), {"close_code": 4002, "text": CORRUPTED, "phase": Phase.DRAINING}
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
    "error without close": Fault(scripted(error_without_close), {"text": "Internal server error"}),
    # nothing happens
    "no answer": Fault(scripted(no_answer), {"close_code": None, "text": None, "phase": Phase.DRAINING}),
    "signs of life, never done": Fault(scripted(chatty), {"close_code": None, "text": None, "phase": Phase.DRAINING}),
    # what the protocol does not allow
    "done too early": Fault(scripted(done_too_early), {"protocol": "done_before_end", "text": None}, audio=bytes(SECOND * 600)),
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
    "HTTP 503 with a date": Fault(
        http(503, headers=[("Retry-After", "Wed, 21 Oct 2026 07:28:00 GMT")]), {"http_status": 503, "retry_after": None}
    ),
    "HTTP 429 said twice": Fault(http(429, headers=[("Retry-After", "7"), ("Retry-After", "9")]), {"http_status": 429, "retry_after": 7.0}),
    "HTTP 429 for ever": Fault(http(429, headers=[("Retry-After", "inf")]), {"http_status": 429, "retry_after": None}),
    "HTTP 302": Fault(http(302, headers=[("Location", "ws://127.0.0.1:9{path}")]), CONNECTING | {"http_status": 302, "protocol": None}),
    "closed port": Fault(closed_port, CONNECTING | {"http_status": None, "protocol": None}),
    "closed TLS port": Fault(partial(closed_port, scheme="wss"), CONNECTING | {"http_status": None, "protocol": None}),
    "no TLS there": Fault(tls_expected, CONNECTING | {"http_status": None, "protocol": None}),
    "no answer to the handshake": Fault(partial(listening, None), CONNECTING | {"http_status": None, "protocol": None}),
    "no answer in TLS": Fault(partial(listening, None, scheme="wss"), CONNECTING | {"http_status": None, "protocol": None}),
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
    "HTTP body": Fault(http(403, "no {path} " + ECHO), {"http_status": 403}),
    "HTTP 302": Fault(http(302, headers=[("Location", "wss://localhost{path}")]), {"http_status": 302}),
    "header said twice": Fault(http(429, headers=[("Retry-After", ECHO), ("Retry-After", ECHO)]), {"retry_after": None}),
}
"""What the service says with the key in it."""


@pytest.mark.parametrize("name", FAULTS)
async def test_what_an_error_says(velma, name):
    fault = FAULTS[name]
    failure = await fault.meet(velma, client_of)
    assert {fact: getattr(failure, fact) for fact in fault.says} == fault.says
    assert failure.__cause__ is None


@pytest.mark.parametrize(("kind", "name"), [("fault", name) for name in FAULTS] + [("echo", name) for name in ECHOES])
async def test_the_key_is_nowhere(velma, kind, name, caplog, capfd):
    fault = (FAULTS if kind == "fault" else ECHOES)[name]
    asyncio.get_running_loop().set_debug(True)
    with everything_logged(caplog):
        failure = await fault.meet(velma, canary_client_of)
    if kind == "echo":
        assert {fact: getattr(failure, fact) for fact in fault.says} == fault.says
    places = surfaces(failure) | {"log": caplog.text, "console": "".join(capfd.readouterr()), "journal": velma.path.read_text()}
    assert [place for place, text in places.items() if CANARY_HEAD in text] == []


@contextmanager
def everything_logged(caplog) -> Iterator[None]:
    """Every logger at DEBUG, whatever it was set to."""
    with contextlib.ExitStack() as levels:
        for name in ["", *logging.root.manager.loggerDict]:
            levels.enter_context(caplog.at_level(logging.DEBUG, logger=name))
        yield


def surfaces(failure: BaseException) -> dict[str, str]:
    """Every way in which an error is shown or stored."""
    shown = traceback.TracebackException.from_exception(failure, capture_locals=True)
    return {
        "str": str(failure),
        "repr": repr(failure),
        "facts": repr(vars(failure)),
        "pickle": repr(pickle.dumps(failure)),
        "traceback with locals": "".join(shown.format()),
    }


def test_the_canary_would_be_found():
    """The search itself works: a local variable does show."""

    def leak() -> None:
        url = f"ws://host?api_key={CANARY}"
        raise SessionError("failed", phase=Phase.CONNECTING, text=url)

    with pytest.raises(SessionError) as raised:
        leak()
    found = {place for place, text in surfaces(raised.value).items() if CANARY_HEAD in text}
    assert found == {"str", "facts", "pickle", "traceback with locals"}


async def test_the_key_is_not_in_a_result():
    shown = json.dumps({"type": "hello", "note": ECHO})
    finding = json.loads(done()) | {"note": ECHO}

    async def handler(connection: ServerConnection) -> None:
        await all_audio(connection)
        await connection.send(shown)
        await connection.send(json.dumps(finding))

    sessions: list[ClientSession] = []
    async with service(handler) as host:
        result = await canary_client_of(host).analyse(MUSIC, RAW, pieces(b""), on_session=sessions.append)
    assert result.extra == {"note": "what you sent was [key]"}
    assert CANARY_HEAD not in str(sessions[0].unknown_sample)


async def cancelled(client: VelmaClient) -> None:
    asyncio.get_running_loop().call_later(0.1, asyncio.current_task().cancel, "enough")
    await client.analyse(MUSIC, RAW, pieces(b""))


async def timed_out(client: VelmaClient) -> None:
    async with asyncio.timeout(0.1):
        await client.analyse(MUSIC, RAW, pieces(b""))


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize(("ending", "kind"), [(cancelled, asyncio.CancelledError), (timed_out, TimeoutError)])
async def test_the_key_is_not_in_a_cancellation(ending, kind, scheme, caplog):
    """While connecting, the library's own frames hold the URL."""
    asyncio.get_running_loop().set_debug(True)
    async with listening(None, scheme=scheme) as host:
        with everything_logged(caplog), pytest.raises(kind) as raised:
            await asyncio.create_task(ending(canary_client_of(host)))
    assert [place for place, text in surfaces(raised.value).items() if CANARY_HEAD in text] == []
    assert CANARY_HEAD not in caplog.text


async def test_the_key_is_not_in_the_failure_of_a_source(velma):
    async with limited()(velma) as host:
        with pytest.raises(SourceGone) as raised:
            await canary_client_of(host).analyse(MUSIC, RAW, breaking(SECOND, SourceGone("there is no such object (any more)")))
    assert [place for place, text in surfaces(raised.value).items() if CANARY_HEAD in text] == []


# -- done is done -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, 1011, 4029])
async def test_done_and_then_another_close_code(code):
    async with last_words(item(), done(1), code=code)(None) as host:
        result = await client_of(host).analyse(MUSIC, RAW, pieces(bytes(SECOND)))
    assert (result.flags, result.close_code) == (frozenset(), code)


async def test_done_and_then_a_broken_connection():
    async with last_words(item(), done(1), code=None)(None) as host:
        result = await client_of(host).analyse(MUSIC, RAW, pieces(bytes(SECOND)))
    assert (len(result.columns), result.flags, result.close_code) == (1, frozenset(), 1006)


async def test_done_and_then_an_error():
    async with last_words(done(), error("Insufficient credits."), code=4029)(None) as host:
        result = await client_of(host).analyse(MUSIC, RAW, pieces(bytes(SECOND)))
    assert isinstance(result.done, MusicDone)


# -- reading the audio fails ------------------------------------------------------------------------------------------------------------


async def breaking(size: int, failure: Exception) -> AsyncIterator[bytes]:
    yield bytes(size)
    raise failure


@pytest.mark.parametrize("failure", [SourceGone("deleted"), OSError(5, "I/O error"), TimeoutError()])
async def test_a_source_that_breaks(failure):
    received: list[str | bytes] = []

    async def handler(connection: ServerConnection) -> None:
        received.extend([message async for message in connection])

    async with service(handler) as host:
        with pytest.raises(type(failure)) as raised:
            await client_of(host).analyse(MUSIC, RAW, breaking(SECOND * 3, failure))
    assert raised.value is failure
    assert received
    assert "" not in received


async def test_a_source_that_breaks_while_much_is_said():
    """News from the service do not put off the end."""

    async def handler(connection: ServerConnection) -> None:
        with contextlib.suppress(Exception):
            while True:
                await connection.send(json.dumps({"type": "progress"}))
                await asyncio.sleep(0)

    async with service(handler) as host:
        for _ in range(10):
            with pytest.raises(SourceGone):
                await client_of(host).analyse(MUSIC, RAW, breaking(10, SourceGone("deleted")))


async def test_a_source_that_breaks_after_the_refusal():
    """The service's verdict is known: it counts."""
    refused = asyncio.Event()

    async def handler(connection: ServerConnection) -> None:
        await connection.send(error("Insufficient credits."))
        await connection.recv()
        refused.set()
        await asyncio.sleep(0.05)
        await connection.close(4029)

    async def audio() -> AsyncIterator[bytes]:
        yield bytes(1 << 16)
        await refused.wait()
        raise SourceGone("deleted")

    async with service(handler) as host:
        with pytest.raises(SessionError, match="Insufficient credits"):
            await client_of(host).analyse(MUSIC, RAW, audio())


class Tape:
    """Audio whose end is noted, however it comes."""

    def __init__(self) -> None:
        self.closed = False

    async def play(self) -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(1 << 16)
        finally:
            self.closed = True


@pytest.mark.parametrize("name", ["closed while uploading", "reset in mid-stream", "done too early", "an unknown code"])
async def test_the_source_is_closed_when_the_session_ends(velma, name):
    tape = Tape()
    async with FAULTS[name].host(velma) as host:
        with pytest.raises(SessionError):
            await client_of(host).analyse(MUSIC, RAW, tape.play())
        assert tape.closed


async def test_whole_frames_of_any_pieces():
    data = bytes(range(256)) * 40
    for piece, chunk, frame in [(1, 10, 3), (7, 64, 6), (10_000, 64, 16), (100, 1, 8), (333, 1000, None)]:
        chunks = [part async for part in whole_frames(pieces(data, piece), chunk, frame)]
        assert b"".join(chunks) == data[: len(data) - len(data) % (frame or 1)]
        assert {len(part) % (frame or 1) for part in chunks} == {0}
        assert max(len(part) for part in chunks) <= max(chunk, frame or 1)


async def test_whole_frames_tell_the_sources_failure_apart():
    failure = ValueError("broken")
    with pytest.raises(SourceFailure) as raised:
        [part async for part in whole_frames(breaking(10, failure), 4, 2)]
    assert raised.value.cause is failure


async def test_any_iterator_will_do(velma):
    class Once:
        def __init__(self) -> None:
            self.left = [bytes(SECOND)]

        def __aiter__(self):
            return self

        async def __anext__(self) -> bytes:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop()

    assert len((await client_of(velma.url).analyse(MUSIC, RAW, Once())).columns) == 5


# -- nothing is left behind -------------------------------------------------------------------------------------------------------------

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
END_OF_STREAM = b"\x81\x80"
"""How the frame of a client's empty text begins."""


class Peer:
    """A service in a thread, on a plain socket: it takes one connection, says `ends` at its end, and notes when the client has gone."""

    def __init__(self, *, upgrades: bool = True, reads: bool = True, ends: bytes = b"") -> None:
        self._upgrades, self._reads, self._ends = upgrades, reads, ends
        self.reached, self.gone, self.read_on = threading.Event(), threading.Event(), threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(20)
        self.host = f"ws://127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.read_on.set()
        self._thread.join()
        self._server.close()

    def _serve(self) -> None:
        connection, _ = self._server.accept()
        with connection, contextlib.suppress(ConnectionError):
            connection.settimeout(20)
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(4096)
            if self._upgrades:
                connection.sendall(upgrade(request))
            if not self._ends:
                self.reached.set()
            if not self._reads:
                self.read_on.wait(20)
            while data := connection.recv(1 << 16):
                if self._ends and data.startswith(END_OF_STREAM):
                    connection.sendall(self._ends)
                    self.reached.set()
        self.gone.set()


def upgrade(request: bytes) -> bytes:
    key = request.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
    accept = b64encode(sha1(key + GUID, usedforsecurity=False).digest())
    return b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"


DONE_FRAME = Frame(Opcode.TEXT, done().encode()).serialize(mask=False)
CLOSE_FRAME = Frame(Opcode.CLOSE, Close(4029, "").serialize()).serialize(mask=False)


async def happens(event: threading.Event) -> bool:
    return await asyncio.to_thread(event.wait, 20)


@pytest.mark.parametrize(
    ("peer", "audio"),
    [
        ({"upgrades": False}, SECOND),
        ({"reads": False}, SECOND * 3600),
        ({}, SECOND),
        ({"ends": DONE_FRAME}, 0),
    ],
    ids=["connecting", "uploading", "draining", "closing"],
)
async def test_a_cancelled_session_leaves_nothing(peer, audio):
    before = asyncio.all_tasks()
    with Peer(**peer) as service_:
        client = client_of(service_.host, deadlines=Deadlines(close_s=0.1))
        session = asyncio.create_task(client.analyse(MUSIC, RAW, pieces(bytes(audio), 1 << 18)))
        assert await happens(service_.reached)
        await asyncio.sleep(0.05)
        session.cancel()
        with pytest.raises(asyncio.CancelledError):
            await session
        assert asyncio.all_tasks() == before
        service_.read_on.set()
        assert await happens(service_.gone)


async def test_cancelled_while_closing_takes_the_transport_down():
    """The close would have waited for half a minute."""
    before = asyncio.all_tasks()
    with Peer(ends=DONE_FRAME) as service_:
        client = client_of(service_.host, deadlines=Deadlines(close_s=30))
        session = asyncio.create_task(client.analyse(MUSIC, RAW, pieces(b"")))
        assert await happens(service_.reached)
        await asyncio.sleep(0.05)
        session.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(session, 10)
        assert asyncio.all_tasks() == before
        assert await happens(service_.gone)


async def test_a_service_that_does_not_close_costs_no_result():
    with Peer(ends=DONE_FRAME) as service_:
        result = await client_of(service_.host, deadlines=Deadlines(close_s=0.1)).analyse(MUSIC, RAW, pieces(b""))
        assert await happens(service_.gone)
    assert (result.flags, result.close_code) == (frozenset(), 1006)


async def test_a_service_that_reads_nothing_is_left():
    before = asyncio.all_tasks()
    with Peer(reads=False) as service_:
        with pytest.raises(SessionError, match="nothing moved at 0 ms") as raised:
            await client_of(service_.host, deadlines=SOON).analyse(MUSIC, RAW, pieces(bytes(SECOND * 3600), 1 << 18))
        assert asyncio.all_tasks() == before
        service_.read_on.set()
        assert await happens(service_.gone)
    assert (raised.value.phase, raised.value.close_code) == (Phase.ADMITTED, None)


@pytest.mark.parametrize("name", ["wrong key", "undecodable while uploading", "credits used up"])
async def test_a_failed_session_leaves_nothing(velma, name):
    before = asyncio.all_tasks()
    async with FAULTS[name].host(velma) as host:
        with pytest.raises(SessionError):
            await client_of(host).analyse(MUSIC, FAULTS[name].parameters, pieces(FAULTS[name].audio))
        assert asyncio.all_tasks() == before


async def test_a_good_session_leaves_nothing(velma):
    before = asyncio.all_tasks()
    await client_of(velma.url).analyse(MUSIC, RAW, pieces(bytes(SECOND)))
    assert asyncio.all_tasks() == before


async def test_a_close_frame_of_a_service_that_stays_keeps_its_code():
    with Peer(ends=CLOSE_FRAME) as service_:
        with pytest.raises(SessionError, match="closed before a done message") as raised:
            await client_of(service_.host, deadlines=SOON).analyse(MUSIC, RAW, pieces(b""))
        assert await happens(service_.gone)
    assert raised.value.close_code == 4029


# -- redirects, URLs and certificates ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_never_followed(status):
    visits = []

    async def target(connection: ServerConnection) -> None:
        visits.append(connection)

    async with service(target) as elsewhere, http(status, headers=[("Location", elsewhere + "{path}")])(None) as host:
        with pytest.raises(SessionError) as raised:
            await client_of(host).analyse(MUSIC, RAW, pieces(b""))
    assert raised.value.http_status == status
    assert visits == []


@pytest.mark.parametrize(
    "host",
    [
        "ws://modulate.example",
        "ws://10.0.0.1:8765",
        "ws://127.0.0.1.example",
        "ws://localhost.example",
        "http://127.0.0.1:8765",
        "https://modulate.example",
        "modulate.example",
        "user:pa55word@modulate.example",
        "wss://",
        "",
        "wss://modulate.example/api",
        "wss://modulate.example//",
        "wss://modulate.example?api_key=pa55word",
        "wss://modulate.example?",
        "wss://modulate.example/#pa55word",
        "wss://modulate.example#",
        "wss://user:pa55word@modulate.example",
        "wss://user@modulate.example",
        "wss://:pa55word@modulate.example",
        "wss://modulate.example:0",
        "wss://modulate.example:port",
        "wss://modulate.example:99999",
        "wss://[::1",
    ],
)
def test_hosts_that_are_refused(host):
    with pytest.raises(ConfigurationError) as raised:
        client_of(host)
    assert "pa55word" not in str(raised.value)


@pytest.mark.parametrize(
    "host", ["wss://modulate.example", "wss://modulate.example:8443", "wss://modulate.example/", "ws://127.0.0.1:1", "ws://[::1]:1"]
)
def test_hosts_that_are_taken(host):
    check_host(host)
    assert client_of(host).host(MUSIC) == host.rstrip("/")


def test_the_hosts_of_the_seed_pages():
    client = VelmaClient(ApiKey(KEY), VelmaSettings())
    assert client.host(MUSIC) == "wss://modulate-developer-apis.com"
    assert client.host(AI_MUSIC) == "wss://platform.modulate.ai"


@pytest.fixture
def certificate(tmp_path) -> ssl.SSLContext:
    """A server's context whose certificate for 127.0.0.1 nobody has signed but itself; it lies in tmp_path/certificate.pem."""
    x509 = pytest.importorskip("cryptography.x509")
    hashes = pytest.importorskip("cryptography.hazmat.primitives.hashes")
    ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "soundcheck test")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path, key_path = tmp_path / "certificate.pem", tmp_path / "key.pem"
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key_path)
    return context


async def test_a_certificate_that_is_not_trusted(certificate, caplog):
    requests = []

    def note(_: ServerConnection, request: Any) -> None:
        requests.append(request)

    async with service(leaves, ssl=certificate, process_request=note) as host:
        with everything_logged(caplog), pytest.raises(ConfigurationError, match=r"cannot be trusted \(self.signed certificate") as raised:
            await canary_client_of(host).analyse(MUSIC, RAW, pieces(b""))
    assert requests == []
    assert [place for place, text in surfaces(raised.value).items() if CANARY_HEAD in text] == []
    assert CANARY_HEAD not in caplog.text


async def test_a_session_over_tls(certificate, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    async with last_words(item(), done(1))(None) as plain:
        assert plain.startswith("ws://")

    async def handler(connection: ServerConnection) -> None:
        assert await all_audio(connection) == SECOND * 60
        await connection.send(item())
        await connection.send(done(1))

    async with service(handler, ssl=certificate) as host:
        result = await client_of(host).analyse(MUSIC, RAW, pieces(bytes(SECOND * 60)))
    assert (result.flags, result.close_code) == (frozenset(), 1000)


# -- the key ----------------------------------------------------------------------------------------------------------------------------


def test_a_key_shows_itself_to_nobody():
    key = ApiKey(CANARY)
    client = VelmaClient(key, VelmaSettings())
    assert CANARY_HEAD not in repr(key) + str(key) + f"{key!r}{key}" + repr(client) + repr(vars(client))
    for copier in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never pickled"):
            copier(key)
    assert key.reveal() == CANARY


@pytest.mark.parametrize("key", ["", " ", "sk-live\n", "sk live", " sk-live", "sk-líve", "sk-\x00", "sk-live\u200b"])
def test_keys_that_are_none(key):
    with pytest.raises(ConfigurationError, match="the API key is empty or has characters that no key has") as raised:
        ApiKey(key)
    assert "live" not in str(raised.value)


@pytest.mark.parametrize("spelling", [CANARY, "CANARY-4d1f%2F%2B%3D%25", "CANARY-4d1f/%2B%3D%25"])
def test_a_key_is_redacted_however_it_is_spelt(spelling):
    assert ApiKey(CANARY).redact(f"a {spelling} b") == "a [key] b"


def test_a_key_that_json_spells_in_another_way():
    assert ApiKey('sk"\\').redact(json.dumps({"error": 'sk"\\ is wrong'})) == '{"error": "[key] is wrong"}'
