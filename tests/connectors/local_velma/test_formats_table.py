"""All 27 formats x 8 rates x 1, 2 and 8 channels on both endpoints, and every combination that is refused.

A tone of known length gives the items that the local server's definitions ask for (end of service.md), and they are about the tone.
"""

import json
from functools import cache, lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_files import AMPLITUDE, CODINGS, Coding, container_bytes, raw_bytes, tone
from both_endpoints import Texts, ToneMeter, in_pieces, said
from connectors.local_velma.parameters import parameters_of
from moderation.endpoints import ENDPOINTS
from moderation.errors import BadParameters
from moderation.formats import CONTAINERS, RAW_FORMATS, SAMPLE_RATES, AudioFormat, StreamParameters
from plain_client import connected, conversation, in_chunks, the_rest
from velma_services import client_of

LONG, SHORT = 4.2, 0.6
"""Seconds: 21 frames and a window; 3 frames and none."""
CHANNELS = (1, 2, 8)
COMPANDED = {AudioFormat.MULAW, AudioFormat.ALAW}
LEVEL = 0.05
"""By how much of itself the tone may be louder or softer for being made of so few steps, of which G.711 has others."""

RAW_CASES = [(raw, rate, channels) for raw in sorted(RAW_FORMATS) for rate in SAMPLE_RATES for channels in CHANNELS]
FILE_CASES = [(coding, rate, channels) for coding in CODINGS for rate in coding.rates for channels in coding.channels]


def test_the_table_has_all_combinations():
    assert len(RAW_CASES) == 20 * 8 * 3
    assert {coding.audio_format for coding in CODINGS} == CONTAINERS
    assert len(FILE_CASES) == 24 + 24 + 24 + 14 + 24 + (9 + 8 + 24) + (9 + 8)


# -- in this process --------------------------------------------------------------------------------------------------------------------

sound = cache(tone)


def measured(data: bytes, parameters: StreamParameters) -> Texts:
    return said(in_pieces(data, 1 << 16), parameters, ToneMeter, threshold=AMPLITUDE / 2)


@cache
def reference(seconds: float, rate: int) -> Texts:
    """What is said of the tone as 16-bit mono."""
    return measured(raw_bytes(sound(seconds, rate), AudioFormat.S16LE), StreamParameters(AudioFormat.S16LE, rate, 1))


