"""Every fault of the local server, seen by a client that is not soundcheck's: on the wire it does what its spec says."""

import asyncio
import contextlib
import json
import socket
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from connectors.local_velma.fault_script import FaultScript, Scene, chosen
from connectors.local_velma.faults import FAULTS, parse_faults, specs_of
from connectors.local_velma.faulty_session import PUBLISHED_TEXTS
from connectors.local_velma.organisation import Organisation
from connectors.local_velma.server import local_velma
from moderation.endpoints import ENDPOINTS

pytestmark = pytest.mark.net

KEY = "sk-live-0123456789abcdef"
RAW = {"audio_format": "s16le", "sample_rate": "16000", "num_channels": "1"}
SECOND = 32_000
"""Bytes of a second of RAW."""
AUDIO = bytes(2 * SECOND)
FRAMES = [192 * frame for frame in range(10)]
"""The starts of the items that AUDIO has."""
NOT_PERMITTED, CORRUPTED = PUBLISHED_TEXTS[4003], PUBLISHED_TEXTS[4002]


def url_of(velma, endpoint: str = "music", key: str = KEY) -> str:
    return f"{velma.url}{ENDPOINTS[endpoint].path}?{urlencode({'api_key': key} | RAW)}"


@dataclass
class Seen:
    """What a client saw of a session, and what the journal says of its faults."""

    messages: list[Any] = field(default_factory=list)
    code: int | None = None
    """Of the server's close frame, None when there was none."""
    complaint: int | None = None
    """The code with which the client's library failed the connection."""
    faults: list[str] = field(default_factory=list)

    @property
    def items(self) -> list[dict[str, Any]]:
        return [message["frame"] for message in self.messages if isinstance(message, dict) and "frame" in message]

    @property
    def starts(self) -> list[int]:
        return [item["start_time_ms"] for item in self.items]

    @property
    def texts(self) -> list[str]:
        return [message["error"] for message in self.messages if isinstance(message, dict) and "error" in message]

    @property
    def dones(self) -> list[dict[str, Any]]:
        return [message for message in self.messages if isinstance(message, dict) and message.get("type") == "done"]

    @property
    def others(self) -> list[Any]:
        return [message for message in self.messages if not isinstance(message, dict) or message["type"] not in {"frame", "done", "error"}]

    @property
    def types(self) -> list[str]:
        return [message["type"] if isinstance(message, dict) else "?" for message in self.messages]


async def read_all(connection: ClientConnection, seen: Seen) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            message = await connection.recv()
            try:
                seen.messages.append(json.loads(message))
            except (ValueError, RecursionError):
                seen.messages.append(message)


async def session_as_it_comes(velma) -> None:
    """A good session, as far as this client can tell."""
    async with connect(url_of(velma), proxy=None) as connection:
        await connection.send(AUDIO)
        await connection.send("")
        await read_all(connection, Seen())


async def session(velma, spec: str, audio: bytes = AUDIO, key: str = KEY, patience_s: float = 20) -> Seen:
    """One whole session with these faults, until the server ends it or nothing has come for so long."""
    velma.faults.queue(spec)
    seen = Seen()
    async with connect(url_of(velma, key=key), proxy=None, close_timeout=0.2) as connection:
        with contextlib.suppress(ConnectionClosed):
            await connection.send(audio)
            await connection.send("")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(read_all(connection, seen), patience_s)
        received, sent = connection.protocol.close_rcvd, connection.protocol.close_sent
        seen.code = received.code if received else None
        seen.complaint = sent.code if sent and not connection.protocol.close_rcvd_then_sent else None
    seen.faults = [line["spec"] for line in velma.named("fault")]
    return seen


def ended(code: int | None, text: str | None, items: int = 0):
    def check(seen: Seen) -> None:
        assert (seen.code, seen.texts) == (code, [] if text is None else [text])
        assert (seen.starts, seen.dones) == (FRAMES[:items], [])

    return check


def item_is(**fields: Any):
    """The second item has these fields, and all others are as they were; done comes."""

    def check(seen: Seen) -> None:
        second = seen.items[1]
        assert {name: second.get(name, "missing") for name in fields} == fields
        assert len(seen.items) == 10
        assert all(item.keys() == seen.items[0].keys() for item in seen.items[2:])
        assert (seen.dones[0]["frame_count"], seen.code) == (10, 1000)

    return check


def done_is(**fields: Any):
    def check(seen: Seen) -> None:
        (done,) = seen.dones
        assert {name: done.get(name, "missing") for name in fields} == fields
        assert (seen.starts, seen.code) == (FRAMES, 1000)

    return check


