"""What first bytes say: headers made by hand, files made by FFmpeg, and the sample audio beside the repository."""

import csv
import io
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
from av.error import FFmpegError
from hypothesis import given
from hypothesis import strategies as st

from moderation.formats import CONTAINERS, AudioFormat
from moderation.sniffing import NOT_MEDIA, SNIFF_BYTES, UNSUPPORTED_AUDIO, Content, sniff, tag_length

SAMPLES = Path(__file__).parents[3] / "shared" / "audio"
GENERATED = [
    ("wav", "pcm_s16le", 48000, AudioFormat.WAV),
    ("wav", "pcm_mulaw", 8000, AudioFormat.WAV),
    ("mp3", "libmp3lame", 44100, AudioFormat.MP3),
    ("mp3", "libmp3lame", 22050, AudioFormat.MP3),
    ("mp3", "libmp3lame", 8000, AudioFormat.MP3),
    ("ogg", "libopus", 48000, AudioFormat.OGG),
    ("flac", "flac", 48000, AudioFormat.FLAC),
    ("webm", "libopus", 48000, AudioFormat.WEBM),
    ("adts", "aac", 44100, AudioFormat.AAC),
    ("aiff", "pcm_s16be", 48000, AudioFormat.AIFF),
    ("ipod", "aac", 44100, Content.MP4),
    ("mov", "pcm_s16le", 48000, Content.MP4),
    ("matroska", "libopus", 48000, Content.MATROSKA),
    ("caf", "pcm_s16le", 48000, Content.CAF),
    ("amr", "libopencore_amrnb", 8000, Content.AMR),
    ("w64", "pcm_s16le", 48000, Content.WAVE64),
    ("avi", "pcm_s16le", 48000, Content.AVI),
    ("mp2", "mp2", 48000, Content.MP2),
    ("mp2", "mp2", 22050, Content.MP2),
    ("mpeg", "mp2", 48000, Content.MPEG_VIDEO),
]
ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + bytes(14)
BY_HAND = [
    (b"RIFF\x24\0\0\0WAVEfmt ", AudioFormat.WAV),
    (b"RF64\xff\xff\xff\xffWAVEds64", AudioFormat.WAV),
    (b"BW64\xff\xff\xff\xffWAVEds64", AudioFormat.WAV),
    (b"FORM\0\0\x10\0AIFFCOMM", AudioFormat.AIFF),
    (b"FORM\0\0\x10\0AIFCFVER", AudioFormat.AIFF),
    (b"fLaC\0\0\0\x22", AudioFormat.FLAC),
    (b"OggS\0\x02" + bytes(20), AudioFormat.OGG),
    (b"\x1a\x45\xdf\xa3\x9f\x42\x82\x84webm", AudioFormat.WEBM),
    (b"\x1a\x45\xdf\xa3\xa3\x42\x82\x88matroska", Content.MATROSKA),
    (b"RIFF\x24\0\0\0AVI LIST", Content.AVI),
    (b"\0\0\0\x20ftypM4A \0\0\0\0", Content.MP4),
    (b"\0\0\x10\0moov\0\0\0\x6cmvhd", Content.MP4),
    (b"\0\0\x10\0mdat" + bytes(8), Content.MP4),
    (b"\0\0\0\x08wide\0\0\x10\0mdat", Content.MP4),
    (ASF_HEADER, Content.WMA),
    (b"caff\0\x01\0\0desc", Content.CAF),
    (b"#!AMR\n\x3c", Content.AMR),
    (b"#!AMR-WB\n\x04", Content.AMR),
    (b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb", Content.WAVE64),
    (b"\0\0\x01\xba\x44", Content.MPEG_VIDEO),
    (b"\0\0\x01\xb3\x14", Content.MPEG_VIDEO),
    (b"\x89PNG\r\n\x1a\n\0\0\0\x0d", Content.PICTURE),
    (b"\xff\xd8\xff\xe0\0\x10JFIF", Content.PICTURE),
    (b"GIF89a", Content.PICTURE),
    (b"PK\x03\x04\x14\0", Content.ARCHIVE),
    (b"\x1f\x8b\x08\0", Content.ARCHIVE),
    (b"%PDF-1.7\n", Content.PDF),
    (b"RIFF\x24\0\0\0WEBPVP8 ", Content.UNKNOWN),
    (b"FORM\0\0\x10\x008SVX\x01", Content.UNKNOWN),
    (b"", Content.EMPTY),
]


@cache
def generated(muxer, codec, rate):
    """A second of a tone as FFmpeg writes it."""
    sink = io.BytesIO()
    try:
        with av.open(sink, "w", format=muxer) as out:
            stream = out.add_stream(codec, rate=rate, layout="mono")
            tone = (0.5 * np.sin(np.arange(rate) / 20) * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(tone[None, :], format="s16", layout="mono")
            frame.sample_rate = rate
            resampler = av.AudioResampler(stream.format, "mono", rate, frame_size=stream.codec_context.frame_size or 1024)
            for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
                for packet in stream.encode(piece):
                    out.mux(packet)
    except (av.codec.codec.UnknownCodecError, FFmpegError, ValueError) as error:
        pytest.skip(f"this FFmpeg does not write {muxer} with {codec}: {error}")
    return sink.getvalue()


def id3(size, *, footer=False):
    """A tag of ID3v2.4 with so many bytes of content, and its footer."""
    length = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x04\0" + (b"\x10" if footer else b"\0") + length + b"\xa5" * size + (b"3DI\x04\0\x10" + length if footer else b"")


def adts_frame(length, sampling=4):
    """An ADTS header without CRC and the rest of its frame."""
    return bytes([0xFF, 0xF1, 0x40 | sampling << 2, 0x40 | length >> 11, length >> 3 & 0xFF, (length & 7) << 5 | 0x1F, 0xFC]) + bytes(
        length - 7
    )


def mpeg_frame(version, layer, bitrate, rate, length, padding=0):
    """An MPEG audio header (the raw bits of the fields) and the rest of a frame of this length."""
    return bytes([0xFF, 0xE1 | version << 3 | layer << 1, bitrate << 4 | rate << 2 | padding << 1, 0xC4]) + bytes(length - 4)


MPEG_FRAMES = [  # (name, fields, bytes of a frame by ISO 11172-3 and 13818-3, expected)
    ("version 1, layer III, 128 kbit/s, 44.1 kHz", (3, 1, 9, 0), 417, AudioFormat.MP3),
    ("version 1, layer III, 320 kbit/s, 48 kHz", (3, 1, 14, 1), 960, AudioFormat.MP3),
    ("version 2, layer III, 64 kbit/s, 22.05 kHz", (2, 1, 8, 0), 208, AudioFormat.MP3),
    ("version 2.5, layer III, 8 kbit/s, 8 kHz", (0, 1, 1, 2), 72, AudioFormat.MP3),
    ("version 1, layer II, 192 kbit/s, 48 kHz", (3, 2, 10, 1), 576, Content.MP2),
    ("version 2, layer II, 64 kbit/s, 24 kHz", (2, 2, 8, 1), 384, Content.MP2),
    ("version 1, layer I, 384 kbit/s, 32 kHz", (3, 3, 12, 2), 576, Content.MP2),
    ("version 2, layer I, 128 kbit/s, 16 kHz", (2, 3, 8, 2), 384, Content.MP2),
]


@pytest.mark.parametrize(("muxer", "codec", "rate", "expected"), GENERATED, ids=str)
def test_generated_files_are_what_they_were_written_as(muxer, codec, rate, expected):
    assert sniff(generated(muxer, codec, rate)[:SNIFF_BYTES]) is expected


def test_all_seven_containers_are_generated():
    assert {expected for *_, expected in GENERATED} >= CONTAINERS


@pytest.mark.parametrize(("muxer", "codec", "rate", "expected"), GENERATED, ids=str)
@pytest.mark.parametrize("size", [64, 500, 1 << 20])
def test_more_or_fewer_bytes_say_the_same(muxer, codec, rate, expected, size):
    assert sniff(generated(muxer, codec, rate)[:size]) is expected


@pytest.mark.parametrize(("head", "expected"), BY_HAND, ids=str)
def test_headers_made_by_hand_are_known(head, expected):
    assert sniff(head) is expected


@pytest.mark.parametrize(("name", "fields", "length", "expected"), MPEG_FRAMES, ids=[name for name, *_ in MPEG_FRAMES])
def test_mpeg_audio_is_known_by_its_frame_length(name, fields, length, expected):
    frame = mpeg_frame(*fields, length)
    assert sniff(frame * 3) is expected
    assert sniff(frame[:-1] + frame) is Content.UNKNOWN, "the next frame starts a byte early"
    assert sniff(frame + b"\0" + frame) is Content.UNKNOWN, "the next frame starts a byte late"


@pytest.mark.parametrize(("fields", "slot"), [((3, 1, 9, 0), 1), ((3, 3, 12, 2), 4)])
def test_a_padded_frame_is_a_slot_longer(fields, slot):
    length = {1: 417, 4: 576}[slot] + slot
    assert sniff(mpeg_frame(*fields, length, padding=1) * 2) in {AudioFormat.MP3, Content.MP2}


@pytest.mark.parametrize("fields", [(1, 1, 9, 0), (3, 1, 0, 0), (3, 1, 15, 0), (3, 1, 9, 3)])
def test_reserved_bits_are_no_mpeg_audio(fields):
    assert sniff(mpeg_frame(*fields, 417) * 2) is Content.UNKNOWN


@pytest.mark.parametrize("length", [8, 200, 371, 2000])
def test_adts_is_known_by_its_frame_length(length):
    frame = adts_frame(length)
    assert sniff(frame * 3) is AudioFormat.AAC
    assert sniff(frame + b"\0" + frame) is Content.UNKNOWN


@pytest.mark.parametrize(
    "head", [adts_frame(200, sampling=13) * 2, adts_frame(7) * 2, adts_frame(200)[:6], b"\xff\xe1\x50\x40" + bytes(60)]
)
def test_what_cannot_be_an_adts_header_is_none(head):
    assert sniff(head) is Content.UNKNOWN


def test_silence_before_the_first_frame_is_skipped():
    assert sniff(bytes(300) + mpeg_frame(3, 1, 9, 0, 417) * 2) is AudioFormat.MP3


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        (adts_frame(200) * 3, AudioFormat.AAC),
        (b"fLaC\0\0\0\x22", AudioFormat.FLAC),
        (mpeg_frame(3, 1, 9, 0, 417) * 3, AudioFormat.MP3),
        (bytes(100) + mpeg_frame(3, 1, 9, 0, 417) * 3, AudioFormat.MP3),
        (b"RIFF\x24\0\0\0WAVEfmt ", AudioFormat.WAV),
        (b"\0\0\0\0", AudioFormat.MP3),
        (b"who knows", AudioFormat.MP3),
        (b"", AudioFormat.MP3),
    ],
    ids=lambda value: str(value)[:24],
)
@pytest.mark.parametrize("footer", [False, True])
@pytest.mark.parametrize("size", [0, 127, 128, 2000])
def test_behind_a_tag_the_audio_decides(behind, expected, footer, size):
    assert sniff(id3(size, footer=footer) + behind) is expected


