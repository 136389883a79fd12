"""The links of a chained Ogg stream: each is a stream of its own, which may have another codec, rate or number of channels.

FFmpeg decodes them all with what the first one says of itself, where it cannot go back. Source: RFC 3533, sections 4 and 6.
"""

from connectors.media.source import ByteSource

_HEADER_BYTES = 27
_FLAGS, _SEGMENTS = 5, 26
"""Where they are in a page's header."""
_BEGINS = 2
"""The flag of a page that begins a stream."""


class OggChain:
    """A stream of pages, read link by link: `next_link` first. Bytes that are no page belong to the link that they are found in."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._held = bytearray()
        self._first_of_next = self._page()
        self._has_begun = False
        """Whether a page came that begins nothing: all the streams of a link begin before that."""

    def next_link(self) -> bool:
        """Go on to the link behind this one; False where there is none."""
        while self.exactly(1 << 16):
            pass
        if not self._first_of_next:
            return False
        self._held += self._first_of_next
        self._has_begun = not _begins(self._first_of_next)
        self._first_of_next = b""
        return True

    def exactly(self, size: int) -> bytes:
        """Size bytes, fewer only at the end of the link."""
        while len(self._held) < size and not self._first_of_next and (page := self._page()):
            if self._has_begun and _begins(page):
                self._first_of_next = page
            else:
                self._held += page
                self._has_begun = self._has_begun or not _begins(page)
        data = bytes(self._held[:size])
        del self._held[:size]
        return data

    def _page(self) -> bytes:
        header = self._source.exactly(_HEADER_BYTES)
        if len(header) < _HEADER_BYTES or not header.startswith(b"OggS"):
            return header
        table = self._source.exactly(header[_SEGMENTS])
        return header + table + self._source.exactly(sum(table))


def _begins(page: bytes) -> bool:
    return page.startswith(b"OggS") and bool(page[_FLAGS] & _BEGINS)
