"""The headers of wav and aiff, read off a stream: PyAV wants 64 KiB before it believes in them (measurements.md).

Sources: the RIFF WAVE specification and WAVE_FORMAT_EXTENSIBLE (Microsoft), RF64 (EBU Tech 3306), AIFF 1.3 and AIFF-C (Apple).
"""

import math
import struct
from dataclasses import dataclass

from connectors.media.pcm import MAX_CHANNELS, MAX_RATE, MIN_RATE, PcmLayout
from connectors.media.source import ByteSource
from moderation.formats import AudioFormat

UNKNOWN_SIZES = (0, 0xFFFFFFFF)
"""What encoders that cannot go back write as the size of the samples: they last until the end."""
MAX_CHUNK_BYTES = 4096
"""More than any chunk that says how the samples are laid out."""
_EXTENSIBLE = 0xFFFE
_INTEGERS_LE = {1: AudioFormat.U8, 2: AudioFormat.S16LE, 3: AudioFormat.S24LE, 4: AudioFormat.S32LE}
_INTEGERS_BE = {1: AudioFormat.S8, 2: AudioFormat.S16BE, 3: AudioFormat.S24BE, 4: AudioFormat.S32BE}
_FLOATS_LE = {4: AudioFormat.F32LE, 8: AudioFormat.F64LE}
_WAV_CODINGS = {1: _INTEGERS_LE, 3: _FLOATS_LE, 6: {1: AudioFormat.ALAW}, 7: {1: AudioFormat.MULAW}}
_AIFF_CODINGS = {
    b"NONE": _INTEGERS_BE,
    b"twos": _INTEGERS_BE,
    b"sowt": _INTEGERS_LE | {1: AudioFormat.S8},
    b"raw ": {1: AudioFormat.U8},
    b"in24": {3: AudioFormat.S24BE},
    b"in32": {4: AudioFormat.S32BE},
    b"fl32": {4: AudioFormat.F32BE},
    b"fl64": {8: AudioFormat.F64BE},
    b"ulaw": dict.fromkeys((1, 2), AudioFormat.MULAW),  # bits are often those of the uncompressed samples
    b"alaw": dict.fromkeys((1, 2), AudioFormat.ALAW),
}
_AIFF_SPELLINGS = {b"FL32": b"fl32", b"FL64": b"fl64", b"ULAW": b"ulaw", b"ALAW": b"alaw"}


class NotThisFormat(ValueError):
    """The bytes do not begin as the declared format does, or end before its samples."""


class CodedOtherwise(ValueError):
    """The header is sound, but its samples are not plain PCM (ADPCM, GSM and others)."""


@dataclass(frozen=True, slots=True)
class PcmHeader:
    """What a wav or aiff header says: the layout, and the bytes of samples that follow (None: all)."""

    layout: PcmLayout
    size: int | None


def read_wav_header(source: ByteSource) -> PcmHeader:
    """Read up to the first sample. Raises NotThisFormat and CodedOtherwise."""
    form, _, kind = struct.unpack("<4sI4s", _whole(source, 12))
    if form not in {b"RIFF", b"RF64", b"BW64"} or kind != b"WAVE":
        raise NotThisFormat("no RIFF WAVE header")
    layout: PcmLayout | None = None
    long_size: int | None = None
    while True:
        name, size = struct.unpack("<4sI", _whole(source, 8))
        if name == b"data":
            if layout is None:
                raise NotThisFormat("samples before their format")
            known = long_size if size == 0xFFFFFFFF and long_size else size  # noqa: PLR2004 - RF64: see the ds64 chunk
            return PcmHeader(layout, None if known in UNKNOWN_SIZES else known)
        if name == b"fmt ":
            layout = _wav_layout(_chunk(source, size))
        elif name == b"ds64":
            _, long_size = struct.unpack_from("<QQ", _chunk(source, size, least=16))
        else:
            source.skip(size + size % 2)


def read_aiff_header(source: ByteSource) -> PcmHeader:
    """Read up to the first sample. Raises NotThisFormat and CodedOtherwise."""
    form, _, kind = struct.unpack(">4sI4s", _whole(source, 12))
    if form != b"FORM" or kind not in {b"AIFF", b"AIFC"}:
        raise NotThisFormat("no FORM AIFF header")
    layout: PcmLayout | None = None
    while True:
        name, size = struct.unpack(">4sI", _whole(source, 8))
        if name == b"SSND":
            if layout is None:
                raise NotThisFormat("samples before their format")
            offset, _ = struct.unpack(">II", _whole(source, 8))
            source.skip(offset)
            return PcmHeader(layout, None if size in UNKNOWN_SIZES else max(0, size - 8 - offset))
        if name == b"COMM":
            layout = _aiff_layout(_chunk(source, size), compressed=kind == b"AIFC")
        else:
            source.skip(size + size % 2)


def _wav_layout(chunk: bytes) -> PcmLayout:
    if len(chunk) < 16:  # noqa: PLR2004
        raise NotThisFormat("short fmt chunk")
    coding, channels, rate, _, frame_bytes, _ = struct.unpack_from("<HHIIHH", chunk)
    if coding == _EXTENSIBLE and len(chunk) >= 26:  # noqa: PLR2004 - the sub-format, whose first two bytes are the coding
        (coding,) = struct.unpack_from("<H", chunk, 24)
    encoding = _WAV_CODINGS.get(coding, {}).get(frame_bytes // max(channels, 1))
    return _layout(encoding, rate, channels, f"wav coding {coding:#x} with {frame_bytes} bytes for {channels} channels")


def _aiff_layout(chunk: bytes, *, compressed: bool) -> PcmLayout:
    if len(chunk) < (22 if compressed else 18):
        raise NotThisFormat("short COMM chunk")
    channels, _, bits, rate = struct.unpack_from(">hIh10s", chunk)
    coding = chunk[18:22] if compressed else b"NONE"
    encoding = _AIFF_CODINGS.get(_AIFF_SPELLINGS.get(coding, coding), {}).get((bits + 7) // 8)
    return _layout(encoding, _extended(rate), channels, f"aiff coding {coding!r} with {bits} bits")


def _layout(encoding: AudioFormat | None, rate: int, channels: int, coding: str) -> PcmLayout:
    if not (MIN_RATE <= rate <= MAX_RATE and 0 < channels <= MAX_CHANNELS):
        raise NotThisFormat(f"{rate} Hz, {channels} channels")
    if encoding is None:
        raise CodedOtherwise(coding)
    return PcmLayout(encoding, rate, channels)


def _extended(data: bytes) -> int:
    """An 80-bit IEEE 754 extended number, rounded: a sample rate in Hz; 0 for what cannot be one."""
    exponent, mantissa = struct.unpack(">HQ", data)
    power = exponent - 16383 - 63  # of two: the bias, and the mantissa's digits behind the point
    return round(math.ldexp(mantissa, power)) if power < 0 else 0


def _chunk(source: ByteSource, size: int, least: int = 0) -> bytes:
    if not least <= size <= MAX_CHUNK_BYTES:
        raise NotThisFormat(f"a header chunk of {size} bytes")
    return _whole(source, size + size % 2)[:size]


def _whole(source: ByteSource, size: int) -> bytes:
    data = source.exactly(size)
    if len(data) < size:
        raise NotThisFormat("the header is cut off")
    return data
