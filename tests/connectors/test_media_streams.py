"""FLAC frames and Ogg links: cut where FFmpeg and the file itself say, and no byte of a stream is lost, whatever it is."""

import io

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_files import CODINGS, container_bytes
from both_endpoints import in_pieces
from connectors.media.flac import MAX_FRAME_BYTES, flac_frames, read_flac_header
from connectors.media.headers import NotThisFormat
from connectors.media.ogg import OggChain
from connectors.media.source import ByteSource

FLAC = next(coding for coding in CODINGS if coding.muxer == "flac")
OPUS, VORBIS = (next(coding for coding in CODINGS if (coding.muxer, coding.codec) == ("ogg", codec)) for codec in ("libopus", "vorbis"))
HEADER_BYTES = 4 + 4 + 34
"""The marker, and STREAMINFO with its own header."""
sizes_of_pieces = st.lists(st.one_of(st.integers(1, 20), st.integers(1, 3000)), max_size=40)


def noise(seconds: float, rate: int, channels: int) -> np.ndarray:
    return np.random.default_rng(3).normal(0, 0.1, (round(seconds * rate), channels)).clip(-0.9, 0.9)


def flac(rate: int = 16_000, channels: int = 1, seconds: float = 0.7) -> bytes:
    return container_bytes(noise(seconds, rate, channels), rate, FLAC)


def frames_of(data: bytes, sizes: int | list[int]) -> list[bytes]:
    source = ByteSource(in_pieces(data, sizes))
    read_flac_header(source)
    return list(flac_frames(source))


@pytest.mark.parametrize(
    ("rate", "channels", "seconds"), [(8000, 1, 4.0), (11025, 2, 0.7), (12345, 1, 0.7), (22050, 8, 0.7), (96000, 1, 0.7)]
)
@pytest.mark.parametrize("size", [1, 7, 997, 1 << 20])
def test_frames_are_cut_where_ffmpeg_cuts_them(rate, channels, seconds, size):
    """Of four seconds at 8 kHz there are so many that their numbers take two bytes."""
    data = flac(rate, channels, seconds)
    with av.open(io.BytesIO(data)) as container:
        expected = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    assert frames_of(data, size) == expected
    assert len(expected) > 4


def test_streaminfo_is_what_the_encoder_wrote():
    data = flac()
    assert read_flac_header(ByteSource(in_pieces(data, 7))) == data[8:HEADER_BYTES]


@pytest.mark.parametrize("cut", [0, 3, 4, 9, 20, 44, 45, 100])
def test_a_header_that_is_cut_off(cut):
    data = flac()
    if cut < HEADER_BYTES + 4:
        with pytest.raises(NotThisFormat):
            read_flac_header(ByteSource(in_pieces(data[:cut], 7)))
    else:
        assert frames_of(data[:cut], 7) == []


def test_the_first_frame_is_there_before_the_second_is():
    data = flac()
    first, second = frames_of(data, 1 << 20)[:2]
    stream = io.BytesIO(data)
    source = ByteSource(lambda _: stream.read(1))
    read_flac_header(source)
    assert next(flac_frames(source)) == first
    assert stream.tell() < data.index(second) + len(second) // 2


@pytest.mark.parametrize("counterfeit", ["wrong checksum", "another stream", "an earlier frame"])
def test_what_only_looks_like_a_frame_begins_none(counterfeit):
    frames = frames_of(flac(), 1 << 20)
    header = {
        "wrong checksum": frames[4][:5] + bytes([frames[4][5] ^ 1]) + frames[4][6:16],
        "another stream": frames_of(flac(8000), 1 << 20)[4][:16],
        "an earlier frame": frames[2][:16],
    }[counterfeit]
    padded = [*frames[:3], frames[3] + header + bytes(100), *frames[4:]]
    assert frames_of(flac()[: -len(BODY)] + b"".join(padded), 997) == padded


def test_a_frame_without_end_is_given_away_in_parts():
    start = flac()[:HEADER_BYTES]
    endless = bytes([0x80, 0, 0, 0]) + bytes(MAX_FRAME_BYTES + 5000)
    assert [len(frame) for frame in frames_of(start + endless, 1 << 16)] == [MAX_FRAME_BYTES, 5000]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30_000), st.integers(0, 255)), max_size=12), sizes_of_pieces)
def test_damage_loses_no_byte_and_no_way_of_cutting_changes_a_frame(damage, sizes):
    start, body = flac()[: -len(BODY)], bytearray(BODY)
    for place, byte in damage:
        body[place % len(body)] = byte
    frames = frames_of(start + body, sizes)
    assert b"".join(frames) == body
    assert frames == frames_of(start + body, 1 << 20)


BODY = b"".join(frames_of(flac(), 1 << 20))


# -- ogg --------------------------------------------------------------------------------------------------------------------------------

LINKS = [
    container_bytes(noise(0.3, 8000, 1), 8000, OPUS, serial_offset="1"),
    container_bytes(noise(0.3, 8000, 2), 8000, VORBIS, serial_offset="2"),
    container_bytes(noise(0.3, 48000, 2), 48000, OPUS, serial_offset="3"),
]


def links_of(data: bytes, sizes: int | list[int], wanted: int = 128) -> list[bytes]:
    chain = OggChain(ByteSource(in_pieces(data, sizes)))
    links = []
    while chain.next_link():
        links.append(b"".join(iter(lambda: chain.exactly(wanted), b"")))
    return links


@pytest.mark.parametrize("size", [1, 7, 997, 1 << 20])
@pytest.mark.parametrize("wanted", [1, 128, 1 << 20])
def test_links_are_what_was_chained(size, wanted):
    assert links_of(b"".join(LINKS), size, wanted) == LINKS


def test_a_link_that_nobody_has_read_is_passed_over():
    chain = OggChain(ByteSource(in_pieces(b"".join(LINKS), 997)))
    assert chain.next_link()
    assert chain.next_link()
    assert chain.exactly(1 << 20) == LINKS[1]
    assert chain.exactly(1) == b""


def test_streams_that_begin_together_are_one_link():
    first, second = (data[: data.index(b"OggS", 4)] for data in LINKS[:2])
    rest = LINKS[0][len(first) :]
    assert links_of(first + second + rest + LINKS[2], 7) == [first + second + rest, LINKS[2]]


def test_no_bytes_are_no_link():
    assert links_of(b"", 1) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(LINKS), st.binary(max_size=100)), max_size=4), sizes_of_pieces)
def test_whatever_comes_belongs_to_a_link(parts, sizes):
    data = b"".join(parts)
    assert b"".join(links_of(data, sizes)) == data
    assert links_of(data, sizes) == links_of(data, 1 << 20)
