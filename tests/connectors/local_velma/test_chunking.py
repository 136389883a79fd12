"""However a stream is cut into chunks, its messages are the same; and they come as soon as the audio that they are about."""

import asyncio
import io
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_files import CODINGS, Coding, container_bytes, raw_bytes
from both_endpoints import Digester, Texts, in_pieces, said
from connectors.local_velma.analysis import messages
from connectors.local_velma.analysts import ANALYSTS, Listening
from connectors.local_velma.detection import StubDetector
from connectors.local_velma.framing import FRAME_MS
from moderation.endpoints import ENDPOINTS
from moderation.formats import RAW_FORMATS, AudioFormat, StreamParameters
from moderation.messages import Frame
from plain_client import connected, conversation, in_chunks, the_rest

SIZES = (1, 7, 997, 4096, 65536)
LONG, MEDIUM, SHORT = 4.2, 1.3, 0.25
"""Seconds: 21 frames and a window; 6 frames; a frame. Where those are wanted, a short window, too."""
Kind = Coding | AudioFormat
Stream = tuple[StreamParameters, bytes]


@cache
def noise(seconds: float, rate: int, channels: int) -> np.ndarray:
    """No two frames of it are alike."""
    return np.random.default_rng(5).normal(0, 0.1, (round(seconds * rate), channels)).clip(-0.9, 0.9)


@cache
def file_of(coding: Coding, seconds: float, rate: int | None = None) -> Stream:
    """A file of the lowest rate and fewest channels, unless a rate is given."""
    rate = rate or coding.rates[0]
    return StreamParameters(coding.audio_format), container_bytes(noise(seconds, rate, coding.channels[0]), rate, coding)


@cache
def raw_of(audio_format: AudioFormat, seconds: float) -> Stream:
    """Raw stereo, with a last sample of which half is missing."""
    data = raw_bytes(noise(seconds, 8000, 2), audio_format)
    return StreamParameters(audio_format, 8000, 2), data + data[: audio_format.sample_bytes]


def stream_of(kind: Kind, seconds: float) -> Stream:
    return file_of(kind, seconds) if isinstance(kind, Coding) else raw_of(kind, seconds)


def said_of(stream: Stream, sizes: int | list[int]) -> Texts:
    parameters, data = stream
    return said(in_pieces(data, sizes), parameters, Digester, short_windows=True)


# -- the same messages ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", CODINGS, ids=str)
def test_the_size_of_chunks_changes_nothing_about_a_container(coding):
    seconds = SHORT if coding.codec.startswith("pcm") else MEDIUM  # of what is not coded a second is large
    stream = file_of(coding, seconds)
    whole = said_of(stream, len(stream[1]))
    assert len(whole["music"]) == 1 + coding.decoded_ms(round(seconds * coding.rates[0]), coding.rates[0]) // FRAME_MS
    for size in SIZES:
        assert said_of(stream, size) == whole


@pytest.mark.parametrize("audio_format", sorted(RAW_FORMATS))
def test_the_size_of_chunks_changes_nothing_about_raw_audio(audio_format):
    stream = raw_of(audio_format, SHORT)
    whole = said_of(stream, len(stream[1]))
    assert (len(whole["music"]), len(whole["ai_music"])) == (2, 2)
    for size in SIZES:
        assert said_of(stream, size) == whole


ANY_KIND = [*CODINGS, AudioFormat.S24BE, AudioFormat.F64LE, AudioFormat.ALAW]
sizes_of_chunks = st.lists(st.one_of(st.integers(1, 20), st.integers(1, 3000)), max_size=60)


@pytest.mark.parametrize("kind", ANY_KIND, ids=str)
@settings(max_examples=8, deadline=None)
@given(sizes=sizes_of_chunks)
def test_no_way_of_cutting_changes_anything(kind, sizes):
    assert said_of(stream_of(kind, SHORT), sizes) == whole_of(kind)


@cache
def whole_of(kind: Kind) -> Texts:
    stream = stream_of(kind, SHORT)
    return said_of(stream, len(stream[1]))


# -- the same messages on the wire ------------------------------------------------------------------------------------------------------

MP3 = next(coding for coding in CODINGS if coding.audio_format == "mp3")


async def assert_the_same_on_the_wire(velma, endpoint: str, stream: Stream, size: int) -> None:
    """Word for word and in order what is said of the whole stream at once."""
    parameters, data = stream
    whole = said(in_pieces(data, len(data)), parameters)[endpoint]
    assert await conversation(velma.url, endpoint, parameters.query(), in_chunks(data, size)) == (whole, 1000)


@pytest.mark.net
@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("size", SIZES)
async def test_messages_of_one_size(velma, endpoint, size):
    await assert_the_same_on_the_wire(velma, endpoint, file_of(MP3, LONG), size)


