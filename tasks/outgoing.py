"""What goes out of one object: its bytes as they are, or what they are decoded to here."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace

from connectors.audio_store import READ_BYTES, AudioStore
from connectors.media.local_decoder import LocalDecoder
from moderation.catalogue import AudioObject
from moderation.errors import AccessDeniedError, SourceError, UnreachableError
from moderation.formats import AudioFormat
from moderation.refusals import UNDECODABLE, Cause
from moderation.transcoding import SourceFormat, Transcode, decoded
from tasks.records import PlannedObject


@dataclass(frozen=True, slots=True)
class Outlet:
    """Where audio comes from, how it is decoded where it has to be, and how much of it a session may have (hours)."""

    store: AudioStore
    decoder: LocalDecoder
    transcode: Transcode
    max_session_hours: float

    @asynccontextmanager
    async def audio(
        self, planned: PlannedObject, first: Awaitable[bytes]
    ) -> AsyncIterator[tuple[PlannedObject, AsyncGenerator[bytes, None]]]:
        """The object with the parameters of its session, and the bytes; first is its `beginning`.

        Here and while they are read raises what reading the object raises, and LocalDecodingFailed.
        """
        item, source = planned.item, planned.transcoded_from
        async with AsyncExitStack() as stack:
            if source is None:
                yield planned, await stack.enter_async_context(aclosing(self.store.checked(item, self._as_it_is(item, first))))
                return
            most_seconds = self.max_session_hours * 3600
            decoding = self.decoder.decode(
                source, item.size_bytes, lambda offset: self.store.stream(item, offset), most_seconds=most_seconds
            )
            found = await stack.enter_async_context(decoding)
            yield replace(planned, parameters=found.parameters), found.pieces

    async def beginning(self, planned: PlannedObject) -> bytes:
        """The first bytes of what goes out as it is; none where they cannot be had: that is met, and told, in the session."""
        if planned.transcoded_from is not None:
            return b""
        try:
            return await self.store.head(planned.item, READ_BYTES)
        except (SourceError, UnreachableError, AccessDeniedError):
            return b""

    async def _as_it_is(self, item: AudioObject, first: Awaitable[bytes]) -> AsyncGenerator[bytes, None]:
        piece = await first
        if piece:
            yield piece
        async with aclosing(self.store.stream(item, len(piece))) as pieces:
            async for piece in pieces:
                yield piece

    def decoded_here(self, planned: PlannedObject, cause: Cause) -> PlannedObject | None:
        """The object as it gets one more try, where the service could not decode what it was sent (rules.md, 4002); None for no more."""
        parameters = planned.parameters
        if cause is not UNDECODABLE or self.transcode is Transcode.NEVER or planned.transcoded_from is not None or parameters is None:
            return None
        if parameters.audio_format is AudioFormat.S16LE:  # it would get the same again
            return None
        delivery = decoded(SourceFormat.like(parameters))
        return replace(planned, parameters=delivery.parameters, transcoded_from=delivery.transcoded_from)
