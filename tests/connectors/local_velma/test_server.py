"""The local server on the wire, with clients that are not soundcheck's: what the seed pages promise, refusals, and counts."""

import asyncio
import contextlib
import io
import json
import logging
import os
import re
import subprocess
import sys
import wave
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from connectors.local_velma import server as server_module
from connectors.local_velma.journal import Journal
from connectors.local_velma.organisation import Organisation
from connectors.local_velma.server import MAX_MESSAGE_BYTES, NOTICE, local_velma
from connectors.media.host import MediaHostDown
from moderation.endpoints import ENDPOINTS
from moderation.messages import Frame, MusicDone, encode

pytestmark = pytest.mark.net

KEY = "sk-live-0123456789abcdef"
RAW = {"audio_format": "s16le", "sample_rate": "16000", "num_channels": "1"}
SECOND = 32_000
"""Bytes of a second of RAW."""
SEED = Path(__file__).parents[3].parent / "shared" / "seeds" / "music-detection-streaming.txt"
CORRUPTED = "The audio could not be processed. It may be corrupted or in an unsupported format."
MISMATCH = "Audio data does not match the declared audio_format."


def tone(seconds: float) -> bytes:
    at = np.arange(int(seconds * 16000)) / 16000
    return (8000 * np.sin(2 * np.pi * 440 * at)).astype("<i2").tobytes()


def as_wav(samples: bytes) -> bytes:
    sink = io.BytesIO()
    with wave.open(sink, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16000)
        out.writeframes(samples)
    return sink.getvalue()


def url_of(base: str, endpoint: str = "music", **query: str) -> str:
    return f"{base}{ENDPOINTS[endpoint].path}?{urlencode(query)}"


@asynccontextmanager
async def connected(base: str, endpoint: str = "music", **query: str) -> AsyncIterator[ClientConnection]:
    async with connect(url_of(base, endpoint, **({"api_key": KEY} | (query or RAW))), proxy=None) as connection:
        yield connection


async def the_rest(connection: ClientConnection) -> tuple[list[dict[str, Any]], int | None]:
    """Every message until the close, and its code."""
    messages = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            messages.append(json.loads(await connection.recv()))
    await connection.wait_closed()
    return messages, connection.close_code


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.01)


async def free(velma) -> None:
    """Wait until no connection is held: the last client may have seen its close before the server has."""
    await until(lambda: not any(velma.organisation.live.values()))


async def closes(velma, number: int) -> list[dict[str, Any]]:
    """What the journal says about the ends of so many sessions, once it does."""
    await until(lambda: len(velma.named("close")) == number)
    return velma.named("close")


# -- as promised ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("query", "audio"), [(RAW, tone(8.3)), ({"audio_format": "wav"}, as_wav(tone(8.3)))], ids=["raw", "wav"])
@pytest.mark.parametrize(("endpoint", "item", "length", "ends"), [("music", "frame", 192, 43 * 192), ("ai_music", "window", 4000, 8000)])
async def test_items_then_done_then_the_close(velma, endpoint, item, length, ends, query, audio):
    async with connected(velma.url, endpoint, **query) as connection:
        await connection.send(audio)
        await connection.send("")
        (*items, done), code = await the_rest(connection)
    assert {message["type"] for message in items} == {item}
    assert [message[item]["start_time_ms"] for message in items] == list(range(0, ends, length))
    assert [message[item]["end_time_ms"] for message in items] == list(range(length, ends + length, length))
    assert done["type"] == "done"
    assert done[f"{item}_count"] == len(items)
    assert code == 1000


@pytest.mark.parametrize(
    ("endpoint", "fields"),
    [
        ("music", {"start_time_ms", "end_time_ms", "music_prob", "speech_prob"}),
        (
            "ai_music",
            {
                "start_time_ms",
                "end_time_ms",
                "vocal_percentage",
                "vocal_ai_percentage",
                "vocal_ai_confidence",
                "instrumental_percentage",
                "silence_percentage",
            },
        ),
    ],
)
async def test_fields_of_the_seed_pages(velma, endpoint, fields):
    async with connected(velma.url, endpoint) as connection:
        await connection.send(tone(4))
        await connection.send("")
        (first, *_, done), _ = await the_rest(connection)
    assert set(first[ENDPOINTS[endpoint].item_name]) == fields
    assert set(done) == {"type", *ENDPOINTS[endpoint].done_type.__struct_fields__}