def assert_counts(texts: Texts, samples: int, rate: int) -> None:
    """A frame for each whole 192 ms and a window for each whole 4 s, one after the other, and a done that agrees."""
    at_16k = -(-samples * 16_000 // rate)
    for endpoint, length, item_ms in (("music", 3072, 192), ("ai_music", 64_000, 4000)):
        *items, done = map(json.loads, texts[endpoint])
        name = ENDPOINTS[endpoint].item_name
        starts = list(range(0, at_16k // length * item_ms, item_ms))
        assert [item["type"] for item in items] == [name] * len(starts)
        assert [(item[name]["start_time_ms"], item[name]["end_time_ms"]) for item in items] == [(at, at + item_ms) for at in starts]
        assert (done["type"], done[f"{name}_count"]) == ("done", len(starts))
        assert done["duration_ms"] == {"music": len(starts) * 192, "ai_music": round(1000 * samples / rate)}[endpoint]


def assert_tone(texts: Texts, level: float) -> None:
    """The tone at its loudness, give or take `level` of itself, and little else, but for the first and last frame, where codecs fade."""
    *frames, done = map(json.loads, texts["music"])
    inner = [message["frame"] for message in frames][1:-1]
    assert inner
    for frame in inner:
        assert frame["music_prob"] == pytest.approx(AMPLITUDE, rel=level), frame
        assert frame["speech_prob"] > 0.95, frame
    assert done["music_pct"] > 60
    for message in texts["ai_music"][:-1]:
        window = json.loads(message)["window"]
        assert (window["instrumental_percentage"] > 90, window["silence_percentage"] < 10) == (True, True)


@pytest.mark.parametrize(("audio_format", "rate", "channels"), RAW_CASES)
def test_raw(audio_format, rate, channels):
    seconds = LONG if channels == 1 else SHORT
    samples = sound(seconds, rate, channels)
    texts = measured(raw_bytes(samples, audio_format), StreamParameters(audio_format, rate, channels))
    assert_counts(texts, len(samples), rate)
    assert_tone(texts, LEVEL)
    if audio_format not in COMPANDED:
        assert texts == reference(seconds, rate)


@pytest.mark.parametrize(("coding", "rate", "channels"), FILE_CASES, ids=str)
def test_container(coding, rate, channels):
    seconds = LONG if channels == 1 else SHORT
    samples = sound(seconds, rate, channels)
    texts = measured(container_bytes(samples, rate, coding), StreamParameters(coding.audio_format))
    assert_counts(texts, coding.length(len(samples), rate), coding.decoded_rate or rate)
    assert_tone(texts, LEVEL + coding.level)
    if coding.level == 0:
        assert texts == reference(seconds, rate)


@pytest.mark.parametrize("coding", CODINGS, ids=str)
@settings(max_examples=4, deadline=None)
@given(samples=st.integers(4000, 16_000))
def test_a_container_of_any_length(coding, samples):
    data = container_bytes(sound(2.0, 8000, coding.channels[0])[:samples], 8000, coding)
    assert_counts(measured(data, StreamParameters(coding.audio_format)), coding.length(samples, 8000), coding.decoded_rate or 8000)


@pytest.mark.parametrize(("samples", "frames", "windows"), [(1535, 0, 0), (1536, 1, 0), (31_999, 20, 0), (32_000, 20, 1), (64_000, 41, 2)])
def test_an_item_is_complete_with_its_last_sample(samples, frames, windows):
    texts = measured(bytes(samples), StreamParameters(AudioFormat.S8, 8000, 1))
    assert (len(texts["music"]) - 1, len(texts["ai_music"]) - 1) == (frames, windows)
    assert_counts(texts, samples, 8000)


# -- on the wire ------------------------------------------------------------------------------------------------------------------------

Case = tuple[Coding | AudioFormat, int, int]


@lru_cache(maxsize=1)  # for both endpoints, which come one after the other
def encoded(case: Case, seconds: float) -> tuple[StreamParameters, bytes, Texts]:
    """What is sent, and what is said of it in this process."""
    kind, rate, channels = case
    if isinstance(kind, Coding):
        parameters, data = StreamParameters(kind.audio_format), container_bytes(sound(seconds, rate, channels), rate, kind)
    else:
        parameters, data = StreamParameters(kind, rate, channels), raw_bytes(sound(seconds, rate, channels), kind)
    return parameters, data, said(in_pieces(data, 1 << 16), parameters)


async def assert_on_the_wire(velma, endpoint: str, case: Case, seconds: float) -> None:
    """The server says, word for word, what its analysis does in this process."""
    parameters, data, texts = encoded(case, seconds)
    assert await conversation(velma.url, endpoint, parameters.query(), in_chunks(data)) == (texts[endpoint], 1000)


SELECTION: list[Case] = [
    *((raw, SAMPLE_RATES[index % 8], 1 + index % 8) for index, raw in enumerate(sorted(RAW_FORMATS))),
    *(
        (coding, coding.rates[(index + 2) % len(coding.rates)], coding.channels[index % len(coding.channels)])
        for index, coding in enumerate(CODINGS)
    ),
]


def test_the_selection_has_every_format_rate_and_number_of_channels():
    assert {getattr(kind, "audio_format", kind) for kind, _, _ in SELECTION} == set(AudioFormat)
    raw = [case for case in SELECTION if not isinstance(case[0], Coding)]
    assert {rate for _, rate, _ in raw} == set(SAMPLE_RATES)
    assert {channels for _, _, channels in raw} == set(range(1, 9))


@pytest.mark.net
@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("case", SELECTION, ids=lambda case: "-".join(map(str, case)))
async def test_every_format_on_the_wire(velma, endpoint, case):
    await assert_on_the_wire(velma, endpoint, case, LONG if case[1] * case[2] <= 96_000 else SHORT)


@pytest.mark.net
@pytest.mark.torture
@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("case", [*RAW_CASES, *FILE_CASES], ids=lambda case: "-".join(map(str, case)))
async def test_the_whole_table_on_the_wire(velma, endpoint, case):
    await assert_on_the_wire(velma, endpoint, case, LONG)


# -- refused ----------------------------------------------------------------------------------------------------------------------------

FORMATS = [known.value for known in AudioFormat]
RATES = list(SAMPLE_RATES)
NO_RATES = ["0", "-8000", "1", "7999", "12000", "24000", "44101", "50000", "64000", "88200", "192000", "1" * 400, "fast", "8000.5", "nan"]
NO_CHANNELS = ["0", "-1", "9", "12", "64", "255", "9" * 400, "stereo", "1.5", "inf"]
NO_FORMATS = [
    "mp4",
    "m4a",
    "WAV",
    "wave",
    "pcm",
    "opus",
    "vorbis",
    "s16",
    "s16ne",
    "f16le",
    "s64le",
    "ulaw",
    "wav,mp3",
    "27",
    "\0",
    "\N{SNOWMAN}",
]
REQUIRED = f"audio_format query parameter is required. Valid values: {FORMATS}"
RATE_WITHOUT_FORMAT = "sample_rate and num_channels require audio_format to be specified"
RAW_NEEDS = "Raw audio formats require sample_rate and num_channels query parameters"

Query = dict[str, str]


def refusals() -> list[tuple[Query, str]]:
    """Every kind of combination that is refused, with the text that is sent before the close."""
    found: list[tuple[Query, str]] = [({}, REQUIRED), ({"audio_format": ""}, REQUIRED)]
    extras = [{"sample_rate": str(rate)} for rate in RATES] + [{"num_channels": str(channels)} for channels in range(1, 9)]
    extras += [rate | channels for rate in extras[:8] for channels in extras[8:]]
    found += [(extra, RATE_WITHOUT_FORMAT) for extra in extras]
    for extra in [{}, extras[0] | extras[8]]:
        found += [({"audio_format": name, **extra}, f"Invalid audio_format={name!r}. Valid values: {FORMATS}") for name in NO_FORMATS]
    for name in sorted(CONTAINERS):
        text = f"sample_rate and num_channels must not be specified for audio_format={name.value!r}"
        found += [({"audio_format": name.value, **extra}, text) for extra in extras]
    for name in sorted(RAW_FORMATS):
        raw = {"audio_format": name.value}
        found += [(raw | extra, RAW_NEEDS) for extra in [{}, *extras[:16]]]
        found += [
            (raw | {"sample_rate": rate, "num_channels": "1"}, f"Invalid sample_rate={rate}. Valid values: {RATES}") for rate in NO_RATES
        ]
        found += [
            (raw | {"sample_rate": "8000", "num_channels": channels}, f"Invalid num_channels={channels}. Must be between 1 and 8")
            for channels in NO_CHANNELS
        ]
    return found


def test_the_refusals_are_many():
    assert len(refusals()) == 2 + 80 + 2 * 16 + 7 * 80 + 20 * (17 + 15 + 10)


async def assert_refused(velma, endpoint: str, query: Query, text: str) -> None:
    async with connected(velma.url, endpoint, query) as connection:
        (message,), code = await the_rest(connection)
    assert (json.loads(message), code) == ({"type": "error", "error": text}, 1003), query


@pytest.mark.net
@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_refused_combinations_on_the_wire(velma, endpoint):
    one_of_each_kind = {(text.split("=")[0], *sorted(query)): (query, text) for query, text in refusals()}
    for query, text in [*one_of_each_kind.values(), *refusals()[::23]]:
        await assert_refused(velma, endpoint, query, text)
    assert velma.named("connect") == []


@pytest.mark.net
@pytest.mark.torture
@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_all_refused_combinations_on_the_wire(velma, endpoint):
    for query, text in refusals():
        await assert_refused(velma, endpoint, query, text)
    assert velma.named("connect") == []


@pytest.mark.net
@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_our_client_never_sends_what_is_refused(velma, endpoint):
    """There are no such parameters to connect with."""

    async def audio():
        yield b"never read"

    for query, _ in refusals():
        with pytest.raises(BadParameters):
            await client_of(velma.url).analyse(ENDPOINTS[endpoint], StreamParameters.of(**{"audio_format": "", **query}), audio())
    assert velma.events() == []


@pytest.mark.parametrize("spelling", ["16e3", "16000.0", " 16000", "+16000", "016000", "16_000", "\N{ARABIC-INDIC DIGIT ONE}6000"])
def test_a_number_is_sent_in_one_spelling(spelling):
    """The service takes no other: what is understood here is written anew."""
    query = {"audio_format": "s16le", "sample_rate": spelling, "num_channels": "1"}
    assert parameters_of(query) == f"Invalid sample_rate={spelling}. Valid values: {RATES}"
    assert StreamParameters.of(**query).query() == query | {"sample_rate": "16000"}
