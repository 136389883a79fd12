"""What the ledger knows, for a person on any host: who streams, what it cost, what is closed and why; and the few things to do about it."""

import getpass
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from connectors.spool import Spool
from flows.console import stdout
from flows.settings import Settings
from flows.wiring import open_ledger, spool_of
from moderation.admission import Adjustment, SessionRecord
from moderation.breaker import BreakerState
from moderation.budget import hours_to_ms, month_of, ms_to_hours
from moderation.errors import ConfigurationError
from moderation.identity import session_id
from moderation.usage import Usage
from tasks.publish import settle_expired


@dataclass(frozen=True, slots=True)
class OrganisationStatus:
    """An organisation in a month: its gates with their budgets ("*" first), the sessions that stream, and the corrections."""

    org: str
    month: str
    usages: Sequence[Usage]
    streaming: Sequence[SessionRecord]
    adjustments: Sequence[Adjustment]
    now_ms: int

    def as_json(self) -> dict[str, Any]:
        """The same as one JSON object."""
        return {
            "org": self.org,
            "month": self.month,
            "gates": [self.figures(usage) for usage in self.usages],
            "streaming": [
                {
                    "session_id": session.session_id,
                    "endpoint": session.endpoint,
                    "run_id": session.run_id,
                    "worker": session.worker,
                    "kind": session.kind,
                    "started_at": session.started_at.isoformat(),
                    "has_result": session.admitted,
                }
                for session in self.streaming
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
        """A gate and its budget as plain values."""
        gate = usage.gate
        breaker = gate.breaker
        return {
            "endpoint": usage.endpoint,
            "paused": gate.paused,
            "live": usage.live,
            "limit": gate.limit.allowed if usage.endpoint != "*" else None,
            "ceiling": gate.ceiling,
            "learned_limit": gate.limit.learned,
            "breaker": breaker.state.value,
            "breaker_reason": breaker.opened_by.value if breaker.opened_by and breaker.state is not BreakerState.CLOSED else None,
            "next_probe_seconds": self.next_probe_s(usage),
            "spent_hours": hours(usage.settled_ms),
            "possible_hours": hours(usage.at_risk_ms),
            "reserved_hours": hours(usage.reserved_ms),
            "cap_hours": None if usage.cap_ms is None else hours(usage.cap_ms),
            "left_hours": None if usage.left_ms is None else hours(usage.left_ms),
        }

    def next_probe_s(self, usage: Usage) -> float | None:
        """Seconds until an open breaker is probed; None where it is not open."""
        breaker = usage.gate.breaker
        return max(0, breaker.until_ms - self.now_ms) / 1000 if breaker.state is BreakerState.OPEN else None


def hours(ms: int) -> float:
    """Audio-hours of milliseconds, to a third of a second."""
    return round(ms_to_hours(ms), 4)


async def statuses(settings: Settings, org: str | None, now: Callable[[], datetime]) -> list[OrganisationStatus]:
    """Every organisation of the ledger, or the one asked for. Raises ConfigurationError for one that it does not know."""
    month = month_of(now())
    async with open_ledger(settings) as ledger:
        known = await ledger.organisations()
        if org is not None and org not in known:
            raise ConfigurationError(f"the ledger knows no organisation {org!r}: it has {', '.join(known) or 'none yet'}")
        return [
            OrganisationStatus(
                name,
                month,
                await ledger.usage(name, month),
                await ledger.streaming(name),
                await ledger.adjustments(name, month),
                await ledger.now_ms(),
            )
            for name in ([org] if org else known)
        ]


async def pause(settings: Settings, org: str, *, paused: bool) -> None:
    """Admit nothing of an organisation, or again; what streams goes on."""
    async with open_ledger(settings) as ledger:
        await (ledger.pause(org) if paused else ledger.resume(org))


async def sweep(settings: Settings) -> int:
    """End the sessions whose workers have died, by what the spool has of them; how many those were."""
    async with open_ledger(settings) as ledger:
        expired = await ledger.expired()
        await settle_expired(ledger, Spool(spool_of(settings)))
        return len(expired)


@dataclass(frozen=True, slots=True)
class Correction:
    """What a person wants corrected, in audio-hours; month "2026-11"."""

    org: str
    endpoint: str
    month: str
    spent_hours: float
    possible_hours: float
    reason: str


async def adjust(settings: Settings, correction: Correction, entropy: Callable[[int], bytes], now: Callable[[], datetime]) -> None:
    """Correct what a month has cost; who did it and why stays on record."""
    if not correction.reason.strip():
        raise ConfigurationError("a correction needs a reason: it stays on record")
    try:
        datetime.strptime(correction.month, "%Y-%m").replace(tzinfo=UTC)
    except ValueError:
        raise ConfigurationError(f"{correction.month!r} is no month: write it as 2026-11") from None
    async with open_ledger(settings) as ledger:
        if correction.org not in await ledger.organisations():
            raise ConfigurationError(f"the ledger knows no organisation {correction.org!r}")
        await ledger.adjust(
            session_id(now(), entropy(10)),
            Adjustment(
                correction.org,
                correction.endpoint,
                correction.month,
                hours_to_ms(correction.spent_hours),
                hours_to_ms(correction.possible_hours),
                getpass.getuser(),
                correction.reason,
            ),
        )


def print_statuses(found: Sequence[OrganisationStatus]) -> None:
    """Tables for people."""
    if not found:
        stdout.print("The ledger knows no organisation yet: the first scan writes it.")
    for status in found:
        table = Table(title=f"{status.org}, {status.month}", title_justify="left")
        for name in ("endpoint", "live", "limit", "ceiling", "breaker", "spent h", "possible h", "reserved h", "left h"):
            table.add_column(name, justify="left" if name in {"endpoint", "breaker"} else "right")
        for usage in status.usages:
            table.add_row(*(Text(word) for word in _row(status, usage)))
        stdout.print(table)
        if status.streaming:
            oldest = status.streaming[0]
            stdout.print(
                f"{len(status.streaming)} sessions stream; the oldest since {oldest.started_at:%Y-%m-%d %H:%M:%S} UTC on {oldest.worker}.",
                highlight=False,
                soft_wrap=True,
            )
        for made in status.adjustments:
            stdout.print(
                Text(
                    f"corrected by {made.who}: {made.endpoint} {hours(made.settled_ms):+} h, "
                    f"possible {hours(made.at_risk_ms):+} h: {made.reason}"
                ),
                soft_wrap=True,
            )


def _row(status: OrganisationStatus, usage: Usage) -> tuple[str, ...]:
    figures = status.figures(usage)
    if figures["paused"]:
        breaker = "paused"
    elif figures["breaker_reason"] is None:
        breaker = "closed"
    else:
        probe = figures["next_probe_seconds"]
        breaker = f"{figures['breaker']} ({figures['breaker_reason']}{'' if probe is None else f', probe in {probe:.0f} s'})"
    words = [figures[name] for name in ("live", "limit", "ceiling")]
    spent = [figures[name] for name in ("spent_hours", "possible_hours", "reserved_hours", "left_hours")]
    return (usage.endpoint, *(_word(word) for word in words), breaker, *(_word(word) for word in spent))


def _word(figure: float | None) -> str:
    return "no limit" if figure is None else f"{figure:g}"
