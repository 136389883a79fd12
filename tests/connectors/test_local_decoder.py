"""Objects decoded on this side: what comes out of every medium that the service does not take, and what damaged or hostile ones can do."""

import asyncio
import io
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path

import av
import numpy as np
import pytest
import pytest_asyncio

import audio_files
from audio_files import CODINGS, pcm_fmt, raw_bytes, tone, wav
from connectors.audio_store import FolderAudioStore
from connectors.media import Limits
from connectors.media import local_decoder as local_decoder_module
from connectors.media.local_decoder import DecoderDied, LocalDecoder, LocalDecodingFailed
from connectors.media.pcm import PcmBlock
from connectors.media.transcoding import Encoder
from moderation.errors import SourceChanged
from moderation.formats import AudioFormat, StreamParameters
from moderation.outcomes import Reason
from moderation.sniffing import UNSUPPORTED_AUDIO, Content
from moderation.transcoding import SourceFormat
from other_media import MEDIA, MP4, media_bytes, with_index_in_front

HOUR = 3600.0
ROOT = Path(__file__).parents[2]
AUDIO = ROOT.parent / "shared" / "audio"
PATIENCE_S = 30.0


class Object:
    """An object that notes where it is read from, and how much of it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.offsets: list[int] = []
        self.bytes_read = 0

    async def read_from(self, offset: int) -> AsyncGenerator[bytes, None]:
        self.offsets.append(offset)
        for at in range(offset, len(self.data), 1 << 16):
            piece = self.data[at : at + (1 << 16)]
            self.bytes_read += len(piece)
            yield piece


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def decoder():
    async with LocalDecoder() as decoder:
        yield decoder


pytestmark = pytest.mark.asyncio(loop_scope="module")


def source_of(kind: object) -> SourceFormat:
    return kind if isinstance(kind, SourceFormat) else SourceFormat(kind)


async def decoded(decoder: LocalDecoder, kind: object, data: bytes | Object, hours: float = 1.0) -> tuple[StreamParameters, np.ndarray]:
    """What goes out, with its samples as rows of channels."""
    seen = data if isinstance(data, Object) else Object(data)
    async with decoder.decode(source_of(kind), len(seen.data), seen.read_from, most_seconds=hours * HOUR) as found:
        pcm = b"".join([piece async for piece in found.pieces])
    return found.parameters, np.frombuffer(pcm, "<i2").reshape(-1, found.parameters.num_channels)


async def reason_of(decoder: LocalDecoder, kind: object, data: bytes | Object, hours: float = 1.0) -> Reason:
    with pytest.raises(LocalDecodingFailed) as failed:
        await decoded(decoder, kind, data, hours)
    assert str(failed.value)
    return failed.value.reason


# -- what comes out ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("medium", MEDIA, ids=str)
async def test_every_medium_goes_out_at_its_own_rate(decoder, medium):
    sound = tone(2.0, medium.rate)
    seen = Object(media_bytes(sound, medium.rate, medium))
    parameters, samples = await decoded(decoder, medium.kind, seen)
    assert parameters == StreamParameters(AudioFormat.S16LE, medium.rate, 1)
    assert len(samples) == pytest.approx(len(sound), rel=0.03)
    assert np.abs(samples).max() / 32768 == pytest.approx(audio_files.AMPLITUDE, rel=0.06)
    if medium.lossless:
        np.testing.assert_array_equal(samples[:, 0], np.round(sound[:, 0] * 32768).astype(int))


async def test_no_medium_is_left_out():
    assert {medium.kind for medium in MEDIA} == UNSUPPORTED_AUDIO


async def test_stereo_stays_stereo(decoder):
    sound = np.concatenate([tone(1.0, 44_100), np.zeros((44_100, 1))], axis=1)
    parameters, samples = await decoded(decoder, Content.WAVE64, media_bytes(sound, 44_100, next(m for m in MEDIA if m.muxer == "w64")))
    assert parameters == StreamParameters(AudioFormat.S16LE, 44_100, 2)
    np.testing.assert_array_equal(samples, np.round(sound * 32768).astype(int))


@pytest.mark.parametrize("coding", [coding for coding in CODINGS if coding.codec in {"flac", "libopus", "pcm_s16le"}], ids=str)
async def test_what_the_service_takes_is_decoded_too(decoder, coding):
    data = audio_files.container_bytes(tone(1.0, 48_000), 48_000, coding)
    parameters, samples = await decoded(decoder, coding.audio_format, data)
    assert parameters.sample_rate == 48_000
    assert len(samples) == pytest.approx(48_000, abs=100)


@pytest.mark.parametrize(
    ("rate", "channels", "expected"), [(12_000, 1, (16_000, 1)), (192_000, 2, (96_000, 2)), (16_000, 9, (16_000, 1)), (7_000, 3, (8000, 3))]
)
async def test_raw_audio_of_other_rates_and_channels(decoder, rate, channels, expected):
    sound = tone(1.0, rate, 1).repeat(channels, axis=1)
    source = SourceFormat(AudioFormat.F32LE, rate, channels)
    parameters, samples = await decoded(decoder, source, raw_bytes(sound, AudioFormat.F32LE))
    assert parameters == StreamParameters(AudioFormat.S16LE, *expected)
    assert len(samples) == pytest.approx(expected[0], abs=expected[0] // 100)
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    assert np.abs(middle).max() / 32768 == pytest.approx(audio_files.AMPLITUDE, rel=0.04)
    assert all((middle[:, 0] == middle[:, channel]).all() for channel in range(expected[1]))


async def test_a_stream_that_changes_its_rate_and_channels_goes_out_as_it_began():
    encoder = Encoder(StreamParameters(AudioFormat.S16LE, 16_000, 2))
    blocks = [(16_000, 2), (48_000, 2), (16_000, 1), (8_000, 1), (8_000, 1)]
    out = [encoder.push(PcmBlock(rate, np.full((rate, channels), 0.25, np.float32))) for rate, channels in blocks]
    samples = np.frombuffer(b"".join([*out, encoder.rest()]), "<i2").reshape(-1, 2)
    assert len(samples) == pytest.approx(5 * 16_000, abs=50)
    settled = np.abs(samples - 8192) <= 40
    assert settled.all(axis=1).mean() > 0.98, "but for the edges of a resampler"


# -- where an object is read ------------------------------------------------------------------------------------------------------------


async def test_an_mp4_with_its_index_in_front_is_read_once(decoder, tmp_path):
    seen = Object(with_index_in_front(tmp_path, tone(4.0, 16_000), 16_000))
    assert seen.data.index(b"moov") < seen.data.index(b"mdat")
    _, samples = await decoded(decoder, Content.MP4, seen)
    assert len(samples) >= 64_000
    assert seen.offsets == [0]


async def test_an_mp4_with_its_index_at_the_end_is_read_there_first_and_then_once(decoder):
    seen = Object(media_bytes(tone(3.0, 16_000), 16_000, MP4, pictures=200))
    index = seen.data.rindex(b"moov")
    assert index > 1 << 20
    _, samples = await decoded(decoder, Content.MP4, seen)
    assert len(samples) >= 48_000
    assert len(seen.offsets) == 3
    assert seen.offsets[1] == pytest.approx(index, abs=100)
    assert seen.bytes_read < len(seen.data) + (1 << 19)


async def test_what_is_not_taken_holds_up_the_reading(decoder):
    """As much is read as a child, two sockets and one reader hold, whatever the size of the object."""
    sound = bytes(200 << 20)
    seen = Object(sound)
    source = SourceFormat(AudioFormat.F64LE, 96_000, 1)
    async with decoder.decode(source, len(sound), seen.read_from, most_seconds=HOUR) as found:
        await anext(found.pieces)
        for _ in range(3):
            before = -1
            while seen.bytes_read != before:
                before = seen.bytes_read
                await asyncio.sleep(0.1)
        assert seen.bytes_read < 32 << 20


async def test_an_object_that_changed_is_not_decoded_further(decoder, tmp_path):
    (tmp_path / "a.mov").write_bytes(media_bytes(tone(90.0, 48_000), 48_000, next(m for m in MEDIA if m.muxer == "mov")))
    store = FolderAudioStore(tmp_path)
    item = await store.find(str(tmp_path.resolve()), "a.mov")
    assert item.size_bytes > 8 << 20

    async def listen() -> None:
        read_from = lambda offset: store.stream(item, offset)  # noqa: E731 - as it is used
        async with decoder.decode(source_of(Content.MP4), item.size_bytes, read_from, most_seconds=HOUR) as found:
            await anext(found.pieces)
            os.utime(tmp_path / "a.mov", (1, 1))
            async for _ in found.pieces:
                pass

    with pytest.raises(SourceChanged):
        await listen()


# -- damaged and hostile ones -----------------------------------------------------------------------------------------------------------

NOISE = np.random.default_rng(1).bytes(50_000)
HEADS = {
    Content.MP4: b"\0\0\0\x20ftypM4A ",
    Content.WMA: b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
    Content.MATROSKA: b"\x1a\x45\xdf\xa3",
    Content.CAF: b"caff\0\1\0\0",
    Content.AMR: b"#!AMR\n",
    Content.MPEG_VIDEO: b"\0\0\1\xba",
    Content.AVI: b"RIFF\0\0\0\0AVI ",
    Content.WAVE64: b"riff\x2e\x91\xcf\x11",
    Content.MP2: b"\xff\xfd",
}


@pytest.mark.parametrize("kind", sorted(UNSUPPORTED_AUDIO - {Content.AMR}))
async def test_garbage_behind_the_mark_of_a_medium_is_undecodable(decoder, kind):
    assert await reason_of(decoder, kind, HEADS[kind] + NOISE) is Reason.UNDECODABLE


@pytest.mark.parametrize("kind", sorted(UNSUPPORTED_AUDIO))
async def test_a_mark_alone_is_undecodable(decoder, kind):
    assert await reason_of(decoder, kind, HEADS[kind]) is Reason.UNDECODABLE


@pytest.mark.parametrize("medium", [medium for medium in MEDIA if medium.muxer in {"mp4", "matroska", "mpeg"}], ids=str)
@pytest.mark.parametrize("sound", [True, False])
async def test_of_a_video_the_sound_alone_is_taken_and_without_one_that_is_said(decoder, medium, sound):
    data = media_bytes(tone(2.0, 16_000) if sound else None, 16_000, medium, pictures=20)
    if sound:
        _, samples = await decoded(decoder, medium.kind, data)
        assert len(samples) >= 32_000
    else:
        assert await reason_of(decoder, medium.kind, data) is Reason.NO_AUDIO_TRACK


async def test_a_truncated_mp4_gives_what_its_index_in_front_still_finds_and_nothing_without_one(decoder, tmp_path):
    sound = tone(4.0, 16_000)
    web = with_index_in_front(tmp_path, sound, 16_000)
    _, samples = await decoded(decoder, Content.MP4, web[: len(web) * 3 // 4])
    assert 16_000 < len(samples) < 60_000
    usual = media_bytes(sound, 16_000, MP4)
    assert await reason_of(decoder, Content.MP4, usual[: len(usual) * 3 // 4]) is Reason.UNDECODABLE


async def test_an_encrypted_one_is_undecodable(decoder):
    data = media_bytes(tone(6.0, 16_000), 16_000, MP4)
    start, end = data.index(b"mdat") + 4, data.rindex(b"moov") - 4
    assert end - start < len(NOISE)
    assert await reason_of(decoder, Content.MP4, data[:start] + NOISE[: end - start] + data[end:]) is Reason.UNDECODABLE


async def test_more_audio_than_a_session_may_have_is_too_long(decoder):
    data = media_bytes(tone(20.0, 8000), 8000, next(m for m in MEDIA if m.muxer == "w64"))
    assert await reason_of(decoder, Content.WAVE64, data, hours=10 / 3600) is Reason.TOO_LONG


@pytest.mark.fault(12)
async def test_more_audio_than_such_an_object_can_hold_is_hostile(decoder):
    bomb = flac_bomb()
    assert len(bomb) < 20_000
    assert await reason_of(decoder, AudioFormat.FLAC, bomb, hours=6) is Reason.HOSTILE


def flac_bomb() -> bytes:
    """More than an hour of silence in frames of eight seconds, each of some twelve bytes."""
    sink = io.BytesIO()
    with av.open(sink, "w", format="flac") as out:
        stream = out.add_stream("flac", rate=8000, layout="mono", options={"frame_size": "65535"})
        out.start_encoding()
        resampler = av.AudioResampler(stream.format, "mono", 8000, frame_size=stream.codec_context.frame_size)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 65535 * 600), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        frame.pts = 0
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            out.mux(stream.encode(piece))
    return sink.getvalue()


@pytest.mark.fault(12)
async def test_an_index_that_is_chased_around_the_object_is_hostile(decoder, monkeypatch):
    monkeypatch.setattr(local_decoder_module, "FREE_BYTES", 0)
    monkeypatch.setattr(local_decoder_module, "READS_OF_ALL", 1)
    monkeypatch.setattr(local_decoder_module, "JUMP_BYTES", 1 << 20)
    data = media_bytes(tone(3.0, 16_000), 16_000, MP4, pictures=200)
    assert await reason_of(decoder, Content.MP4, data) is Reason.HOSTILE


@pytest.mark.fault(12)
async def test_a_header_that_wants_all_memory_ends_its_own_session_alone(tmp_path):
    async with LocalDecoder(Limits(address_space_bytes=64 << 20)) as cramped:
        assert await reason_of(cramped, Content.MP4, media_bytes(tone(1.0, 16_000), 16_000, MP4)) is Reason.HOSTILE


@pytest.mark.fault(12)
async def test_a_decoder_that_takes_too_long_is_ended_by_the_kernel():
    size = 2 << 30  # hours of silence, which cost no memory here
    head = wav(pcm_fmt(1, 16, rate=96_000), b"", size=size)

    async def read_from(offset: int) -> AsyncGenerator[bytes, None]:
        yield head[offset:]
        for _ in range(size >> 20):
            yield bytes(1 << 20)

    async def heard(hurried: LocalDecoder) -> None:
        source = SourceFormat(AudioFormat.WAV)
        async with hurried.decode(source, len(head) + size, read_from, most_seconds=100 * HOUR) as found:
            async for _ in found.pieces:
                pass

    async with LocalDecoder(Limits(cpu_seconds=1)) as hurried:
        with pytest.raises(DecoderDied, match="ended in the middle") as died:
            await heard(hurried)
    assert died.value.reason is Reason.HOSTILE


# -- children ---------------------------------------------------------------------------------------------------------------------------


def children(decoder: LocalDecoder) -> Iterator[int]:
    """The living children of the media process."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != decoder.pid:
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[2]) == decoder.pid and fields[0] != "Z":
                yield int(entry.name)


