"""The duration of a Matroska or WebM file: its Duration element, or the time of its last block. Source: RFC 9559."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from connectors.media.durations.ranges import Ranges
from connectors.media.durations.tracks import NoAudioTrack
from moderation.estimates import Estimate, EstimateSource

_SEGMENT, _INFO, _TRACKS, _CLUSTER = 0x18538067, 0x1549A966, 0x1654AE6B, 0x1F43B675
_SCALE, _DURATION = 0x2AD7B1, 0x4489
_TRACK_ENTRY, _TRACK_TYPE = 0xAE, 0x83
_TIMESTAMP, _SIMPLE_BLOCK, _BLOCK_GROUP, _BLOCK = 0xE7, 0xA3, 0xA0, 0xA1
_AUDIO = 2
_DEFAULT_SCALE_NS = 1_000_000
_MOST_ELEMENTS = 64
_HEAD_BYTES = 12
"""The longest identity and size of an element."""
TAIL_BYTES = 32 * 1024
"""A live recording is asked for its last cluster, which begins that close to the end if its clusters are as short as is usual."""


@dataclass(frozen=True, slots=True)
class _Element:
    """An element: its identity, where its content begins, and its size; None where that is not known (live)."""

    kind: int
    start: int
    size: int | None


def matroska_estimate(ranges: Ranges) -> Estimate | None:
    """By the Duration element, or else the last cluster. Raises NoAudioTrack where the tracks are known and none is audio."""
    segment = next((part for part in _elements(ranges, 0, None) if part.kind == _SEGMENT), None)
    if segment is None:
        return None
    scale, duration, types = _DEFAULT_SCALE_NS, 0.0, []
    for part in _elements(ranges, segment.start, segment.size):
        if part.kind == _CLUSTER:
            break
        if part.kind == _INFO:
            scale, duration = _times(ranges, part)
        elif part.kind == _TRACKS:
            types = list(_track_types(ranges, part))
    if types and _AUDIO not in types:
        raise NoAudioTrack("a Matroska file without an audio track")
    ms_a_unit = scale / 1_000_000
    if not duration:
        last = _last_time(ranges)
        return None if last is None else Estimate(round(last * ms_a_unit), EstimateSource.HEADER)
    whole = Estimate(round(duration * ms_a_unit), EstimateSource.HEADER)
    return whole if segment.size is None else whole.cut_to(ranges.size - segment.start, segment.size)


def _times(ranges: Ranges, info: _Element) -> tuple[int, float]:
    """Nanoseconds of a unit of time, and the duration in units; 0 where it is not said."""
    scale, duration = _DEFAULT_SCALE_NS, 0.0
    for fact in _elements(ranges, info.start, info.size):
        if fact.kind == _SCALE:
            scale = _whole(ranges, fact)
        elif fact.kind == _DURATION:
            duration = _real(ranges, fact)
    return scale, duration


def _track_types(ranges: Ranges, tracks: _Element) -> Iterator[int]:
    for track in _elements(ranges, tracks.start, tracks.size):
        if track.kind == _TRACK_ENTRY:
            yield from (_whole(ranges, fact) for fact in _elements(ranges, track.start, track.size) if fact.kind == _TRACK_TYPE)


def _elements(ranges: Ranges, place: int, size: int | None) -> Iterator[_Element]:
    """The elements from a place on, up to the end of what they are in."""
    end = ranges.size if size is None else min(place + size, ranges.size)
    for _ in range(_MOST_ELEMENTS):
        if place >= end or (element := _element(ranges.at(place, _HEAD_BYTES), place)) is None:
            return
        yield element
        if element.size is None:
            return
        place = element.start + element.size


def _element(head: bytes, place: int) -> _Element | None:
    """The element that these bytes begin; None where they begin none."""
    kind_bytes = 9 - head[0].bit_length() if head else 9
    if kind_bytes > 4 or len(head) <= kind_bytes:  # noqa: PLR2004 - the longest identity
        return None
    size_bytes = 9 - head[kind_bytes].bit_length()
    if size_bytes > 8 or len(head) < kind_bytes + size_bytes:  # noqa: PLR2004 - the longest size
        return None
    coded = int.from_bytes(head[kind_bytes : kind_bytes + size_bytes], "big")
    ones = (1 << 7 * size_bytes) - 1
    size = coded & ones
    return _Element(int.from_bytes(head[:kind_bytes], "big"), place + kind_bytes + size_bytes, None if size == ones else size)


def _whole(ranges: Ranges, element: _Element) -> int:
    return int.from_bytes(ranges.at(element.start, min(element.size or 0, 8)), "big")


def _real(ranges: Ranges, element: _Element) -> float:
    data = ranges.at(element.start, min(element.size or 0, 8))
    value: float = struct.unpack(">d" if len(data) == 8 else ">f", data)[0]  # noqa: PLR2004 - of a double
    return value


def _last_time(ranges: Ranges) -> int | None:
    """The time of the last block, in units of the scale; None where no cluster begins in the tail."""
    start = max(ranges.size - TAIL_BYTES, 0)
    tail = ranges.at(start, ranges.size - start)
    place = tail.rfind(_CLUSTER.to_bytes(4, "big"))
    cluster = _element(tail[place : place + _HEAD_BYTES], place) if place >= 0 else None
    if cluster is None:
        return None
    began: int | None = None
    latest = 0
    place = cluster.start
    while (part := _element(tail[place : place + _HEAD_BYTES], place)) is not None and part.size is not None:
        if part.kind == _TIMESTAMP:
            began = int.from_bytes(tail[part.start : part.start + part.size], "big")
        elif part.kind in {_SIMPLE_BLOCK, _BLOCK} and len(tail) > part.start + 3:
            latest = max(latest, int.from_bytes(tail[part.start + 1 : part.start + 3], "big", signed=True))
        # a group is entered: its block is in it
        place = part.start if part.kind == _BLOCK_GROUP else part.start + part.size
    return None if began is None else began + latest
