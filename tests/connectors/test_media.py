"""The media children and the progressive decoder."""

import asyncio
import io
import json
import math
import os
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest

import audio_files
from audio_files import CODINGS, aiff, pcm_fmt, raw_bytes, wav
from connectors.media import Limits, MediaHost
from connectors.media.decoding import DecodeFailed, decode
from connectors.media.host import MediaHostDown
from connectors.media.pcm import PcmLayout, to_floats
from moderation.formats import CONTAINERS, RAW_FORMATS, AudioFormat, StreamParameters

ANALYSIS = "connectors.local_velma.analysis:run"
MUSIC = {"endpoint": "music", "audio_format": "s16le", "sample_rate": 16000, "num_channels": 1, "detector": "stub"}


def sine(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    wave = 0.5 * np.sin(2 * math.pi * 440 * np.arange(int(seconds * rate)) / rate)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def container_bytes(audio_format: str, seconds: float = 1.0, rate: int = 48000) -> bytes:
    coding = next(coding for coding in CODINGS if coding.audio_format == audio_format)
    return audio_files.container_bytes(sine(seconds, rate), rate, coding)


def cut(data: bytes, size: int) -> Callable[[int], bytes]:
    """A reader that never gives more than size bytes."""
    stream = io.BytesIO(data)
    return lambda wanted: stream.read(min(wanted, size))


def samples_of(data: bytes, parameters: StreamParameters, size: int = 1 << 16) -> np.ndarray:
    return np.concatenate([block.samples for block in decode(cut(data, size), parameters)])


@pytest.mark.parametrize("audio_format", sorted(CONTAINERS))
def test_a_container_gives_the_same_samples_however_it_is_cut(audio_format):
    data = container_bytes(audio_format)
    whole = samples_of(data, StreamParameters(audio_format))
    assert len(whole) == pytest.approx(48000, abs=3000)  # codecs pad
    assert np.abs(whole).max() == pytest.approx(0.5, abs=0.1)
    for size in (1, 7, 997):
        np.testing.assert_array_equal(samples_of(data, StreamParameters(audio_format), size), whole)


@pytest.mark.parametrize("audio_format", sorted(CONTAINERS - {AudioFormat.WAV, AudioFormat.AIFF}))
def test_a_container_that_ends_in_the_middle_gives_what_it_has(audio_format):
    data = container_bytes(audio_format, seconds=3.0)
    assert len(samples_of(data[: len(data) // 2 + 5], StreamParameters(audio_format))) > 40000


def test_a_bad_packet_is_skipped():
    data = bytearray(container_bytes("mp3", seconds=3.0))
    data[len(data) // 2 : len(data) // 2 + 300] = bytes(300)
    assert len(samples_of(bytes(data), StreamParameters(AudioFormat.MP3))) > 2 * 48000


@pytest.mark.parametrize("audio_format", sorted(CONTAINERS))
@pytest.mark.parametrize("data", [np.random.default_rng(1).bytes(20000), b"\0" * 5000, b"x", container_bytes("flac")[:30]])
def test_what_is_no_audio_fails(audio_format, data):
    with pytest.raises(DecodeFailed):
        samples_of(data, StreamParameters(audio_format))


@pytest.mark.parametrize(("actual", "declared"), [("ogg", "mp3"), ("flac", "wav"), ("mp3", "aiff"), ("wav", "flac"), ("ogg", "webm")])
def test_another_format_than_declared_is_a_mismatch(actual, declared):
    with pytest.raises(DecodeFailed) as failure:
        samples_of(container_bytes(actual), StreamParameters.of(declared))
    assert failure.value.mismatch


@pytest.mark.parametrize("audio_format", sorted(AudioFormat))
def test_no_bytes_are_no_samples_and_no_error(audio_format):
    rate, channels = (8000, 1) if AudioFormat(audio_format).is_raw else (None, None)
    assert list(decode(lambda _: b"", StreamParameters(audio_format, rate, channels))) == []


def test_bytes_without_one_sample_fail():
    with pytest.raises(DecodeFailed):
        samples_of(b"\0", StreamParameters(AudioFormat.S16LE, 8000, 1))


@pytest.mark.parametrize("audio_format", sorted(RAW_FORMATS))
def test_every_raw_format_is_the_sine_it_was(audio_format):
    wave = sine(0.1, 8000)
    data = raw_bytes(wave, audio_format)
    parameters = StreamParameters(audio_format, 8000, 1)
    whole = samples_of(data, parameters)
    tolerance = 0.03 if audio_format in {"mulaw", "alaw"} else 0.01
    np.testing.assert_allclose(whole, wave, atol=tolerance)
    np.testing.assert_array_equal(samples_of(data + b"\x01" * (audio_format.sample_bytes - 1), parameters, 7), whole)


@pytest.mark.parametrize("audio_format", ["mulaw", "alaw"])
def test_companding_agrees_with_ffmpeg(audio_format):
    codec = av.CodecContext.create(f"pcm_{audio_format}", "r")
    codec.layout, codec.sample_rate = "mono", 8000
    (frame,) = codec.decode(av.Packet(bytes(range(256))))
    ours = to_floats(bytes(range(256)), PcmLayout(AudioFormat(audio_format), 8000, 1))
    np.testing.assert_array_equal(np.round(ours[:, 0] * 32768).astype(int), frame.to_ndarray()[0])


def test_floats_that_are_no_numbers_are_bounded():
    data = np.array([np.nan, np.inf, -np.inf, 1e300, 0.25], "<f8").tobytes()
    assert samples_of(data, StreamParameters(AudioFormat.F64LE, 8000, 1))[:, 0].tolist() == [0, 1, -1, 1, 0.25]


ONE_SECOND = raw_bytes(sine(1, 8000), AudioFormat.S16LE)
EXTENSIBLE = struct.pack("<HHIIHHHHI", 0xFFFE, 1, 8000, 16000, 2, 16, 22, 16, 4) + struct.pack("<H", 1) + b"\0" * 14


@pytest.mark.parametrize(
    "data",
    [
        wav(pcm_fmt(1, 16), ONE_SECOND),
        wav(pcm_fmt(1, 16), ONE_SECOND + b"LIST\x02\0\0\0ab")[:-10] + b"",
        wav(pcm_fmt(1, 16), ONE_SECOND, size=0),
        wav(pcm_fmt(1, 16), ONE_SECOND, size=0xFFFFFFFF),
        wav(pcm_fmt(1, 16), ONE_SECOND) + b"LIST\x04\0\0\0tail",
        wav(pcm_fmt(1, 16), ONE_SECOND, size=10**9),
        wav(EXTENSIBLE, ONE_SECOND),
        wav(pcm_fmt(1, 16), ONE_SECOND, size=0xFFFFFFFF, form=b"RF64", before=struct.pack("<4sIQQQI", b"ds64", 28, 0, 16000, 8000, 0))
        + b"tail",
        wav(pcm_fmt(7, 8), raw_bytes(sine(1, 8000), AudioFormat.MULAW)),
        wav(pcm_fmt(6, 8), raw_bytes(sine(1, 8000), AudioFormat.ALAW)),
        wav(pcm_fmt(1, 8), raw_bytes(sine(1, 8000), AudioFormat.U8)),
        wav(pcm_fmt(1, 24), raw_bytes(sine(1, 8000), AudioFormat.S24LE)),
        wav(pcm_fmt(1, 32), raw_bytes(sine(1, 8000), AudioFormat.S32LE)),
        wav(pcm_fmt(3, 32), raw_bytes(sine(1, 8000), AudioFormat.F32LE)),
        aiff(raw_bytes(sine(1, 8000), AudioFormat.S16BE), 16),
        aiff(raw_bytes(sine(1, 8000), AudioFormat.S24BE), 24),
        aiff(raw_bytes(sine(1, 8000), AudioFormat.S8), 8),
        aiff(ONE_SECOND, 16, b"sowt"),
        aiff(raw_bytes(sine(1, 8000), AudioFormat.F32BE), 32, b"fl32"),
        aiff(raw_bytes(sine(1, 8000), AudioFormat.MULAW), 16, b"ulaw"),
    ],
)
def test_headers_of_wav_and_aiff(data):
    parameters = StreamParameters(AudioFormat.WAV if data[8:12] == b"WAVE" else AudioFormat.AIFF)
    blocks = list(decode(cut(data, 997), parameters))
    assert {block.rate for block in blocks} == {8000}
    np.testing.assert_allclose(np.concatenate([block.samples for block in blocks])[:8000], sine(1, 8000), atol=0.03)
    assert sum(len(block.samples) for block in blocks) == 8000


def test_a_wav_with_another_codec_is_left_to_ffmpeg():
    sink = io.BytesIO()
    with av.open(sink, "w", format="wav") as out:
        stream = out.add_stream("adpcm_ima_wav", rate=8000, layout="mono")
        size = stream.codec_context.frame_size or 1017
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8 * size), np.int16), format="s16p", layout="mono")
        frame.sample_rate = 8000
        fifo = av.AudioFifo()
        fifo.write(frame)
        while piece := fifo.read(size):
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    assert len(samples_of(sink.getvalue(), StreamParameters(AudioFormat.WAV))) >= 8000


async def lines_of(reader: asyncio.StreamReader) -> list[dict]:
    return [json.loads(line) for line in (await reader.read(-1)).splitlines()]


@pytest.fixture
async def host():
    async with MediaHost(preload=["connectors.local_velma.analysis"]) as host:
        yield host


def group(pid: int) -> Iterator[int]:
    """Living processes of a process group."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[2]) == pid and fields[0] != "Z":
                yield int(entry.name)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_child_answers_while_it_is_fed(host):
    async with host.open(ANALYSIS, MUSIC) as (reader, writer):
        writer.write(b"\0" * 2 * 3072)
        assert json.loads(await reader.readline())["frame"]["end_time_ms"] == 192  # the input is still open
        writer.write(b"\0" * 2 * 3072)
        writer.write_eof()
        assert [line["type"] for line in await lines_of(reader)] == ["frame", "done"]


async def test_children_do_not_harm_each_other(host):
    async with host.open(ANALYSIS, MUSIC) as (reader, writer), host.open(ANALYSIS, MUSIC) as (_, other):
        other.write(b"\0" * 20000)
        await until(lambda: len(list(group(host.pid))) == 3)
        stopped = set(group(host.pid)) - {host.pid}
        for child in stopped:
            os.kill(child, signal.SIGSTOP)
        async with host.open(ANALYSIS, MUSIC) as (third, feed):
            feed.write_eof()
            assert (await lines_of(third))[0]["frame_count"] == 0
        for child in stopped:
            os.kill(child, signal.SIGKILL)
        assert await reader.read(-1) == b""  # an end without a last word
    async with host.open(ANALYSIS, MUSIC) as (reader, writer):
        writer.write_eof()
        assert (await lines_of(reader))[0]["type"] == "done"


async def test_a_child_with_too_little_memory_ends_without_a_last_word(host, capfd):
    async with host.open(ANALYSIS, MUSIC, Limits(address_space_bytes=1 << 20)) as (reader, writer):
        writer.write_eof()
        assert b"done" not in await reader.read(-1)


@pytest.mark.parametrize("entry", ["os:system", "connectors.media.nowhere:run", "nonsense"])
async def test_only_entries_of_connectors_run(host, entry, capfd):
    async with host.open(entry, {}) as (reader, writer):
        writer.write_eof()
        assert await reader.read(-1) == b""


async def test_a_child_ends_when_its_stream_is_closed(host):
    async with host.open(ANALYSIS, MUSIC) as (_, writer):
        writer.write(b"\0" * 20000)
        await until(lambda: len(list(group(host.pid))) == 2)
    await until(lambda: list(group(host.pid)) == [host.pid])


async def test_nothing_is_left_after_the_host_has_closed(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    async with MediaHost() as host:
        pid = host.pid
        async with host.open(ANALYSIS, MUSIC) as (_, writer):
            writer.write(b"\0" * 100)
            await until(lambda: len(list(group(pid))) == 2)
    assert list(group(pid)) == []
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(MediaHostDown):
        async with host.open(ANALYSIS, MUSIC):
            pass


async def test_a_host_whose_process_died_says_so():
    async with MediaHost() as host:
        os.kill(host.pid, signal.SIGKILL)
        await until(lambda: not list(group(host.pid)))
        with pytest.raises(MediaHostDown):
            async with host.open(ANALYSIS, MUSIC):
                pass


async def test_a_host_that_cannot_import_its_preload_does_not_open(capfd):
    with pytest.raises(MediaHostDown):
        async with MediaHost(preload=["connectors.nowhere"]):
            pass


def environment(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


async def test_children_see_no_secrets(monkeypatch):
    monkeypatch.setenv("SOUNDCHECK_API_KEY", "secret")
    async with MediaHost() as host:
        assert b"secret" not in environment(host.pid)