def said(what: Any, after: int = 1):
    def check(seen: Seen) -> None:
        assert seen.messages[after] == what
        assert seen.starts == FRAMES
        assert (len(seen.dones), seen.code) == (1, 1000)

    return check


def starts(*order: int):
    def check(seen: Seen) -> None:
        assert seen.starts == [192 * frame for frame in order]
        assert (seen.dones[0]["frame_count"], seen.code) == (10, 1000)

    return check


def failed(complaint: int):
    def check(seen: Seen) -> None:
        assert seen.complaint == complaint
        assert seen.starts == FRAMES[:1]

    return check


def types(*ends: str, code: int | None):
    def check(seen: Seen) -> None:
        assert seen.types == ["frame"] * 10 + [*ends]
        assert seen.code == code

    return check


def nan_is(seen: Seen) -> None:
    assert seen.items[1]["music_prob"] != seen.items[1]["music_prob"]
    assert seen.code == 1000


def two_dones(seen: Seen) -> None:
    types("done", "done", code=1000)(seen)
    assert seen.dones[1] == seen.dones[0]


def other_done(seen: Seen) -> None:
    types("done", "done", code=1000)(seen)
    assert seen.dones[1] == seen.dones[0] | {"duration_ms": 2920}


def early(seen: Seen) -> None:
    assert seen.types[:2] == ["frame", "done"]
    assert (seen.dones[0]["duration_ms"], len(seen.dones)) == (0, 2)


def deep(seen: Seen) -> None:
    (message,) = seen.others
    assert message == "[" * 100_000 + "]" * 100_000


TABLE = {
    "close=4003": ended(4003, NOT_PERMITTED),
    "close=4003@upgrade": ended(4003, NOT_PERMITTED),
    "close=4029:Monthly usage limit reached.@items=3": ended(4029, "Monthly usage limit reached.", 3),
    "close=1011@items=5": ended(1011, "Internal server error", 5),
    "close=1000@items=2": ended(1000, None, 2),
    "close=1001@done": ended(1001, None, 10),
    "close=1012:restart@done": ended(1012, "restart", 10),
    "close=4777@items=0": ended(4777, None),
    "silent=4029@items=2": ended(4029, None, 2),
    "abrupt=4029": ended(None, None),
    "upgrade_then_limit": ended(4029, "Monthly usage limit reached."),
    "text_variant+close=4003@items=1": ended(4003, "THIS REQUEST IS NOT PERMITTED", 1),
    "badframe": failed(1002),
    "bad_utf8": failed(1007),
    "binary": said(b"\x00\xff\x00\xff"),
    "malformed@items=4": said('{"type": "frame", "', 4),
    "deep": deep,
    "unknown_type": said({"type": "progress", "percent": 50}),
    "unknown_type@upgrade": said({"type": "progress", "percent": 50}, 0),
    "unknown_type@done": said({"type": "progress", "percent": 50}, 10),
    "done_early": early,
    "extra": item_is(mood="calm"),
    "extra@done": done_is(mood="calm"),
    "missing": item_is(music_prob="missing", speech_prob=0.0),
    "missing=all": item_is(music_prob="missing", speech_prob="missing"),
    "missing@done": done_is(music_pct="missing", speech_pct=0.0),
    "null": item_is(music_prob=None, speech_prob=0.0),
    "null=all": item_is(music_prob=None, speech_prob=None),
    "null=all@done": done_is(music_pct=None, speech_pct=None),
    "range": item_is(music_prob=101.5),
    "range@done": done_is(music_pct=101.5),
    "nan": nan_is,
    "string": item_is(music_prob="0.5"),
    "float_times": item_is(start_time_ms=192.0, end_time_ms=384.0),
    "ahead=2.5": item_is(start_time_ms=2692, end_time_ms=2884),
    "reorder": starts(0, 2, 1, *range(3, 10)),
    "reorder@items=9": starts(*range(10)),
    "dup": starts(0, 1, 1, *range(2, 10)),
    "drop": starts(0, *range(2, 10)),
    "drop@items=0+dup@items=2+reorder@items=5": starts(1, 2, 3, 3, 4, 6, 5, 7, 8, 9),
    "done_off=1": done_is(frame_count=11),
    "duration_off=-500": done_is(duration_ms=1420),
    "label=mystery": done_is(primary_label="mystery"),
    "two_done": two_dones,
    "other_done": other_done,
    "after_done": types("done", "frame", code=1000),
    "abrupt_done": types("done", code=None),
    "done_close=4029": types("done", code=4029),
    "pause=0": types("done", code=1000),
    "done_delay=0.01": types("done", code=1000),
    "buffer=1.5": types("done", code=1000),
    "revoke": ended(4003, NOT_PERMITTED, 1),
}