async def gone(decoder: LocalDecoder) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while list(children(decoder)):
            await asyncio.sleep(0.01)


LONG = SourceFormat(AudioFormat.S16LE, 16_000, 1)
LONG_BYTES = bytes(48 << 20)


@pytest.mark.fault(12)
async def test_a_stopped_decoder_is_ended_and_the_next_one_works():
    async with LocalDecoder(Limits(wall_seconds=0.5)) as decoder:

        async def listen() -> None:
            seen = Object(LONG_BYTES)
            async with decoder.decode(LONG, len(LONG_BYTES), seen.read_from, most_seconds=HOUR) as found:
                await anext(found.pieces)
                (child,) = children(decoder)
                os.kill(child, signal.SIGSTOP)
                async for _ in found.pieces:
                    pass

        with pytest.raises(DecoderDied, match=r"no sign of life for 0\.5 s"):
            await listen()
        await gone(decoder)
        assert len((await decoded(decoder, LONG, bytes(32_000)))[1]) == 16_000


@pytest.mark.fault(13)
async def test_a_decoder_that_crashes_ends_its_own_object_and_no_other(decoder):
    """Eight at once, of which one is hit by what a bad pointer brings."""
    hit = asyncio.Event()
    begun = asyncio.Barrier(8)

    async def listen(number: int) -> int:
        seen = Object(bytes(8 << 20))
        async with decoder.decode(LONG, len(seen.data), seen.read_from, most_seconds=HOUR) as found:
            size = len(await anext(found.pieces))
            await begun.wait()
            if number == 0:
                os.kill(min(children(decoder)), signal.SIGSEGV)
                hit.set()
            await hit.wait()
            async for piece in found.pieces:
                size += len(piece)
        return size

    ends = await asyncio.gather(*(listen(number) for number in range(8)), return_exceptions=True)
    assert [type(end) for end in ends if isinstance(end, Exception)] == [DecoderDied]
    assert [end for end in ends if isinstance(end, int)] == [8 << 20] * 7
    await gone(decoder)


