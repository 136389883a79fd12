"""Finds out how an object is to be streamed and how long it is: from a few KiB of its bytes, and from what is written about it."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from connectors.audio_store import AudioStore
from connectors.media.durations import NoAudioTrack, Ranges, Wanted, estimate
from moderation.catalogue import (
    AudioObject,
    NotStreamable,
    ParameterRule,
    disagreement,
    resolve_source,
    stated_source,
)
from moderation.errors import AccessDeniedError, BadParameters, CredentialsRefused, SourceArchived, SourceChanged, SourceError, SourceGone
from moderation.estimates import Estimate, default_estimate, raw_estimate
from moderation.formats import AudioFormat
from moderation.outcomes import Reason
from moderation.sniffing import SNIFF_BYTES, UNSUPPORTED_AUDIO, Content, sniff, tag_length
from moderation.transcoding import Delivery, SourceFormat, Transcode, delivery

LOOKS_AT_ONCE = 32
"""Objects looked at side by side: as many as the S3 client has connections."""
SIDECAR_BYTES = 64 * 1024
"""More than any sidecar needs: a longer one is no sidecar."""
DENIED_SHARE = 0.05
"""More objects than this share that may not be read are no matter of the objects: the credentials lack a permission."""

SHORTEST_MS = 192
"""What a header of no audio is believed about: bytes that would be more than the shortest item, were they audio, may be some after all."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What looking at an object gave: how to stream it, or why it cannot be; its audio as far as that is known.

    disagreement says where its name, or what is written about it, is not what its bytes are.
    """

    delivery: Delivery | None
    estimate: Estimate | None = None
    refusal: NotStreamable | None = None
    disagreement: str | None = None


class Examiner:
    """Looks at objects, a few KiB of each. Errors that are not an object's own (access, network) are raised, the others are answers."""

    def __init__(self, audio: AudioStore, rules: Sequence[ParameterRule], transcode: Transcode = Transcode.AUTO) -> None:
        self._audio = audio
        self._rules = rules
        self._transcode = transcode

    async def examine_all(self, objects: Sequence[tuple[AudioObject, AudioObject | None]]) -> list[Finding]:
        """A finding for each object, given with its sidecar. Raises AccessDeniedError where too many of them may not be read."""
        found: list[Finding | None] = [None] * len(objects)
        denied: list[AccessDeniedError] = []
        waiting = iter(enumerate(objects))

        async def look() -> None:
            for place, (item, sidecar) in waiting:
                try:
                    found[place] = await self.examine(item, sidecar)
                except CredentialsRefused:
                    raise
                except AccessDeniedError as error:
                    denied.append(error)
                    if len(denied) > max(1, DENIED_SHARE * len(objects)):
                        raise
                    found[place] = Finding(None, refusal=NotStreamable(Reason.SOURCE_ERROR, str(error)))

        async with asyncio.TaskGroup() as group:
            for _ in range(min(LOOKS_AT_ONCE, len(objects))):
                group.create_task(look())
        return list(_whole(found))

    async def examine(self, item: AudioObject, sidecar: AudioObject | None) -> Finding:
        """How to stream an object, or why it cannot be. Raises AccessDeniedError, and UnreachableError where S3 does not answer."""
        try:
            return await self._look(item, sidecar)
        except NotStreamable as refusal:
            return Finding(None, refusal=refusal)
        except BadParameters as error:
            return Finding(None, refusal=NotStreamable(error.reason, str(error)))
        except SourceError as error:
            return Finding(None, refusal=NotStreamable(_source_reason(error), str(error)))

    async def _look(self, item: AudioObject, sidecar: AudioObject | None) -> Finding:
        ranges, content = await self._sniff(item)
        if isinstance(content, AudioFormat) or content in UNSUPPORTED_AUDIO:
            return await self._found(item, sidecar, ranges, content)
        stated = await self._stated(item, sidecar, content)
        return self._resolved(item, content, stated, None, disagreement(item, content, None))

    async def _found(self, item: AudioObject, sidecar: AudioObject | None, ranges: Ranges, content: AudioFormat | Content) -> Finding:
        """Of what bears its own mark: nothing that is written about it counts, nor is it read."""
        called = disagreement(item, content, self._is_called(item, sidecar))
        try:
            duration = await self._duration(item, ranges, content)
        except NoAudioTrack as error:
            return Finding(None, refusal=NotStreamable(Reason.NO_AUDIO_TRACK, str(error)), disagreement=called)
        if not duration.ms and default_estimate(item.size_bytes, content).ms < SHORTEST_MS:
            nothing = NotStreamable(Reason.EMPTY, f"its {item.size_bytes} bytes are a header without audio")
            return Finding(None, duration, nothing, called)
        return self._resolved(item, content, None, duration, called)

    def _is_called(self, item: AudioObject, sidecar: AudioObject | None) -> str | None:
        """What is said of an object beside its name."""
        if sidecar is not None:
            return "its sidecar says that it is raw audio"
        rule = next((rule for rule in self._rules if rule.matches(item.key)), None)
        return f"the rule for {rule.glob} says {rule.audio_format}" if rule else None

    async def _sniff(self, item: AudioObject) -> tuple[Ranges, AudioFormat | Content]:
        head = await self._audio.head(item, SNIFF_BYTES)
        ranges = Ranges(item.size_bytes, head)
        tag = tag_length(head)
        if tag == 0 or tag + SNIFF_BYTES // 2 <= len(head):
            return ranges, sniff(head)
        behind = await self._audio.head(item, SNIFF_BYTES, offset=tag)
        ranges.add(tag, behind)
        found = sniff(behind.lstrip(b"\0"))
        return ranges, found if isinstance(found, AudioFormat) else AudioFormat.MP3

    async def _duration(self, item: AudioObject, ranges: Ranges, content: AudioFormat | Content) -> Estimate:
        while True:
            try:
                return estimate(ranges, content)
            except Wanted as wanted:
                ranges.add(wanted.offset, await self._audio.head(item, wanted.size, offset=wanted.offset))

    async def _read_sidecar(self, sidecar: AudioObject) -> bytes:
        """The sidecar as it was listed: its etag is part of what makes a result of the object another one."""
        try:
            return await self._audio.head(sidecar, SIDECAR_BYTES)
        except SourceError as error:
            raise NotStreamable(Reason.CHANGED, f"its sidecar changed meanwhile: {error}") from error

    async def _stated(self, item: AudioObject, sidecar: AudioObject | None, content: Content) -> SourceFormat | None:
        """What is written about it; the object is asked for its metadata only where nothing else decides."""
        if sidecar is not None:
            body = await self._read_sidecar(sidecar)
            return stated_source(item.key, _sidecar(sidecar.key, body), {}, ())
        metadata = await self._audio.metadata(item) if content in {Content.UNKNOWN, Content.TEXT} else {}
        return stated_source(item.key, None, metadata, self._rules)

    def _resolved(
        self, item: AudioObject, content: AudioFormat | Content, stated: SourceFormat | None, duration: Estimate | None, called: str | None
    ) -> Finding:
        try:
            source = resolve_source(item, content, stated)
        except NotStreamable as refusal:
            return Finding(None, duration, refusal, called)
        estimate = duration or raw_estimate(item.size_bytes, source)
        try:
            return Finding(delivery(source, self._transcode), estimate, disagreement=called)
        except BadParameters as error:
            return Finding(None, estimate, NotStreamable(error.reason, str(error)), called)


def _whole(found: Sequence[Finding | None]) -> Iterator[Finding]:
    for finding in found:
        assert finding is not None, "every object was looked at"
        yield finding


def _source_reason(error: SourceError) -> Reason:
    match error:
        case SourceArchived():
            return Reason.ARCHIVED
        case SourceGone():
            return Reason.GONE
        case SourceChanged():
            return Reason.CHANGED
        case _:
            return Reason.SOURCE_ERROR


def _sidecar(key: str, body: bytes) -> dict[str, Any]:
    try:
        words = json.loads(body)
    except (ValueError, RecursionError):
        words = None
    if not isinstance(words, dict):
        raise BadParameters(f"the sidecar {key} is no JSON object with audio_format, sample_rate and num_channels")
    return words
