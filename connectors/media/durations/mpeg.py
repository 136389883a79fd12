"""Durations of frames in a row: mp3 and mp2, AAC in ADTS, AMR.

An mp3 may have a first frame that counts the others (Xing and Info with LAME's delays, VBRI); else frames are looked at here and there.
"""

from collections.abc import Iterator

from connectors.media.durations.ranges import Ranges
from moderation.estimates import Estimate, EstimateSource
from moderation.mpeg import HEADER_BYTES, LAYER_III, MPEG_1, MpegFrame, mpeg_frame
from moderation.sniffing import tag_length

LOOKS = 5
LOOK_BYTES = 8 * 1024
"""Frames are looked at in so many places, some 20 to 50 frames in each: the bitrate of most music settles with less."""
SEARCH_BYTES = 2 * 1024
"""Where the first frame is looked for behind tags and their padding."""
_HAS_FRAMES, _HAS_BYTES, _HAS_TABLE, _HAS_QUALITY = 1, 2, 4, 8
_TABLE_BYTES = 100
_HEADER_BYTES = 4
_SIDE_BYTES = {(True, False): 32, (True, True): 17, (False, False): 17, (False, True): 9}
"""Side information between the header and where Xing is, by (MPEG 1?, mono?): ISO 11172-3, 2.4.1.7."""
_VBRI_PLACE = 36
_DELAYS_PLACE = 21
"""Of the encoder's delay and padding, behind its name: twelve bits each."""
_MOST_TAGS = 8
STRANGE_SHARE = 1.5
"""More bytes than so many times what a counting frame counts are several files in a row."""


def mpeg_estimate(ranges: Ranges) -> Estimate | None:
    """By the frame that counts the others, else by frames that were looked at."""
    start = _audio_start(ranges)
    found = _first_frame(ranges, start)
    if found is None:
        return None
    place, frame = found
    if frame.layer == LAYER_III and (counted := _counted(ranges, place, frame)) is not None:
        return counted
    return _sampled(ranges, place, frame)


def _audio_start(ranges: Ranges) -> int:
    """Behind the ID3 tags, cover art and all, by their declared lengths."""
    start = 0
    for _ in range(_MOST_TAGS):
        if (tag := tag_length(ranges.at(start, 10))) == 0:
            break
        start += tag
    while start < ranges.size and (padding := ranges.at(start, SEARCH_BYTES)) and not padding.strip(b"\0"):
        start += len(padding)
    return start


def _first_frame(ranges: Ranges, start: int) -> tuple[int, MpegFrame] | None:
    data = ranges.at(start, SEARCH_BYTES)
    place = _next_chain(data, None)
    frame = mpeg_frame(data[place : place + HEADER_BYTES]) if place is not None else None
    return (start + place, frame) if place is not None and frame is not None else None


def _next_chain(data: bytes, like: MpegFrame | None) -> int | None:
    """Where a frame begins that another one follows; like is a frame of the same stream."""
    place = -1
    while (place := data.find(b"\xff", place + 1)) >= 0:
        frame = mpeg_frame(data[place : place + HEADER_BYTES])
        if frame is None or (like is not None and not frame.alike(like)):
            continue
        behind = data[place + frame.length : place + frame.length + HEADER_BYTES]
        following = mpeg_frame(behind)
        if following.alike(frame) if following is not None else len(behind) < HEADER_BYTES and like is None:
            return place
    return None


