"""The duration of an MP4 (m4a, mov): that of its first track of sound. Source: ISO 14496-12, 8.2 to 8.8."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from connectors.media.durations.ranges import Ranges
from connectors.media.durations.tracks import NoAudioTrack
from moderation.estimates import Estimate, EstimateSource, default_estimate
from moderation.sniffing import Content

_MOST_BOXES = 64
_LONG, _TO_THE_END = 1, 0
_SOUND = b"soun"


@dataclass(frozen=True, slots=True)
class _Box:
    """A box: its kind, where its content begins, and where it ends as it says."""

    kind: bytes
    start: int
    end: int


def mp4_estimate(ranges: Ranges) -> Estimate | None:
    """By the header of its sound track; boxes are passed over, so that an index of any length costs nothing. Raises NoAudioTrack."""
    movie: _Box | None = None
    declared = ranges.size
    for box in _boxes(ranges, 0, ranges.size):
        declared = max(declared, box.end)
        movie = box if box.kind == b"moov" else movie
    if movie is None:
        truncated = declared > ranges.size
        return replace(default_estimate(ranges.size, Content.MP4), truncated=True) if truncated else None
    duration = _duration(ranges, movie)
    if duration is None:
        return None
    return Estimate(duration, EstimateSource.HEADER).cut_to(ranges.size, declared)


def _duration(ranges: Ranges, movie: _Box) -> int | None:
    """Milliseconds; None where fragments, of which the header does not know, have them."""
    tracks = [box for box in _boxes(ranges, movie.start, movie.end) if box.kind == b"trak"]
    handlers = []
    for track in tracks:
        media = _first(ranges, track, b"mdia")
        handler = media and _first(ranges, media, b"hdlr")
        if media is None or handler is None:
            continue
        handlers.append(ranges.at(handler.start + 8, 4))
        header = _first(ranges, media, b"mdhd")
        if handlers[-1] == _SOUND and header is not None:
            return _scaled(ranges.at(header.start, 32)) or _of_fragments(ranges, movie)
    if handlers and _SOUND not in handlers:
        raise NoAudioTrack("an MP4 without a sound track")
    return None


def _scaled(header: bytes) -> int:
    """Of a header with a scale and a duration in it (8.4.2): both follow two times, of which version 1 has wider ones."""
    form = ">B3xQQIQ" if header[0] == 1 else ">B3xIIII"
    _, _, _, scale, duration = struct.unpack_from(form, header)
    return int(duration) * 1000 // int(scale)


def _of_fragments(ranges: Ranges, movie: _Box) -> int | None:
    extends = _first(ranges, movie, b"mvex")
    header = extends and _first(ranges, extends, b"mehd")
    movie_header = _first(ranges, movie, b"mvhd")
    if header is None or movie_header is None:
        return None
    said = ranges.at(header.start, 12)
    (duration,) = struct.unpack_from(">Q" if said[0] == 1 else ">I", said, 4)
    data = ranges.at(movie_header.start, 24)
    (scale,) = struct.unpack_from(">I", data, 20 if data[0] == 1 else 12)
    return int(duration) * 1000 // int(scale)


def _first(ranges: Ranges, box: _Box, kind: bytes) -> _Box | None:
    return next((part for part in _boxes(ranges, box.start, box.end) if part.kind == kind), None)


def _boxes(ranges: Ranges, place: int, end: int) -> Iterator[_Box]:
    """The boxes from a place on, up to the end of what they are in."""
    for _ in range(_MOST_BOXES):
        head = ranges.at(place, 8) if place < end else b""
        if len(head) < 8:  # noqa: PLR2004
            return
        size, kind = struct.unpack(">I4s", head)
        start = place + 8
        if size == _LONG:
            (size,) = struct.unpack(">Q", ranges.at(start, 8))
            start += 8
        elif size == _TO_THE_END:
            size = end - place
        if size < start - place:
            return
        yield _Box(kind, start, place + size)
        place += size