async def test_a_media_process_that_dies_is_replaced_and_decoders_at_work_go_on():
    async with LocalDecoder() as decoder:
        seen = Object(bytes(8 << 20))
        async with decoder.decode(LONG, len(seen.data), seen.read_from, most_seconds=HOUR) as found:
            size = len(await anext(found.pieces))
            first = decoder.pid
            os.kill(first, signal.SIGKILL)
            async with asyncio.timeout(PATIENCE_S):
                while (second := await one_more(decoder)) is None:
                    await asyncio.sleep(0.01)
            async for piece in found.pieces:
                size += len(piece)
        assert size == 8 << 20
        assert second != first
    assert not (Path("/proc") / str(second)).exists()


async def one_more(decoder: LocalDecoder) -> int | None:
    """The process that decoded something; None where it had died in between."""
    try:
        await decoded(decoder, LONG, bytes(3200))
    except DecoderDied:
        return None
    return decoder.pid


async def test_cancelling_leaves_no_child(decoder):
    seen = Object(LONG_BYTES)
    begun = asyncio.Event()

    async def listen() -> None:
        async with decoder.decode(LONG, len(LONG_BYTES), seen.read_from, most_seconds=HOUR) as found, aclosing(found.pieces):
            async for _ in found.pieces:
                begun.set()

    task = asyncio.create_task(listen())
    await begun.wait()
    assert list(children(decoder))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gone(decoder)