@pytest.mark.parametrize("spec", TABLE)
async def test_a_fault_does_what_its_spec_says(velma, spec):
    seen = await session(velma, spec)
    TABLE[spec](seen)
    assert sorted(seen.faults) == sorted(fault.spec for fault in parse_faults(spec))


def test_the_table_has_every_fault_that_ends_by_itself():
    tried = {fault.name for spec in TABLE for fault in parse_faults(spec)}
    assert FAULTS.keys() - tried == {"refuse", "stall", "error_noclose"}


# -- refusals of the upgrade ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "status", "headers"),
    [
        ("refuse=401", 401, {}),
        ("refuse=404", 404, {}),
        ("refuse=429:7", 429, {"Retry-After": "7"}),
        ("refuse=503:Wed, 21 Oct 2037 07:28:00 GMT", 503, {"Retry-After": "Wed, 21 Oct 2037 07:28:00 GMT"}),
        ("refuse=302:wss://elsewhere.example/api", 302, {"Location": "wss://elsewhere.example/api"}),
        ("refuse=599", 599, {}),
    ],
)
async def test_an_upgrade_that_is_refused(velma, spec, status, headers):
    velma.faults.queue(spec)
    with pytest.raises(InvalidStatus) as raised:
        await Once(url_of(velma), proxy=None)
    response = raised.value.response
    assert response.status_code == status
    assert {name: response.headers.get(name) for name in ("Retry-After", "Location") if name in response.headers} == headers
    assert [line["event"] for line in velma.events()] == ["fault"]
    assert velma.named("fault")[0]["spec"] == spec


