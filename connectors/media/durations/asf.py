"""The duration of an ASF file (wma, wmv). Source: the ASF specification 01.20.05, sections 3.1 to 3.3."""

import struct

from connectors.media.durations.ranges import Ranges
from connectors.media.durations.tracks import NoAudioTrack
from moderation.estimates import Estimate, EstimateSource

_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_STREAM_PROPERTIES = bytes.fromhex("9107dcb7b7a9cf118ee600c00c205365")
_AUDIO = bytes.fromhex("409e69f84d5bcf11a8fd00805f5c442b")
_HEADER_BYTES = 30
_MOST_OBJECTS = 64
_TICKS_A_MS = 10_000


def asf_estimate(ranges: Ranges) -> Estimate | None:
    """By its file properties, less the preroll that they count. Raises NoAudioTrack."""
    (objects,) = struct.unpack("<I", ranges.at(24, 4))
    place, types = _HEADER_BYTES, []
    found: Estimate | None = None
    for _ in range(min(objects, _MOST_OBJECTS)):
        name, size = struct.unpack("<16sQ", ranges.at(place, 24))
        if name == _FILE_PROPERTIES:
            declared, ticks, preroll = struct.unpack("<16xQ16xQ8xQ", ranges.at(place + 24, 64))
            found = Estimate(max(ticks // _TICKS_A_MS - preroll, 0), EstimateSource.HEADER).cut_to(ranges.size, declared)
        elif name == _STREAM_PROPERTIES:
            types.append(ranges.at(place + 24, 16))
        if size < 24:  # noqa: PLR2004 - its own head
            return None
        place += size
    if types and _AUDIO not in types:
        raise NoAudioTrack("an ASF file without an audio stream")
    return found
