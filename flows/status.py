"""What the ledger knows of an organisation, as tables for people and as JSON: limits, live and waiting sessions, hours, money, breakers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from connectors.letters import Letter
from flows.console import stdout
from flows.report import hours
from moderation.admission import EVERY_ENDPOINT, Adjustment, SessionRecord
from moderation.breaker import BreakerRules, BreakerState
from moderation.budget import MICROS, Allowance, parts_to_money
from moderation.turns import Waiting
from moderation.usage import Usage

SESSION_ROWS = 25
"""Sessions that a table shows; --json has all."""
_WORDS = frozenset({"endpoint", "breaker", "worker", "lease"})
_UNSET = {"limit": "no limit", "ceiling": "no limit", "cap_hours": "no limit", "cap_cost": "no limit", "price": "not set"}


@dataclass(frozen=True, slots=True)
class OrganisationStatus:
    """An organisation in a month: its gates with their budgets ("*" first), the sessions that stream or wait, and the corrections.

    at is the wall clock's instant, now_ms the ledger's clock; currency is the word of the settings, where they have one.
    """

    org: str
    month: str
    usages: Sequence[Usage]
    streaming: Sequence[SessionRecord]
    waiting: Mapping[str, Sequence[Waiting]]
    adjustments: Sequence[Adjustment]
    at: datetime
    now_ms: int
    lease_ms: int
    rules: BreakerRules
    currency: str | None = None
    undelivered: Sequence[Letter] = ()
    """Notices that nobody took, of this host's state folder."""
    saved_ms: int | None = None
    """Audio that cascades leave out, by the results: what the newest run of each source this month said; None where they cannot be read."""

    def as_json(self) -> dict[str, Any]:
        """The same as one JSON object."""
        return {
            "org": self.org,
            "month": self.month,
            "currency": self.currency,
            "saved_hours": None if self.saved_ms is None else hours(self.saved_ms),
            "undelivered_notices": len(self.undelivered),
            "gates": [self.figures(usage) for usage in self.usages],
            "streaming": [self.session(session) for session in self.streaming],
            "waiting": [
                {
                    "endpoint": endpoint,
                    "worker": waits.worker,
                    "priority": waits.priority,
                    "live": waits.live,
                    "seconds": self.waited_s(waits),
                }
                for endpoint, waiting in self.waiting.items()
                for waits in waiting
            ],
            "adjustments": [
                {
                    "endpoint": made.endpoint,
                    "settled_hours": hours(made.settled_ms),
                    "possible_hours": hours(made.at_risk_ms),
                    "who": made.who,
                    "reason": made.reason,
                }
                for made in self.adjustments
            ],
        }

    def figures(self, usage: Usage) -> dict[str, Any]:
        """A gate and its budget as plain values. Costs are estimates: hours at today's price, in the settings' currency."""
        gate, breaker = usage.gate, usage.gate.breaker
        broken = breaker.state is not BreakerState.CLOSED
        return {
            "endpoint": usage.endpoint,
            "paused": gate.paused,
            "live": usage.live,
            "limit": None if usage.endpoint == EVERY_ENDPOINT else gate.limit.allowed,
            "ceiling": gate.ceiling,
            "learned_limit": gate.limit.learned,
            "breaker": breaker.state.value,
            "breaker_reason": breaker.opened_by.value if breaker.opened_by and broken else None,
            "next_probe_seconds": self.next_probe_s(usage),
            "given_up": self.given_up(usage),
            "spent_hours": hours(usage.settled_ms),
            "possible_hours": hours(usage.at_risk_ms),
            "reserved_hours": hours(usage.reserved_ms),
            **_of_cap("hours", usage.hours, hours),
            "price": None if gate.price_micros is None else gate.price_micros / MICROS,
            "estimated_cost": money(usage.money.taken) if usage.has_price else None,
            **_of_cap("cost", usage.money, money),
        }

    def session(self, session: SessionRecord) -> dict[str, Any]:
        """A session that streams as plain values; lease_expired where its worker has died, or is cut off from the ledger."""
        return {
            "session_id": session.session_id,
            "endpoint": session.endpoint,
            "run_id": session.run_id,
            "worker": session.worker,
            "kind": session.kind,
            "started_at": session.started_at.isoformat(),
            "age_seconds": max(0.0, round((self.at - session.started_at).total_seconds(), 1)),
            "has_result": session.admitted,
            "lease_expired": session.has_expired(self.now_ms, self.lease_ms),
        }

    def next_probe_s(self, usage: Usage) -> float | None:
        """Seconds until an open breaker is probed; None where it is not open, or its next probe is another run's."""
        breaker = usage.gate.breaker
        waits = breaker.state is BreakerState.OPEN and not self.given_up(usage)
        return max(0, breaker.until_ms - self.now_ms) / 1000 if waits else None

    def given_up(self, usage: Usage) -> bool:
        """Whether an open breaker ends every run that asks: the next run to start probes it."""
        return usage.gate.breaker.given_up(self.now_ms, self.rules) is not None

    def waited_s(self, waits: Waiting) -> float:
        """Seconds that a worker has waited."""
        return max(0, self.now_ms - waits.since_ms) / 1000


