"""A sound of known length and content in every format that the service takes: raw by numpy, G.711 and containers by FFmpeg."""

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass

import av
import numpy as np
from numpy.typing import NDArray

from moderation.formats import SAMPLE_RATES, AudioFormat

Samples = NDArray[np.float64]
"""Of -1 to 1, a row for each moment, a column for each channel."""

TONE_HZ = 500
"""96 periods in 192 ms: each frame of the music endpoint has all of its power in one line of its spectrum."""
STEP = 1 / 128
"""What 8 bits can tell apart: samples that are multiples of it are the same in every format but the two of G.711."""
AMPLITUDE = 15 * STEP


def tone(seconds: float, rate: int, channels: int = 1) -> Samples:
    """A sine of AMPLITUDE, in multiples of STEP, as the mean of the channels: all of it is in the last one, so many times as loud."""
    mono = np.round(AMPLITUDE / STEP * np.sin(2 * np.pi * TONE_HZ * np.arange(round(seconds * rate)) / rate)) * STEP
    samples = np.zeros((len(mono), channels))
    samples[:, -1] = mono * channels
    return samples


# -- raw --------------------------------------------------------------------------------------------------------------------------------


def raw_bytes(samples: NDArray[np.floating], audio_format: AudioFormat) -> bytes:
    """Samples as one of the 20 raw formats; those that its integers cannot tell are rounded."""
    silence = _coded(np.zeros(1), audio_format)
    coded = np.empty((*samples.shape, audio_format.sample_bytes), np.uint8)
    for channel, column in enumerate(samples.T):
        coded[:, channel] = _coded(column, audio_format) if column.any() else silence
    return coded.tobytes()


def _coded(column: NDArray[np.floating], audio_format: AudioFormat) -> NDArray[np.uint8]:
    """One channel, a row of bytes for each sample."""
    order = ">" if audio_format.endswith("be") else "<"
    size = audio_format.sample_bytes
    if audio_format in {AudioFormat.MULAW, AudioFormat.ALAW}:
        return _companded(_integers(column, 16), audio_format)
    if audio_format[0] == "f":
        return column.astype(f"{order}f{size}").view(np.uint8).reshape(-1, size)
    values = _integers(column, 8 * size) + (0 if audio_format[0] == "s" else 1 << 8 * size - 1)
    eight = values.astype(f"{order}i8").view(np.uint8).reshape(-1, 8)
    return eight[:, -size:] if order == ">" else eight[:, :size]


def _integers(samples: NDArray[np.floating], bits: int) -> NDArray[np.int64]:
    half = 1 << bits - 1
    return np.round(np.asarray(samples, np.float64) * half).clip(-half, half - 1).astype(np.int64)


