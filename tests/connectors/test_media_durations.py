"""Durations from headers: files of FFmpeg in every format, headers made by hand, and what lies or is cut off."""

import io
import struct
from functools import cache

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio_files import CODINGS, aiff, chunk, container_bytes, pcm_fmt, tone, wav
from connectors.media.durations import NoAudioTrack, Ranges, Wanted, estimate
from connectors.media.durations.ranges import MOST_BYTES, MOST_READS, RangedSource, TooFar
from moderation.estimates import EstimateSource
from moderation.formats import AudioFormat
from moderation.sniffing import SNIFF_BYTES, Content, sniff

SECONDS = 7.3
HEADER, BITRATE, DEFAULT = EstimateSource.HEADER, EstimateSource.BITRATE, EstimateSource.DEFAULT


STARTS = {
    Content.MP4: b"\0\0\0\x18ftyp",
    Content.AMR: b"#!AMR\n",
    AudioFormat.WAV: b"RIFF\0\0\0\0WAVEfmt ",
    AudioFormat.AIFF: b"FORM\0\0\0\0AIFFCOMM",
    AudioFormat.FLAC: b"fLaC\x80\0\0\x22",
    AudioFormat.WEBM: b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67",
    AudioFormat.OGG: b"OggS\0\2",
    AudioFormat.MP3: b"\xff\xfb\x90\x64",
    Content.WMA: b"",
    Content.AVI: b"",
    Content.CAF: b"",
    Content.WAVE64: b"",
}


def asked(data, kind=None):
    """The estimate of a file, and how many bytes of it were read."""
    ranges = Ranges(len(data), data[:SNIFF_BYTES])
    kind = kind or sniff(data[:SNIFF_BYTES])
    while True:
        try:
            return estimate(ranges, kind), ranges.bytes_read
        except Wanted as wanted:
            ranges.add(wanted.offset, data[wanted.offset : wanted.offset + wanted.size])


def known(data, kind=None):
    found, read = asked(data, kind)
    assert read <= MOST_BYTES
    return found.ms, found.source, found.truncated


@cache
def muxed(muxer, codec, seconds=SECONDS, rate=48_000, *, video=False, options=()):
    """A file by FFmpeg; with video, one that has nothing else."""
    sink = io.BytesIO()
    with av.open(sink, "w", format=muxer, options=dict(options)) as out:
        if video:
            stream = out.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
            frames = [av.VideoFrame(64, 64, "yuv420p") for _ in range(round(seconds * 25))]
        else:
            stream = out.add_stream(codec, rate=rate, layout="mono")
            stream.bit_rate = 64_000
            out.start_encoding()
            sound = av.AudioFrame.from_ndarray((tone(seconds, rate).T * 32767).astype("<i2"), format="s16", layout="mono")
            sound.sample_rate, sound.pts = rate, 0
            resampler = av.AudioResampler(stream.format, "mono", rate, frame_size=stream.codec_context.frame_size or 4096)
            frames = [*resampler.resample(sound), *resampler.resample(None)]
        for frame in [*frames, None]:
            out.mux(stream.encode(frame))
    return sink.getvalue()


