"""What networks do to a session (`px:` of the fault catalogue), with the fault proxy between the client and a service that works."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection

from canary import CANARY_HEAD, everything_logged, surfaces
from connectors.velma import client as client_module
from fault_proxy import FaultProxy, Toxics
from moderation.errors import Phase, Scope, SessionError
from moderation.formats import AudioFormat, StreamParameters
from moderation.outcomes import Reason
from moderation.pacing import Deadlines
from moderation.refusals import Action, Tells, classify
from moderation.session import ClientSession, State
from velma_services import (
    AI_MUSIC,
    FRAME_BYTES,
    MUSIC,
    RAW,
    SECOND,
    Handler,
    all_audio,
    answers,
    canary_client_of,
    client_of,
    closed_port,
    done,
    error,
    frames_of,
    listening,
    pieces,
    service,
)

pytestmark = pytest.mark.net

LENGTH_S = 30
AUDIO = bytes(SECOND * LENGTH_S)
FRAMES = len(AUDIO) // FRAME_BYTES
SLOWLY = StreamParameters(AudioFormat.U8, 8000, 1)
"""Few bytes a second: for a byte at a time."""


@asynccontextmanager
async def through(host: str, **options: Any) -> AsyncIterator[tuple[str, FaultProxy]]:
    """The host as it is reached through the proxy, and the proxy."""
    address, _, port = host.removeprefix("ws://").rpartition(":")
    async with FaultProxy(address, int(port), **options) as proxy:
        yield f"ws://127.0.0.1:{proxy.port}", proxy


# -- a session that only takes longer ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "toxics",
    [
        {"up": Toxics(latency_s=0.15, jitter_s=0.1), "down": Toxics(latency_s=0.15, jitter_s=0.1), "seed": 5},
        {"up": Toxics(slice_bytes=997), "down": Toxics(slice_bytes=7)},
        {"up": Toxics(bytes_per_second=3_000_000, slice_bytes=5000), "down": Toxics(bytes_per_second=100_000, latency_s=0.05)},
    ],
    ids=["latency", "slices", "bandwidth"],
)
async def test_a_bad_network_changes_no_result(toxics):
    async with service(answers) as direct, through(direct, **toxics) as (host, proxy):
        result = await client_of(host, chunk_bytes=9000).analyse(MUSIC, RAW, pieces(AUDIO), expected_ms=LENGTH_S * 1000)
    assert (len(result.columns), result.flags, result.close_code) == (FRAMES, frozenset(), 1000)
    assert proxy.accepted == 1


@pytest.mark.parametrize(("endpoint", "items"), [(MUSIC, 26), (AI_MUSIC, 1)], ids=["music", "ai_music"])
async def test_a_byte_at_a_time_in_both_directions(velma, endpoint, items):
    one = Toxics(slice_bytes=1)
    async with through(velma.url, up=one, down=one) as (host, proxy):
        result = await client_of(host).analyse(endpoint, SLOWLY, pieces(bytes(8000 * 5)))
    assert (len(result.columns), result.flags, result.close_code) == (items, frozenset(), 1000)
    assert proxy.forwarded["up"] > 8000 * 5


@pytest.mark.fault(38)
async def test_a_slow_server_is_waited_for_without_filling_memory():
    """What the client has read from its source, but the service has not taken, stays within what the kernel holds."""
    size, ahead = 12 << 20, []

    async def handler(connection: ServerConnection) -> None:
        assert await all_audio(connection) == size
        await connection.send(done())

    async def audio(proxy: FaultProxy) -> AsyncIterator[bytes]:
        for given in range(0, size, 1 << 16):
            ahead.append(given - proxy.forwarded["up"])
            yield bytes(1 << 16)

    slow = Toxics(bytes_per_second=16 << 20)
    async with service(handler) as direct, through(direct, up=slow, receive_buffer=1 << 16) as (host, proxy):
        result = await client_of(host, window_ms=1 << 30).analyse(MUSIC, RAW, audio(proxy))
    assert (result.flags, result.close_code) == (frozenset(), 1000)
    assert max(ahead) < 7 << 20


@pytest.mark.fault(41)
async def test_pongs_that_are_late_end_no_session(monkeypatch):
    """Behind a slow upload a pong may take longer than the next ping: nobody waits for it."""
    waiting = []

    async def ping(connection: ClientConnection, *payload: bytes) -> asyncio.Future[float]:
        waiting.append(len(connection.pending_pings))
        assert connection.ping_timeout is None
        return await send_ping(connection, *payload)

    send_ping = ClientConnection.ping
    monkeypatch.setattr(ClientConnection, "ping", ping)
    monkeypatch.setattr(client_module, "PING_SECONDS", 0.02)
    toxics = {"up": Toxics(latency_s=0.2, bytes_per_second=1_500_000), "down": Toxics(latency_s=0.2)}
    async with service(answers) as direct, through(direct, **toxics) as (host, _):
        result = await client_of(host).analyse(MUSIC, RAW, pieces(AUDIO))
    assert (len(result.columns), result.flags, result.close_code) == (FRAMES, frozenset(), 1000)
    assert max(waiting) >= 3


async def test_a_close_that_never_arrives_costs_a_bounded_time():
    """The result is known: the transport is given the closing deadline, then taken down."""
    late = Toxics(slow_close_s=3600)
    clock = asyncio.get_running_loop().time
    async with service(answers) as direct, through(direct, up=late, down=late) as (host, _):
        began = clock()
        result = await client_of(host, deadlines=Deadlines(close_s=0.2)).analyse(MUSIC, RAW, pieces(AUDIO))
        assert clock() - began < 60
    assert (len(result.columns), result.flags) == (FRAMES, frozenset())


# -- a session that the network ends ----------------------------------------------------------------------------------------------------

LOST = {"close_code": 1006, "text": None, "protocol": None, "http_status": None, "scope": Scope.NETWORK}
NEVER_THERE = LOST | {"close_code": None, "phase": Phase.CONNECTING}
STALLED = LOST | {"close_code": None, "scope": Scope.SERVICE, "phase": Phase.DRAINING}
MOST = SECOND * 20


@dataclass(frozen=True)
class Cut:
    """What the proxy does, and what the error says then."""

    says: dict[str, Any]
    up: Toxics = field(default_factory=Toxics)
    down: Toxics = field(default_factory=Toxics)
    connect_s: float = 15.0


CUTS = {
    "reset at connect": Cut(NEVER_THERE, up=Toxics(reset_after=0)),
    "reset in the request": Cut(NEVER_THERE, up=Toxics(reset_after=20)),
    "reset in the answer to it": Cut(NEVER_THERE, down=Toxics(reset_after=20)),
    "closed in the answer to it": Cut(NEVER_THERE, down=Toxics(limit=20)),
    "stalled in the answer to it": Cut(NEVER_THERE, down=Toxics(stall_after=20), connect_s=1.0),
    "reset while uploading": Cut(LOST, up=Toxics(reset_after=MOST)),
    "closed while uploading": Cut(LOST, up=Toxics(limit=MOST)),
    "reset in the results": Cut(LOST, down=Toxics(reset_after=2000)),
    "closed in the results": Cut(LOST, down=Toxics(limit=2000)),
    "reset in slices": Cut(LOST, up=Toxics(slice_bytes=100, reset_after=100_001), down=Toxics(latency_s=0.01)),
    "stalled while uploading": Cut(STALLED, up=Toxics(stall_after=MOST), down=Toxics(slice_bytes=9)),
    "stalled in the results": Cut(STALLED, down=Toxics(stall_after=2000)),
    "stalled both ways": Cut(STALLED, up=Toxics(stall_after=MOST), down=Toxics(stall_after=2000)),
}


async def all_until(event: asyncio.Event) -> AsyncIterator[bytes]:
    """All of the audio, which ends when the network has struck: deadlines then count from there, however slow this machine is."""
    async for piece in pieces(AUDIO):
        yield piece
    await event.wait()


@pytest.mark.fault(25, 26, 37)
@pytest.mark.parametrize("name", CUTS)
async def test_a_network_that_breaks_leaves_one_typed_error(name, caplog):
    cut = CUTS[name]
    deadlines = Deadlines(connect_s=cut.connect_s, done_s=0.4, done_share=0.0, close_s=0.2)
    async with service(answers) as direct, through(direct, up=cut.up, down=cut.down) as (host, proxy):
        with everything_logged(caplog), pytest.raises(SessionError) as raised:
            await canary_client_of(host, deadlines=deadlines).analyse(MUSIC, RAW, all_until(proxy.tripped))
        assert proxy.tripped.is_set()
    assert {fact: getattr(raised.value, fact) for fact in cut.says} == cut.says
    assert [place for place, text in surfaces(raised.value).items() if CANARY_HEAD in text] == []
    assert CANARY_HEAD not in caplog.text


@asynccontextmanager
async def nowhere(_: Any) -> AsyncIterator[str]:
    """A host whose name nobody resolves (RFC 6761)."""
    yield "wss://velma.invalid"


@pytest.mark.parametrize(
    ("place", "says"),
    [
        pytest.param(nowhere, "velma.invalid cannot be reached", marks=pytest.mark.fault(14), id="no such name"),
        pytest.param(closed_port, "cannot be reached", marks=pytest.mark.fault(15), id="closed port"),
        pytest.param(partial(listening, None), "did not answer in time", marks=pytest.mark.fault(15), id="silence"),
    ],
)
async def test_a_service_that_cannot_be_reached_counts_against_the_network_and_no_object(place, says):
    async with place(None) as host:
        with pytest.raises(SessionError, match=says) as raised:
            await client_of(host, deadlines=Deadlines(connect_s=1.0 if place is not nowhere else 20.0)).analyse(MUSIC, RAW, pieces(AUDIO))
    cause = classify(raised.value)
    assert (raised.value.phase, cause.scope, cause.action, cause.tells) == (Phase.CONNECTING, Scope.NETWORK, Action.RETRY, Tells.NETWORK)
    assert cause.reason is Reason.DEFERRED_SERVICE


@pytest.mark.fault(36)
async def test_a_network_that_takes_no_more_audio_is_a_stall():
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1 << 16)

    stalled = Toxics(stall_after=MOST)
    deadlines = Deadlines(progress_s=1.5, close_s=0.2)
    async with service(answers) as direct, through(direct, up=stalled, receive_buffer=1 << 16) as (host, proxy):
        with pytest.raises(SessionError, match=r"nothing moved at \d+ ms of audio while streaming") as raised:
            await client_of(host, deadlines=deadlines, window_ms=1 << 30).analyse(MUSIC, RAW, endless())
        assert proxy.tripped.is_set()
    assert (raised.value.close_code, raised.value.scope) == (None, Scope.SERVICE)


# -- a reset at a chosen moment ---------------------------------------------------------------------------------------------------------


async def cut_when(moment: Callable[[ClientSession], bool], handler: Handler = answers, *, ends: bool = False) -> SessionError:
    """The error of a session that is reset as soon as `moment` has come: with more audio to come, or (ends) when all is sent."""
    sessions: list[ClientSession] = []

    async def cutting(proxy: FaultProxy) -> None:
        while not sessions or not moment(sessions[0]):
            await asyncio.sleep(0.002)
        proxy.reset()

    async def source() -> AsyncIterator[bytes]:
        async for piece in pieces(AUDIO):
            yield piece
        if not ends:
            await asyncio.Event().wait()

    async with service(handler) as direct, through(direct) as (host, proxy), asyncio.TaskGroup() as group:
        group.create_task(cutting(proxy))
        with pytest.raises(SessionError) as raised:
            await client_of(host).analyse(MUSIC, RAW, source(), on_session=sessions.append)
    return raised.value


@pytest.mark.fault(25)
async def test_1006_before_the_upload():
    sessions: list[ClientSession] = []

    async def audio(proxy: FaultProxy) -> AsyncIterator[bytes]:
        proxy.reset()
        await asyncio.Event().wait()
        yield b""

    async with service(answers) as direct, through(direct) as (host, proxy):
        with pytest.raises(SessionError) as raised:
            await client_of(host).analyse(MUSIC, RAW, audio(proxy), on_session=sessions.append)
    assert (raised.value.phase, raised.value.close_code, raised.value.scope) == (Phase.ADMITTED, 1006, Scope.NETWORK)
    assert sessions[0].bytes_sent == 0


@pytest.mark.fault(26)
async def test_1006_in_mid_stream():
    failure = await cut_when(lambda session: len(session.columns) >= 5)
    assert (failure.phase, failure.close_code, failure.text) == (Phase.STREAMING, 1006, None)


@pytest.mark.fault(26)
async def test_1006_in_mid_stream_keeps_what_the_service_had_said():
    async def handler(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(error("Insufficient credits."))
        await connection.wait_closed()

    failure = await cut_when(lambda session: session.state is State.REFUSED, handler)
    assert (failure.phase, failure.close_code, failure.text) == (Phase.ADMITTED, 1006, "Insufficient credits.")
    assert failure.scope is Scope.ORGANISATION


async def test_1006_when_all_is_sent():
    async def handler(connection: ServerConnection) -> None:
        await frames_of(connection)
        await connection.wait_closed()

    failure = await cut_when(lambda session: session.end_sent and len(session.columns) == FRAMES, handler, ends=True)
    assert (failure.phase, failure.close_code, failure.text) == (Phase.DRAINING, 1006, None)