class Once(connect):
    """A connect that follows nothing."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


async def test_a_redirect_leads_back_with_the_key(velma):
    """The worst that a redirect can be: who follows it sends the key again."""
    velma.faults.queue("refuse=307")
    async with connect(url_of(velma), proxy=None) as connection:
        assert connection.request.path == url_of(velma).removeprefix(velma.url)
    events = [line["event"] for line in velma.events() if line["event"] != "peak"]  # which the first session of all is, too
    assert events[:2] == ["fault", "connect"]


async def test_a_page_in_a_browser_takes_no_fault_away(velma):
    velma.faults.queue("close=4003")
    async with aiohttp.ClientSession() as browser, browser.get(url_of(velma).replace("ws://", "http://")) as page:
        assert page.status == 400
    assert (await session(velma, "")).code == 4003


# -- what ends only when the client leaves ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "seen_types"),
    [
        ("stall", ["frame"]),
        ("stall_after=3", ["frame"] * 3),
        ("stall@upgrade", []),
        ("stall@end", None),
        ("stall@done", ["frame"] * 10),
        ("error_noclose=4003@items=2", ["frame"] * 2 + ["error"]),
        ("error_noclose=1000:something@upgrade", ["error"]),
    ],
)
async def test_nothing_more_comes_until_the_client_leaves(velma, spec, seen_types):
    await free(velma)
    seen = await session(velma, spec, patience_s=0.5)
    assert seen.types == (seen_types if seen_types is not None else ["frame"] * len(seen.types))
    assert seen.code is None
    await free(velma)
    assert len(velma.named("close")) == 1


async def send_for_ever(connection: ClientConnection) -> None:
    while True:
        await connection.send(bytes(1 << 20))


async def test_who_stalls_reads_nothing(velma):
    velma.faults.queue("stall@bytes=100000")
    async with connect(url_of(velma), proxy=None, close_timeout=0.1) as connection:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(send_for_ever(connection), 1)
        connection.transport.abort()
    await free(velma)
    (close,) = velma.named("close")
    assert close["bytes"] <= 1 << 24


async def test_a_server_ends_while_it_stalls():
    script = FaultScript(Scene(standing={"*": "stall@upgrade"}))
    async with local_velma(Organisation(frozenset({KEY})), detector="stub", faults=script) as server:
        connection = await connect(url_of(server), proxy=None)
        await connection.send(AUDIO)
    await asyncio.wait_for(connection.wait_closed(), 20)
    assert server.journal.counts == {"connect": 1, "fault": 1, "close": 1}


@pytest.mark.parametrize("spec", ["pause=0.3@done", "done_delay=0.3", "pause=0.3@upgrade", "pause=0.3@end", "pause=0.3@bytes=1"])
async def test_a_pause_takes_its_time(velma, spec):
    start = time.monotonic()
    seen = await session(velma, spec)
    assert time.monotonic() - start >= 0.3
    assert (seen.starts, len(seen.dones), seen.code) == (FRAMES, 1, 1000)


async def test_nothing_is_said_while_audio_is_buffered(velma):
    velma.faults.queue("buffer=1.5")
    async with connect(url_of(velma), proxy=None) as connection:
        await connection.send(bytes(SECOND * 14 // 10))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection.recv(), 0.3)
        await connection.send(bytes(SECOND))
        assert json.loads(await connection.recv())["frame"]["start_time_ms"] == 0


# -- resets and real refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["abrupt=4029", "abrupt_done"])
async def test_a_reset_is_one(velma, spec):
    """No FIN: whoever still writes learns that it was thrown away."""
    velma.faults.queue(spec)
    with await asyncio.to_thread(upgraded, velma) as plain, pytest.raises(ConnectionResetError):
        await asyncio.to_thread(end_and_read, plain)


def end_and_read(plain: socket.socket) -> None:
    plain.sendall(b"\x81\x80\x00\x00\x00\x00")
    while plain.recv(4096):
        pass


def upgraded(velma) -> socket.socket:
    address = urlsplit(velma.url)
    plain = socket.create_connection((address.hostname, address.port), 20)
    websocket = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13"
    path = url_of(velma).removeprefix(velma.url)
    plain.sendall(f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\n{websocket}\r\n\r\n".encode())
    return plain


@pytest.mark.parametrize(
    ("spec", "code", "texts"),
    [
        ("silent", 4003, []),
        ("abrupt", None, []),
        ("error_noclose", None, [NOT_PERMITTED]),
        ("text_variant", 4003, ["THIS REQUEST IS NOT PERMITTED"]),
        ("text_variant+silent", 4003, []),
    ],
)
async def test_a_real_refusal_in_another_manner(velma, spec, code, texts):
    seen = await session(velma, spec, key="wrong", patience_s=1)
    assert (seen.code, seen.texts) == (code, texts)
    assert [line["code"] for line in velma.named("refused")] == [4003]


async def test_a_refusal_in_mid_stream_in_another_manner(velma):
    velma.organisation.credit_hours = 1 / 3600
    seen = await session(velma, "silent")
    assert (seen.code, seen.texts, seen.starts) == (4029, [], FRAMES[:5])
    assert seen.faults == ["silent"]


async def test_a_fault_that_finds_no_place_leaves_no_trace(velma):
    seen = await session(velma, "close=4003@items=11+abrupt+text_variant")
    types("done", code=1000)(seen)
    assert seen.faults == []


async def test_a_revoked_key_is_revoked_for_all(velma):
    velma.faults.queue("", "revoke")
    async with connect(url_of(velma), proxy=None) as other:
        assert (await session(velma, "")).code == 4003
        rest = Seen()
        await asyncio.wait_for(read_all(other, rest), 20)
    assert rest.texts == [NOT_PERMITTED]
    assert (await session(velma, "")).code == 4003
    assert (await session(velma, "", key="YOUR_API_KEY")).code == 1000


async def test_a_seed_says_beforehand_which_session_has_which_fault(velma):
    mix, seed = {"dup": 0.3, "done_off=1": 0.3}, 11
    velma.faults.play(Scene(mix=mix, seed=seed))
    for _ in range(12):
        await session_as_it_comes(velma)
    seen = {line["session"]: "" for line in velma.named("connect")} | {line["session"]: line["spec"] for line in velma.named("fault")}
    assert seen == {number: specs_of(parse_faults(chosen(mix, seed, number))) for number in seen}
    assert len(seen) == 12
    assert len(set(seen.values())) > 1


# -- the server lives ---------------------------------------------------------------------------------------------------------------------


async def test_others_do_not_notice(velma):
    """A good session lives beside all kinds of faults."""
    await free(velma)
    specs = ["refuse=503", "close=1011@items=5", "abrupt=4029@items=2", "abrupt_done", "badframe", "bad_utf8", "deep", "nan", "drop"]
    velma.faults.queue("")
    async with connect(url_of(velma), proxy=None) as good:
        await asyncio.gather(*(session(velma, spec) for spec in specs), return_exceptions=True)
        await good.send(AUDIO)
        await good.send("")
        seen = Seen()
        await read_all(good, seen)
    assert (seen.starts, len(seen.dones)) == (FRAMES, 1)
    await free(velma)


async def test_the_key_is_not_in_the_journal_of_faults(velma):
    for spec in ("refuse=302", "close=4003", "revoke", "abrupt=4029"):
        velma.organisation.add_key(KEY)
        with contextlib.suppress(ConnectionClosed, InvalidStatus):
            await session(velma, spec)
    assert KEY not in velma.path.read_text()


async def free(velma) -> None:
    """Wait until no connection is held."""
    while any(velma.organisation.live.values()):
        await asyncio.sleep(0.01)