async def test_nothing_is_started_for_a_run_that_decodes_nothing():
    async with LocalDecoder() as decoder:
        assert decoder.pid is None


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"no json\n",
        b"[1]\n",
        b'{"read": -1}\n',
        b'{"read": 99999999}\n',
        b'{"format": [11, 1]}\n',
        b'{"format": "loud"}\n',
        b'{"pcm": 10}\n',
        b'{"end": null, "detail": ""}\n',
        b'{"end": "deferred_quota", "detail": ""}\n',
        b'{"format": [16000, 1]}\n{"pcm": 99999999999}\n',
        b'{"format": [16000, 1]}\n{"pcm": 100}\nshort',
        b'{"format": [16000, 1]}\n{"format": [8000, 1]}\n',
        b"x" * (3 << 20),
    ],
)
async def test_whatever_a_child_that_is_taken_over_says_it_is_only_its_own_object_that_fails(said):
    reader = asyncio.StreamReader(limit=1 << 20)
    reader.feed_data(said)
    reader.feed_eof()
    seen = Object(bytes(1000))
    reading = local_decoder_module._Reading(seen.read_from, 1000)
    talk = local_decoder_module._Talk(reader, None, reading, 1000, 5.0)

    async def listen() -> None:
        talk.parameters(await talk.hear())
        async for _ in talk.pieces():
            pass

    with pytest.raises(DecoderDied):
        await listen()