@pytest.mark.net
@pytest.mark.parametrize("kind", [AudioFormat.S24BE, CODINGS[0]], ids=str)
async def test_a_byte_at_a_time(velma, kind):
    await assert_the_same_on_the_wire(velma, "music", stream_of(kind, SHORT), 1)


@pytest.mark.net
@pytest.mark.torture
@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [*CODINGS, *sorted(RAW_FORMATS)], ids=str)
async def test_every_format_in_messages_of_one_size(velma, endpoint, size, kind):
    await assert_the_same_on_the_wire(velma, endpoint, stream_of(kind, SHORT if size < 100 else LONG), size)


# -- as soon as the audio is there ------------------------------------------------------------------------------------------------------

RATE = 48_000
SECONDS = 2.3
Contained = Callable[[int], float]
"""Milliseconds of audio that so many bytes of a file have at most, by its own packets."""


def by_bytes(data: bytes) -> Contained:
    """Of 16-bit mono behind a header."""
    header = len(data) - round(SECONDS * RATE) * 2
    return lambda size: max(0, size - header) / 2 / RATE * 1000


def by_packets(data: bytes) -> Contained:
    with av.open(io.BytesIO(data)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
        ends = [(packet.pos + packet.size, float(packet.duration * packet.time_base)) for packet in packets]
    return lambda size: 1000 * sum(seconds for end, seconds in ends if end <= size)


def by_pages(data: bytes) -> Contained:
    """RFC 3533: the granule position of a page is that of the last sample that it completes."""
    ends = []
    at = 0
    while at < len(data):
        (granule,) = struct.unpack_from("<q", data, at + 6)
        table = data[at + 27 : at + 27 + data[at + 26]]
        at += 27 + len(table) + sum(table)
        ends.append((at, granule / RATE))
    return lambda size: 1000 * max((seconds for end, seconds in ends if end <= size), default=0)


@dataclass(frozen=True)
class Packets:
    """What of a container's audio comes at once: ms is the most of it, contained tells how much bytes have."""

    ms: float
    contained: Callable[[bytes], Contained]


PACKETS = {
    "wav-pcm_s16le": Packets(0, by_bytes),
    "aiff-pcm_s16be": Packets(0, by_bytes),
    "flac-flac": Packets(4608 * 1000 / RATE, by_packets),  # what FFmpeg's encoder makes of 105 ms; complete when the next one begins
    "mp3-libmp3lame": Packets(1024 * 8 / 64, by_packets),  # FFmpeg takes 1 KiB at a time, whatever the frames are: here at 64 kbit/s
    "aac-aac": Packets(1024 * 1000 / RATE, by_packets),
    "ogg-libopus": Packets(120, by_pages),  # pages of 100 ms, or of one packet more
    "ogg-vorbis": Packets(125, by_pages),
    "ogg-flac": Packets(192, by_pages),
    "webm-libopus": Packets(20, by_packets),
    "webm-vorbis": Packets(1024 * 1000 / RATE, by_packets),
}


QUIET_OPUS = replace(CODINGS[-2], options=(("b", "12000"),))
"""1 KiB of it are most of a second."""


@pytest.mark.parametrize("coding", [*CODINGS, QUIET_OPUS], ids=[*map(str, CODINGS), "webm-libopus-12k"])
def test_frames_come_with_their_audio(coding):
    """Within 192 ms and the container's own packet, and so while there is more to come."""
    parameters, data = file_of(coding, SECONDS, RATE)
    packets = PACKETS[str(coding)]
    contained = packets.contained(data)
    stream = io.BytesIO(data)
    piece = len(data) // 1000  # about 2 ms
    frames = messages(lambda wanted: stream.read(min(wanted, piece)), parameters, ANALYSTS["music"](Listening(StubDetector())))
    said_at = [(message.end_time_ms, stream.tell()) for message in frames if isinstance(message, Frame)]
    late = [contained(size - piece) - end_ms for end_ms, size in said_at if size < len(data)]
    assert max(late) <= FRAME_MS + packets.ms
    assert said_at[0][1] < len(data) / 3
    assert len(late) >= 10


@pytest.mark.net
@pytest.mark.parametrize("coding", CODINGS, ids=str)
async def test_frames_come_before_more_is_sent(velma, coding):
    """With half of a file the server says all that this half allows, and then it takes the rest."""
    parameters, data = file_of(coding, SECONDS, RATE)
    packets = PACKETS[str(coding)]
    half = len(data) // 2
    due = int((packets.contained(data)(half) - FRAME_MS - packets.ms) // FRAME_MS)
    assert due >= 2
    whole = said(in_pieces(data, len(data)), parameters)["music"]
    async with connected(velma.url, "music", parameters.query()) as connection, asyncio.timeout(60):
        await connection.send(data[:half])
        first = [await connection.recv() for _ in range(due)]
        await connection.send(data[half:])
        await connection.send("")
        rest, code = await the_rest(connection)
    assert (first + rest, code) == (whole, 1000)
