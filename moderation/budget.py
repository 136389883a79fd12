"""Audio-hours and money: calendar months, the units of caps, and what still fits under one (design.md section 5).

Money is an estimate: hours times the price that is set. It is reckoned exactly, in parts: a price in millionths of the currency an hour
times milliseconds of audio, so that no rounding ever decides whether a session starts.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

MS_PER_HOUR = 3_600_000
MICROS = 1_000_000
"""Millionths of the currency in one."""


def month_of(instant: datetime, zone: tzinfo = UTC) -> str:
    """The budget month of an instant, such as "2026-11".

    The service counts calendar months; that they are UTC's is assumed, and a session that straddles two counts where it started
    (service.md, decision 29). Raises ValueError for an instant without a time zone.
    """
    if instant.tzinfo is None:
        raise ValueError("an instant without a time zone belongs to no month")
    return f"{instant.astimezone(zone):%Y-%m}"


def hours_to_ms(hours: float) -> int:
    """Milliseconds of audio in so many hours: settings speak of hours, the ledger counts milliseconds."""
    return round(hours * MS_PER_HOUR)


def ms_to_hours(ms: int) -> float:
    """Hours of audio in so many milliseconds, for people."""
    return ms / MS_PER_HOUR


def parts_of(micros: int) -> int:
    """An amount of money, in millionths of the currency, in parts."""
    return micros * MS_PER_HOUR


def parts_to_money(parts: int) -> float:
    """An amount of the currency, for people."""
    return parts / MS_PER_HOUR / MICROS


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a month may take at most, and what it has taken: milliseconds of audio or parts of money. cap None is unlimited.

    Settled, at risk and reserved count alike: whether failed sessions are billed is not documented (service.md, decision 28).
    """

    cap: int | None
    taken: int

    @property
    def left(self) -> int | None:
        """What may still be reserved; None without a cap, negative where more was booked than the cap allows."""
        return None if self.cap is None else self.cap - self.taken

    @property
    def share(self) -> float | None:
        """The share of the cap that is taken; None without one."""
        if self.cap is None:
            return None
        return self.taken / self.cap if self.cap else 1.0

    def fits(self, more: int) -> bool:
        """Whether the cap holds so much more."""
        return self.left is None or more <= self.left

    def with_more(self, more: int) -> "Allowance":
        """The same with so much more taken."""
        return Allowance(self.cap, self.taken + more)
