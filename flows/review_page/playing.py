"""Audio for a browser: one version of an object, a range at a time, straight from where it lies."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import hdrs, web

from connectors.audio_store import AudioStore
from flows.review_page.guard import refusal
from moderation.catalogue import AudioObject
from moderation.errors import SoundcheckError, SourceChanged, SourceError, SourceGone
from moderation.formats import AudioFormat
from moderation.sniffing import SNIFF_BYTES, Content, sniff

PIECE_BYTES = 1024 * 1024
"""Of one read: a browser that pauses holds no connection to S3 open."""
MEDIA_TYPES: dict[AudioFormat | Content, str] = {
    AudioFormat.WAV: "audio/wav",
    AudioFormat.MP3: "audio/mpeg",
    AudioFormat.OGG: "audio/ogg",
    AudioFormat.FLAC: "audio/flac",
    AudioFormat.WEBM: "audio/webm",
    AudioFormat.AAC: "audio/aac",
    AudioFormat.AIFF: "audio/aiff",
    Content.MP4: "audio/mp4",
    Content.MP2: "audio/mpeg",
    Content.MATROSKA: "audio/x-matroska",
    Content.CAF: "audio/x-caf",
    Content.AMR: "audio/amr",
    Content.WMA: "audio/x-ms-wma",
}
"""What is given out, by what its bytes say it is; nothing else is: a page or a picture is no audio, whatever its key."""


class NoAudio(SourceError):
    """What lies there is nothing that a browser could play."""


@dataclass(frozen=True, slots=True)
class Sound:
    """An object that can be played: every read of it holds its etag."""

    item: AudioObject
    media_type: str


async def find_sound(audio: AudioStore, row: Mapping[str, Any]) -> Sound:
    """The object that a decision is about. Raises SourceChanged where another one lies there now, NoAudio for what is none."""
    item = await audio.find(row["bucket"], row["key"], row["version_id"])
    if item.etag != row["etag"]:
        raise SourceChanged("it was overwritten since it was scanned: what lies there now is not what was decided about")
    kind = sniff(await audio.head(item, SNIFF_BYTES))
    if kind not in MEDIA_TYPES:
        raise NoAudio(f"its bytes are no audio in a container (they look like {kind}): a browser cannot play it")
    return Sound(item, MEDIA_TYPES[kind])


async def play(audio: AudioStore, sound: Sound, request: web.Request) -> web.StreamResponse:
    """The range that is asked for, or all of it. Raises what the store raises, until something of it was sent."""
    item = sound.item
    everything = range(item.size_bytes)
    asked = _asked(request, item)
    wanted = everything if asked is None else everything[asked]
    if not wanted:
        answer = refusal(416, "There is no such range in it.")
        answer.headers[hdrs.CONTENT_RANGE] = f"bytes */{item.size_bytes}"
        return answer
    first = await audio.head(item, min(PIECE_BYTES, len(wanted)), wanted.start)
    told = {hdrs.ACCEPT_RANGES: "bytes", hdrs.ETAG: f'"{item.etag}"', hdrs.CONTENT_TYPE: sound.media_type}
    if asked is not None:
        told[hdrs.CONTENT_RANGE] = f"bytes {wanted.start}-{wanted.stop - 1}/{item.size_bytes}"
    sent = web.StreamResponse(status=200 if asked is None else 206, headers=told)
    sent.content_length = len(wanted)
    await sent.prepare(request)
    await _send(audio, item, wanted, first, sent, request)
    return sent


async def _send(audio: AudioStore, item: AudioObject, wanted: range, first: bytes, sent: web.StreamResponse, request: web.Request) -> None:
    """The bytes of a range. What was overwritten in mid-play breaks off: it is too late for a word."""
    piece, at = first, wanted.start
    try:
        while piece:
            await sent.write(piece)
            at += len(piece)
            piece = await audio.head(item, min(PIECE_BYTES, wanted.stop - at), at) if at < wanted.stop else b""
    except SoundcheckError:
        piece = b""
    if at < wanted.stop and request.transport is not None:
        request.transport.abort()
        return
    await sent.write_eof()


def status_of(error: SoundcheckError) -> int:
    """The HTTP status for what cannot be played."""
    kinds = {SourceChanged: 409, SourceGone: 410, NoAudio: 415}
    return next((status for kind, status in kinds.items() if isinstance(error, kind)), 502)


def _asked(request: web.Request, item: AudioObject) -> slice | None:
    """The part that is asked for; None where none is, or none that is understood (RFC 9110, 14.2), or one of another version."""
    if hdrs.RANGE not in request.headers or request.headers.get(hdrs.IF_RANGE, f'"{item.etag}"') != f'"{item.etag}"':
        return None
    try:
        return request.http_range
    except ValueError:
        return None