async def test_frames_come_while_audio_is_still_to_come(velma):
    async with connected(velma.url) as connection:
        await connection.send(tone(0.192))
        assert json.loads(await connection.recv())["frame"]["end_time_ms"] == 192
        await connection.send(tone(0.192))
        assert json.loads(await connection.recv())["frame"]["end_time_ms"] == 384


async def test_any_chunk_size(velma):
    audio = tone(1)
    async with connected(velma.url) as connection:
        for start in range(0, len(audio), 999):
            await connection.send(audio[start : start + 999])
            await connection.send(b"")
        await connection.send("")
        messages, _ = await the_rest(connection)
    async with connected(velma.url) as connection:
        await connection.send(audio)
        await connection.send("")
        assert (await the_rest(connection))[0] == messages


@pytest.mark.parametrize(
    ("endpoint", "label"), [("music", {"primary_label": "unknown"}), ("ai_music", {"primary_verdict": "not-ai-music"})]
)
async def test_the_end_without_audio(velma, endpoint, label):
    async with connected(velma.url, endpoint) as connection:
        await connection.send("")
        (done,), code = await the_rest(connection)
    assert code == 1000
    assert done | label | {"type": "done", "duration_ms": 0} == done
    assert velma.named("first_audio") == []


async def test_compression_is_offered_and_not_taken(velma):
    async with connect(url_of(velma.url, api_key=KEY, **RAW), proxy=None) as connection:
        assert "permessage-deflate" in connection.request.headers["Sec-WebSocket-Extensions"]
        assert "Sec-WebSocket-Extensions" not in connection.response.headers


def vendors_sample(url: str, audio: Path) -> str:
    """The program at the end of the seed page, with nothing changed but the service's URL and the file."""
    page = SEED.read_text()
    start, end = "import asyncio\n", 'asyncio.run(stream_audio("/path/to/audio.raw"))'
    program = page[page.index(start) : page.index(end) + len(end)]
    for old, new in (("wss://modulate-developer-apis.com/api/velma-2-music-detection-streaming", url), ("/path/to/audio.raw", str(audio))):
        assert program.count(old) == 1
        program = program.replace(old, new)
    return program


@pytest.mark.skipif(not SEED.exists(), reason="the vendor's page is not beside this repository")
async def test_the_vendors_own_sample(velma, tmp_path):
    audio, program = tmp_path / "audio.raw", tmp_path / "sample.py"
    audio.write_bytes(tone(5))
    program.write_text(vendors_sample(f"{velma.url}{ENDPOINTS['music'].path}", audio))
    environment = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ} | {"PYTHONUTF8": "1"}
    ran = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-W", "error", str(program)], capture_output=True, env=environment, encoding="utf-8", check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    frames = re.findall(r"^(\d+)ms . (\d+)ms  music=[01]\.\d{4}  speech=[01]\.\d{4}$", ran.stdout, re.MULTILINE)
    assert [int(start) for start, _ in frames] == list(range(0, 26 * 192, 192))
    assert re.search(r"^Done . 4992ms, 26 frames\nmusic=[\d.]+%  speech=[\d.]+%  label=\w+$", ran.stdout, re.MULTILINE)


async def test_a_client_that_sends_everything_before_it_reads(velma):
    """The manner of the vendor's sample, whose code is not ours to keep: small chunks, the end, then every message until done."""
    audio, starts = io.BytesIO(tone(5)), []
    async with connect(url_of(velma.url, api_key="YOUR_API_KEY", **RAW), proxy=None) as connection:
        while piece := audio.read(SECOND // 2):
            await connection.send(piece)
        await connection.send("")
        async for text in connection:
            message = json.loads(text)
            if message["type"] == "done":
                break
            starts.append(message["frame"]["start_time_ms"])
    assert starts == list(range(0, 26 * 192, 192))
    assert (message["duration_ms"], message["frame_count"]) == (4992, 26)


# -- refusals: an error message, then the close -----------------------------------------------------------------------------------------


async def refused(velma, endpoint: str = "music", **query: str) -> tuple[int, str]:
    """The code and the text of a refusal, after which nothing came but the close."""
    async with connect(url_of(velma.url, endpoint, **query), proxy=None) as connection:
        (message,), code = await the_rest(connection)
    assert message.keys() == {"type", "error"}
    assert message["type"] == "error"
    return code, message["error"]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("query", [{"api_key": "wrong"}, {"api_key": ""}, {}, {"api_key": KEY.upper()}])
async def test_a_wrong_key(velma, endpoint, query):
    assert await refused(velma, endpoint, **RAW, **query) == (4003, "This request is not permitted.")
    assert velma.named("connect") == []


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({}, "audio_format query parameter is required. Valid values: ['wav', "),
        ({"sample_rate": "8000"}, "sample_rate and num_channels require audio_format to be specified"),
        ({"audio_format": "mp4"}, "Invalid audio_format='mp4'. Valid values: ['wav', "),
        ({"audio_format": "u8"}, "Raw audio formats require sample_rate and num_channels query parameters"),
        (RAW | {"sample_rate": "50000"}, "Invalid sample_rate=50000. Valid values: [8000, 11025, "),
        (RAW | {"num_channels": "12"}, "Invalid num_channels=12. Must be between 1 and 8"),
        (RAW | {"num_channels": "1" * 5000}, "Invalid num_channels=111"),
        (RAW | {"audio_format": "mp3"}, "sample_rate and num_channels must not be specified"),
        ({"audio_format": '"\\\x00é\N{SNOWMAN}'}, "Invalid audio_format="),
    ],
)
async def test_wrong_parameters(velma, query, text):
    code, said = await refused(velma, api_key=KEY, **query)
    assert code == 1003
    assert said.startswith(text)


