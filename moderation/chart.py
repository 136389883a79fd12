"""What is shown over time as SVG: steps of some series over a common span, each with dashes, a colour and marks of its limit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from moderation.printable import printable

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 720, 170, 60, 22, 8
_LOOKS = (("#0b4f9c", "none"), ("#a0006d", "6 3"), ("#8a4b00", "2 2"), ("#3f3f3f", "8 2 2 2"))


@dataclass(frozen=True, slots=True)
class Series:
    """A row of steps: (begin, end, value), begin and end as shares of the span from 0 to 1.

    limit is the most that it may be, shown by a short line at either side.
    """

    name: str
    steps: Sequence[tuple[float, float, float]]
    limit: float | None = None

    @property
    def peak(self) -> float:
        """The highest step."""
        return max((value for _, _, value in self.steps), default=0.0)


def draw_course(series: Sequence[Series], identity: str, title: str, span: tuple[str, str]) -> str:
    """The SVG of the series; span is what stands at the ends of its axis, identity a word that no other drawing of the page has."""
    top = max([each.peak for each in series] + [each.limit or 0.0 for each in series] + [1e-9])
    name = escape(identity, quote=True)
    words = "; ".join(f"{each.name}: at most {each.peak:.3g}" + (f" of {each.limit:g}" if each.limit else "") for each in series)
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-labelledby="{name}-title {name}-words" font-size="11">',
        f'<title id="{name}-title">{escape(printable(title))}</title><desc id="{name}-words">{escape(printable(words))}.</desc>',
        *_scale(top),
        *(_line(each, top, number) for number, each in enumerate(series)),
        f'<text x="{_LEFT}" y="{_HEIGHT - 4}" fill="#1a1a1a">{escape(span[0])}</text>',
        f'<text x="{_WIDTH - 4}" y="{_HEIGHT - 4}" text-anchor="end" fill="#1a1a1a">{escape(span[1])}</text>',
        "</svg>",
    ]
    return "".join(parts)


def legend_swatch(number: int) -> str:
    """The line of the series of that number, for a legend in words beside it."""
    colour, dashes = _LOOKS[number % len(_LOOKS)]
    line = f'<path d="M0 5H34" {_stroke(colour, dashes)}/>'
    return f'<svg class="swatch" viewBox="0 0 34 10" width="34" height="10" aria-hidden="true">{line}</svg>'


def _stroke(colour: str, dashes: str) -> str:
    return f'stroke="{colour}" stroke-width="2" fill="none"' + ("" if dashes == "none" else f' stroke-dasharray="{dashes}"')


def _y(value: float, top: float) -> float:
    return round(_TOP + (1 - value / top) * (_HEIGHT - _TOP - _BOTTOM), 1)


def _x(share: float) -> float:
    return round(_LEFT + share * (_WIDTH - _LEFT - 4), 1)


def _scale(top: float) -> Iterator[str]:
    for value in (0.0, top / 2, top):
        y = _y(value, top)
        yield f'<path d="M{_LEFT} {y}H{_WIDTH - 4}" stroke="#767676" stroke-width="0.5"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end" fill="#1a1a1a">{value:.3g}</text>'


def _line(series: Series, top: float, number: int) -> str:
    colour, dashes = _LOOKS[number % len(_LOOKS)]
    path: list[str] = []
    reached = 0.0
    for begin, end, value in series.steps:
        if begin > reached + 1e-9 or not path:
            path.append(f"M{_x(begin)} {_y(0, top)}")
        path.append(f"V{_y(value, top)}H{_x(end)}")
        reached = end
    if series.limit is not None:
        path.append(f"M{_LEFT} {_y(series.limit, top)}h14M{_WIDTH - 18} {_y(series.limit, top)}h14")
    return f'<path d="{"".join(path)}" {_stroke(colour, dashes)}/>'
