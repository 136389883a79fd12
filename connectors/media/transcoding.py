"""One object decoded to s16le: what runs in a media child of a scan. It asks for the bytes that it wants, and says what they become.

What it writes is JSON, a line each, and a reply is awaited for `read` alone:

    {"read": OFFSET}              the bytes from there on are wanted; the reply is their number (4 bytes, big-endian) and as many of them
    {"format": [RATE, CHANNELS]}  what the samples will be, before the first of them
    {"pcm": SIZE}                 so many bytes of s16le follow the line
    {"end": null}                 that was all; else the reason why not, with "detail"
"""

import json
from collections.abc import Iterator
from io import SEEK_CUR, SEEK_END, SEEK_SET
from typing import Any, BinaryIO

import av
import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from connectors.media.decoding import BeyondCaps, Caps, DecodeFailed, NoAudioStream, Unseekable, capped, decode, decode_container
from connectors.media.headers import NotThisFormat
from connectors.media.pcm import PcmBlock, PcmLayout, Samples, decode_pcm
from connectors.media.source import ByteSource
from moderation.estimates import MIN_BITS_PER_SECOND
from moderation.formats import StreamParameters
from moderation.outcomes import Reason
from moderation.sniffing import Content
from moderation.transcoding import SourceFormat, decoded_parameters

DEMUXERS = {
    Content.MP4: "mov",
    Content.WMA: "asf",
    Content.MATROSKA: "matroska",
    Content.CAF: "caf",
    Content.AMR: "amr",
    Content.MPEG_VIDEO: "mpeg",
    Content.AVI: "avi",
    Content.WAVE64: "w64",
    Content.MP2: "mp3",
}
"""FFmpeg's names. What an object was sniffed as is taken at its word: no demuxer is ever guessed, nor any that would open other files."""
SEEKING = frozenset({Content.MP4, Content.CAF})
"""What may have its index behind its samples. The others are read on from their first byte to their last."""
PCM_BYTES = 32 * 1024
"""What is said at once, about a second: an FFmpeg frame has some 20 ms."""
DOUBT_SECONDS = 60.0
"""Audio that any object may have, however short."""
_FULL_SCALE = 1 << 15
_LAYOUTS = ("mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1")
"""By the number of channels. Their places say nothing here: no channel is mixed into another by them."""


def run(source: BinaryIO, sink: BinaryIO, *, decoded: str, size_bytes: int, most_seconds: float) -> None:
    """Decode an object of so many bytes that is of the SourceFormat `decoded`, and say in the end whether that was all of it.

    More than most_seconds of audio is `too_long`; more than such an object can hold, by MIN_BITS_PER_SECOND, is `hostile`.
    """
    sayer = _Sayer(sink)
    plausible = size_bytes * 8 / MIN_BITS_PER_SECOND + DOUBT_SECONDS
    caps = Caps(seconds=min(most_seconds, plausible))
    try:
        _say_samples(sayer, _blocks(Requested(source, sayer, size_bytes), SourceFormat.parse(decoded), caps))
    except MemoryError:
        sayer.end(Reason.HOSTILE, "decoding it takes more memory than a decoder may use")
    except BeyondCaps as error:
        sayer.end(Reason.TOO_LONG if most_seconds <= plausible else Reason.HOSTILE, f"decoded here it is {error}")
    except (DecodeFailed, NotThisFormat, av.error.FFmpegError) as error:
        silent = isinstance(error, NoAudioStream) or isinstance(error.__cause__, NoAudioStream)
        sayer.end(Reason.NO_AUDIO_TRACK if silent else Reason.UNDECODABLE, f"decoded here: {error}")
    else:
        sayer.end()


def _blocks(requested: "Requested", source: SourceFormat, caps: Caps) -> Iterator[PcmBlock]:
    kind = source.kind
    if isinstance(kind, Content):
        file = requested if kind in SEEKING else Unseekable(requested.read)
        yield from capped(decode_container(file, DEMUXERS[kind]), caps)
    elif source.sample_rate is not None and source.num_channels is not None:
        layout = PcmLayout(kind, source.sample_rate, source.num_channels)
        yield from capped(decode_pcm(ByteSource(requested.read), layout, None), caps)
    else:
        yield from decode(requested.read, StreamParameters(kind), caps)


