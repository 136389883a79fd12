"""Small services that a client can be tested against, each of which does one thing, and the sessions to do it with."""

import asyncio
import contextlib
import io
import logging
import socket
import wave
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection, serve

from canary import CANARY
from connectors.velma import ApiKey, VelmaClient, VelmaSettings
from moderation.endpoints import ENDPOINTS
from moderation.formats import AudioFormat, StreamParameters
from moderation.messages import ErrorMessage, MusicDone, encode
from moderation.messages import Frame as FrameItem
from moderation.pacing import Deadlines

KEY = "sk-live-0123456789abcdef"
MUSIC, AI_MUSIC = ENDPOINTS["music"], ENDPOINTS["ai_music"]
RAW = StreamParameters(AudioFormat.S16LE, 16000, 1)
WAV = StreamParameters(AudioFormat.WAV)
FLAC = StreamParameters(AudioFormat.FLAC)
SECOND = 32_000
FRAME_BYTES = SECOND * 192 // 1000
"""Bytes of a second of RAW, and of what one of its frames covers."""
PATIENT = Deadlines(close_s=0.5)
"""For whatever ends by itself, however slow this machine is."""
SOON = Deadlines(done_s=0.5, done_share=0.0, error_s=0.2, close_s=0.2)
"""For services that say nothing more once they have all the audio, or have refused."""
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


async def frames_of(connection: ServerConnection) -> int:
    """Say a frame for every 192 ms of RAW as it comes; how many there were when the stream has ended."""
    size = frames = 0
    while message := await connection.recv():
        size += len(message)
        while (frames + 1) * FRAME_BYTES <= size:
            await connection.send(item(frames * 192))
            frames += 1
    return frames


async def answers(connection: ServerConnection) -> None:
    """A service that works."""
    await connection.send(done(await frames_of(connection)))


def scripted(handler: Handler, **options: Any) -> Callable[..., Any]:
    return lambda _: service(handler, **options)


def refusal(text: str, code: int) -> Callable[..., Any]:
    """A server that admits, then refuses at once, as the real one is said to do."""

    async def handler(connection: ServerConnection) -> None:
        await connection.send(error(text))
        await connection.close(code)

    return scripted(handler)


def last_words(*messages: str | bytes, code: int | None = 1000) -> Callable[..., Any]:
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


async def leaves(connection: ServerConnection) -> None:
    await connection.close(4004)


def http(status: int, body: str = "", headers: list[tuple[str, str]] | None = None, *, dated: bool = True) -> Callable[..., Any]:
    """A server that refuses the upgrade; {path} in body and headers is the request's own. dated leaves the Date that the library says."""

    def answer(connection: ServerConnection, request: Any) -> Any:
        response = connection.respond(HTTPStatus(status), body.replace("{path}", request.path))
        if not dated:
            del response.headers["Date"]
        for name, value in headers or []:
            response.headers[name] = value.replace("{path}", request.path)
        return response

    return scripted(leaves, process_request=answer)


@asynccontextmanager
async def listening(answer: bytes | None, _: Any = None, scheme: str = "ws") -> AsyncIterator[str]:
    """A TCP server that is none of WebSocket: it gives this answer to a request and hangs up, or gives none and does not."""
    ended = asyncio.Event()
    talks: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer is None:
            await ended.wait()
        else:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.add(asyncio.create_task(talk(reader, writer)))

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        try:
            yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            ended.set()
            await asyncio.gather(*talks)


@asynccontextmanager
async def closed_port(_: Any, scheme: str = "ws") -> AsyncIterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    yield f"{scheme}://127.0.0.1:{port}"


async def breaking(size: int, failure: Exception) -> AsyncIterator[bytes]:
    yield bytes(size)
    raise failure
