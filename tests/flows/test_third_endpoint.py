"""A third endpoint of the family, added here alone: one row for the protocol, one for the lake, and the messages and columns they name.

Synthetic voice detection as its public page shows it: a verdict in words and a confidence every two seconds, and a summary without a label.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from connectors.lake.columns import count, probability, text
from connectors.lake.dictionary import data_dictionary
from connectors.lake.query import connect
from connectors.lake.schemas import ENDPOINT_DATASETS, EndpointDatasets, items_dataset, summaries_dataset
from conversation import Conversation
from flows.launch import scan_directly
from flows.settings import fixed_settings
from flows.watch import Watch
from moderation.endpoints import ENDPOINTS, Endpoint
from moderation.messages import Done, Item, Shape, decode
from moderation.results import Flag
from moderation.server_session import Feed, Send, ServerSession, ServerState
from moderation.transcript import Ended, Received
from moderation.violations import Breach
from transcripts import assert_columns, done, done_of, failure_of, item, item_of, sent, session_of

KEY = "canary-5f0e9d1c7b"
BUCKET = "catalogue"
BYTES_PER_MS = 32


class VoiceFrame(Item, frozen=True, kw_only=True):
    """Two seconds of synthetic voice detection."""

    wire_name = "frame"

    verdict: str | None = None
    confidence: float | None = None


class VoiceDone(Done, frozen=True, kw_only=True):
    """Its summary."""

    frame_count: int | None = None


VOICE = Endpoint(
    name="synthetic_voice",
    path="/api/velma-2-synthetic-voice-detection-streaming",
    default_host="wss://modulate-developer-apis.com",
    item_ms=2000,
    item_type=VoiceFrame,
    done_type=VoiceDone,
    count_field="frame_count",
    shapes=(Shape("1", frozenset({"verdict", "confidence"})),),
)
VOICE_DATASETS = EndpointDatasets(
    items_dataset(
        "synthetic_voice_frames",
        "Two seconds of synthetic voice detection a row, as received.",
        "frame",
        text("verdict", "What was heard.", "synthetic | non-synthetic | no-content", nullable=True),
        probability("confidence", "How sure the service is of it."),
    ),
    summaries_dataset(
        "synthetic_voice_summaries",
        "One finished session of the synthetic voice endpoint a row.",
        count("frame_count", "Frames as the service counts them.", nullable=True),
    ),
    "voice_frames_latest",
)


@pytest.fixture(autouse=True)
def third_endpoint(monkeypatch):
    monkeypatch.setitem(ENDPOINTS, VOICE.name, VOICE)
    monkeypatch.setitem(ENDPOINT_DATASETS, VOICE.name, VOICE_DATASETS)


# --------------------------------------------------------------------------------------------------------------------------- in memory


@given(st.binary(max_size=6).map(lambda sizes: [2000 * size for size in sizes]), st.binary(max_size=60).map(iter))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_machines_speak_it(chunks, schedule):
    talk = Conversation(VOICE, chunks)
    talk.run(schedule)
    result = talk.client.result()
    assert_columns(result, VOICE, range(talk.ready))
    assert (result.flags, result.done) == (frozenset(), done_of(VOICE, talk.ready))


@pytest.mark.parametrize(
    ("change", "flags"),
    [
        ({}, set()),
        ({"verdict": "never heard before"}, set()),
        ({"verdict": None}, {Flag.MISSING}),
        ({"start_time_ms": 1}, {Flag.GAP}),
        ({"more": 1}, {Flag.SHAPE}),
        ({"confidence": 1.5}, Breach.OUT_OF_RANGE),
        ({"verdict": 7}, Breach.WRONG_TYPE),
        ({"verdict": None, "confidence": None}, Breach.NO_MEASUREMENT),
    ],
    ids=str,
)
def test_its_words_and_numbers_are_held_to_the_same_rules(change, flags):
    envelope = json.loads(item(VOICE, 0).text)
    heard = Received(json.dumps({"type": "frame", "frame": envelope["frame"] | change}))
    session = session_of(VOICE, sent(2000), heard, Ended(), done(VOICE, 1))
    if isinstance(flags, Breach):
        assert failure_of(session).protocol == flags
    else:
        assert session.result().flags == flags


@pytest.mark.parametrize("name", ["verdict", "confidence"])
def test_a_field_that_is_missing_is_told_from_one_that_is_null(name):
    envelope = json.loads(item(VOICE, 0).text)
    for value, present in ((None, 4), (..., 3)):
        frame = {known: told for known, told in (envelope["frame"] | {name: value}).items() if told is not ...}
        heard = decode(json.dumps({"type": "frame", "frame": frame}), VOICE.item_name, VOICE.item_type, VOICE.done_type)
        assert getattr(heard.message, name) is None
        assert len(heard.present) == present


def test_an_item_that_comes_again_is_known_by_its_words_too():
    same, other = item(VOICE, 0), Received(item(VOICE, 0).text.replace("polka", "waltz"))
    session = session_of(VOICE, sent(9000), same, item(VOICE, 1), same, other)
    assert (session.duplicates, len(session.columns)) == (1, 3)


# ------------------------------------------------------------------------------------------------------------- over a socket, into the lake


class VoiceServer:
    """A service that speaks the third endpoint: an item for every two seconds of 16 kHz s16le, in a WAV or not."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        async with serve(self._serve, "127.0.0.1", 0, compression=None) as server:
            yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _serve(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.asked[connection.request.path.partition("?")[0]] += 1
        session, heard, found = ServerSession(VOICE.shapes[0]), 0, 0
        with suppress(ConnectionClosed):
            while session.state is not ServerState.CLOSED:
                heard += sum(len(action.audio) for action in session.receive(await connection.recv()) if isinstance(action, Feed))
                ready = heard // BYTES_PER_MS // VOICE.item_ms
                said = [action for place in range(found, ready) for action in session.found(item_of(VOICE, place))]
                found = ready
                if session.state is ServerState.FINISHING:
                    said += session.found(done_of(VOICE, found, heard // BYTES_PER_MS))
                for action in said:
                    await (connection.send(action.text) if isinstance(action, Send) else connection.close(action.code))


async def test_a_scan_streams_it_and_leaves_parquet_that_can_be_asked(aws, make_wav, tmp_path):
    for name, seconds in (("short", 1.0), ("long", 7.0)):
        aws(f"{name}.wav", make_wav(seconds))
    server, results = VoiceServer(), tmp_path / "results"
    async with server.running() as url:
        settings = fixed_settings(api_key=KEY, results=str(results), velma_url=url, endpoints=[VOICE.name])
        report = await scan_directly(settings, f"s3://{BUCKET}/", Watch())
        again = await scan_directly(settings, f"s3://{BUCKET}/", Watch())
    assert (report.exit_code, again.exit_code) == (0, 0)
    assert server.asked == {VOICE.path: 2}

    with await asyncio.to_thread(connect, str(results)) as lake:
        ask = lambda query: lake.execute(query).fetchall()  # noqa: E731
        frames = ask(
            "SELECT key, frame_index, start_time_ms, end_time_ms, verdict, confidence FROM voice_frames_latest"
            " JOIN synthetic_voice_latest USING (object_id) ORDER BY key, frame_index"
        )
        summaries = ask("SELECT key, frame_count, duration_ms, covered_ms, evidence, endpoint FROM synthetic_voice_current ORDER BY key")
        clean = ask("SELECT key FROM clean_synthetic_voice")
        spent = ask("SELECT endpoint, settled_ms FROM spend_daily")
    found = [item_of(VOICE, place) for place in range(3)]
    assert frames == [("long.wav", place, at.start_time_ms, at.end_time_ms, at.verdict, at.confidence) for place, at in enumerate(found)]
    assert summaries == [
        ("long.wav", 3, 7001, 6000, "sufficient", VOICE.name),
        ("short.wav", 0, 1001, 0, "insufficient", VOICE.name),
    ]
    assert clean == [("long.wav",)]
    assert spent == [(VOICE.name, 8002)]


def test_the_data_dictionary_has_it():
    page = data_dictionary()
    assert "## synthetic_voice_frames" in page
    assert "| `verdict` | varchar | yes | synthetic \\| non-synthetic \\| no-content | What was heard. |" in page
    assert "| `clean_synthetic_voice` |" in page
