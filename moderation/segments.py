"""Segments: the stretches of an object with music, with speech, with both or with neither, and those with AI-made vocals.

What an endpoint's items measure makes its tracks (endpoints.py). A track is on from `enter` and stays on until it falls below `leave`, so
that what flickers around one threshold is one stretch; what is not known is off. A change that does not last `min_ms` is none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from moderation.endpoints import Endpoint, Track
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
    """Items that follow each other: their tracks that are on, and the places of the first and behind the last."""

    on: tuple[Track, ...]
    first: int
    behind: int


def segments(endpoint: Endpoint, columns: Columns, rules: SegmentRules) -> list[Segment]:
    """The segments of a session, in order and without overlap; what no item covers is in none.

    Items that overlap count from where the one before them ends. A stretch without items ends a segment; one that is shorter than min_ms is
    all that there is between two such ends.
    """
    spans, places = _in_order(columns)
    told = {track: _measured(columns, track.tells, places) for track in endpoint.tracks}
    sure = {track: _measured(columns, track.sure, places) if track.sure else told[track] for track in endpoint.tracks}
    found: list[Segment] = []
    for first, behind in _unbroken(spans):
        for run in _lasting(_runs(told, first, behind, rules), spans, rules.min_ms):
            kind = "+".join(track.kind for track in run.on) or endpoint.rest
            if kind is not None:
                found.append(_segment(kind, run, spans, [sure[track] for track in run.on]))
    return found


def _in_order(columns: Columns) -> tuple[list[tuple[int, int]], list[int]]:
    """The spans of the items by time, each cut to what no earlier one covers, and where each item is among the columns."""
    spans, places, reached = [], [], 0
    for (start, end), place in sorted(zip(columns.spans(), range(len(columns)), strict=True)):
        if end > max(start, reached):
            spans.append((max(start, reached), end))
            places.append(place)
            reached = end
    return spans, places


def _measured(columns: Columns, names: Sequence[tuple[str, float]], places: Sequence[int]) -> list[float | None]:
    """What the first of some measurements that is there says at each item, times its factor."""
    measures = [(columns.measures[name], factor) for name, factor in names]
    return [next((column[place] * factor for column, factor in measures if not math.isnan(column[place])), None) for place in places]


def _unbroken(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Where spans follow each other without a gap: the place of the first and that behind the last."""
    breaks = [place for place, ((_, end), (start, _)) in enumerate(pairwise(spans), 1) if start > end]
    return list(pairwise([0, *breaks, len(spans)])) if spans else []


def _runs(values: dict[Track, list[float | None]], first: int, behind: int, rules: SegmentRules) -> list[_Run]:
    """Items by the tracks that are on."""
    runs: list[_Run] = []
    on: tuple[Track, ...] = ()
    for place in range(first, behind):
        on = tuple(
            track
            for track, column in values.items()
            if (value := column[place]) is not None and value >= (rules.leave if track in on else rules.enter)
        )
        if runs and runs[-1].on == on:
            runs[-1].behind = place + 1
        else:
            runs.append(_Run(on, place, place + 1))
    return runs


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


def _segment(kind: str, run: _Run, spans: Sequence[tuple[int, int]], tracks: Sequence[Sequence[float | None]]) -> Segment:
    known = [
        min(at)
        for values in zip(*(track[run.first : run.behind] for track in tracks), strict=True)
        if len(at := [value for value in values if value is not None]) == len(tracks) > 0
    ]
    return Segment(
        kind,
        spans[run.first][0],
        spans[run.behind - 1][1],
        run.behind - run.first,
        sum(known) / len(known) if known else None,
        max(known, default=None),
    )