def _counted(ranges: Ranges, place: int, frame: MpegFrame) -> Estimate | None:
    """By a Xing, Info or VBRI header in the first frame, which is none of those that it counts."""
    data = ranges.at(place, min(frame.length, 256))
    xing = _HEADER_BYTES + _SIDE_BYTES[frame.version == MPEG_1, frame.mono]
    samples: int
    if data[xing : xing + 4] in {b"Xing", b"Info"}:
        frames, size, delays = _xing(data[xing + 4 :])
        samples = frames * frame.samples - delays
    elif data[_VBRI_PLACE : _VBRI_PLACE + 4] == b"VBRI":
        size, frames = (int.from_bytes(data[at : at + 4], "big") for at in (_VBRI_PLACE + 10, _VBRI_PLACE + 14))
        samples = frames * frame.samples
    else:
        return None
    there = ranges.size - place
    if frames == 0 or (size and there > STRANGE_SHARE * size):
        return None
    whole = Estimate(max(samples, 0) * 1000 // frame.rate, EstimateSource.HEADER)
    # the last frame of a whole file may be counted and not be there
    return whole.cut_to(there, size) if there + 2 * frame.length < size else whole


def _xing(data: bytes) -> tuple[int, int, int]:
    """Frames, bytes, and samples of delay and padding; 0 for what is not said."""
    flags = int.from_bytes(data[:4], "big")
    place, frames, size = 4, 0, 0
    if flags & _HAS_FRAMES:
        frames, place = int.from_bytes(data[place : place + 4], "big"), place + 4
    if flags & _HAS_BYTES:
        size, place = int.from_bytes(data[place : place + 4], "big"), place + 4
    place += (_TABLE_BYTES if flags & _HAS_TABLE else 0) + (4 if flags & _HAS_QUALITY else 0)
    if data[place : place + 4] not in {b"LAME", b"Lavc", b"Lavf"}:
        return frames, size, 0
    coded = int.from_bytes(data[place + _DELAYS_PLACE : place + _DELAYS_PLACE + 3], "big")
    return frames, size, (coded >> 12) + (coded & 0xFFF)


def _sampled(ranges: Ranges, start: int, first: MpegFrame) -> Estimate | None:
    """By the bytes and samples of the frames that were looked at, and all the bytes there are."""
    size = samples = 0
    for place, most in _looks(start, ranges.size):
        for frame in _frames(ranges.at(place, most), first):
            size += frame.length
            samples += frame.samples
    if samples == 0:
        return None
    return Estimate((ranges.size - start) * samples * 1000 // (size * first.rate), EstimateSource.BITRATE)


def _looks(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Where to look, and at how many bytes: all of a short object at once, else in places that are evenly spread."""
    if end - start <= LOOKS * LOOK_BYTES:
        yield start, end - start
        return
    yield from ((start + (end - LOOK_BYTES - start) * number // (LOOKS - 1), LOOK_BYTES) for number in range(LOOKS))


def _frames(data: bytes, like: MpegFrame) -> Iterator[MpegFrame]:
    """The whole frames of a chain in these bytes."""
    place = _next_chain(data, like)
    while place is not None and (frame := mpeg_frame(data[place : place + HEADER_BYTES])) is not None and frame.alike(like):
        place += frame.length
        if place > len(data):
            return
        yield frame


_AMR_MAGICS = {b"#!AMR-WB\n": (18, 24, 33, 37, 41, 47, 51, 59, 61, 6), b"#!AMR\n": (13, 14, 16, 18, 20, 21, 27, 32, 6)}
"""Bytes of a storage frame with its header, by its mode (RFC 4867, section 5.3); modes beyond are empty."""
_AMR_FRAME_MS = 20


def amr_estimate(ranges: Ranges) -> Estimate | None:
    """Of an AMR, by its first frames."""
    data = ranges.at(0, LOOK_BYTES)
    magic = next((magic for magic in _AMR_MAGICS if data.startswith(magic)), None)
    if magic is None:
        return None
    sizes = _AMR_MAGICS[magic]
    place, frames = len(magic), 0
    while place < len(data):
        mode = data[place] >> 3 & 15
        place += sizes[mode] if mode < len(sizes) else 1
        frames += 1
    return Estimate((ranges.size - len(magic)) * frames * _AMR_FRAME_MS // (place - len(magic)), EstimateSource.BITRATE)