async def test_parameters_are_checked_before_the_key(velma):
    assert (await refused(velma, api_key="wrong", audio_format="mp4"))[0] == 1003


async def test_the_connection_limit_holds_for_each_endpoint(velma):
    await free(velma)
    velma.organisation.max_connections = 1
    async with connected(velma.url) as first:
        assert await refused(velma, api_key=KEY, **RAW) == (4029, "Too many concurrent connections.")
        async with connected(velma.url, "ai_music") as other:
            await other.send("")
            assert (await the_rest(other))[1] == 1000
        await first.send("")
        assert (await the_rest(first))[1] == 1000
    assert [line["live"] for line in velma.named("connect")] == [1, 1]


async def test_one_connection_after_the_other_under_a_limit_of_one(velma):
    await free(velma)
    velma.organisation.max_connections = 1
    for _ in range(20):
        async with connected(velma.url) as connection:
            await connection.send("")
            messages, code = await the_rest(connection)
        assert (messages[-1]["type"], code) == ("done", 1000)


@pytest.mark.parametrize(("limit", "text"), [("credit_hours", "Insufficient credits."), ("monthly_hours", "Monthly usage limit reached.")])
async def test_nothing_left(velma, limit, text):
    setattr(velma.organisation, limit, 0)
    assert await refused(velma, api_key=KEY, **RAW) == (4029, text)


@pytest.mark.parametrize(("limit", "text"), [("credit_hours", "Insufficient credits."), ("monthly_hours", "Monthly usage limit reached.")])
async def test_used_up_in_mid_stream(velma, limit, text):
    setattr(velma.organisation, limit, 1 / 3600)
    async with connected(velma.url) as connection:
        await connection.send(tone(10))
        await connection.send("")
        (*frames, error), code = await the_rest(connection)
    assert (error, code) == ({"type": "error", "error": text}, 4029)
    assert [message["type"] for message in frames] == ["frame"] * 5
    assert len(velma.named("refused")) == 1
    assert velma.named("done") == []
    assert await refused(velma, api_key=KEY, **RAW) == (4029, text)


async def test_used_audio_is_counted_for_both_endpoints(velma):
    for endpoint, used in (("music", 4992), ("ai_music", 4992 + 5000)):
        async with connected(velma.url, endpoint) as connection:
            await connection.send(tone(5))
            await connection.send("")
            await the_rest(connection)
        assert velma.organisation.used_ms == used


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_undecodable_audio(velma, endpoint):
    async with connected(velma.url, endpoint, audio_format="flac") as connection:
        await connection.send(b"fLaC" + bytes(5000))
        await connection.send("")
        assert await the_rest(connection) == ([{"type": "error", "error": CORRUPTED}], 4002)


async def test_audio_of_another_format(velma):
    async with connected(velma.url, audio_format="flac") as connection:
        await connection.send(as_wav(tone(0.1)))
        await connection.send("")
        assert await the_rest(connection) == ([{"type": "error", "error": MISMATCH}], 4002)


