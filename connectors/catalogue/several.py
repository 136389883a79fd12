"""Several sources as one: their pieces one after the other."""

from collections.abc import AsyncGenerator, Sequence

import msgspec

from connectors.catalogue.source import Outline, Page, Source


class SourcePiece(msgspec.Struct, frozen=True):
    """A piece of one of the sources, by its place among them."""

    source: int
    piece: str


class SeveralSources:
    """What some sources show, in their order. An object that two of them show comes twice, and counts once in a plan."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources

    def __str__(self) -> str:
        return ", ".join(map(str, self._sources))

    async def outline(self) -> Outline:
        """The pieces of all; the state is that of the oldest."""
        outlines = [await source.outline() for source in self._sources]
        pieces = [SourcePiece(place, piece) for place, outline in enumerate(outlines) for piece in outline.pieces]
        ages = [outline.as_of for outline in outlines if outline.as_of is not None]
        return Outline(tuple(msgspec.json.encode(piece).decode() for piece in pieces), min(ages, default=None))

    def pages(self, piece: str, cursor: str | None = None) -> AsyncGenerator[Page, None]:
        """The pages of one source's piece."""
        told = msgspec.json.decode(piece, type=SourcePiece)
        return self._sources[told.source].pages(told.piece, cursor)
