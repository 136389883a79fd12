"""Bytes as they arrive: a stream that cannot be rewound, read in whatever pieces the network made of it."""

from collections.abc import Callable

from moderation.sniffing import SNIFF_BYTES

Read = Callable[[int], bytes]
"""Up to that many bytes; at least one unless the stream has ended."""


class ByteSource:
    """A stream's bytes, with a look ahead, a memory of the first ones, and reads whose sizes do not depend on how it was chunked."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._ahead = b""
        self._passed: bytearray | None = bytearray()
        self.head = b""
        """The first bytes that were seen, at most SNIFF_BYTES: what a failure is explained with."""

    def some(self, size: int) -> bytes:
        """What is there, at most size bytes; empty only at the end. Fast, and as late as its parts: for stateless formats."""
        data, self._ahead = (self._ahead[:size], self._ahead[size:]) if self._ahead else (self._fetch(size), b"")
        if self._passed is not None:
            self._passed += data
        return data

    def exactly(self, size: int) -> bytes:
        """Size bytes, fewer only at the end: what is read for a decoder never depends on chunks."""
        parts: list[bytes] = []
        missing = size
        while missing and (part := self.some(missing)):
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def at_end(self) -> bool:
        """Whether no byte is left."""
        if not self._ahead:
            self._ahead = self._fetch(1)
        return not self._ahead

    def skip(self, size: int) -> None:
        """Pass over size bytes, or fewer at the end."""
        while size and (part := self.some(min(size, 1 << 16))):
            size -= len(part)

    def rewind(self) -> None:
        """Go back to the first byte; only before `commit`."""
        if self._passed is None:
            raise RuntimeError("the first bytes are gone")
        self._ahead, self._passed = bytes(self._passed) + self._ahead, bytearray()

    def commit(self) -> None:
        """Keep nothing for `rewind` any more."""
        self._passed = None

    def _fetch(self, size: int) -> bytes:
        data = self._read(size)
        if len(self.head) < SNIFF_BYTES:
            self.head += data[: SNIFF_BYTES - len(self.head)]
        return data
