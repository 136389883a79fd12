"""What every source of a catalogue is: pieces that can be listed side by side, each page by page, and taken up again where it broke."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from moderation.catalogue import AudioObject
from moderation.selection import LeftOut


@dataclass(frozen=True, slots=True)
class Outline:
    """How a source will be listed: its pieces, in the order that their objects have in the manifest.

    A piece is a text that only the source reads; it stands for the same objects in another process. as_of is the instant of which the
    source shows the state; None where it is that of the listing.
    """

    pieces: tuple[str, ...]
    as_of: datetime | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some objects of a piece. cursor tells `pages` to go on behind them, and is None with the last page of a piece.

    left_out are keys that are no objects for this source, with the reason.
    """

    items: Sequence[AudioObject]
    cursor: str | None
    left_out: Sequence[tuple[str, LeftOut]] = ()


class Source(Protocol):
    """A place to take audio objects from; its text is its address for people.

    Both calls raise ConfigurationError, AccessDeniedError or UnreachableError.
    """

    async def outline(self) -> Outline:
        """How the source will be listed."""

    def pages(self, piece: str, cursor: str | None = None) -> AsyncGenerator[Page, None]:
        """The pages of a piece in their order: all of them, or those behind a cursor that one of them had."""
