"""A timeline of an object as SVG: curves of probability over its audio, segments as patterned bars, and the stretch that a rule points to.

It says the same in words, for who does not see it. Nothing in it depends on colour alone: curves differ by dash, bars by pattern.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from moderation.printable import printable

WIDTH = 720
"""Units of the drawing; it is scaled to the width of its place."""
CURVES_HEIGHT = 90
BAR_HEIGHT = 12
LEFT = 60
"""What the names of the rows take."""
_TOP = 8
_HATCH_STEP = 8
_AXIS_HEIGHT = 16
_TICKS = 6
_STEPS_MS = (1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000, 900_000, 1_800_000, 3_600_000)


@dataclass(frozen=True, slots=True)
class Style:
    """How something heard is drawn: a colour of at least 4.5:1 on white, the dashes of its curve, the id of its pattern."""

    name: str
    colour: str
    dashes: str
    pattern: str


STYLES = {
    "music": Style("music", "#0b4f9c", "none", "slanted"),
    "speech": Style("speech", "#8a4b00", "7 3", "dotted"),
    "ai_vocal": Style("AI vocals", "#a0006d", "2 2", "crossed"),
    "music+speech": Style("music and speech", "#3f3f3f", "none", "upright"),
    "neither": Style("neither", "#767676", "none", "empty"),
}
"""By the kind of a segment, or of a curve."""
OTHER = Style("other", "#4a4a4a", "1 3", "upright")


@dataclass(frozen=True, slots=True)
class Curve:
    """What was measured of one kind of sound: (start_ms, end_ms, probability from 0 to 1) one after the other, gaps being gaps."""

    kind: str
    points: Sequence[tuple[int, int, float]]


@dataclass(frozen=True, slots=True)
class Bar:
    """A segment, in milliseconds of audio; probability is the mean of its items, where there is one."""

    kind: str
    start_ms: int
    end_ms: int
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class Timeline:
    """What is known of an object over its audio; evidence is the stretch that its rule is about, in milliseconds.

    more_bars counts the segments that were too many to draw.
    """

    duration_ms: int
    curves: Sequence[Curve] = ()
    bars: Sequence[Bar] = ()
    evidence: tuple[int, int] | None = None
    more_bars: int = 0

    @property
    def lanes(self) -> tuple[str, ...]:
        """The kinds of its bars, each a row of the drawing."""
        there = {bar.kind: None for bar in self.bars}
        return tuple({kind: None for kind in STYLES if kind in there} | there)

    def words(self) -> str:
        """The same in a sentence or two."""
        if not self.curves and not self.bars:
            return "Nothing was measured."
        peaks = [
            f"{style_of(curve.kind).name} up to {max(point[2] for point in curve.points):.0%}" for curve in self.curves if curve.points
        ]
        parts = []
        for kind in self.lanes:
            own = [bar for bar in self.bars if bar.kind == kind]
            total = sum(bar.end_ms - bar.start_ms for bar in own)
            parts.append(f"{style_of(kind).name} {clock(total)} in {len(own)} segment{'' if len(own) == 1 else 's'}")
        told = [f"{clock(self.duration_ms)} of audio"]
        if peaks:
            told.append(f"probabilities: {', '.join(peaks)}")
        if parts:
            told.append(f"segments: {', '.join(parts)}{f', and {self.more_bars:,} more that are not drawn' if self.more_bars else ''}")
        if self.evidence:
            told.append(f"the rule points to {clock(self.evidence[0])} to {clock(self.evidence[1])}")
        return "; ".join(told) + "."


def style_of(kind: str) -> Style:
    """How a kind is drawn."""
    return STYLES.get(kind, OTHER)


def clock(ms: int) -> str:
    """A time code such as 0:07, 12:34.5 or 1:02:03: tenths where there are any."""
    tenths = round(ms / 100)
    seconds, tenth = divmod(tenths, 10)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    whole = f"{hour}:{minute:02d}:{second:02d}" if hour else f"{minute}:{second:02d}"
    return f"{whole}.{tenth}" if tenth else whole


def pattern_definitions() -> str:
    """The patterns of the bars for legends, to stand once in a page: an SVG that takes no place."""
    drawn = {
        "slanted": '<path d="M-2 2L2-2M0 8L8 0M6 10L10 6" stroke="{0}" stroke-width="2"/>',
        "dotted": '<circle cx="2" cy="2" r="1.6" fill="{0}"/><circle cx="6" cy="6" r="1.6" fill="{0}"/>',
        "crossed": '<path d="M0 0L8 8M8 0L0 8" stroke="{0}" stroke-width="2"/>',
        "upright": '<path d="M2 0V8M6 0V8" stroke="{0}" stroke-width="2"/>',
        "empty": "",
    }
    styles = {style.pattern: style.colour for style in STYLES.values()}
    patterns = "".join(
        f'<pattern id="pattern-{name}" width="8" height="8" patternUnits="userSpaceOnUse">{shape.format(styles[name])}</pattern>'
        for name, shape in drawn.items()
    )
    return f'<svg width="0" height="0" aria-hidden="true" focusable="false"><defs>{patterns}</defs></svg>'


def draw(timeline: Timeline, identity: str, title: str) -> str:
    """The SVG of a timeline. identity is a word that no other drawing of the page has; title is anybody's text."""
    height = _TOP + CURVES_HEIGHT + len(timeline.lanes) * (BAR_HEIGHT + 4) + _AXIS_HEIGHT + 6
    name = escape(identity, quote=True)
    parts = [
        f'<svg class="timeline" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="{name}-title {name}-words" font-size="11">',
        f'<title id="{name}-title">{escape(printable(title))}</title>',
        f'<desc id="{name}-words">{escape(timeline.words())}</desc>',
        *_evidence(timeline, height),
        *_scale(),
        *(_curve(timeline, curve) for curve in timeline.curves),
        *_bars(timeline),
        *_axis(timeline, height),
        "</svg>",
    ]
    return "".join(parts)