@given(st.integers(0, 1 << 12), st.booleans())
def test_a_tag_is_as_long_as_it_says(size, footer):
    tag = id3(size, footer=footer)
    assert tag_length(tag) == tag_length(tag[:10]) == len(tag)


def test_cover_art_larger_than_the_head_is_skipped_by_its_length():
    size = 300_000
    tag = b"ID3\x04\0\0" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0)) + b"APIC"
    assert tag_length(tag) == size + 10
    assert sniff(tag) is AudioFormat.MP3


@pytest.mark.parametrize("head", [b"", b"ID3", b"ID3\x04\0\0\0\0\0", b"\0ID3\x04\0\0\0\0\0\0\0", b"fLaC" + bytes(10)])
def test_without_a_whole_tag_there_is_no_length(head):
    assert tag_length(head) == 0


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=200))
def test_printable_text_behind_a_word_is_text(text):
    assert sniff(f"Note: {text}\r\n\tend\n".encode()) is Content.TEXT


def test_text_may_be_cut_inside_a_character():
    whole = "caffè ☕ 音楽".encode()
    assert {sniff(whole[:cut]) for cut in range(1, len(whole) + 1)} == {Content.TEXT}


@pytest.mark.parametrize("start", ["caffeine", "the wider picture", "moo moov", "ID3 tags", "RIFF, the WAVE"])
def test_words_that_look_like_marks_are_text(start):
    assert sniff(f"{start} and what else there is to say\n".encode()) is Content.TEXT


