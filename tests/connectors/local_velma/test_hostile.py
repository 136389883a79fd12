"""Hostile media and broken children behind the local server: one session's trouble, never the others'."""

import asyncio
import contextlib
import io
import json
import os
import random
import signal
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection

from connectors.local_velma.organisation import Organisation
from connectors.local_velma.server import local_velma
from connectors.media import Limits, MediaHost
from moderation.endpoints import ENDPOINTS
from velma_admin import FRAME, KEY, PATIENCE, analysed, streaming, the_rest

pytestmark = pytest.mark.net

TEXTS = {
    "The audio could not be processed. It may be corrupted or in an unsupported format.",
    "Audio data does not match the declared audio_format.",
}
CODECS = {"wav": "pcm_s16le", "mp3": "libmp3lame", "ogg": "libopus", "flac": "flac", "webm": "libopus", "aac": "aac", "aiff": "pcm_s16be"}

# -- children that stop and crash -------------------------------------------------------------------------------------------------------


def processes(parent: int, name: str) -> Iterator[int]:
    """The living processes whose parent and command line are these."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                if int(fields[1]) == parent and fields[0] != "Z" and name in (entry / "cmdline").read_text():
                    yield int(entry.name)


@asynccontextmanager
async def eight_sessions(wall_seconds: float) -> AsyncIterator[tuple[list[ClientConnection], list[int]]]:
    """Eight live sessions of a server of their own, and its eight children."""
    before = set(processes(os.getpid(), "connectors.media"))
    async with (
        local_velma(Organisation((KEY,)), detector="stub", limits=Limits(wall_seconds=wall_seconds)) as server,
        AsyncExitStack() as stack,
    ):
        (zygote,) = set(processes(os.getpid(), "connectors.media")) - before
        connections = [await stack.enter_async_context(streaming(server, list(ENDPOINTS)[number % 2])) for number in range(8)]
        yield connections, list(processes(zygote, "connectors.media"))


async def ends(connections: list[ClientConnection]) -> list[tuple[str, int | None]]:
    """The last message of each session, a type or an error, and its close code."""

    async def end(connection: ClientConnection) -> tuple[str, int | None]:
        await connection.send(FRAME * 25)
        await connection.send("")
        messages, code = await the_rest(connection)
        return messages[-1].get("error") or messages[-1]["type"], code

    return sorted(await asyncio.gather(*(end(connection) for connection in connections)))


UNDECODABLE = ("The audio could not be processed. It may be corrupted or in an unsupported format.", 4002)


@pytest.mark.fault(12)
async def test_a_stopped_child_ends_its_session_alone():
    async with eight_sessions(wall_seconds=3.0) as (connections, children):
        assert len(children) == 8
        os.kill(children[3], signal.SIGSTOP)
        assert await ends(connections) == [UNDECODABLE, *[("done", 1000)] * 7]


@pytest.mark.fault(13)
async def test_a_crashed_child_ends_its_session_alone():
    async with eight_sessions(wall_seconds=60.0) as (connections, children):
        os.kill(children[3], signal.SIGSEGV)
        assert await ends(connections) == [UNDECODABLE, *[("done", 1000)] * 7]


# -- media that lie ---------------------------------------------------------------------------------------------------------------------


def container(audio_format: str, seconds: float = 1.0, rate: int = 48000) -> bytes:
    sink = io.BytesIO()
    with av.open(sink, "w", format={"aac": "adts"}.get(audio_format, audio_format)) as out:
        stream = out.add_stream(CODECS[audio_format], rate=rate, layout="mono")
        sine = (8000 * np.sin(np.arange(int(seconds * rate)) / 20)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(sine[None, :], format="s16", layout="mono")
        frame.sample_rate = rate
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=rate, frame_size=stream.codec_context.frame_size or 1024)
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            out.mux(stream.encode(piece))
    return sink.getvalue()


def wav(channels: int, rate: int, bits: int, size: int = 0xFFFFFFFF, fmt_size: int = 16, coding: int = 1) -> bytes:
    width = bits // 8 * channels
    fmt = struct.pack("<HHIIHH", coding, channels, rate, rate * width & 0xFFFFFFFF, width & 0xFFFF, bits)
    return b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack("<I", fmt_size) + fmt + b"data" + struct.pack("<I", size) + bytes(200_000)


def flac_of_another_header(**fields: int) -> bytes:
    """A FLAC whose STREAMINFO says another rate or number of samples."""
    data = bytearray(container("flac"))
    packed = int.from_bytes(data[18:26], "big")
    if "rate" in fields:
        packed = packed & ~(0xFFFFF << 44) | fields["rate"] << 44
    if "samples" in fields:
        packed = packed & ~0xFFFFFFFFF | fields["samples"]
    data[18:26] = packed.to_bytes(8, "big")
    return bytes(data)


def aiff_at(rate: bytes) -> bytes:
    common = struct.pack(">hIh", 1, 0xFFFFFFFF, 16) + rate
    return b"FORM\xff\xff\xff\xffAIFFCOMM" + struct.pack(">I", 18) + common + b"SSND\xff\xff\xff\xff" + bytes(100_000)


LIARS = {
    "no channels": ("wav", wav(0, 8000, 16)),
    "65,535 channels": ("wav", wav(65535, 8000, 8)),
    "4 GHz": ("wav", wav(1, 0xFFFFFFFF, 16)),
    "1 Hz": ("wav", wav(1, 1, 8)),
    "bits of none": ("wav", wav(1, 8000, 0)),
    "a header of 2 GB": ("wav", wav(1, 8000, 16, fmt_size=0x7FFFFFFF)),
    "a coding of none": ("wav", wav(1, 8000, 16, coding=0x7777)),
    "samples before their format": ("wav", b"RIFF\0\0\0\0WAVEdata\xff\xff\xff\xff" + bytes(1000)),
    "an endless chunk": ("wav", b"RIFF\0\0\0\0WAVEJUNK\xff\xff\xff\xff" + bytes(1000)),
    "infinitely many Hz": ("aiff", aiff_at(b"\x7f\xff" + bytes(8))),
    "minus 8 kHz": ("aiff", aiff_at(struct.pack(">HQ", 0xC00B, 8000 << 51))),
    "a tag of 256 MB": ("mp3", b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + bytes(100_000)),
    "a picture of 16 MB": ("flac", b"fLaC\x06\xff\xff\xff" + bytes(100_000)),
    "sizes of none": ("webm", b"\x1a\x45\xdf\xa3\x01\xff\xff\xff\xff\xff\xff\xff" * 500),
    "nested for ever": ("webm", b"\x1a\x45\xdf\xa3\x9f" + b"\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff" * 2000),
    "a page of no stream": ("ogg", b"OggS\0\x02" + b"\xff" * 20 + b"\xff" * 60_000),
    "an aac of sync words": ("aac", b"\xff\xf1" * 20_000),
    "an mp3 of sync words": ("mp3", b"\xff\xfb\xe0\x64" * 20_000),
}


@pytest.mark.fault(12)
@pytest.mark.parametrize("liar", LIARS)
async def test_lies_are_undecodable(admin, liar):
    audio_format, data = LIARS[liar]
    (*_, error), code = await analysed(admin.server, data, audio_format=audio_format)
    assert (error.get("error") in TEXTS, code) == (True, 4002), error


@pytest.mark.fault(12)
@pytest.mark.parametrize(
    "data", [flac_of_another_header(samples=(1 << 36) - 1), flac_of_another_header(rate=1), wav(1, 8000, 16, size=1), wav(64, 768_000, 64)]
)
async def test_small_lies_are_heard_or_not_but_soon(admin, data):
    (*_, last), code = await analysed(admin.server, data, audio_format="flac" if data.startswith(b"fLaC") else "wav")
    assert (last["type"], code) in {("done", 1000), ("error", 4002)}
    if last["type"] == "done":
        assert last["duration_ms"] <= 20_000


@pytest.mark.fault(12)
async def test_a_bomb_ends_at_the_cap(admin):
    """Silence costs next to nothing to send, and is audio all the same."""
    sink = io.BytesIO()
    with av.open(sink, "w", format="flac") as out:
        stream = out.add_stream("flac", rate=8000, layout="mono")
        for _ in range(60):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
            frame.sample_rate = 8000
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    await admin.switch(max_session_hours=0.01)
    (*frames, error), code = await analysed(admin.server, sink.getvalue(), audio_format="flac")
    assert (len(frames), error["type"], code) == (36_000 // 192, "error", 4002)


def fuzzed(seed: int) -> tuple[str, bytes]:
    """A container in which chance has changed something, mostly near its beginning."""
    chance = random.Random(seed)
    audio_format = chance.choice(sorted(CODECS))
    data = bytearray(BASES.setdefault(audio_format, container(audio_format)))
    for _ in range(chance.choice([1, 3, 10, 100])):
        at = chance.randrange(min(len(data), chance.choice([64, 512, len(data)])))
        match chance.randrange(4):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                data[at : at + 4] = b"\xff\xff\xff\xff"
            case 2:
                del data[at : at + chance.randrange(50)]
            case 3:
                data[at:at] = chance.randbytes(chance.randrange(50))
    return audio_format, bytes(data)


BASES: dict[str, bytes] = {}


@pytest.mark.fault(12)
@pytest.mark.parametrize("round_", range(3))
async def test_fuzzed_media(admin, round_):
    """Whatever it is: a summary or a published text, and the server goes on."""

    async def outcome(seed: int) -> tuple[str, int | None]:
        audio_format, data = fuzzed(seed)
        (*_, last), code = await analysed(admin.server, data, audio_format=audio_format)
        assert last["type"] == "done" or last["error"] in TEXTS
        return last["type"], code

    outcomes = await asyncio.gather(*(outcome(12 * round_ + number) for number in range(12)))
    assert set(outcomes) <= {("done", 1000), ("error", 4002)}
    assert (await analysed(admin.server, FRAME))[1] == 1000


@pytest.mark.torture
async def test_much_fuzzed_media():
    """Without the server: every child says a last word, none crashes, none takes long."""
    async with MediaHost(["connectors.local_velma.analysis"]) as host:

        async def last_word(seed: int) -> str:
            audio_format, data = fuzzed(seed)
            options = {"endpoint": "music", "audio_format": audio_format, "detector": "stub"}
            async with asyncio.timeout(PATIENCE), host.open("connectors.local_velma.analysis:run", options) as (reader, writer):
                writer.write(data)
                writer.write_eof()
                return json.loads((await reader.read()).splitlines()[-1])["type"]

        words = [word for batch in range(125) for word in await asyncio.gather(*(last_word(16 * batch + number) for number in range(16)))]
    assert set(words) == {"done", "error"}
    assert min(words.count("done"), words.count("error")) > 500


# -- many at once -----------------------------------------------------------------------------------------------------------------------


async def test_twenty_five_sessions_at_once(admin):
    """All of them go on together, a frame each at a time, and whoever asks meanwhile is answered."""
    base = admin.server.admin_url.removesuffix("admin/")
    names = list(ENDPOINTS)
    async with AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(streaming(admin.server, names[number % 2])) for number in range(25)]

        async def one_more(connection: ClientConnection) -> str:
            await connection.send(FRAME * 21)  # a window and more, or 21 frames
            return json.loads(await connection.recv())["type"]

        for _ in range(4):
            said = await asyncio.gather(*(one_more(connection) for connection in sessions))
            assert said == ["frame" if number % 2 == 0 else "window" for number in range(25)]
            assert sum(part["live"] for part in (await admin.get("usage"))["endpoints"].values()) == 25
            async with admin.browser.get(base) as page:
                assert page.status == 200
        assert len((await admin.get("sessions"))["sessions"]) == 25
        for connection in sessions:
            await connection.send("")
        endings = await asyncio.gather(*(the_rest(connection) for connection in sessions))
    assert {code for _, code in endings} == {1000}
    assert [messages[-1] for messages, _ in endings] == [endings[number % 2][0][-1] for number in range(25)]
    await admin.all_free()
    assert (await admin.get("usage"))["endpoints"]["music"]["peak"] == 13
