"""Files that have fooled decoders: all of their audio is heard, or they are refused with one of the two texts; never does one hang."""

import asyncio
import io
import json
import struct
from collections.abc import Callable
from functools import cache

import av
import numpy as np
import pytest

from audio_files import CODINGS, aiff, chunk, container_bytes, pcm_fmt, raw_bytes, tone, wav
from both_endpoints import Digester, in_pieces, said
from connectors.local_velma.analysis import CORRUPTED, MISMATCH
from moderation.formats import AudioFormat, StreamParameters
from plain_client import conversation, in_chunks

MEGABYTES = 3_000_000
PACKET_MS = 130
"""No codec here has longer packets: by so much files may be shorter or longer than their audio."""
EITHER = None
"""Heard as far as it goes, or refused: there is something that a decoder may or may not take for audio."""
GARBAGE = np.random.default_rng(1).bytes(3000)
LENGTH_OF_TAG = 4
"""Bytes, of which seven bits count."""


def s16(seconds: float = 1.0) -> bytes:
    return raw_bytes(tone(seconds, 8000), AudioFormat.S16LE)


def raw(audio_format: str) -> bytes:
    return raw_bytes(tone(1, 8000), AudioFormat(audio_format))


@cache
def file(name: str, seconds: float = 1.0, rate: int | None = None, channels: int | None = None, **options: str) -> bytes:
    coding = next(coding for coding in CODINGS if str(coding) == name)
    rate = rate or coding.rates[0]
    return container_bytes(tone(seconds, rate, channels or coding.channels[0]), rate, coding, **options)


