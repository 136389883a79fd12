"""What a session leaves: the columns of its items, its summary, and how far both can be trusted.

An ended session, good or bad, is one `SpooledSession`: what the spool keeps until a package of Parquet is published.
"""

import math
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from operator import le
from typing import Any

import msgspec

from moderation.endpoints import Endpoint
from moderation.messages import TIMES, Done, Item, words_of

SPOOLED_BYTES_PER_ITEM = 400
"""The most that an item adds to a spooled session: five columns, and a row of segments of its own."""
MIN_COVERAGE = 0.95
"""Covered over expected audio below which a result is `partial` (design.md section 4)."""


class Flag(StrEnum):
    """A reason not to trust a paid result blindly; flagged results stay out of the clean views."""

    AFTER_DONE = "after_done"
    """Messages came after done."""
    AHEAD = "ahead"
    """Items spoke of audio that had not been sent yet (raw PCM only)."""
    COUNT_MISMATCH = "count_mismatch"
    """done counts other items than arrived, or ends before the last one."""
    DUPLICATE = "duplicate"
    """Exact duplicates of items were dropped."""
    ERROR = "error"
    """An error message came before done."""
    GAP = "gap"
    """Items do not follow each other: gap, overlap, wrong length or out of order."""
    MISSING = "missing"
    """A measurement was missing or null."""
    PARTIAL = "partial"
    """Items cover less than 95 % of the audio: of what was expected, or of what done says there was."""
    RANGE = "range"
    """A figure of done is out of its range."""
    SHAPE = "shape"
    """Unknown fields, or messages of unknown type."""


class Columns:
    """The items of one session as packed columns: 16 bytes of times and 8 a measurement, instead of some 300 for a dict.

    A None measurement is stored as NaN, which the wire cannot carry; words are kept as they are.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        fields = endpoint.item_type.__struct_fields__
        self.times = {name: array("q") for name in TIMES}
        self.words: dict[str, list[str | None]] = {name: [] for name in fields if name in words_of(endpoint.item_type)}
        self.measures = {name: array("d") for name in fields if name not in {*self.times, *self.words}}
        columns: dict[str, Any] = self.times | self.words | self.measures
        self._appends = [(name, column.append, math.nan if name in self.measures else None) for name, column in columns.items()]

    def __len__(self) -> int:
        return len(self.times["start_time_ms"])

    def append(self, item: Item) -> None:
        """Add one item in the order received."""
        for name, append, null in self._appends:
            value = getattr(item, name)
            append(null if value is None else value)

    def holds(self, item: Item) -> bool:
        """Whether exactly this item is among them: a search through all, meant for items that come out of order."""
        places = (place for place, start in enumerate(self.times["start_time_ms"]) if start == item.start_time_ms)
        return any(all(self._at(name, place) == getattr(item, name) for name in item.__struct_fields__) for place in places)

    def _at(self, name: str, place: int) -> float | str | None:
        if name in self.words:
            return self.words[name][place]
        value = self.times[name][place] if name in self.times else self.measures[name][place]
        return None if math.isnan(value) else value

    def packed(self) -> dict[str, bytes]:
        """Each column as bytes: int64 for times and float64 with NaN for null, both little-endian; words as a JSON list."""
        times = {name: little_endian(column) for name, column in self.times.items()}
        measures = {name: little_endian(column) for name, column in self.measures.items()}
        return times | measures | {name: msgspec.json.encode(column) for name, column in self.words.items()}

    def covered_ms(self) -> int:
        """Milliseconds of audio that at least one item covers."""
        starts, ends = self.times.values()
        if all(map(le, ends, starts[1:])):  # each begins where the last ended, or later: no need to look at them one by one
            return sum(ends) - sum(starts)
        covered, reached = 0, 0
        for start, end in sorted(self.spans()):
            covered += max(0, end - max(start, reached))
            reached = max(reached, end)
        return covered

    def spans(self) -> Iterator[tuple[int, int]]:
        """The (start_time_ms, end_time_ms) of each item in the order received."""
        return zip(*self.times.values(), strict=True)


def little_endian(column: "array[int] | array[float]", byteorder: str = sys.byteorder) -> bytes:
    """The column's bytes, the least significant first, from a machine of this byte order."""
    if byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()


@dataclass(slots=True)
class SessionResult:
    """A session that ended with a valid done.

    duration_ms is what the service says; covered_ms what its items cover. extra holds unknown fields of the done message.
    """

    endpoint: Endpoint
    columns: Columns
    done: Done
    flags: frozenset[Flag]
    covered_ms: int
    wire_shape: str
    extra: dict[str, Any] = field(default_factory=dict)
    close_code: int | None = None

    @property
    def sufficient(self) -> bool:
        """Whether there is anything to judge: at least one item."""
        return len(self.columns) > 0

    @property
    def booked_ms(self) -> int:
        """Milliseconds of audio to book as spent: what the service says or what it covered, whichever is more."""
        return max(self.done.duration_ms or 0, self.covered_ms)

    def share_over(self, column: str, threshold: float) -> float | None:
        """Percentage of items whose `column` is at least `threshold`, one decimal; None without items."""
        values = self.columns.measures[column]
        return round(100 * sum(value >= threshold for value in values) / len(values), 1) if values else None


class SpooledSession(msgspec.Struct, frozen=True, kw_only=True):
    """One ended session as it waits for its package.

    attempt is its row of `attempts`; summary its row of the endpoint's summaries (None without a done) less `package`; items its
    packed columns (`Columns.packed`, ordinals implied); segments its rows of `segments`; quarantine a row of `quarantine` where this
    attempt was the object's last.
    booked_ms is what a done session spent, sent_ms what any session sent: milliseconds of audio.
    """

    session_id: str
    run_id: str
    endpoint: str
    object_id: str
    attempt: dict[str, Any]
    booked_ms: int
    sent_ms: int
    summary: dict[str, Any] | None = None
    items: dict[str, bytes] = {}
    segments: list[dict[str, Any]] = []
    quarantine: dict[str, Any] | None = None
