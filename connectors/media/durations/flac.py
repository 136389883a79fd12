"""The duration of a FLAC: the samples that STREAMINFO counts, held against the last frame that is there. Source: RFC 9639."""

from connectors.media.durations.ranges import Ranges
from connectors.media.flac import last_sample
from moderation.estimates import Estimate, EstimateSource
from moderation.sniffing import tag_length

_MARKER_BYTES = 8
_STREAMINFO_BYTES = 34
USUAL_FRAME_BYTES = 16 * 1024
MOST_TAIL_BYTES = 40 * 1024
SHORT_SHARE = 0.99
"""Frames that end before this share of what is declared: the file does."""


def flac_estimate(ranges: Ranges) -> Estimate | None:
    """By the declared samples where the last frame bears them out, else by the last frame alone."""
    start = 0
    while tag := tag_length(ranges.at(start, 10)):
        start += tag
    if ranges.at(start, 4) != b"fLaC":
        return None
    info = ranges.at(start + _MARKER_BYTES, _STREAMINFO_BYTES)
    block_size, most_frame_bytes = int.from_bytes(info[0:2], "big"), int.from_bytes(info[7:10], "big")
    rate = int.from_bytes(info[10:13], "big") >> 4
    declared = int.from_bytes(info[13:18], "big") & 0xF_FFFF_FFFF
    tail_bytes = min(2 * (most_frame_bytes or USUAL_FRAME_BYTES), MOST_TAIL_BYTES, ranges.size)
    heard = last_sample(ranges.at(ranges.size - tail_bytes, tail_bytes), block_size)
    if declared and (heard is None or heard >= SHORT_SHARE * declared):
        return Estimate(declared * 1000 // rate, EstimateSource.HEADER)
    if heard is None:
        return None
    source = EstimateSource.BITRATE if declared else EstimateSource.HEADER
    return Estimate(heard * 1000 // rate, source, truncated=declared > 0)