async def test_a_client_that_goes_on_sending_gets_the_reason(velma):
    """A server that resets the connection instead takes its last words back, as often as not."""
    for _ in range(10):
        async with connected(velma.url, audio_format="flac") as connection:
            with contextlib.suppress(ConnectionClosed):
                for _ in range(300):
                    await connection.send(b"fLaC" + bytes(65536))
            (error,), code = await the_rest(connection)
        assert (error["type"], code) == ("error", 4002)
    assert [line["code"] for line in await closes(velma, 10)] == [4002] * 10


async def test_a_message_larger_than_it_takes(velma):
    async with connected(velma.url) as connection:
        with contextlib.suppress(ConnectionClosed):
            await connection.send(bytes(MAX_MESSAGE_BYTES + 1))
        assert await the_rest(connection) == ([], 1009)


# -- leaving ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("politely", [True, False])
async def test_a_client_that_leaves_frees_its_place(velma, politely):
    await free(velma)
    velma.organisation.max_connections = 1
    async with connected(velma.url) as connection:
        await connection.send(tone(1))
        await connection.recv()
        assert velma.organisation.live["music"] == 1
        if politely:
            await connection.close()
        else:
            connection.transport.abort()
    await free(velma)
    async with connected(velma.url) as connection:
        await connection.send("")
        assert (await the_rest(connection))[1] == 1000
    assert (await closes(velma, 2))[0]["bytes"] == SECOND


async def test_it_ends_with_clients_connected():
    async with local_velma(Organisation(frozenset({KEY})), detector="stub") as server:
        connection = await connect(url_of(server.url, api_key=KEY, **RAW), proxy=None)
        await connection.send(tone(1))
        await connection.recv()
    await connection.wait_closed()
    assert not server.organisation.live["music"]


# -- what it keeps ----------------------------------------------------------------------------------------------------------------------


async def test_the_journal_of_a_session(velma):
    await free(velma)
    async with connected(velma.url) as connection:
        await connection.send(tone(1))
        await connection.send("")
        (*_, done), _ = await the_rest(connection)
    await closes(velma, 1)
    events = [line for line in velma.events() if line["event"] != "peak"]  # which the first session of all is, too
    connect_, first, said, close = events
    assert len({line["session"] for line in events}) == 1
    assert {line["endpoint"] for line in events} == {"music"}
    assert {name: connect_[name] for name in ("event", "live", *RAW)} == RAW | {
        "event": "connect",
        "live": 1,
        "sample_rate": 16000,
        "num_channels": 1,
    }
    assert first["event"] == "first_audio"
    assert {"type": said["event"], **said["summary"]} == done
    assert {name: close[name] for name in ("event", "code", "bytes", "audio_ms", "items")} == {
        "event": "close",
        "code": 1000,
        "bytes": SECOND,
        "audio_ms": 960,
        "items": 5,
    }


async def test_the_journal_of_a_refusal(velma):
    await refused(velma, api_key="wrong", **RAW)
    (line,) = velma.events()
    assert (line["event"], line["code"], line["text"]) == ("refused", 4003, "This request is not permitted.")


async def test_the_journal_counts_connections_at_once(velma):
    await free(velma)
    velma.journal.peak.clear()
    async with connected(velma.url), connected(velma.url), connected(velma.url, "ai_music"):
        await asyncio.sleep(0)
    await free(velma)
    assert velma.journal.peak == {"music": 2, "ai_music": 1}


async def test_keys_are_not_in_the_journal(velma):
    await refused(velma, api_key="sk-somebody-elses", **RAW)
    async with connected(velma.url) as connection:
        await connection.send("")
        await the_rest(connection)
    text = velma.path.read_text()
    assert KEY not in text
    assert "sk-somebody-elses" not in text


def test_a_journal_without_a_file():
    with Journal() as journal:
        journal.note("connect", 1, "music", live=1)
        journal.live("music", 2)
        journal.live("music", 1)
    assert (journal.counts, journal.peak) == ({"connect": 1}, {"music": 2})


def test_a_journal_goes_on_where_the_last_one_ended(tmp_path):
    for session in (1, 2):
        with Journal(tmp_path / "journal") as journal:
            journal.note("connect", session, "music")
    assert [json.loads(line)["session"] for line in (tmp_path / "journal").read_text().splitlines()] == [1, 2]


# -- as an HTTP server ------------------------------------------------------------------------------------------------------------------