def _say_samples(sayer: "_Sayer", blocks: Iterator[PcmBlock]) -> None:
    encoder: Encoder | None = None
    held = bytearray()
    for block in blocks:
        if len(block.samples) == 0:
            continue
        if encoder is None:
            encoder = Encoder(decoded_parameters(block.rate, block.samples.shape[1]))
            sayer.say({"format": [encoder.rate, encoder.channels]})
        held += encoder.push(block)
        if len(held) >= PCM_BYTES:
            sayer.samples(held)
            held.clear()
    if encoder is None:
        raise DecodeFailed("not one sample")
    sayer.samples(held + encoder.rest())


class _Sayer:
    """What the parent is told."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink

    def say(self, message: dict[str, Any]) -> None:
        self._sink.write(json.dumps(message).encode() + b"\n")
        self._sink.flush()

    def samples(self, pcm: bytes | bytearray) -> None:
        for start in range(0, len(pcm), PCM_BYTES):
            part = pcm[start : start + PCM_BYTES]
            self._sink.write(b'{"pcm": %d}\n' % len(part) + part)
        self._sink.flush()

    def end(self, reason: Reason | None = None, detail: str = "") -> None:
        self.say({"end": reason and reason.value, "detail": detail})


class Requested:
    """The object as a file that can be read anywhere: of it no more than one piece is held."""

    def __init__(self, source: BinaryIO, sayer: _Sayer, size: int) -> None:
        self._source = source
        self._sayer = sayer
        self._size = size
        self._place = 0
        self._start = 0
        self._piece = b""

    def read(self, size: int) -> bytes:
        """Up to so many bytes; none only at the end."""
        at = self._place - self._start
        if not 0 <= at < len(self._piece) and self._place < self._size:
            self._fetch()
            at = 0
        data = self._piece[at : at + size] if self._place < self._size else b""
        self._place += len(data)
        return data

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Where the next read begins. Raises ValueError in front of the first byte."""
        base = {SEEK_SET: 0, SEEK_CUR: self._place, SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("there is nothing in front of the first byte")
        self._place = base + offset
        return self._place

    def tell(self) -> int:
        """Where that is."""
        return self._place

    def _fetch(self) -> None:
        self._sayer.say({"read": self._place})
        size = int.from_bytes(self._exactly(4), "big")
        self._piece, self._start = self._exactly(size), self._place
        if not self._piece:
            raise ConnectionError("the parent gave nothing")

    def _exactly(self, size: int) -> bytes:
        data = self._source.read(size)
        if len(data) < size:
            raise ConnectionError("the parent has gone")
        return data


class Encoder:
    """Blocks of any rate and channels as s16le of one: a stream may change both, a session cannot."""

    def __init__(self, parameters: StreamParameters) -> None:
        assert parameters.sample_rate, "raw audio has a rate"
        assert parameters.num_channels, "and channels"
        self.rate, self.channels = parameters.sample_rate, parameters.num_channels
        self._from = self.rate
        self._resampler: AudioResampler | None = None

    def push(self, block: PcmBlock) -> bytes:
        """The bytes of a block, as far as they are settled."""
        before = b""
        if block.rate != self._from:
            before, self._from = self.rest(), block.rate
            if block.rate != self.rate:
                self._resampler = AudioResampler("flt", _LAYOUTS[self.channels - 1], self.rate)
        samples = block.samples
        if samples.shape[1] != self.channels:
            samples = np.repeat(samples.mean(axis=1, dtype=np.float32, keepdims=True), self.channels, axis=1)
        return before + (_s16le(samples) if self._resampler is None else self._resampled(samples))

    def rest(self) -> bytes:
        """What a resampler still holds."""
        rest = b"" if self._resampler is None else self._resampled(None)
        self._resampler = None
        return rest

    def _resampled(self, samples: Samples | None) -> bytes:
        assert self._resampler is not None, "only called with one"
        frame = None
        if samples is not None:
            packed = np.ascontiguousarray(samples).reshape(1, -1)
            frame = AudioFrame.from_ndarray(packed, format="flt", layout=_LAYOUTS[self.channels - 1])
            frame.sample_rate = self._from
        frames = self._resampler.resample(frame)
        return b"".join(_s16le(np.frombuffer(memoryview(each.planes[0]), np.float32, each.samples * self.channels)) for each in frames)


def _s16le(samples: Samples) -> bytes:
    return np.clip(np.rint(samples * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1).astype("<i2").tobytes()
