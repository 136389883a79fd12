"""Audio-hours: calendar months, the units of caps, and what still fits under one (design.md section 5)."""

from datetime import UTC, datetime, tzinfo

MS_PER_HOUR = 3_600_000


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


def left_ms(cap_ms: int | None, settled_ms: int, at_risk_ms: int, reserved_ms: int) -> int | None:
    """Milliseconds of audio that may still be reserved; None without a cap, negative where more was booked than the cap allows.

    Failed sessions (at risk) count: whether they are billed is not documented (service.md, decision 28).
    """
    return None if cap_ms is None else cap_ms - settled_ms - at_risk_ms - reserved_ms


def fits(cap_ms: int | None, settled_ms: int, at_risk_ms: int, reserved_ms: int, estimate_ms: int) -> bool:
    """Whether a reservation of estimate_ms keeps settled + at risk + reserved at or under the cap. No cap means unlimited."""
    left = left_ms(cap_ms, settled_ms, at_risk_ms, reserved_ms)
    return left is None or estimate_ms <= left
