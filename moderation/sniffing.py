"""What an object's first bytes say it is. Bytes win over names: extensions lie (service.md, decision 18).

filetype, puremagic and libmagic fail on ID3 before AAC, on mp3 with large art and on CAF (measurements.md), so this table is our own.
"""

import codecs
from enum import StrEnum

from moderation.formats import AudioFormat
from moderation.mpeg import HEADER_BYTES, MIN_HEADER_BYTES, mpeg_frame

SNIFF_BYTES = 4096
"""How much of an object's head `sniff` wants; it works with less."""


class Content(StrEnum):
    """What bytes are, where they are no container that the service takes."""

    MP4 = "mp4"
    """m4a, mp4, mov: ISO base media."""
    WMA = "wma"
    """ASF: wma, wmv."""
    MATROSKA = "matroska"
    CAF = "caf"
    AMR = "amr"
    MPEG_VIDEO = "mpeg"
    AVI = "avi"
    WAVE64 = "w64"
    MP2 = "mp2"
    """MPEG audio of layer I or II."""
    TEXT = "text"
    PICTURE = "picture"
    ARCHIVE = "archive"
    PDF = "pdf"
    EMPTY = "empty"
    UNKNOWN = "unknown"


UNSUPPORTED_AUDIO = frozenset(
    {
        Content.MP4,
        Content.WMA,
        Content.MATROSKA,
        Content.CAF,
        Content.AMR,
        Content.MPEG_VIDEO,
        Content.AVI,
        Content.WAVE64,
        Content.MP2,
    }
)
"""Media that soundcheck knows and the service does not take."""
NOT_MEDIA = frozenset({Content.TEXT, Content.PICTURE, Content.ARCHIVE, Content.PDF})

_STARTS: tuple[tuple[bytes, AudioFormat | Content], ...] = (
    (b"fLaC", AudioFormat.FLAC),
    (b"OggS", AudioFormat.OGG),
    (b"caff\0\x01", Content.CAF),
    (b"#!AMR", Content.AMR),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Content.WMA),
    (b"riff\x2e\x91\xcf\x11", Content.WAVE64),
    (b"\x00\x00\x01\xba", Content.MPEG_VIDEO),
    (b"\x00\x00\x01\xb3", Content.MPEG_VIDEO),
    (b"\x89PNG\r\n\x1a\n", Content.PICTURE),
    (b"\xff\xd8\xff", Content.PICTURE),
    (b"GIF8", Content.PICTURE),
    (b"PK\x03\x04", Content.ARCHIVE),
    (b"\x1f\x8b\x08", Content.ARCHIVE),
    (b"%PDF-", Content.PDF),
)
_FORMS: dict[tuple[bytes, bytes], AudioFormat | Content] = {  # bytes 0-4 and 8-12 of IFF files
    (b"RIFF", b"WAVE"): AudioFormat.WAV,
    (b"RF64", b"WAVE"): AudioFormat.WAV,
    (b"BW64", b"WAVE"): AudioFormat.WAV,
    (b"RIFF", b"AVI "): Content.AVI,
    (b"FORM", b"AIFF"): AudioFormat.AIFF,
    (b"FORM", b"AIFC"): AudioFormat.AIFF,
}
_EBML = b"\x1a\x45\xdf\xa3"
_ID3_HEADER_BYTES = 10
_ID3_MARKS = (b"ID3\x02", b"ID3\x03", b"ID3\x04")


def tag_length(head: bytes) -> int:
    """Bytes of the ID3v2 tag that `head` starts with, 0 without one: the audio that decides begins behind it (ID3v2.4, section 3.1)."""
    if len(head) < _ID3_HEADER_BYTES or not head.startswith(_ID3_MARKS):
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    footer = _ID3_HEADER_BYTES if head[5] & 0x10 else 0
    return _ID3_HEADER_BYTES + size + footer


def sniff(head: bytes) -> AudioFormat | Content:
    """What an object is, from its first bytes (SNIFF_BYTES are plenty); behind an ID3 tag that fills them, an mp3 is assumed.

    A caller that can read more looks behind the tag: see `tag_length`.
    """
    if not head:
        return Content.EMPTY
    if tag := tag_length(head):
        behind = head[tag:].lstrip(b"\0")
        return (_of_start(behind) or AudioFormat.MP3) if behind else AudioFormat.MP3
    return _of_start(head) or (Content.TEXT if _is_text(head) else Content.UNKNOWN)


def _of_start(head: bytes) -> AudioFormat | Content | None:
    kind: AudioFormat | Content
    for start, kind in _STARTS:
        if head.startswith(start):
            return kind
    if (form := _FORMS.get((head[:4], head[8:12]))) is not None:
        return form
    if head[4:8] in {b"ftyp", b"moov", b"mdat", b"wide"} and not _is_text(head):  # "The wider picture ..."
        return Content.MP4
    if head.startswith(_EBML):
        return AudioFormat.WEBM if b"webm" in head[:64] else Content.MATROSKA
    return _mpeg(head)


def _mpeg(head: bytes) -> AudioFormat | Content | None:
    """ADTS and MPEG audio: a sync word alone is weak, so the next frame must start where this one says (as far as `head` goes)."""
    start = len(head) - len(head.lstrip(b"\0"))
    frame = mpeg_frame(head[start : start + HEADER_BYTES])
    if frame is None:
        return None
    following = head[start + frame.length : start + frame.length + HEADER_BYTES]
    if len(following) >= MIN_HEADER_BYTES and mpeg_frame(following) is None:
        return None
    return _LAYERS[frame.layer]


_LAYERS: tuple[AudioFormat | Content, ...] = (AudioFormat.AAC, AudioFormat.MP3, Content.MP2, Content.MP2)
"""By the two layer bits behind the sync word: ADTS has 0."""


def _is_text(head: bytes) -> bool:
    """Whether these bytes read as UTF-8 without control characters (a character cut in two at the end is fine)."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return text != "" and all(c.isprintable() or c in "\t\r\n\f\ufeff" for c in text)