def _companded(values: NDArray[np.int64], audio_format: AudioFormat) -> NDArray[np.uint8]:
    codec = av.CodecContext.create(f"pcm_{audio_format}", "w")
    codec.format, codec.layout, codec.sample_rate = "s16", "mono", 8000  # no rate changes what it does
    frame = av.AudioFrame.from_ndarray(values.astype(np.int16).reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate = 8000
    return np.concatenate([np.frombuffer(memoryview(packet), np.uint8) for packet in codec.encode(frame)]).reshape(-1, 1)


# -- containers -------------------------------------------------------------------------------------------------------------------------


def _as_it_is(samples: int, rate: int) -> int:
    return samples


def _in_mp3_frames(samples: int, rate: int) -> int:
    """LAME delays by 576 samples, and pads by as many at least; its tag lets decoders leave out 1105 in front, and the end stays."""
    size = 1152 if rate >= 32_000 else 576  # of a frame: MPEG-1, or MPEG-2 and 2.5
    padding = size - (samples + 576) % size
    return samples + 576 + padding + (size if padding < 576 else 0) - 1105


def _in_aac_frames(samples: int, rate: int) -> int:
    """ADTS tells nobody about delay or padding: one frame before, and the last one whole."""
    return (-(-samples // 1024) + 1) * 1024


def _in_opus(samples: int, rate: int) -> int:
    """Opus is always decoded to 48 kHz; both containers tell where it begins and ends."""
    return samples * 48_000 // rate


def _in_vorbis(samples: int, rate: int) -> int:
    """FFmpeg's encoder fills the last 64 samples."""
    return -(-samples // 64) * 64


@dataclass(frozen=True)
class Coding:
    """A codec in a container, as FFmpeg makes and reads it."""

    audio_format: AudioFormat
    codec: str
    muxer: str
    rates: tuple[int, ...] = SAMPLE_RATES
    channels: tuple[int, ...] = (1, 2, 8)
    """Of 1, 2 and 8, those that the codec takes."""
    length: Callable[[int, int], int] = _as_it_is
    """How many samples come out for so many at a rate in Hz."""
    decoded_rate: int | None = None
    """Hz, where it is not the rate that went in."""
    level: float = 0.0
    """By how much of itself the tone may become louder or softer; 0: not one bit is lost."""
    options: tuple[tuple[str, str], ...] = ()
    """Of the encoder: quick ones, since nobody listens."""
    muxer_options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.audio_format}-{self.codec}"

    def decoded_ms(self, samples: int, rate: int) -> float:
        """Milliseconds of what so many samples are decoded to."""
        return 1000 * self.length(samples, rate) / (self.decoded_rate or rate)


_OPUS_RATES = (8000, 16000, 48000)
_MP3_RATES = tuple(rate for rate in SAMPLE_RATES if rate <= 48_000)
_FAST_FLAC = (("compression_level", "0"),)
_FAST_OPUS = (("compression_level", "0"),)
_VORBIS = (("strict", "experimental"),)
_PAGES = (("page_duration", "100000"),)
"""Microseconds. A second is usual, but FFmpeg does not shorten the last packet of a file that is one page."""

CODINGS = (
    Coding(AudioFormat.WAV, "pcm_s16le", "wav"),
    Coding(AudioFormat.AIFF, "pcm_s16be", "aiff"),
    Coding(AudioFormat.FLAC, "flac", "flac", options=_FAST_FLAC),
    Coding(AudioFormat.MP3, "libmp3lame", "mp3", _MP3_RATES, (1, 2), _in_mp3_frames, level=0.07, options=(("compression_level", "9"),)),
    Coding(AudioFormat.AAC, "aac", "adts", length=_in_aac_frames, level=0.03),
    Coding(AudioFormat.OGG, "libopus", "ogg", _OPUS_RATES, (1, 2, 8), _in_opus, 48_000, 0.03, _FAST_OPUS, _PAGES),
    Coding(AudioFormat.OGG, "vorbis", "ogg", SAMPLE_RATES, (2,), _in_vorbis, level=0.03, options=_VORBIS, muxer_options=_PAGES),
    Coding(AudioFormat.OGG, "flac", "ogg", options=_FAST_FLAC, muxer_options=_PAGES),
    Coding(AudioFormat.WEBM, "libopus", "webm", _OPUS_RATES, (1, 2, 8), _in_opus, 48_000, 0.03, _FAST_OPUS),
    Coding(AudioFormat.WEBM, "vorbis", "webm", SAMPLE_RATES, (2,), _in_vorbis, level=0.03, options=_VORBIS),
)
"""Every container, with each codec that FFmpeg can write into it here. Its encoder for Vorbis takes stereo alone."""

_LAYOUTS = {1: "mono", 2: "stereo", 8: "7.1"}


def container_bytes(samples: NDArray[np.floating], rate: int, coding: Coding, **muxer_options: str) -> bytes:
    """Samples as a file; muxer_options are FFmpeg's, and win over the coding's."""
    layout = _LAYOUTS[samples.shape[1]]
    sink = io.BytesIO()
    with av.open(sink, "w", format=coding.muxer, options={"fflags": "bitexact"} | dict(coding.muxer_options) | muxer_options) as out:
        stream = out.add_stream(coding.codec, rate=rate, layout=layout, options=dict(coding.options) | {"threads": "1"})
        out.start_encoding()
        resampler = av.AudioResampler(stream.format, layout, rate, frame_size=stream.codec_context.frame_size or 4096)
        for frame in [*resampler.resample(_frame(samples, rate, layout)), *resampler.resample(None), None]:
            out.mux(stream.encode(frame))
    return sink.getvalue()


def _frame(samples: NDArray[np.floating], rate: int, layout: str) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(_integers(samples, 16).astype(np.int16).reshape(1, -1), format="s16", layout=layout)
    frame.sample_rate = rate
    frame.pts = 0
    return frame


# -- headers by hand --------------------------------------------------------------------------------------------------------------------


def pcm_fmt(coding: int, bits: int, channels: int = 1, rate: int = 8000) -> bytes:
    """What a fmt chunk of wav holds; coding is 1 for integers, 3 for floats, 6 and 7 for A-law and mu-law."""
    width = bits // 8 * channels
    return struct.pack("<HHIIHH", coding, channels, rate, rate * width, width, bits)


def wav(fmt: bytes, data: bytes, *, size: int | None = None, form: bytes = b"RIFF", before: bytes = b"") -> bytes:
    """A wav with a LIST of odd length; size is what its data chunk says, before are the chunks in front of fmt."""
    head = struct.pack("<4sI4s", form, 0xFFFFFFFF, b"WAVE") + before + chunk(b"fmt ", fmt) + chunk(b"LIST", b"abc")
    return head + struct.pack("<4sI", b"data", len(data) if size is None else size) + data


def chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of wav, filled up to an even length."""
    return struct.pack("<4sI", name, len(body)) + body + bytes(len(body) % 2)


def aiff(data: bytes, bits: int, coding: bytes = b"", *, before: bytes = b"", offset: int = 0) -> bytes:
    """An aiff of 8 kHz mono, or with a coding an aifc; before are the chunks in front of COMM, offset the bytes in front of the samples."""
    rate = struct.pack(">HQ", 16383 + 12, 8000 << 51)
    common = struct.pack(">hIh", 1, 0, bits) + rate + (coding + b"\0\0" if coding else b"")
    chunks = before + struct.pack(">4sI", b"COMM", len(common)) + common
    chunks += struct.pack(">4sIII", b"SSND", len(data) + offset + 8, offset, 0) + bytes(offset) + data
    return struct.pack(">4sI4s", b"FORM", len(chunks) + 4, b"AIFC" if coding else b"AIFF") + chunks