@pytest.mark.parametrize("head", [b"a\0b", b"a\x07b", b"caff\xe8 latte, and more", b"\xff", b"\xff\xfe", b"\xe2\x98", b"text\xff"])
def test_bytes_with_control_characters_or_broken_utf8_are_no_text(head):
    assert sniff(head) is Content.UNKNOWN


@pytest.mark.parametrize("silence", [b"\0", b"\x80", b"\xff", b"\xd5", b"\x7f\xff", b"\xff\x7f"])
def test_silent_raw_audio_is_nothing_known(silence):
    assert sniff(silence * 2048) is Content.UNKNOWN


@given(st.binary(max_size=600))
def test_any_bytes_are_something(head):
    assert isinstance(sniff(head), AudioFormat | Content)


@given(st.integers(0, 2**32 - 1))
def test_noise_is_no_audio(seed):
    """Raw PCM has no mark: two headers in a row where the first says, or a magic number, do not come about by chance."""
    noise = np.random.default_rng(seed).integers(0, 256, SNIFF_BYTES, dtype=np.uint8).tobytes()
    assert sniff(b"\xa5" + noise) is Content.UNKNOWN


def test_every_content_is_refused_media_or_no_media_or_unclear():
    assert UNSUPPORTED_AUDIO | NOT_MEDIA | {Content.EMPTY, Content.UNKNOWN} == set(Content)
    assert not UNSUPPORTED_AUDIO & NOT_MEDIA


def sample_expectations():
    """What the list beside the sample audio says of each file, by its name and note."""
    if not (SAMPLES / "catalogue.csv").exists():
        return [pytest.param(None, None, marks=pytest.mark.skip(reason=f"no sample audio beside the repository ({SAMPLES.name}/)"))]
    with (SAMPLES / "catalogue.csv").open(newline="") as rows:
        return [pytest.param(SAMPLES / row["file"], expected_of(row), id=row["file"]) for row in csv.DictReader(rows)]


def expected_of(row):
    odd = {"wrong-extension.mp3": AudioFormat.OGG, "empty.wav": Content.EMPTY, "garbage.flac": Content.UNKNOWN}
    extension = row["file"].rpartition(".")[2]
    if row["file"] in odd:
        return odd[row["file"]]
    if extension in CONTAINERS:
        return AudioFormat(extension)
    return {"m4a": Content.MP4, "txt": Content.TEXT}.get(extension, Content.UNKNOWN)


@pytest.mark.parametrize(("path", "expected"), sample_expectations())
def test_the_sample_audio_is_what_its_list_says(path, expected):
    with path.open("rb") as file:
        assert sniff(file.read(SNIFF_BYTES)) is expected