def _x(timeline: Timeline, ms: int) -> float:
    share = min(1.0, max(0.0, ms / max(1, timeline.duration_ms)))
    return round(LEFT + share * (WIDTH - LEFT - 4), 1)


def _y(probability: float) -> float:
    return round(_TOP + (1 - min(1.0, max(0.0, probability))) * CURVES_HEIGHT, 1)


def _evidence(timeline: Timeline, height: int) -> Iterator[str]:
    if timeline.evidence:
        start, end = (_x(timeline, ms) for ms in timeline.evidence)
        yield (
            f'<rect x="{start}" y="2" width="{max(2.0, round(end - start, 1))}" height="{height - _AXIS_HEIGHT - 4}" '
            'fill="#fff3b0" stroke="#6b5900" stroke-width="1"/>'
        )


def _scale() -> Iterator[str]:
    for share in (0.0, 0.5, 1.0):
        y = _y(share)
        yield f'<path d="M{LEFT} {y}H{WIDTH - 4}" stroke="#767676" stroke-width="0.5"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end" fill="#1a1a1a">{share:.0%}</text>'


def _curve(timeline: Timeline, curve: Curve) -> str:
    """Steps, since every item says one thing of all its span."""
    style, path, reached = style_of(curve.kind), [], None
    for start, end, probability in curve.points:
        y = _y(probability)
        path.append(f"{'M' if reached != start else 'L'}{_x(timeline, start)} {y}H{_x(timeline, end)}")
        reached = end
    dashes = "" if style.dashes == "none" else f' stroke-dasharray="{style.dashes}"'
    return f'<path class="curve" d="{"".join(path)}" fill="none" stroke="{style.colour}" stroke-width="1.8"{dashes}/>'


def _bars(timeline: Timeline) -> Iterator[str]:
    for place, kind in enumerate(timeline.lanes):
        style, y = style_of(kind), _TOP + CURVES_HEIGHT + 6 + place * (BAR_HEIGHT + 4)
        label = {"music+speech": "both"}.get(kind, style.name)
        yield f'<text x="{LEFT - 6}" y="{y + BAR_HEIGHT - 2}" text-anchor="end" fill="#1a1a1a">{escape(label)}</text>'
        for bar in timeline.bars:
            if bar.kind == kind:
                start, end = _x(timeline, bar.start_ms), _x(timeline, bar.end_ms)
                width = max(1.0, round(end - start, 1))
                place_of_it = f'x="{start}" y="{y}" width="{width}" height="{BAR_HEIGHT}"'
                yield f'<rect class="bar" {place_of_it} fill="none" stroke="{style.colour}"/>' + _hatch(style, start, width, y)


def _hatch(style: Style, x: float, width: float, y: float) -> str:
    """The pattern of a bar as lines: a browser prints each bar with a pattern of SVG as a picture, 9 MB for 30 objects."""
    height = BAR_HEIGHT
    steps = range(0, max(0, round(width)), _HATCH_STEP)
    slant = [f"M{x + step:g} {y + height}l{_HATCH_STEP} {-height}" for step in steps if step + _HATCH_STEP <= width]
    back = [f"M{x + step:g} {y}l{_HATCH_STEP} {height}" for step in steps if step + _HATCH_STEP <= width]
    lines = {
        "slanted": slant,
        "crossed": slant + back,
        "upright": [f"M{x + step + 2:g} {y}v{height}" for step in range(0, max(0, round(width) - 2), _HATCH_STEP // 2)],
        "dotted": [f"M{x + 3:g} {y + row}H{x + width - 1:g}" for row in (3.5, 8.5) if width > _HATCH_STEP],
    }.get(style.pattern)
    if not lines:
        return ""
    dots = ' stroke-dasharray="0 5" stroke-linecap="round"' if style.pattern == "dotted" else ""
    return f'<path d="{"".join(lines)}" fill="none" stroke="{style.colour}" stroke-width="{3 if dots else 1.6}"{dots}/>'


def _axis(timeline: Timeline, height: int) -> Iterator[str]:
    step = next((step for step in _STEPS_MS if timeline.duration_ms / step <= _TICKS), _STEPS_MS[-1])
    while timeline.duration_ms / step > 2 * _TICKS:
        step *= 2
    for ms in range(0, timeline.duration_ms + 1, step):
        x = _x(timeline, ms)
        anchor = "end" if x > WIDTH - 30 else "middle"
        yield f'<text x="{x}" y="{height - 3}" text-anchor="{anchor}" fill="#1a1a1a">{clock(ms)}</text>'
