"""Segments: the stretches of an object with music, with speech, with both or with neither, and those with AI-made vocals.

What an endpoint's items measure makes its tracks (endpoints.py). A track is on from `enter` and stays on until it falls below `leave`, so
that what flickers around one threshold is one stretch; what is not known is off. A change that does not last `min_ms` is none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import le, lt

from moderation.endpoints import Endpoint
from moderation.results import Columns

VERSION = "1"
"""Of this way to make segments. Another way is another version."""


@dataclass(frozen=True, slots=True)
class SegmentRules:
    """When a track is on, as probabilities, and how long a segment lasts at least, in ms. Raises ValueError for what makes no sense."""

    enter: float = 0.5
    leave: float = 0.4
    min_ms: int = 960

    def __post_init__(self) -> None:
        if not 0 < self.leave <= self.enter <= 1:
            raise ValueError("segments need 0 < leave <= enter <= 1")
        if self.min_ms < 0:
            raise ValueError("segments cannot last less than nothing: min_ms is negative")

    @property
    def version(self) -> str:
        """What the rows say of how they were made."""
        return f"{VERSION}:enter={self.enter:g},leave={self.leave:g},min_ms={self.min_ms}"


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of audio of one kind, in ms, the end exclusive.

    mean and greatest are of the kind's own measurement over its items, of several tracks the smaller one's; None where there is none.
    """

    kind: str
    start_ms: int
    end_ms: int
    items: int
    mean: float | None
    greatest: float | None


@dataclass(slots=True)
class _Run:
    """Items that follow each other: which of the tracks are on, and the places of the first and behind the last."""

    on: tuple[int, ...]
    first: int
    behind: int


def segments(endpoint: Endpoint, columns: Columns, rules: SegmentRules) -> list[Segment]:
    """The segments of a session, in order and without overlap; what no item covers is in none.

    Items that overlap count from where the one before them ends. A stretch without items ends a segment; one that is shorter than min_ms is
    all that there is between two such ends.
    """
    spans, places = _in_order(columns)
    told = [_measured(columns, track.tells, places) for track in endpoint.tracks]
    sure = [_measured(columns, track.sure, places) if track.sure else told[number] for number, track in enumerate(endpoint.tracks)]
    found: list[Segment] = []
    for first, behind in _unbroken(spans):
        for run in _lasting(_runs(told, first, behind, rules), spans, rules.min_ms):
            kind = "+".join(track.kind for track, on in zip(endpoint.tracks, run.on, strict=True) if on) or endpoint.rest
            if kind is not None:
                found.append(_segment(kind, run, spans, [column for column, on in zip(sure, run.on, strict=True) if on]))
    return found


def _in_order(columns: Columns) -> tuple[list[tuple[int, int]], Sequence[int]]:
    """The spans of the items by time, each cut to what no earlier one covers, and where each item is among the columns."""
    spans = list(columns.spans())
    starts, ends = columns.times.values()
    if all(map(lt, starts, ends)) and all(map(le, ends, starts[1:])):
        return spans, range(len(spans))
    cut, places, reached = [], [], 0
    for (start, end), place in sorted(zip(spans, range(len(spans)), strict=True)):
        if end > max(start, reached):
            cut.append((max(start, reached), end))
            places.append(place)
            reached = end
    return cut, places


def _measured(columns: Columns, names: Sequence[tuple[str, float]], places: Sequence[int]) -> Sequence[float]:
    """What the first of some measurements that is there says at each item, times its factor; NaN where none is."""
    (name, factor), *others = names
    first = columns.measures[name]
    values = [first[place] * factor for place in places]
    if others and any(map(math.isnan, values)):
        instead = _measured(columns, others, places)
        values = [other if math.isnan(value) else value for value, other in zip(values, instead, strict=True)]
    return values


def _unbroken(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Where spans follow each other without a gap: the place of the first and that behind the last."""
    breaks = [place for place, ((_, end), (start, _)) in enumerate(pairwise(spans), 1) if start > end]
    return list(pairwise([0, *breaks, len(spans)])) if spans else []


def _runs(told: Sequence[Sequence[float]], first: int, behind: int, rules: SegmentRules) -> list[_Run]:
    """Items by the tracks that are on."""
    runs: list[_Run] = []
    for on, same in groupby(zip(*(_on(column[first:behind], rules) for column in told), strict=True)):
        begin = runs[-1].behind if runs else first
        runs.append(_Run(on, begin, begin + sum(1 for _ in same)))
    return runs


def _on(values: Sequence[float], rules: SegmentRules) -> bytes:
    """Whether a track is on at each of its values, as 1 or 0; at NaN it is off."""
    enter, leave, on, found = rules.enter, rules.leave, False, bytearray()
    for value in values:
        on = value >= (leave if on else enter)
        found.append(on)
    return bytes(found)


def _lasting(runs: Sequence[_Run], spans: Sequence[tuple[int, int]], min_ms: int) -> list[_Run]:
    """The runs without those that are too short: each belongs to the one before it, or at the beginning to the one behind it."""
    lasting: list[_Run] = []
    for run in runs:
        too_short = spans[run.behind - 1][1] - spans[run.first][0] < min_ms
        if lasting and (too_short or lasting[-1].on == run.on):
            lasting[-1].behind = run.behind
        elif len(lasting) == 1 and spans[lasting[0].behind - 1][1] - spans[lasting[0].first][0] < min_ms:
            lasting[0] = _Run(run.on, lasting[0].first, run.behind)
        else:
            lasting.append(run)
    return lasting


def _segment(kind: str, run: _Run, spans: Sequence[tuple[int, int]], tracks: Sequence[Sequence[float]]) -> Segment:
    values = zip(*(track[run.first : run.behind] for track in tracks), strict=True)
    known = [min(at) for at in values if not math.isnan(sum(at))]  # as soon as one of them is not known
    return Segment(
        kind,
        spans[run.first][0],
        spans[run.behind - 1][1],
        run.behind - run.first,
        sum(known) / len(known) if known else None,
        max(known, default=None),
    )
