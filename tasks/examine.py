"""Finds out how an object is to be streamed: from its first bytes, and from what is written about it."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from connectors.audio_store import AudioStore
from moderation.catalogue import AudioObject, NotStreamable, ParameterRule, resolve_parameters, stated_parameters
from moderation.errors import AccessDeniedError, BadParameters, SourceChanged, SourceError, SourceGone
from moderation.formats import AudioFormat, StreamParameters
from moderation.outcomes import Reason
from moderation.sniffing import SNIFF_BYTES, Content, sniff, tag_length

HEADS_AT_ONCE = 32
"""Objects looked at side by side: as many as the S3 client has connections."""
SIDECAR_BYTES = 64 * 1024
"""More than any sidecar needs: a longer one is no sidecar."""


class Examiner:
    """Looks at objects, a few KiB of each. Errors that are not an object's own (access, network) are raised, the others are answers."""

    def __init__(self, audio: AudioStore, rules: Sequence[ParameterRule]) -> None:
        self._audio = audio
        self._rules = rules
        self._looking = asyncio.Semaphore(HEADS_AT_ONCE)
        self.denied: list[AccessDeniedError] = []
        """Objects that may not be read: a few are their own matter, many are the credentials'."""

    async def examine(self, item: AudioObject, sidecar: AudioObject | None) -> StreamParameters | NotStreamable:
        """How to stream an object, or why it cannot be."""
        async with self._looking:
            try:
                content = await self._sniff(item)
                stated = None if isinstance(content, AudioFormat) else await self._stated(item, sidecar, content)
                return resolve_parameters(item, content, stated)
            except NotStreamable as refusal:
                return refusal
            except BadParameters as error:
                return NotStreamable(error.reason, str(error))
            except SourceError as error:
                return NotStreamable(_source_reason(error), str(error))
            except AccessDeniedError as error:
                self.denied.append(error)
                return NotStreamable(Reason.SOURCE_ERROR, str(error))

    async def _sniff(self, item: AudioObject) -> AudioFormat | Content:
        head = await self._audio.head(item, SNIFF_BYTES)
        tag = tag_length(head)
        if tag == 0 or tag + SNIFF_BYTES // 2 <= len(head):
            return sniff(head)
        behind = await self._audio.head(item, SNIFF_BYTES, offset=tag)
        found = sniff(behind.lstrip(b"\0"))
        return found if isinstance(found, AudioFormat) else AudioFormat.MP3

    async def _read_sidecar(self, sidecar: AudioObject) -> bytes:
        """The sidecar as it was listed: its etag is part of what makes a result of the object another one."""
        try:
            return await self._audio.head(sidecar, SIDECAR_BYTES)
        except SourceError as error:
            raise NotStreamable(Reason.CHANGED, f"its sidecar changed meanwhile: {error}") from error

    async def _stated(self, item: AudioObject, sidecar: AudioObject | None, content: Content) -> StreamParameters | None:
        """The written parameters; the object is asked for its metadata only where nothing else decides."""
        if sidecar is not None:
            body = await self._read_sidecar(sidecar)
            return stated_parameters(item.key, _sidecar(sidecar.key, body), {}, ())
        metadata = await self._audio.metadata(item) if content in {Content.UNKNOWN, Content.TEXT} else {}
        return stated_parameters(item.key, None, metadata, self._rules)


def _source_reason(error: SourceError) -> Reason:
    if isinstance(error, SourceGone):
        return Reason.GONE
    return Reason.CHANGED if isinstance(error, SourceChanged) else Reason.SOURCE_ERROR


def _sidecar(key: str, body: bytes) -> dict[str, Any]:
    try:
        words = json.loads(body)
    except (ValueError, RecursionError):
        words = None
    if not isinstance(words, dict):
        raise BadParameters(f"the sidecar {key} is no JSON object with audio_format, sample_rate and num_channels")
    return words
