"""Linear and companded PCM: the 20 raw formats of the service (seed pages) as floating point samples of -1 to 1."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectors.media.source import ByteSource
from moderation.formats import AudioFormat
from moderation.transcoding import DECODABLE_CHANNELS, DECODABLE_RATES

Samples = NDArray[np.float32]
"""Samples of -1 to 1, shaped (samples, channels)."""

MIN_RATE, MAX_RATE = DECODABLE_RATES
MAX_CHANNELS = DECODABLE_CHANNELS
READ_BYTES = 1 << 16
"""The most that is converted at a time."""


@dataclass(frozen=True, slots=True)
class PcmLayout:
    """How bytes are samples: a raw format, its rate in Hz and its channels."""

    encoding: AudioFormat
    rate: int
    channels: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return self.encoding.sample_bytes * self.channels


@dataclass(frozen=True, slots=True)
class PcmBlock:
    """A run of decoded samples at a rate in Hz."""

    rate: int
    samples: Samples


def decode_pcm(source: ByteSource, layout: PcmLayout, size: int | None) -> Iterator[PcmBlock]:
    """The samples of the next size bytes (None: up to the end). A last sample that is not whole is left out."""
    frame_bytes = layout.frame_bytes
    rest = b""
    left = size
    while left != 0:
        data = source.some(READ_BYTES if left is None else min(left, READ_BYTES))
        if not data:
            return
        left = None if left is None else left - len(data)
        data = rest + data
        whole = len(data) - len(data) % frame_bytes
        rest = data[whole:]
        if whole:
            yield PcmBlock(layout.rate, to_floats(data[:whole], layout))


def to_floats(data: bytes, layout: PcmLayout) -> Samples:
    """Whole sample frames as floats; a float that is no number is silence."""
    encoding = layout.encoding
    if encoding in _COMPANDED:
        flat = _COMPANDED[encoding][np.frombuffer(data, np.uint8)]
    elif encoding.value.startswith("f"):
        flat = _from_floating(data, encoding)
    else:
        flat = _from_integers(data, encoding)
    samples: Samples = flat.reshape(-1, layout.channels)
    return samples


def bounded(values: NDArray[Any]) -> Samples:
    """Floating point samples that are finite and no louder than full scale."""
    return np.asarray(np.nan_to_num(np.clip(values, -1.0, 1.0), nan=0.0), np.float32)


def normalised(values: NDArray[Any], bits: int, *, signed: bool) -> Samples:
    """Integer samples of so many bits as fractions of full scale."""
    half = float(1 << bits - 1)
    return ((values.astype(np.float64) - (0.0 if signed else half)) / half).astype(np.float32)


def _from_floating(data: bytes, encoding: AudioFormat) -> Samples:
    raw = np.frombuffer(data, _dtype(encoding, "f"))
    return bounded(raw)


def _from_integers(data: bytes, encoding: AudioFormat) -> Samples:
    bits = encoding.sample_bytes * 8
    signed = encoding.value.startswith("s")
    if bits == 24:  # noqa: PLR2004 - numpy has no such type: the three bytes become the upper ones of four
        data, encoding = _widened(data, big_endian=encoding.value.endswith("be")), AudioFormat.S32LE if signed else AudioFormat.U32LE
        bits = 32
    raw = np.frombuffer(data, _dtype(encoding, "i" if signed else "u"))
    return normalised(raw, bits, signed=signed)


def _widened(data: bytes, *, big_endian: bool) -> bytes:
    triples = np.frombuffer(data, np.uint8).reshape(-1, 3)
    wide = np.zeros((len(triples), 4), np.uint8)
    wide[:, 1:] = triples[:, ::-1] if big_endian else triples
    return wide.tobytes()


def _dtype(encoding: AudioFormat, kind: str) -> np.dtype[Any]:
    return np.dtype(f"{'>' if encoding.value.endswith('be') else '<'}{kind}{encoding.sample_bytes}")


def _mulaw_table() -> Samples:
    """ITU-T G.711 mu-law: complemented; sign, three bits of exponent, four of mantissa, bias 33 (here of 14 bits)."""
    code = ~np.arange(256, dtype=np.uint8)
    magnitude = (((code & 0x0F).astype(np.int32) << 1) + 33 << (code >> 4 & 7)) - 33
    return (np.where(code & 0x80, -magnitude, magnitude) / 8192).astype(np.float32)


def _alaw_table() -> Samples:
    """ITU-T G.711 A-law: every second bit inverted; sign, three bits of exponent, four of mantissa (here of 13 bits)."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent = (code >> 4 & 7).astype(np.int32)
    mantissa = ((code & 0x0F).astype(np.int32) << 1) + 1
    magnitude = np.where(exponent == 0, mantissa, mantissa + 32 << np.maximum(exponent - 1, 0))
    return (np.where(code & 0x80, magnitude, -magnitude) / 4096).astype(np.float32)


_COMPANDED = {AudioFormat.MULAW: _mulaw_table(), AudioFormat.ALAW: _alaw_table()}
