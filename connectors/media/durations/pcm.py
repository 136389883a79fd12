"""Durations of what holds samples as they are: wav, aiff, caf, w64. Sources as in connectors.media.headers; CAF 1.0 (Apple)."""

import struct

from connectors.media.durations.ranges import RangedSource, Ranges
from connectors.media.headers import CodedOtherwise, PcmHeader, read_aiff_header, read_wav_header
from moderation.estimates import Estimate, EstimateSource

_GUID_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")
"""What all names of Wave64 chunks end with, the first one aside."""
_WAVE64_HEAD_BYTES = 40
_WAVE64_CHUNK_BYTES = 24
MOST_CHUNKS = 64


def wav_estimate(ranges: Ranges) -> Estimate | None:
    """Of a wav: plain samples exactly, coded ones by the bytes a second that their format says."""
    source = RangedSource(ranges)
    try:
        return _of_samples(ranges, read_wav_header(source), source.position)
    except CodedOtherwise:
        return _coded_wav(ranges)


def aiff_estimate(ranges: Ranges) -> Estimate | None:
    """Of an aiff, or an aifc with plain samples."""
    source = RangedSource(ranges)
    try:
        return _of_samples(ranges, read_aiff_header(source), source.position)
    except CodedOtherwise:
        return None


def _of_samples(ranges: Ranges, header: PcmHeader, start: int) -> Estimate:
    there = max(ranges.size - start, 0)
    declared = there if header.size is None else header.size
    whole = Estimate(declared * 1000 // (header.layout.frame_bytes * header.layout.rate), EstimateSource.HEADER)
    return whole.cut_to(there, declared)


def _coded_wav(ranges: Ranges) -> Estimate | None:
    """ADPCM, GSM and others: RIFF chunks from byte 12 on, `fmt ` and the samples that `fact` counts before `data`."""
    place, rate, bytes_per_second, samples = 12, 0, 0, 0
    for _ in range(MOST_CHUNKS):
        name, size = struct.unpack("<4sI", ranges.at(place, 8))
        if name == b"fmt ":
            rate, bytes_per_second = struct.unpack("<II", ranges.at(place + 12, 8))
        elif name == b"fact":
            (samples,) = struct.unpack("<I", ranges.at(place + 8, 4))
        elif name == b"data" and samples:
            return Estimate(samples * 1000 // rate, EstimateSource.HEADER).cut_to(ranges.size - place - 8, size)
        elif name == b"data":
            return _by_rate(ranges, place + 8, size, bytes_per_second)
        place += 8 + size + size % 2
    return None


def wave64_estimate(ranges: Ranges) -> Estimate | None:
    """Of a Wave64: chunks named by GUIDs, sizes that count the name, aligned to 8."""
    place, bytes_per_second = _WAVE64_HEAD_BYTES, 0
    for _ in range(MOST_CHUNKS):
        name, tail, size = struct.unpack("<4s12sQ", ranges.at(place, _WAVE64_CHUNK_BYTES))
        if tail != _GUID_TAIL or size < _WAVE64_CHUNK_BYTES:
            return None
        if name == b"fmt ":
            (bytes_per_second,) = struct.unpack("<I", ranges.at(place + 32, 4))
        elif name == b"data":
            return _by_rate(ranges, place + _WAVE64_CHUNK_BYTES, size - _WAVE64_CHUNK_BYTES, bytes_per_second)
        place += size + -size % 8
    return None


def _by_rate(ranges: Ranges, start: int, declared: int, bytes_per_second: int) -> Estimate:
    whole = Estimate(declared * 1000 // bytes_per_second, EstimateSource.HEADER)
    return whole.cut_to(ranges.size - start, declared)


def caf_estimate(ranges: Ranges) -> Estimate | None:
    """Of a CAF: by the frames that its packet table counts, else by its bytes where packets are of one size."""
    rate, packet_bytes, packet_frames, place, declared, start = 0.0, 0, 0, 8, 0, 0
    frames: int | None = None
    for _ in range(MOST_CHUNKS):
        if len(head := ranges.at(place, 12)) < 12:  # noqa: PLR2004 - the end
            break
        name, size = struct.unpack(">4sq", head)
        if name == b"desc":
            rate, _, _, packet_bytes, packet_frames = struct.unpack(">d4sIII", ranges.at(place + 12, 24))
        elif name == b"pakt":
            _, frames = struct.unpack(">qq", ranges.at(place + 12, 16))
        elif name == b"data":
            start = place + 12
            declared = size if size >= 0 else ranges.size - start
        if size < 0:
            break
        place += 12 + size
    if frames is None:
        frames = (declared - 4) // packet_bytes * packet_frames  # behind a count of edits
    whole = Estimate(round(frames * 1000 / rate), EstimateSource.HEADER)
    return whole.cut_to(ranges.size - start, declared) if declared else None
