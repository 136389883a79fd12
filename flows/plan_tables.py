"""A plan on a terminal: tables of objects and of hours, and what they cost."""

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from flows.console import shown, stdout
from flows.plan import PlanReport
from flows.report import CHANGE_COUNTS, hours
from moderation.budget import ms_to_hours
from tasks.forecast import Place

NAMED_PLACES = 10
"""Objects of a kind that are named."""
GIB = 1 << 30
MINUTES_AN_HOUR = 60


def print_plan(report: PlanReport) -> None:
    """The plan as tables for people."""
    forecast = report.forecast
    stdout.print(_objects_table(report))
    stdout.print(_hours_table(report))
    for line in _lines(report):
        stdout.print(Text(line), soft_wrap=True)
    _print_places("Truncated: their bytes fall short of what their headers declare", forecast.truncated, forecast.truncated_places)
    _print_places("Not what they are called: their bytes win", forecast.misnamed, forecast.disagreements)


def _objects_table(report: PlanReport) -> Table:
    """Objects by what becomes of them, and what has changed since the last results."""
    endpoints = report.forecast.endpoints
    title = shown(f"plan {report.run_id}: {report.forecast.listed} objects below {report.source}")
    table = Table(title=title, title_justify="left")
    table.add_column("objects")
    for each in endpoints:
        table.add_column(each.endpoint, justify="right")
    for end in sorted({end for each in endpoints for end in each.objects}, key=lambda end: (end not in {"stream", "done"}, end)):
        table.add_row("to stream" if end == "stream" else end, *(str(each.objects.get(end, 0)) for each in endpoints))
    table.add_section()
    for name in CHANGE_COUNTS:
        counts = [getattr(each.changes, name) for each in endpoints]
        table.add_row(name, *("-" if count is None else str(count) for count in counts))
    return table


def _hours_table(report: PlanReport) -> Table:
    """Hours by endpoint, and how each was known."""
    table = Table(title="audio to stream", title_justify="left")
    table.add_column("endpoint")
    table.add_column("known by")
    for name in ("objects", "hours", "+-", "GiB", "shards"):
        table.add_column(name, justify="right")
    for each in report.forecast.endpoints:
        for source, known in each.hours.items():
            table.add_row(each.endpoint, source.value, str(known.objects), *_figures(known.ms, known.error_ms), "", "")
        read = f"{each.size_bytes / GIB:.2f}"
        table.add_row(each.endpoint, "all", str(each.sessions), *_figures(each.ms, each.error_ms), read, str(each.shards), end_section=True)
    return table


def _lines(report: PlanReport) -> Iterator[str]:
    known, error = _figures(report.ms, report.error_ms)
    yield f"In all {known} +- {error} audio-hours."
    if report.left_out:
        yield f"Left out of the catalogue: {', '.join(f'{count} {why}' for why, count in report.left_out.items())}."
    if unsupported := max((each.decodable_ms for each in report.forecast.endpoints), default=0):
        yield f"Not among them: {hours(unsupported)} hours of formats that the service does not take."
    for each in report.forecast.endpoints:
        if each.undecided.objects:
            yield (
                f"At most: {each.undecided.objects} objects ({hours(each.undecided.ms)} hours) of {each.endpoint} have no music result "
                "yet, and are streamed only where the cascade says so."
            )
    if decoded := max((each.decoded_ms for each in report.forecast.endpoints), default=0):
        yield f"Decoded here before they are streamed: {hours(decoded)} hours."
    if report.price is not None:
        yield f"Price: {report.price:,.2f} {report.currency or ''}".rstrip()
    yield f"Left of this month's budget: {_left(report)}."
    if not report.fits:
        yield "That is less than the plan: what does not fit stays pending."
    if report.eta_s is None:
        yield "Time: not known before a first run has shown how fast a session is."
    else:
        speeds = ", ".join(
            f"{report.connections[name]} x {speed:.1f} ({name})" for name, speed in report.speeds.items() if speed is not None
        )
        yield f"Time: about {_duration(report.eta_s)}, at connections x speed of {speeds or 'nothing'}."


def _left(report: PlanReport) -> str:
    """What the caps hold in all, and at each endpoint where that is not the same."""
    whole, names = report.budget.left, [each.endpoint for each in report.forecast.endpoints]
    lefts = {name: report.budget.left_of(name) for name in names}
    each = [f"{hours(left)} hours of {name}" for name, left in lefts.items() if left is not None and left != whole]
    return ", ".join(([f"{hours(whole)} hours"] if whole is not None else []) + each) or "no cap is set"


def _print_places(title: str, count: int, places: Sequence[Place]) -> None:
    if not count:
        return
    stdout.print(f"{title}: {count}", highlight=False)
    for place in places[:NAMED_PLACES]:
        stdout.print(shown(f"  {place.key}: {place.detail}"), soft_wrap=True)
    if count > NAMED_PLACES:
        stdout.print(f"  ... and {count - NAMED_PLACES} more", highlight=False)


def _figures(ms: int, error_ms: int) -> tuple[str, str]:
    return f"{ms_to_hours(ms):.3f}", f"{ms_to_hours(error_ms):.3f}"


def _duration(seconds: float) -> str:
    """Seconds for people: the two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= MINUTES_AN_HOUR:
        return f"{minutes // MINUTES_AN_HOUR} h {minutes % MINUTES_AN_HOUR} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