def id3(size: int) -> bytes:
    """An ID3v2 tag with a picture of so many bytes, which has sync words in it."""
    body = b"APIC" + struct.pack(">IH", size, 0) + (b"\xff\xfb\x90\x00\xff\xf8\xc9\x18" * (size // 8 + 1))[:size]
    return b"ID3\x03\0\0" + bytes(len(body) >> 7 * place & 0x7F for place in reversed(range(LENGTH_OF_TAG))) + body


def with_picture(flac: bytes, size: int, claimed: int | None = None) -> bytes:
    """The same with a PICTURE block behind its STREAMINFO."""
    block = b"\x06" + (claimed or size).to_bytes(3, "big") + (b"\xff\xf8\xc9\x18" * (size // 4 + 1))[:size]
    return flac[:42] + block + flac[42:]


def wav_of(codec: str) -> bytes:
    sink = io.BytesIO()
    with av.open(sink, "w", format="wav") as out:
        stream = out.add_stream(codec, rate=8000, layout="mono")
        out.start_encoding()
        frame = av.AudioFrame.from_ndarray(np.frombuffer(s16(), np.int16).reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = 8000
        resampler = av.AudioResampler(stream.format, "mono", 8000, frame_size=stream.codec_context.frame_size or 1024)
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            out.mux(stream.encode(piece))
    return sink.getvalue()


def spoiled(data: bytes, at: float, size: int) -> bytes:
    """The same with some bytes zeroed."""
    start = round(at * len(data))
    return data[:start] + bytes(size) + data[start + size :]


def inserted(data: bytes, at: float, junk: bytes) -> bytes:
    start = round(at * len(data))
    return data[:start] + junk + data[start:]


PCM = pcm_fmt(1, 16)
EXTENSIBLE_24 = struct.pack("<HHIIHHHHI", 0xFFFE, 1, 8000, 24000, 3, 24, 22, 24, 4) + struct.pack("<H", 1) + bytes(14)
OPUS, VORBIS, OGG_FLAC = "ogg-libopus", "ogg-vorbis", "ogg-flac"
MP3, AAC, FLAC, WEBM = "mp3-libmp3lame", "aac-aac", "flac-flac", "webm-libopus"

ODD: dict[str, tuple[str, Callable[[], bytes], int | str | None]] = {
    "wav: a JUNK chunk in front": ("wav", lambda: wav(PCM, s16(), before=chunk(b"JUNK", bytes(28))), 1000),
    "wav: a bext chunk of odd length": ("wav", lambda: wav(PCM, s16(), before=chunk(b"bext", bytes(603))), 1000),
    "wav: an id3 chunk of megabytes": ("wav", lambda: wav(PCM, s16(), before=chunk(b"id3 ", id3(MEGABYTES))), 1000),
    "wav: fact before float samples": ("wav", lambda: wav(pcm_fmt(3, 32), raw("f32le"), before=chunk(b"fact", bytes(4))), 1000),
    "wav: 64-bit float": ("wav", lambda: wav(pcm_fmt(3, 64), raw("f64le")), 1000),
    "wav: 64-bit integers": ("wav", lambda: wav(pcm_fmt(1, 64), bytes(64_000)), CORRUPTED.error),
    "wav: extensible, 24 bit": ("wav", lambda: wav(EXTENSIBLE_24, raw("s24le")), 1000),
    "wav: mp3 in it": ("wav", lambda: wav_of("libmp3lame"), 1150),
    "wav: adpcm in it": ("wav", lambda: wav_of("adpcm_ms"), 1000),
    "wav: live, size 0": ("wav", lambda: wav(PCM, s16(), size=0), 1000),
    "wav: live, size -1": ("wav", lambda: wav(PCM, s16(), size=0xFFFFFFFF), 1000),
    "wav: a size that is too large": ("wav", lambda: wav(PCM, s16(), size=1 << 31), 1000),
    "wav: odd bytes at the end": ("wav", lambda: wav(PCM, s16() + b"\x01", size=16001) + b"\x02", 1000),
    "wav: a list behind the samples": ("wav", lambda: wav(PCM, s16()) + chunk(b"LIST", bytes(MEGABYTES)), 1000),
    "wav: samples before their format": ("wav", lambda: b"RIFF\0\0\0\0WAVE" + chunk(b"data", s16()) + chunk(b"fmt ", PCM), CORRUPTED.error),
    "wav: nothing but a header": ("wav", lambda: wav(PCM, b""), CORRUPTED.error),
    "wav: half a header": ("wav", lambda: wav(PCM, s16())[:30], CORRUPTED.error),
    "wav: a chunk that never ends": ("wav", lambda: wav(PCM, s16(), before=b"JUNK\xf0\xff\xff\xff"), CORRUPTED.error),
    "wav: no channels": ("wav", lambda: wav(pcm_fmt(1, 16, 0), s16()), CORRUPTED.error),
    "wav: no rate": ("wav", lambda: wav(pcm_fmt(1, 16, 1, 0), s16()), CORRUPTED.error),
    "wav: big-endian": ("wav", lambda: b"RIFX" + wav(PCM, s16())[4:], MISMATCH.error),
    "aiff: sowt": ("aiff", lambda: aiff(s16(), 16, b"sowt"), 1000),
    "aiff: sowt, 24 bit": ("aiff", lambda: aiff(raw("s24le"), 24, b"sowt"), 1000),
    "aiff: raw": ("aiff", lambda: aiff(raw("u8"), 8, b"raw "), 1000),
    "aiff: in24": ("aiff", lambda: aiff(raw("s24be"), 24, b"in24"), 1000),
    "aiff: fl64": ("aiff", lambda: aiff(raw("f64be"), 64, b"FL64"), 1000),
    "aiff: alaw": ("aiff", lambda: aiff(raw("alaw"), 16, b"alaw"), 1000),
    "aiff: samples at an offset": ("aiff", lambda: aiff(raw("s16be"), 16, offset=1002), 1000),
    "aiff: a name of odd length": ("aiff", lambda: aiff(raw("s16be"), 16, before=b"NAME\0\0\0\x03abc\0"), 1000),
    "aiff: an unknown coding": ("aiff", lambda: aiff(raw("s16be"), 16, b"zzzz"), CORRUPTED.error),
    "aiff: nothing but a header": ("aiff", lambda: aiff(b"", 16), CORRUPTED.error),
    "mp3: cover art of megabytes": ("mp3", lambda: id3(MEGABYTES) + file(MP3), 1000),
    "mp3: two tags in front": ("mp3", lambda: id3(1000) + id3(50_000) + file(MP3), 1000),
    "mp3: an old tag at the end": ("mp3", lambda: file(MP3) + b"TAG" + bytes(125), 1000),
    "mp3: zeros in front": ("mp3", lambda: bytes(3000) + file(MP3), 1150),
    "mp3: garbage at the end": ("mp3", lambda: file(MP3) + GARBAGE, 1100),
    "mp3: begun in the middle": ("mp3", lambda: file(MP3, 3.0)[-2500:], 2500),
    "mp3: nothing but a tag": ("mp3", lambda: id3(MEGABYTES), CORRUPTED.error),
    "flac: cover art of megabytes": ("flac", lambda: with_picture(file(FLAC), MEGABYTES), 1000),
    "flac: a tag of megabytes in front": ("flac", lambda: id3(MEGABYTES) + id3(10) + file(FLAC), 1000),
    "flac: an old tag at the end": ("flac", lambda: file(FLAC) + b"TAG" + bytes(125), 1000),
    "flac: zeros in the middle": ("flac", lambda: spoiled(file(FLAC, 2.0), 0.7, 400), 1900),
    "flac: two of them": ("flac", lambda: file(FLAC) * 2, 2000),
    "flac: cut off": ("flac", lambda: file(FLAC)[:-300], 900),
    "flac: cover art that never ends": ("flac", lambda: with_picture(file(FLAC), 1000, claimed=1 << 23), CORRUPTED.error),
    "flac: nothing but a header": ("flac", lambda: file(FLAC)[:8300], CORRUPTED.error),
    "flac: no STREAMINFO": ("flac", lambda: b"fLaC" + file(FLAC)[42:], CORRUPTED.error),
    "flac: garbage for frames": ("flac", lambda: file(FLAC)[:8300] + GARBAGE * 20, EITHER),
    "aac: a tag of megabytes in front": ("aac", lambda: id3(MEGABYTES) + file(AAC), 1150),
    "aac: garbage at the end": ("aac", lambda: file(AAC, 12.0) + GARBAGE, 12_100),
    "aac: zeros at the end": ("aac", lambda: file(AAC, 12.0) + bytes(5000), 12_100),
    "aac: junk in the middle": ("aac", lambda: inserted(file(AAC), 0.5, b"junk" * 20), 1050),
    "aac: cut off": ("aac", lambda: file(AAC)[:-50], 1050),
    "aac: another rate from the middle on": ("aac", lambda: file(AAC) + file(AAC, rate=48000), 2150),
    "aac: a tag of megabytes alone": ("aac", lambda: id3(MEGABYTES), MISMATCH.error),
    "ogg: chained opus": ("ogg", lambda: file(OPUS) + file(OPUS, serial_offset="7"), 2000),
    "ogg: chained vorbis": ("ogg", lambda: file(VORBIS) + file(VORBIS, serial_offset="7"), 2000),
    "ogg: chained flac": ("ogg", lambda: file(OGG_FLAC) + file(OGG_FLAC, serial_offset="7"), 2000),
    "ogg: vorbis chained to another rate": ("ogg", lambda: file(VORBIS) + file(VORBIS, rate=44100), 2000),
    "ogg: flac chained to another rate": ("ogg", lambda: file(OGG_FLAC) + file(OGG_FLAC, rate=22050), 2000),
    "ogg: mono chained to stereo": ("ogg", lambda: file(OPUS) + file(OPUS, channels=2), 2000),
    "ogg: three codecs": ("ogg", lambda: file(OPUS) + file(VORBIS) + file(OGG_FLAC), 3000),
    "ogg: the next one cut off": ("ogg", lambda: file(OPUS) + file(VORBIS)[:100], 1000),
    "ogg: the next one is spoiled": (
        "ogg",
        lambda: file(OPUS) + file(OPUS)[:28] + bytes(8) + file(OPUS)[36:] + file(OPUS),
        CORRUPTED.error,
    ),
    "ogg: begun in the middle": ("ogg", lambda: file(OPUS)[-3000:], MISMATCH.error),
    "ogg: the same stream twice": ("ogg", lambda: file(OPUS) * 2, 2000),
    "ogg: junk between pages": ("ogg", lambda: inserted(file(OPUS), 0.5, GARBAGE), 900),
    "ogg: zeros at the end": ("ogg", lambda: file(OPUS) + bytes(5000), 1000),
    "ogg: nothing but headers": ("ogg", lambda: file(OPUS)[:200], CORRUPTED.error),
    "webm: live, without sizes and cues": ("webm", lambda: file(WEBM, live="1"), 1000),
    "webm: cues in front": ("webm", lambda: file(WEBM, cues_to_front="1", reserve_index_space="500"), 1000),
    "webm: cut off": ("webm", lambda: file(WEBM)[: len(file(WEBM)) // 2], 500),
    "webm: zeros at the end": ("webm", lambda: file(WEBM) + bytes(5000), 1000),
    "webm: junk in the middle": ("webm", lambda: inserted(file(WEBM, 3.0), 0.5, GARBAGE), EITHER),
    "webm: nothing but headers": ("webm", lambda: file(WEBM)[:200], CORRUPTED.error),
}


@pytest.mark.parametrize("name", ODD)
def test_it_is_heard_or_refused(name):
    audio_format, make, expected = ODD[name]
    data = make()
    texts = said(in_pieces(data, len(data)), StreamParameters.of(audio_format), Digester)
    assert said(in_pieces(data, 1 + len(data) // 3000), StreamParameters.of(audio_format), Digester) == texts
    last = json.loads(texts["ai_music"][-1])
    if isinstance(expected, int):
        assert last["duration_ms"] == pytest.approx(expected, abs=PACKET_MS)
        assert json.loads(texts["music"][-1])["frame_count"] == last["duration_ms"] // 192
    elif expected is EITHER:
        assert last["type"] == "done" or last["error"] in {MISMATCH.error, CORRUPTED.error}
    else:
        assert last["error"] == expected


@pytest.mark.net
@pytest.mark.parametrize("endpoint", ["music", "ai_music"])
@pytest.mark.parametrize(
    "name",
    ["mp3: cover art of megabytes", "flac: cover art of megabytes", "aac: zeros at the end", "ogg: chained opus", "mp3: nothing but a tag"],
)
async def test_it_is_heard_or_refused_on_the_wire(velma, endpoint, name):
    audio_format, make, expected = ODD[name]
    data = make()
    async with asyncio.timeout(60):
        texts, code = await conversation(velma.url, endpoint, {"audio_format": audio_format}, in_chunks(data))
    assert texts == said(in_pieces(data, len(data)), StreamParameters.of(audio_format))[endpoint]
    assert code == (1000 if isinstance(expected, int) else 4002)
