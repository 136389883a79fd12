"""The bytes of one object, cut into the messages that are sent."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing


class SourceFailure(Exception):
    """What reading the audio raised, told apart from what sending it raised."""

    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause


async def whole_frames(audio: AsyncIterator[bytes], chunk_bytes: int, frame_bytes: int | None) -> AsyncGenerator[bytes, None]:
    """The same bytes in chunks of at most chunk_bytes, each of whole sample frames where frame_bytes is known.

    What is left over at the end is dropped. Raises SourceFailure around whatever reading raises. Closing this closes `audio`, too.
    """
    frame = frame_bytes or 1
    size = max(frame, chunk_bytes - chunk_bytes % frame)
    held = bytearray()
    async with aclosing(_pieces(audio)) as pieces:
        async for piece in pieces:
            start = min(len(piece), size - len(held)) if held else 0
            held += piece[:start]
            if len(held) == size:
                yield bytes(held)
                held.clear()
            whole = len(piece) - (len(piece) - start) % size
            for at in range(start, whole, size):
                yield piece[at : at + size]
            held += piece[whole:]
    if whole := len(held) - len(held) % frame:
        yield bytes(held[:whole])


async def _pieces(audio: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """What `audio` gives, with its failures told apart, and itself closed whenever this ends."""
    try:
        async for piece in audio:
            yield piece
    except Exception as error:
        raise SourceFailure(error) from error
    finally:
        if isinstance(audio, AsyncGenerator):
            await audio.aclose()
