"""The duration of an Ogg stream: the granule position of its last page, less where it begins.

Sources: RFC 3533 (pages), RFC 7845 (Opus), the Vorbis I specification, section 4.2.2, and the mapping of FLAC to Ogg.
"""

import struct
from dataclasses import dataclass

from connectors.media.durations.ranges import Ranges
from connectors.media.durations.tracks import NoAudioTrack
from moderation.estimates import Estimate, EstimateSource

_HEADER_BYTES = 27
_BEGINS = 2
_NO_PACKET_ENDS = -1
_OPUS_RATE = 48_000
TAIL_BYTES = (8 * 1024, 40 * 1024)
"""Read from the end, and once more where the last page is longer: 64 KiB are the most, 4 to 16 are usual."""
MOST_STREAMS = 8
LONGEST_PAGE_S = 60
"""Seconds; a page lasts up to a few."""
_VIDEO = (b"\x80theora", b"BBCD\0", b"OVP80")


@dataclass(frozen=True, slots=True)
class _Stream:
    """One logical stream: its rate in Hz, and the samples before the first that is heard."""

    serial: int
    rate: int
    skipped: int = 0


def ogg_estimate(ranges: Ranges) -> Estimate | None:
    """Of the first stream that is audio; None where several follow each other, since only the last one says how long it is."""
    streams, is_video, place = _streams(ranges)
    if not streams:
        if is_video:
            raise NoAudioTrack("an Ogg without an audio stream")
        return None
    stream = streams[0]
    last = _last_granule(ranges, stream)
    if last is None:
        return None
    granule, end = last
    began = _first_granule(ranges, place, stream)
    samples = granule - max(stream.skipped, began)
    return Estimate(max(samples, 0) * 1000 // stream.rate, EstimateSource.HEADER, truncated=end > ranges.size)


def _streams(ranges: Ranges) -> tuple[list[_Stream], bool, int]:
    """The audio streams that begin the file, whether there is video, and where what they hold begins."""
    streams: list[_Stream] = []
    is_video = False
    place = 0
    for _ in range(MOST_STREAMS):
        header = ranges.at(place, _HEADER_BYTES)
        if header[:4] != b"OggS" or not header[5] & _BEGINS:
            break
        table = ranges.at(place + _HEADER_BYTES, header[26])
        packet = ranges.at(place + _HEADER_BYTES + header[26], min(sum(table), 64))
        if (stream := _stream(struct.unpack_from("<I", header, 14)[0], packet)) is not None:
            streams.append(stream)
        is_video = is_video or packet.startswith(_VIDEO)
        place += _HEADER_BYTES + header[26] + sum(table)
    return streams, is_video, place


def _stream(serial: int, packet: bytes) -> _Stream | None:
    if packet.startswith(b"OpusHead"):
        return _Stream(serial, _OPUS_RATE, int.from_bytes(packet[10:12], "little"))
    if packet.startswith(b"\x01vorbis"):
        return _Stream(serial, int.from_bytes(packet[12:16], "little"))
    if packet.startswith(b"\x7fFLAC"):
        return _Stream(serial, int.from_bytes(packet[27:30], "big") >> 4)
    if packet.startswith(b"Speex   "):
        return _Stream(serial, int.from_bytes(packet[36:40], "little"))
    return None


def _last_granule(ranges: Ranges, stream: _Stream) -> tuple[int, int] | None:
    """The last granule position of the stream, and where its page ends; None where the last page is another stream's."""
    for size in TAIL_BYTES:
        start = max(ranges.size - size, 0)
        tail = ranges.at(start, ranges.size - start)
        place = len(tail)
        while (place := tail.rfind(b"OggS", 0, place)) >= 0:
            page = tail[place : place + _HEADER_BYTES]
            if len(page) < _HEADER_BYTES:
                continue
            granule, serial = struct.unpack_from("<qI", page, 6)
            if granule == _NO_PACKET_ENDS:
                continue
            if serial != stream.serial:
                return None
            table = tail[place + _HEADER_BYTES : place + _HEADER_BYTES + page[26]]
            return granule, start + place + _HEADER_BYTES + page[26] + sum(table)
    return None


def _first_granule(ranges: Ranges, place: int, stream: _Stream) -> int:
    """Where a stream that was cut out of a longer one begins, to a page: 0 unless its first page ends later than a page lasts."""
    for _ in range(MOST_STREAMS):
        header = ranges.at(place, _HEADER_BYTES)
        if header[:4] != b"OggS":
            return 0
        granule, serial = struct.unpack_from("<qI", header, 6)
        if serial == stream.serial and granule > 0:
            return granule if granule > LONGEST_PAGE_S * stream.rate else 0
        table = ranges.at(place + _HEADER_BYTES, header[26])
        place += _HEADER_BYTES + header[26] + sum(table)
    return 0
