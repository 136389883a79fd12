"""The frames of a FLAC stream, each as soon as the next one begins: FFmpeg's own parser holds ten of them back, most of a second of audio.

Source: RFC 9639, sections 8 (file) and 9 (frame).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from connectors.media.headers import NotThisFormat
from connectors.media.source import ByteSource
from moderation.sniffing import tag_length

READ_BYTES = 1 << 16
MAX_FRAME_BYTES = 65_536 * 8 * 4
"""Longer than any frame: 65535 samples of 8 channels at 32 bits, coded as they are, are the most."""
MAX_HEADER_BYTES = 16
_STARTS = (b"fLaC\x00", b"fLaC\x80")
"""The marker, and the kind of STREAMINFO: the first block, or the only one."""
_STREAMINFO_BYTES = 34
_SYNCS = (b"\xff\xf8", b"\xff\xf9")
"""How frames begin in a stream whose blocks are of one size, and of several."""


@dataclass(frozen=True, slots=True)
class _Header:
    """What tells a frame's header from bytes that look like one: kind is what all frames of a stream have in common, number grows."""

    kind: tuple[int, int, int]
    """The second byte, and the codes of rate and depth."""
    number: int

    def follows(self, last: "_Header | None") -> bool:
        """Whether this is a later frame of the same stream, or the first one of another that is chained to it."""
        return last is None or (self.kind == last.kind and (self.number > last.number or self.number == 0))


def read_flac_header(source: ByteSource) -> bytes:
    """The STREAMINFO block. All metadata is passed over, cover art of megabytes included. Raises NotThisFormat."""
    start = source.exactly(10)
    while tag := tag_length(start):  # ID3 has no place here, but is found
        source.skip(tag - len(start))
        start = source.exactly(10)
    if start[:5] not in _STARTS or start[5:8] != _STREAMINFO_BYTES.to_bytes(3, "big"):
        raise NotThisFormat("no FLAC marker with a STREAMINFO")
    streaminfo = start[8:] + source.exactly(_STREAMINFO_BYTES - 2)
    is_last = start[4] & 0x80
    while not is_last:
        if len(block := source.exactly(4)) < 4:  # noqa: PLR2004 - its kind, and its length
            raise NotThisFormat("the header is cut off")
        source.skip(int.from_bytes(block[1:], "big"))
        is_last = block[0] & 0x80
    return streaminfo


def flac_frames(source: ByteSource) -> Iterator[bytes]:
    """The frames that follow, the same ones however the stream is cut. Bytes that are no frame come along with the one before them."""
    held = bytearray()
    last: _Header | None = None
    searched = 0
    ended = False
    while not ended:
        data = source.some(READ_BYTES)
        ended = not data
        held += data or bytes(MAX_HEADER_BYTES)  # at the end, so that a last frame shorter than the longest header is found, too
        while (cut := _next_sync(held, searched)) <= len(held) - MAX_HEADER_BYTES:
            header = _header(held[cut : cut + MAX_HEADER_BYTES])
            if header is not None and header.follows(last):
                last = header
            elif cut < MAX_FRAME_BYTES:
                searched = cut + 1
                continue
            if cut:
                yield bytes(held[:cut])
                del held[:cut]
            searched = 1
        searched = max(searched, len(held) - MAX_HEADER_BYTES + 1)
    if len(held) > MAX_HEADER_BYTES:
        yield bytes(held[:-MAX_HEADER_BYTES])


def _next_sync(held: bytearray, at: int) -> int:
    """Where the next frame may begin: MAX_FRAME_BYTES at the latest."""
    return min((place for sync in _SYNCS if (place := held.find(sync, at, MAX_FRAME_BYTES)) >= 0), default=MAX_FRAME_BYTES)


def _header(data: bytes | bytearray) -> _Header | None:
    """The frame header that these bytes begin with, None where they do not: a checksum of 8 bits says so, and codes that are reserved."""
    block_code, rate_code, channels_code, depth_code = data[2] >> 4, data[2] & 15, data[3] >> 4, data[3] & 15
    if block_code == 0 or rate_code == 15 or channels_code > 10 or depth_code & 1 or depth_code == 6:  # noqa: PLR2004 - RFC 9639, 9.1
        return None
    length = max(1, 8 - (data[4] ^ 0xFF).bit_length())  # of the number, which is coded as UTF-8 does: by the ones that it begins with
    if length == 8 or (length == 1) != (data[4] < 0x80) or any(byte & 0xC0 != 0x80 for byte in data[5 : 4 + length]):  # noqa: PLR2004
        return None
    end = 4 + length + _EXTRA_BLOCK_BYTES.get(block_code, 0) + _EXTRA_RATE_BYTES.get(rate_code, 0)
    if _crc8(data[:end]) != data[end]:
        return None
    number = data[4] & (0x7F if length == 1 else 0x7F >> length)
    for byte in data[5 : 4 + length]:
        number = number << 6 | byte & 0x3F
    return _Header((data[1], rate_code, depth_code), number)


_EXTRA_BLOCK_BYTES = {6: 1, 7: 2}
_EXTRA_RATE_BYTES = {12: 1, 13: 2, 14: 2}
"""By their codes: what is told at the end of the header instead."""


def _crc8(data: bytes | bytearray) -> int:
    """x^8 + x^2 + x + 1, from 0."""
    crc = 0
    for byte in data:
        crc = _CRC8[crc ^ byte]
    return crc


def _crc8_of(byte: int) -> int:
    for _ in range(8):
        byte = byte << 1 ^ (0x107 if byte & 0x80 else 0)
    return byte


_CRC8 = bytes(_crc8_of(byte) for byte in range(256))


def last_sample(tail: bytes, block_size: int) -> int | None:
    """Where the last frame that begins in these last bytes of a stream ends, in samples; None where none is found.

    block_size is STREAMINFO's least, which is that of all frames but the last one where they are numbered by frames.
    """
    headers = []
    place = 0
    while 0 <= (place := min((at for sync in _SYNCS if (at := tail.find(sync, place)) >= 0), default=-1)) <= len(tail) - MAX_HEADER_BYTES:
        if (header := _header(tail[place : place + MAX_HEADER_BYTES])) is not None:
            headers.append(header)
        place += 1
    kinds = Counter(header.kind for header in headers)
    if not kinds:
        return None
    usual = kinds.most_common(1)[0][0]  # what only looks like a header is of another kind, mostly
    last = max(header.number for header in headers if header.kind == usual)
    is_numbered_by_frames = usual[0] == _SYNCS[0][1]
    return (last + 1) * block_size if is_numbered_by_frames else last + block_size