def money(parts: int) -> float:
    """Money of exact parts, to the hundredth of a hundredth."""
    return round(parts_to_money(parts), 4)


def _of_cap(what: str, allowance: Allowance, unit: Any) -> dict[str, float | None]:
    return {
        f"cap_{what}": None if allowance.cap is None else unit(allowance.cap),
        f"left_{what}": None if allowance.left is None else unit(allowance.left),
        f"{what}_cap_share": None if allowance.share is None else round(allowance.share, 4),
    }


def print_statuses(found: Sequence[OrganisationStatus], console: Console = stdout) -> None:
    """Tables for people."""
    if not found:
        console.print("The ledger knows no organisation yet: the first scan writes it.")
    for status in found:
        for table in _tables(status):
            console.print(table)
        for line in _remarks(status):
            console.print(Text(line), soft_wrap=True)


def _tables(status: OrganisationStatus) -> Iterator[Table]:
    figures = [status.figures(usage) for usage in status.usages]
    limits = ("live", "limit", "ceiling")
    yield _table(
        f"{status.org}: limits", ("endpoint", *limits, "breaker"), ((*_pick(each, "endpoint", *limits), _breaker(each)) for each in figures)
    )
    budget = [f"{name}_hours" for name in ("spent", "possible", "reserved", "cap", "left")]
    yield _table(
        f"{status.org}: audio-hours of {status.month}",
        ("endpoint", "spent", "possible", "reserved", "cap", "left", "of cap"),
        ((*_pick(each, "endpoint", *budget), _share(each["hours_cap_share"])) for each in figures),
    )
    if any(usage.has_price for usage in status.usages):
        names = ("price", "estimated_cost", "cap_cost", "left_cost")
        yield _table(
            f"{status.org}: estimated cost of {status.month}{f' in {status.currency}' if status.currency else ''}",
            ("endpoint", "an hour", "estimated", "cap", "left", "of cap"),
            ((*_pick(each, "endpoint", *names), _share(each["cost_cap_share"])) for each in figures),
        )
    if status.streaming:
        yield _sessions(status)


def _sessions(status: OrganisationStatus) -> Table:
    rows = []
    for session in status.streaming[:SESSION_ROWS]:
        facts = status.session(session)
        lease = "expired, to be swept" if facts["lease_expired"] else "held"
        rows.append((session.endpoint, f"{facts['age_seconds']:.0f} s", session.worker, lease))
    return _table(f"{status.org}: sessions that stream", ("endpoint", "age", "worker", "lease"), rows)


def _remarks(status: OrganisationStatus) -> Iterator[str]:
    if (more := len(status.streaming) - SESSION_ROWS) > 0:
        yield f"... and {more} more sessions that stream: --json has all."
    waiting = [waits for found in status.waiting.values() for waits in found]
    if waiting:
        workers = len({waits.worker for waits in waiting})
        who = "1 worker waits" if workers == 1 else f"{workers} workers wait"
        yield f"{who} to stream, the longest since {max(map(status.waited_s, waiting)):.0f} s."
    if status.saved_ms:
        yield f"The cascade saves {hours(status.saved_ms)} audio-hours: by the results, of the newest run of each source this month."
    if status.undelivered:
        since = f"{status.undelivered[0].written_at:%Y-%m-%d %H:%M} UTC"
        yield f"{len(status.undelivered)} notices were not delivered, the oldest of {since}: soundcheck notices resend sends them again."
    for made in status.adjustments:
        figures = f"{hours(made.settled_ms):+} h, possible {hours(made.at_risk_ms):+} h"
        yield f"corrected by {made.who}: {made.endpoint} {figures}: {made.reason}"


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(title=Text(title), title_justify="left")
    for name in columns:
        table.add_column(name, justify="left" if name in _WORDS else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _pick(figures: Mapping[str, Any], *names: str) -> tuple[str, ...]:
    return tuple(_word(name, figures[name]) for name in names)


def _breaker(figures: Mapping[str, Any]) -> str:
    state = figures["breaker"].replace("_", "-")
    if figures["given_up"]:
        state += f" ({figures['breaker_reason']}, the next run probes)"
    elif figures["next_probe_seconds"] is not None:
        state += f" ({figures['breaker_reason']}, probe in {figures['next_probe_seconds']:.0f} s)"
    elif figures["breaker_reason"] is not None:
        state += f" ({figures['breaker_reason']}, its probe is out)"
    return f"paused, {state}" if figures["paused"] else state


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _word(name: str, figure: float | str | None) -> str:
    if isinstance(figure, str):
        return figure
    return _UNSET.get(name, "-") if figure is None else f"{figure:g}"
