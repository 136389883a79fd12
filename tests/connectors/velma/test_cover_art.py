"""Files that begin with megabytes of cover art: nothing is acknowledged for as long as the service sees no audio."""

import asyncio
import struct
import sys
import time
from functools import partial

import numpy as np
import pytest

from audio_files import CODINGS, container_bytes, tone
from connectors.velma import exchange
from moderation.formats import AudioFormat, StreamParameters
from moderation.pacing import AckWindow
from velma_services import MUSIC, client_of, pieces

pytestmark = pytest.mark.net

RATE = 16_000


def encoded(audio_format: AudioFormat, seconds: float) -> bytes:
    coding = next(coding for coding in CODINGS if coding.audio_format is audio_format)
    return container_bytes(tone(seconds, RATE), RATE, coding)


def picture(size: int) -> bytes:
    return b"\xff\xd8\xff\xe0" + np.random.default_rng(1).bytes(size) + b"\xff\xd9"


def mp3_with_cover(size: int, seconds: float) -> bytes:
    """ID3v2.3 with one APIC frame before the audio."""
    body = b"\0image/jpeg\0\x03\0" + picture(size)
    frame = struct.pack(">4sIH", b"APIC", len(body), 0) + body
    length = bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + length + frame + encoded(AudioFormat.MP3, seconds)


def flac_with_cover(size: int, seconds: float) -> bytes:
    """A PICTURE block after STREAMINFO."""
    file = encoded(AudioFormat.FLAC, seconds)
    start = 8 + int.from_bytes(file[5:8])
    image = picture(size)
    body = struct.pack(">II10sIIIIII", 3, 10, b"image/jpeg", 0, 500, 500, 24, 0, len(image)) + image
    return file[:4] + bytes([file[4] & 0x7F]) + file[5:start] + bytes([6]) + len(body).to_bytes(3) + body + file[start:]


COVERS = {AudioFormat.MP3: mp3_with_cover, AudioFormat.FLAC: flac_with_cover}


@pytest.mark.parametrize("audio_format", COVERS)
async def test_a_cover_that_is_larger_than_the_window(velma, monkeypatch, audio_format):
    monkeypatch.setattr(exchange, "AckWindow", partial(AckWindow, patience_s=0.01))
    file = COVERS[audio_format](700_000, seconds=10)
    client = client_of(velma.url, window_bytes=256 * 1024)
    result = await client.analyse(MUSIC, StreamParameters(audio_format), pieces(file, 1 << 18), expected_ms=10_000)
    assert (len(result.columns), result.flags, result.close_code) == (52, frozenset(), 1000)


@pytest.mark.torture
@pytest.mark.timeout(600)
async def test_covers_of_megabytes_with_every_setting_as_it_is(velma, capsys):
    async def session(audio_format: AudioFormat) -> float:
        file = COVERS[audio_format](5 << 20, seconds=60)
        began = time.monotonic()
        result = await client_of(velma.url).analyse(MUSIC, StreamParameters(audio_format), pieces(file, 1 << 18), expected_ms=60_000)
        assert (len(result.columns), result.flags, result.close_code) == (312, frozenset(), 1000)
        return time.monotonic() - began

    took = await asyncio.gather(*map(session, COVERS))
    with capsys.disabled():
        sys.stdout.write(f"\n5 MiB of cover before a minute of audio: {', '.join(f'{each:.0f} s' for each in took)}\n")