async def test_what_a_browser_sees(velma):
    base = velma.url.replace("ws://", "http://")
    async with aiohttp.ClientSession() as browser:
        async with browser.get(base) as page:
            text = await page.text()
        async with browser.get(f"{base}{ENDPOINTS['music'].path}") as upgrade, browser.get(f"{base}/elsewhere") as nothing:
            assert (upgrade.status, nothing.status) == (400, 404)
    assert text.startswith(NOTICE)
    assert all(endpoint.path in text for endpoint in ENDPOINTS.values())


async def test_a_port_that_is_taken(velma):
    with pytest.raises(OSError, match="address already in use"):
        async with local_velma(Organisation(frozenset({KEY})), port=int(velma.url.rpartition(":")[2])):
            pass


# -- when the analysis itself fails -----------------------------------------------------------------------------------------------------


class Writer:
    """Where a child would take audio from."""

    def write(self, audio: bytes) -> None:
        pass

    def write_eof(self) -> None:
        pass

    async def drain(self) -> None:
        pass


class ScriptedMedia:
    """A media host whose one child says what the test says: lines, then its end, or an exception of reading or of opening."""

    lines: tuple[str, ...] = ()
    failure: Exception | None = None
    down = False
    silent = False

    def __init__(self, preload: object, limits: object) -> None:
        pass

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    @asynccontextmanager
    async def open(self, entry: str, options: object):
        if self.down:
            raise MediaHostDown("the media process has died")
        reader = asyncio.StreamReader()
        for line in self.lines:
            reader.feed_data(line.encode() + b"\n")
        if self.failure:
            reader.set_exception(self.failure)
        elif not self.silent:
            reader.feed_eof()
        yield reader, Writer()


@pytest.fixture
async def scripted(monkeypatch):
    monkeypatch.setattr(server_module, "MediaHost", ScriptedMedia)
    async with local_velma(Organisation(frozenset({KEY}))) as server:
        yield server, lambda **script: [monkeypatch.setattr(ScriptedMedia, name, value) for name, value in script.items()]


FRAME = Frame(start_time_ms=0, end_time_ms=192, music_prob=0.5, speech_prob=0.5)
DONE = MusicDone(duration_ms=192, frame_count=1, music_pct=0.0, speech_pct=0.0, primary_label="neither")


@pytest.mark.parametrize(
    "script",
    [{}, {"failure": BrokenPipeError()}, {"lines": [encode(FRAME)]}],
    ids=["at once", "while it is written to", "after a frame"],
)
async def test_a_child_that_dies(scripted, script):
    server, says = scripted
    says(**script)
    async with connected(server.url) as connection:
        (*_, error), code = await the_rest(connection)
    assert (error, code) == ({"type": "error", "error": CORRUPTED}, 4002)


@pytest.mark.parametrize(
    "script",
    [{"down": True}, {"lines": ["nonsense"]}, {"lines": [json.dumps({"type": "surprise"})]}, {"lines": ["x" * 100_000]}],
    ids=["no media host", "nonsense", "no message of ours", "no end of a line"],
)
async def test_a_fault_of_our_own(scripted, script, caplog):
    server, says = scripted
    says(**script)
    async with connected(server.url) as connection:
        assert await the_rest(connection) == ([{"type": "error", "error": "Internal server error"}], 1011)
    await until(lambda: not server.organisation.live["music"])
    (record,) = (record for record in caplog.records if record.levelno >= logging.ERROR)
    assert record.exc_info is not None
    assert KEY not in caplog.text


async def test_after_a_refusal_nothing_more_is_counted_or_said(scripted):
    server, says = scripted
    says(lines=[encode(FRAME), encode(FRAME), encode(FRAME), encode(DONE)])
    server.organisation.credit_hours = 192 / 3_600_000
    async with connected(server.url) as connection:
        (message,), code = await the_rest(connection)
    assert (message["error"], code) == ("Insufficient credits.", 4029)
    assert server.organisation.used_ms == 192
    assert server.journal.counts == {"connect": 1, "refused": 1, "close": 1}


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        (["end"], "Expected audio as binary frames, or an empty text frame to end the stream"),
        ([b"audio", "end"], "Expected audio as binary frames, or an empty text frame to end the stream"),
        (["", ""], "Nothing may follow the end of the stream"),
        (["", b"more"], "Nothing may follow the end of the stream"),
    ],
)
async def test_a_client_that_breaks_the_protocol(scripted, messages, text):
    server, says = scripted
    says(silent=True)
    async with connected(server.url) as connection:
        for message in messages:
            await connection.send(message)
        assert await the_rest(connection) == ([{"type": "error", "error": text}], 1003)
