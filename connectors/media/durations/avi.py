"""The duration of an AVI: that of its audio stream. Source: the AVI RIFF reference (Microsoft)."""

import struct

from connectors.media.durations.ranges import Ranges
from connectors.media.durations.tracks import NoAudioTrack
from moderation.estimates import Estimate, EstimateSource

_MOST_CHUNKS = 64
_LISTS = frozenset({b"hdrl", b"strl"})


def avi_estimate(ranges: Ranges) -> Estimate | None:
    """By the scale, rate and length of its first audio stream. Raises NoAudioTrack."""
    (declared,) = struct.unpack("<I", ranges.at(4, 4))
    place, types = 12, []
    for _ in range(_MOST_CHUNKS):
        name, size = struct.unpack("<4sI", ranges.at(place, 8))
        if name == b"LIST":
            kind = ranges.at(place + 8, 4)
            if kind == b"movi":
                break
            # what the lists of headers hold comes next; others are passed over
            place += 12 if kind in _LISTS else 8 + size + size % 2
            continue
        if name == b"strh":
            types.append(ranges.at(place + 8, 4))
            if types[-1] == b"auds":
                scale, rate, _, length = struct.unpack("<IIII", ranges.at(place + 28, 16))
                return Estimate(length * scale * 1000 // rate, EstimateSource.HEADER).cut_to(ranges.size, declared + 8)
        place += 8 + size + size % 2
    if types:
        raise NoAudioTrack("an AVI without an audio stream")
    return None
