"""The bytes of an object that are known by now, and what is asked for next."""

from connectors.media.source import ByteSource

MOST_BYTES = 60 * 1024
"""Read of one object to know its duration: a plan of 10^7 objects reads them all."""
MOST_READS = 24
"""More are a header made to be chased."""
READ_AHEAD = 1024
"""The least that is asked for: what headers say lies close together, and a request costs more than a KiB."""


class Wanted(Exception):
    """Bytes that are to be read (size from offset on), and given to `Ranges.add`, before the question is asked again."""

    def __init__(self, offset: int, size: int) -> None:
        super().__init__(offset, size)
        self.offset = offset
        self.size = size


class TooFar(ValueError):
    """The answer lies further than may be read for it."""


class Ranges:
    """An object of so many bytes, of which its head is known and what was asked for since.

    Whoever asks gets `Wanted` for what is missing, and is asked again from the start once it is there: that keeps parsers free of I/O.
    """

    def __init__(self, size_bytes: int, head: bytes = b"") -> None:
        self.size = size_bytes
        self.bytes_read = 0
        self._reads = 0
        self._pieces: dict[int, bytes] = {}
        if head:
            self.add(0, head)

    def add(self, offset: int, data: bytes) -> None:
        """What was read at an offset."""
        self.bytes_read += len(data)
        self._reads += 1
        before = next((start for start, piece in self._pieces.items() if start + len(piece) == offset), None)
        if before is None:
            self._pieces[offset] = data
        else:
            self._pieces[before] += data

    def at(self, offset: int, size: int) -> bytes:
        """Size bytes from an offset, fewer only at the end of the object. Raises Wanted and TooFar."""
        end = min(offset + size, self.size)
        if offset < 0 or offset >= end:
            return b""
        missing = offset
        for start, piece in self._pieces.items():
            if start <= offset < start + len(piece):
                if end <= start + len(piece):
                    return piece[offset - start : end - start]
                missing = start + len(piece)
        wanted = min(max(end - missing, READ_AHEAD), self.size - missing)
        if self.bytes_read + wanted > MOST_BYTES or self._reads >= MOST_READS:
            raise TooFar(f"{wanted} bytes more, at {missing}")
        raise Wanted(missing, wanted)


class RangedSource(ByteSource):
    """The same as a stream that passes over bytes without reading them; position is where it is."""

    def __init__(self, ranges: Ranges, position: int = 0) -> None:
        super().__init__(self._next)
        self.commit()
        self.position = position
        self._ranges = ranges

    def skip(self, size: int) -> None:
        """Pass over size bytes."""
        self.position += size

    def _next(self, size: int) -> bytes:
        data = self._ranges.at(self.position, size)
        self.position += len(data)
        return data