@pytest.mark.skipif(not AUDIO.is_dir(), reason="the folder of real audio is not part of the project")
async def test_a_real_m4a_is_as_long_as_it_says(decoder):
    parameters, samples = await decoded(decoder, Content.MP4, (AUDIO / "speech-it-4.m4a").read_bytes())
    assert 1000 * len(samples) / parameters.sample_rate == pytest.approx(24_242, rel=0.01)


KILLED = """
import asyncio, os, signal
from pathlib import Path
from connectors.media.local_decoder import LocalDecoder
from moderation.transcoding import SourceFormat

async def zeros(offset):
    while True:
        yield bytes(1 << 16)

async def main():
    async with LocalDecoder() as decoder:
        async with decoder.decode(SourceFormat.parse("s16le:16000:1"), 1 << 40, zeros, most_seconds=3600) as found:
            await anext(found.pieces)
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit() and int(entry.name) != decoder.pid and os.getpgid(int(entry.name)) == decoder.pid:
                    os.kill(int(entry.name), signal.SIGSTOP)
            print(decoder.pid, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.fault(63)
async def test_nothing_outlives_a_killed_run_not_even_a_decoder_that_hangs():
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, stdout=subprocess.PIPE, cwd=ROOT)
    out, _ = await process.communicate()
    async with asyncio.timeout(PATIENCE_S):
        while is_group(int(out)):
            await asyncio.sleep(0.05)


def is_group(pid: int) -> bool:
    """Whether any process of the group is alive."""
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True
