"""Objects decoded on this side: their bytes in as the decoder asks for them, s16le out as it is taken, nothing more held than that."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeAlias

from connectors.media.host import Limits, MediaHost, MediaHostDown
from moderation.errors import BadParameters, Scope, SoundcheckError
from moderation.formats import AudioFormat, StreamParameters
from moderation.outcomes import Reason
from moderation.transcoding import SourceFormat

MODULE = "connectors.media.transcoding"
READ_THROUGH_BYTES = 1 << 20
"""A jump of no more than this is read over: a new request costs as much time as a MiB."""
MOST_PIECE_BYTES = 1 << 20
"""More is no message of our decoder."""
READS_OF_ALL = 4
"""How often a decoder may have read all of an object, and JUMP_BYTES more: one with its index at the end reads it once, in two jumps."""
JUMP_BYTES = 256 * 1024
"""What a jump counts as besides what is read behind it."""
FREE_BYTES = 64 << 20
"""What a decoder may read of any object, however short."""
REASONS = frozenset({Reason.NO_AUDIO_TRACK, Reason.UNDECODABLE, Reason.TOO_LONG, Reason.HOSTILE})

ReadFrom: TypeAlias = Callable[[int], AsyncGenerator[bytes, None]]
"""The bytes of an object from an offset to its end."""


class LocalDecodingFailed(SoundcheckError):
    """An object that gives no audio here, or not all of it; reason says what that makes of it."""

    scope = Scope.OBJECT

    def __init__(self, text: str, reason: Reason) -> None:
        super().__init__(text)
        self.reason = reason


class DecoderDied(LocalDecodingFailed):
    """The decoder of an object crashed, hung, or was ended by its limits: once that may be chance, twice it is the object."""

    def __init__(self, text: str) -> None:
        super().__init__(text, Reason.HOSTILE)


@dataclass(frozen=True, slots=True)
class Decoded:
    """An object that is being decoded: what it goes out as, and its samples."""

    parameters: StreamParameters
    pieces: AsyncGenerator[bytes, None]


class LocalDecoder:
    """Decoders of objects, each in a child of its own; the media process starts with the first, and anew when it has died."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._hosts = AsyncExitStack()
        self._host: MediaHost | None = None
        self._starting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._hosts.__aexit__(kind, error, trace)

    @property
    def pid(self) -> int | None:
        """The process whose children decode, once there is one."""
        return self._host.pid if self._host else None

    @asynccontextmanager
    async def decode(self, source: SourceFormat, size_bytes: int, read_from: ReadFrom, *, most_seconds: float) -> AsyncIterator[Decoded]:
        """An object of so many bytes, decoded for as long as the block runs.

        The samples end only when all of the object was decoded. Here and there it raises LocalDecodingFailed, DecoderDied, and what
        reading the object raises.
        """
        options = {"decoded": str(source), "size_bytes": size_bytes, "most_seconds": most_seconds}
        async with self._child(options) as (reader, writer), aclosing(_Reading(read_from, size_bytes)) as reading:
            talk = _Talk(reader, writer, reading, size_bytes, self._limits.wall_seconds)
            parameters = talk.parameters(await talk.hear())
            async with aclosing(talk.pieces()) as pieces:
                yield Decoded(parameters, pieces)

    @asynccontextmanager
    async def _child(self, options: Mapping[str, Any]) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        entry = f"{MODULE}:run"
        host = await self._living(None)
        async with AsyncExitStack() as stack:
            try:
                child = await stack.enter_async_context(host.open(entry, options))
            except MediaHostDown:
                host = await self._living(host)
                child = await stack.enter_async_context(host.open(entry, options))
            yield child

    async def _living(self, dead: MediaHost | None) -> MediaHost:
        """A media process other than the dead one. That is not closed yet: children of it may still be at work."""
        async with self._starting:
            if self._host is None or self._host is dead:
                self._host = await self._hosts.enter_async_context(MediaHost([MODULE], self._limits))
            return self._host


class _Talk:
    """What a child says, and the bytes that it is given: it waits for nothing else, so its silence is its own."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reading: "_Reading", size: int, wall_seconds: float
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._reading = reading
        self._size = size
        self._wall_seconds = wall_seconds

    async def hear(self) -> dict[str, Any]:
        """The next that it says which is no wish for bytes."""
        while True:
            line = await self._listen(self._reader.readline())
            try:
                message = json.loads(line)
            except ValueError:
                raise DecoderDied("the decoder ended in the middle") from None
            match message:
                case {"read": int(offset)} if 0 <= offset < self._size:
                    piece = await self._reading.at(offset)
                    self._writer.write(len(piece).to_bytes(4, "big") + piece)
                case {"end": str(reason), "detail": str(detail)} if reason in REASONS:
                    raise LocalDecodingFailed(detail, Reason(reason))
                case dict():
                    return message
                case _:
                    raise _nonsense()

    def parameters(self, message: dict[str, Any]) -> StreamParameters:
        """What the samples will be."""
        match message:
            case {"format": [int(rate), int(channels)]}:
                try:
                    return StreamParameters(AudioFormat.S16LE, rate, channels)
                except BadParameters:
                    pass
        raise _nonsense()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The samples up to the last; the child goes on only when they are taken."""
        while True:
            match await self.hear():
                case {"pcm": int(size)} if 0 <= size <= MOST_PIECE_BYTES:
                    yield await self._listen(self._reader.readexactly(size))
                case {"end": None}:
                    return
                case _:
                    raise _nonsense()

    async def _listen(self, hearing: Any) -> bytes:
        try:
            async with asyncio.timeout(self._wall_seconds):
                heard: bytes = await hearing
        except TimeoutError:
            raise DecoderDied(f"the decoder gave no sign of life for {self._wall_seconds:g} s") from None
        except (ConnectionError, EOFError, ValueError):
            raise DecoderDied("the decoder ended in the middle") from None
        return heard


def _nonsense() -> DecoderDied:
    return DecoderDied("the decoder said what it never says")


class _Reading:
    """An object's bytes from wherever they are wanted: one request for as long as it goes on, or a little ahead."""

    def __init__(self, read_from: ReadFrom, size: int) -> None:
        self._read_from = read_from
        self._left = READS_OF_ALL * size + FREE_BYTES
        self._pieces: AsyncGenerator[bytes, None] | None = None
        self._place = 0

    async def at(self, offset: int) -> bytes:
        """What lies there, as much as comes at once. Raises LocalDecodingFailed when it has been too much in all."""
        if self._pieces is None or not 0 <= offset - self._place <= READ_THROUGH_BYTES:
            await self.aclose()
            self._pieces, self._place = self._read_from(offset), offset
            self._spend(JUMP_BYTES)
        while True:
            piece = await anext(self._pieces)
            self._spend(len(piece))
            passed = offset - self._place
            self._place += len(piece)
            if passed < len(piece):
                return piece[passed:]

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise LocalDecodingFailed(f"decoding it would read all of it more than {READS_OF_ALL} times", Reason.HOSTILE)

    async def aclose(self) -> None:
        """End the request that is open, if one is."""
        if self._pieces is not None:
            await self._pieces.aclose()
            self._pieces = None