def id3(size):
    """A tag with so many bytes of cover art."""
    return b"ID3\4\0\0" + bytes(size >> 7 * place & 0x7F for place in (3, 2, 1, 0)) + b"\xff\xfb" * (size // 2)


@pytest.mark.parametrize("coding", CODINGS, ids=str)
@pytest.mark.parametrize("rate", [8000, 48_000])
def test_every_container_and_codec_is_known_by_its_header(coding, rate):
    if rate not in coding.rates:
        pytest.skip(f"{coding} does not take {rate} Hz")
    channels = 1 if 1 in coding.channels else 2
    samples = tone(SECONDS, rate, channels)
    found, read = asked(container_bytes(samples, rate, coding))
    assert found.ms == pytest.approx(
        coding.decoded_ms(len(samples), rate), rel=0.005, abs=130
    )  # at 8 kHz a frame of Vorbis or AAC is that long
    assert found.source is (BITRATE if coding.audio_format is AudioFormat.AAC else HEADER)
    assert not found.truncated
    assert read <= MOST_BYTES


@pytest.mark.parametrize(
    ("muxer", "codec", "rate", "kind"),
    [
        ("ipod", "aac", 48_000, Content.MP4),
        ("mov", "pcm_s16le", 48_000, Content.MP4),
        ("matroska", "libopus", 48_000, Content.MATROSKA),
        ("asf", "wmav2", 44_100, Content.WMA),
        ("caf", "pcm_s16le", 48_000, Content.CAF),
        ("caf", "alac", 48_000, Content.CAF),
        ("w64", "pcm_s16le", 48_000, Content.WAVE64),
        ("avi", "pcm_s16le", 48_000, Content.AVI),
        ("wav", "adpcm_ima_wav", 8000, AudioFormat.WAV),
    ],
)
def test_what_the_service_does_not_take_is_known_as_well(muxer, codec, rate, kind):
    data = muxed(muxer, codec, rate=rate)
    assert sniff(data[:SNIFF_BYTES]) is kind
    found, _ = asked(data)
    assert (found.ms, found.source) == (pytest.approx(1000 * SECONDS, rel=0.01, abs=100), HEADER)


@pytest.mark.parametrize(("muxer", "codec", "rate"), [("amr", "libopencore_amrnb", 8000), ("mp2", "mp2", 44_100)])
def test_frames_in_a_row_are_known_by_their_bitrate(muxer, codec, rate):
    try:
        data = muxed(muxer, codec, rate=rate)
    except (ValueError, av.error.FFmpegError):
        pytest.skip(f"FFmpeg has no {codec} here")
    found, _ = asked(data)
    assert (found.ms, found.source) == (pytest.approx(1000 * SECONDS, rel=0.02), BITRATE)


@pytest.mark.parametrize(
    ("muxer", "codec"), [("mp4", "mpeg4"), ("matroska", "mpeg4"), ("webm", "libvpx"), ("avi", "mpeg4"), ("asf", "mpeg4")]
)
def test_a_container_with_nothing_but_video_says_so(muxer, codec):
    with pytest.raises(NoAudioTrack):
        asked(muxed(muxer, codec, 1, video=True))


def test_cover_art_is_passed_over_by_its_declared_length():
    mp3 = muxed("mp3", "libmp3lame", rate=44_100)
    tagged = id3(3_000_000) + mp3
    found, read = asked(tagged, AudioFormat.MP3)
    assert (found.ms, found.source) == (pytest.approx(1000 * SECONDS, abs=30), HEADER)
    assert read < 16 * 1024


def test_an_mp3_without_a_counting_frame_is_known_by_frames_that_were_looked_at():
    bare = muxed("mp3", "libmp3lame", 30, 22_050, options=(("write_xing", "0"),))
    found, _ = asked(bare, AudioFormat.MP3)
    assert (found.ms, found.source) == (pytest.approx(30_000, rel=0.005), BITRATE)


def test_an_mp3_with_a_fraunhofer_header_is_known_by_it():
    frame = b"\xff\xfb\x90\x64" + bytes(32) + b"VBRI" + struct.pack(">HHHII", 1, 0, 0, 417 * 1001, 1000)
    data = frame.ljust(417, b"\0") + (b"\xff\xfb\x90\x64" + bytes(413)) * 1000
    assert known(data) == (1000 * 1152 * 1000 // 44_100, HEADER, False)


def test_several_mp3_in_a_row_are_more_than_the_first_one_counts():
    one = muxed("mp3", "libmp3lame", 20, 16_000)
    found, _ = asked(one * 3)
    assert (found.ms, found.source) == (pytest.approx(60_000, rel=0.02), BITRATE)


@pytest.mark.parametrize("share", [0.3, 0.66, 0.9])
@pytest.mark.parametrize(
    ("muxer", "codec"),
    [("wav", "pcm_s16le"), ("aiff", "pcm_s16be"), ("flac", "flac"), ("mp3", "libmp3lame"), ("webm", "libopus"), ("caf", "pcm_s16le")],
)
def test_a_file_that_is_cut_off_is_flagged_and_counts_for_what_is_there(muxer, codec, share):
    data = muxed(muxer, codec, 20, 16_000)
    found, _ = asked(data[: round(len(data) * share)])
    assert found.truncated
    assert found.ms == pytest.approx(20_000 * share, rel=0.1)
    assert found.source is BITRATE


def test_an_mp4_that_is_cut_off_before_its_index_is_flagged():
    data = muxed("ipod", "aac", 20, 16_000)
    found, _ = asked(data[: len(data) // 2])
    assert (found.truncated, found.source) == (True, DEFAULT)
    index = data.find(b"moov") - 4
    first = data.find(b"mdat") - 4
    assert 0 < first < index
    fast = data[:first] + data[index:] + data[first:index]
    found, _ = asked(fast[: len(fast) * 3 // 5])
    assert (found.truncated, found.source) == (True, BITRATE)
    assert found.ms == pytest.approx(12_000, rel=0.1)


def test_an_ogg_whose_last_page_is_cut_is_flagged():
    data = muxed("ogg", "libopus", 20)
    found, _ = asked(data[: len(data) // 2])
    assert found.truncated
    assert found.ms == pytest.approx(10_000, rel=0.15)


def test_a_live_webm_is_known_by_its_last_cluster():
    live = muxed("webm", "libopus", 20, options=(("live", "1"), ("cluster_time_limit", "1000")))
    found, _ = asked(live)
    assert (found.ms, found.source) == (pytest.approx(20_000, abs=100), HEADER)


def test_a_streamed_flac_is_known_by_its_last_frame():
    data = bytearray(muxed("flac", "flac", 20))
    data[8 + 13] &= 0xF0  # the samples in all, of which 36 bits are kept: 0 is unknown
    data[8 + 14 : 8 + 18] = bytes(4)
    found, _ = asked(bytes(data))
    assert (found.ms, found.source) == (pytest.approx(20_000, abs=120), HEADER)


def test_a_stream_cut_out_of_a_longer_one_begins_where_its_first_page_does():
    data = bytearray(muxed("ogg", "libopus", 20, options=(("page_duration", "1000000"),)))
    place, moved = 0, 0
    while (place := data.find(b"OggS", place)) >= 0:
        (granule,) = struct.unpack_from("<q", data, place + 6)
        if granule > 0:
            struct.pack_into("<q", data, place + 6, granule + 48_000 * 7200)
            moved += 1
        place += 4
    assert moved > 10
    assert asked(bytes(data))[0].ms == pytest.approx(20_000, abs=1100)


def test_chained_ogg_streams_are_not_taken_for_their_last_one():
    assert known(muxed("ogg", "libopus", 5) + muxed("ogg", "libopus", 6))[1] is DEFAULT


def test_a_wav_of_unknown_size_lasts_until_its_end():
    data = wav(pcm_fmt(1, 16), bytes(32_000), size=0xFFFFFFFF)
    assert known(data) == (2000, HEADER, False)


def test_chunks_before_the_samples_are_passed_over_unread():
    data = wav(pcm_fmt(1, 16), bytes(32_000), before=chunk(b"id3 ", bytes(500_000)))
    found, read = asked(data)
    assert (found.ms, found.source) == (2000, HEADER)
    assert read < 8 * 1024
    assert known(aiff(bytes(16_000), 16, before=struct.pack(">4sI", b"ID3 ", 300_000) + bytes(300_000)))[0] == 1000


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"RIFF\0\0\0\0WAVE", AudioFormat.WAV),
        (wav(struct.pack("<HHIIHH", 0x55, 1, 8000, 0, 1, 0), bytes(100)), AudioFormat.WAV),
        (b"fLaC" + bytes(4000), AudioFormat.FLAC),
        (b"fLaC\x80\0\0\x22" + b"\x10\0\x10\0" + bytes(6) + b"\x0a\xc4\x4f\xff\xff\xff\xff\xff" + bytes(4000), AudioFormat.FLAC),
        (b"OggS" + bytes(4000), AudioFormat.OGG),
        (b"OggS\0\2" + b"\xff" * 4000, AudioFormat.OGG),
        (b"\x1a\x45\xdf\xa3\x80" + bytes(100), AudioFormat.WEBM),
        (b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\xff" + b"\x15\x49\xa9\x66\x88\x44\x89\x84" + b"\xff" * 4, AudioFormat.WEBM),
        (b"\xff\xfb\x90\x64" + bytes(4000), AudioFormat.MP3),
        (b"\0\0\0\x20ftypM4A " + bytes(24) + b"\0\0\0\x08moov", Content.MP4),
        (b"\0\0\0\x01ftyp" + bytes(8), Content.MP4),
        (b"caff\0\1\0\0desc" + bytes(60), Content.CAF),
        (b"\0" * 40, Content.WMA),
        (b"", AudioFormat.WAV),
    ],
)
def test_a_header_that_is_broken_or_absurd_leaves_the_default(data, kind):
    found, _ = asked(data, kind)
    assert found.source is DEFAULT
    assert not found.truncated


@given(st.sampled_from(sorted(STARTS)), st.binary(max_size=300))
def test_no_bytes_make_a_parser_fail(kind, noise):
    data = STARTS[kind] + noise
    try:
        found, read = asked(data, kind)
    except NoAudioTrack:
        return
    assert found.ms >= 0
    assert read <= len(data)


def test_ranges_ask_for_what_is_missing_and_join_what_they_get():
    ranges = Ranges(10_000, b"a" * 100)
    assert ranges.at(90, 10) == b"a" * 10
    with pytest.raises(Wanted) as wanted:
        ranges.at(90, 20)
    assert (wanted.value.offset, wanted.value.size) == (100, 1024)
    ranges.add(100, b"b" * 1024)
    assert ranges.at(90, 20) == b"a" * 10 + b"b" * 10
    assert ranges.at(10_000, 5) == b""
    assert ranges.at(-1, 5) == b""
    with pytest.raises(Wanted) as wanted:
        ranges.at(9_990, 50)
    assert (wanted.value.offset, wanted.value.size) == (9_990, 10)
    assert ranges.bytes_read == 1124


def test_ranges_go_no_further_than_they_may():
    ranges = Ranges(10_000_000, bytes(4096))
    with pytest.raises(TooFar):
        ranges.at(5_000_000, MOST_BYTES)
    for number in range(MOST_READS - 1):
        ranges.add(10_000 * (number + 1), b"x")
    with pytest.raises(TooFar):
        ranges.at(9_000_000, 1)


def test_a_source_over_ranges_skips_without_reading():
    data = bytes(np.arange(200_000) % 251)
    ranges = Ranges(len(data), data[:4])
    source = RangedSource(ranges)
    assert source.exactly(4) == data[:4]
    source.skip(150_000)
    with pytest.raises(Wanted) as wanted:
        source.exactly(4)
    assert wanted.value.offset == 150_004
