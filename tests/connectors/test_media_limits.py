"""What hostile media can take: the wall time of children, and the caps of the decoder."""

import asyncio
import io
import json
import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from connectors.media import Limits, MediaHost
from connectors.media import host as host_module
from connectors.media.decoding import Caps, DecodeFailed, capped, decode
from connectors.media.headers import NotThisFormat
from connectors.media.pcm import MAX_CHANNELS, MAX_RATE, MIN_RATE, PcmBlock
from moderation.formats import AudioFormat, StreamParameters

ANALYSIS = "connectors.local_velma.analysis:run"
MUSIC = {"endpoint": "music", "audio_format": "u8", "sample_rate": 16000, "num_channels": 1, "detector": "stub"}
FRAME = bytes(3072)
RAW = StreamParameters(AudioFormat.U8, 8000, 1)

# -- wall time --------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def limits() -> Limits:
    return Limits(wall_seconds=0.3)


@pytest.fixture
async def host(limits):
    async with MediaHost(["connectors.local_velma.analysis"], limits) as host:
        yield host


def children(host: MediaHost) -> Iterator[int]:
    """The living children of a host."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != host.pid:
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[2]) == host.pid and fields[0] != "Z":
                yield int(entry.name)


async def gone(host: MediaHost) -> None:
    async with asyncio.timeout(30):
        while list(children(host)):
            await asyncio.sleep(0.01)


def stop(host: MediaHost) -> None:
    (child,) = children(host)
    os.kill(child, signal.SIGSTOP)


@pytest.mark.fault(12)
async def test_a_stopped_child_that_has_all_its_audio_is_ended(host):
    async with host.open(ANALYSIS, MUSIC) as (reader, writer):
        writer.write(FRAME)
        await reader.readline()
        stop(host)
        writer.write_eof()
        assert await reader.read() == b""
    await gone(host)


@pytest.mark.fault(12)
async def test_a_stopped_child_that_takes_no_more_is_ended(host):
    async with host.open(ANALYSIS, MUSIC) as (reader, writer):
        stop(host)
        writer.write(bytes(4 << 20))
        with pytest.raises(ConnectionError):  # it dies with audio unread
            await reader.read()
    await gone(host)


async def test_a_child_that_waits_for_audio_lives(host, limits):
    async with host.open(ANALYSIS, MUSIC) as (reader, writer):
        for _ in range(2):
            await asyncio.sleep(2.5 * limits.wall_seconds)
            writer.write(FRAME)
            assert json.loads(await reader.readline())["type"] == "frame"


async def test_a_child_that_nobody_listens_to_lives(host, monkeypatch):
    monkeypatch.setattr(host_module, "LINE_BYTES", 4096)
    limits = Limits(wall_seconds=1.0)
    async with host.open(ANALYSIS, MUSIC, limits) as (reader, writer):
        writer.write(FRAME * 4000)
        async with asyncio.timeout(30):
            while writer.transport.is_reading():
                await asyncio.sleep(0.01)
        writer.write_eof()
        await asyncio.sleep(2.1 * limits.wall_seconds)
        lines = (await reader.read()).splitlines()
    assert (len(lines), json.loads(lines[-1])["frame_count"]) == (4001, 4000)


async def test_leaving_ends_a_child_whatever_it_does(host):
    async with host.open(ANALYSIS, MUSIC) as (_, writer):
        writer.write(FRAME)
        stop(host)
    await gone(host)


async def feed_for_ever(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(FRAME * 100)
        await writer.drain()


@pytest.mark.fault(12)
async def test_a_child_that_computes_for_ever_is_ended():
    async with MediaHost(["connectors.local_velma.analysis"]) as host:
        async with host.open(ANALYSIS, MUSIC | {"detector": "signal"}, Limits(cpu_seconds=1)) as (reader, writer):
            reading = asyncio.create_task(reader.read())
            with pytest.raises(ConnectionError):
                await feed_for_ever(writer)
            with pytest.raises(ConnectionError):
                await reading
        await gone(host)


# -- caps -------------------------------------------------------------------------------------------------------------------------------


def heard(data: bytes, parameters: StreamParameters, caps: Caps, size: int = 1 << 16) -> tuple[int, bool]:
    """How many samples came, and whether they were too much."""
    stream, samples = io.BytesIO(data), 0
    try:
        for block in decode(lambda wanted: stream.read(min(wanted, size)), parameters, caps):
            samples += len(block.samples)
    except DecodeFailed:
        return samples, True
    return samples, False


@pytest.mark.parametrize("size", [1, 997, 1 << 16])
@pytest.mark.parametrize(
    ("caps", "outcome"),
    [
        (Caps(), (9000, False)),
        (Caps(seconds=9000 / 8000), (9000, False)),
        (Caps(seconds=1.0), (8000, True)),
        (Caps(decoded_bytes=9000 * 4), (9000, False)),
        (Caps(decoded_bytes=9000 * 4 - 1), (8999, True)),
        (Caps(seconds=0, decoded_bytes=0), (0, True)),
    ],
)
def test_seconds_and_bytes_to_the_sample(size, caps, outcome):
    assert heard(bytes(9000), RAW, caps, size) == outcome


@pytest.mark.parametrize("rates", [(8000, 16000, 8000), (16000, 8000)])
def test_seconds_of_streams_that_change_their_rate(rates):
    blocks = [PcmBlock(rate, np.zeros((rate, 1), np.float32)) for rate in rates]
    lengths: list[int] = []

    def listen() -> None:
        for block in capped(iter(blocks), Caps(seconds=len(rates) - 0.5)):
            lengths.append(len(block.samples))  # noqa: PERF401 - what came before the error counts

    with pytest.raises(DecodeFailed):
        listen()
    assert lengths == [*rates[:-1], rates[-1] // 2]


@pytest.mark.parametrize(("rate", "channels"), [(MIN_RATE - 1, 1), (MAX_RATE + 1, 1), (8000, MAX_CHANNELS + 1), (8000, 0)])
def test_rates_and_channels_that_are_no_audio(rate, channels):
    with pytest.raises(NotThisFormat, match=f"{rate} Hz, {channels} channels"):
        next(capped(iter([PcmBlock(rate, np.zeros((10, channels), np.float32))]), Caps()))
    fmt = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2, channels * 2, 16)
    wav = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + fmt + b"data\xff\xff\xff\xff" + bytes(9000)
    assert heard(wav, StreamParameters(AudioFormat.WAV), Caps()) == (0, True)


CODECS = {"flac": "flac", "webm": "libopus", "mp3": "libmp3lame"}


@pytest.mark.parametrize("audio_format", CODECS)
def test_tags_in_any_encoding(audio_format):
    """Old files have tags that are not UTF-8: they are heard all the same."""
    sink = io.BytesIO()
    with av.open(sink, "w", format=audio_format) as out:
        out.metadata["title"] = "XXXXXXXX"
        stream = out.add_stream(CODECS[audio_format], rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 48000
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=48000, frame_size=stream.codec_context.frame_size or 1024)
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            out.mux(stream.encode(piece))
    data = sink.getvalue()
    assert b"XXXXXXXX" in data
    samples, failed = heard(data.replace(b"XXXXXXXX", b"caf\xe9\xff\xfe\xb3\xec"), StreamParameters(AudioFormat(audio_format)), Caps())
    assert samples >= 48000
    assert not failed


def test_a_coding_that_nobody_knows():
    fmt = struct.pack("<HHIIHH", 0x7777, 1, 8000, 16000, 2, 16)
    wav = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + fmt + b"data\xff\xff\xff\xff" + bytes(9000)
    assert heard(wav, StreamParameters(AudioFormat.WAV), Caps()) == (0, True)
