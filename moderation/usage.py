"""Where a gate and its budget stand, and whether one more session may start: everything that admission weighs (design.md section 5)."""

from dataclasses import dataclass

from moderation.admission import EVERY_ENDPOINT, CapShare, CapUnit, Claim, Denial, History
from moderation.budget import Allowance, parts_of
from moderation.gate import Crowd, Entry, Gate, GateRules, Gates, entry


@dataclass(frozen=True, slots=True)
class Usage:
    """Where a gate and its budget of one month stand; endpoint "*" is the organisation as a whole.

    live counts sessions with an unexpired lease whose connections may be open, admitted those of them that have a result. Times are
    milliseconds of audio. endpoints are, of the organisation's, the usages of its endpoints: it has no price of its own, and what they cost
    is its cost. A correction of the organisation's hours alone has no price either.
    """

    org: str
    endpoint: str
    month: str
    gate: Gate
    live: int
    admitted: int
    settled_ms: int
    at_risk_ms: int
    reserved_ms: int
    endpoints: tuple["Usage", ...] = ()

    @property
    def hours(self) -> Allowance:
        """The month's audio, in milliseconds."""
        return Allowance(self.gate.cap_ms, self.settled_ms + self.at_risk_ms + self.reserved_ms)

    @property
    def money(self) -> Allowance:
        """What that costs at today's prices, in parts of money (moderation.budget): a price that changes re-values the month."""
        cap_micros = self.gate.cap_micros
        whole = self.endpoint == EVERY_ENDPOINT
        parts = sum(each.money.taken for each in self.endpoints) if whole else self.parts(self.hours.taken)
        return Allowance(None if cap_micros is None else parts_of(cap_micros), parts)

    @property
    def has_price(self) -> bool:
        """Whether anything is known of what its audio costs."""
        return self.gate.price_micros is not None or any(each.has_price for each in self.endpoints)

    def parts(self, ms: int) -> int:
        """What so much audio costs at this endpoint, in parts of money; nothing without a price."""
        return ms * (self.gate.price_micros or 0)


@dataclass(frozen=True, slots=True)
class Usages:
    """The two that hold for a session: its endpoint's and the organisation's."""

    endpoint: Usage
    whole: Usage

    def __post_init__(self) -> None:
        assert self.whole.endpoint == EVERY_ENDPOINT, "the organisation's gate comes second"

    @property
    def gates(self) -> Gates:
        """The gates alone."""
        return Gates(self.endpoint.gate, self.whole.gate)

    @property
    def crowd(self) -> Crowd:
        """Who is live by now."""
        return Crowd(self.endpoint.live, self.endpoint.admitted, self.whole.live, self.whole.admitted)

    @property
    def unpriced(self) -> str | None:
        """The endpoint without a price whose hours a cap in money would have to hold; None when all is known that is asked."""
        if self.whole.gate.cap_micros is not None:
            asked = (self.endpoint, *(each for each in self.whole.endpoints if each.hours.taken))
        else:
            asked = (self.endpoint,) if self.endpoint.gate.cap_micros is not None else ()
        return next((usage.endpoint for usage in asked if usage.gate.price_micros is None), None)

    def fit(self, estimate_ms: int) -> bool:
        """Whether hours and money of both hold another reservation. A cap in money holds nothing whose price is not known."""
        return self.unpriced is None and self.full(estimate_ms) is None

    def full(self, estimate_ms: int) -> str | None:
        """The endpoint whose cap does not hold another reservation, "*" before any other; None where both do."""
        refusing = (
            usage.endpoint
            for usage in (self.whole, self.endpoint)
            if not all(taken.fits(more) for taken, more in self._weighed(usage, estimate_ms))
        )
        return next(refusing, None)

    def spent_with(self, more_ms: int) -> tuple[CapShare, ...]:
        """Every cap as it is taken once so much more is reserved."""
        return tuple(
            CapShare(usage.endpoint, unit, share)
            for usage in (self.endpoint, self.whole)
            for unit, (taken, more) in zip(CapUnit, self._weighed(usage, more_ms), strict=True)
            if (share := taken.with_more(more).share) is not None
        )

    def _weighed(self, usage: Usage, more_ms: int) -> tuple[tuple[Allowance, int], ...]:
        """Hours and money, and what more audio at this endpoint takes of each."""
        return (usage.hours, more_ms), (usage.money, self.endpoint.parts(more_ms))


def decide(claim: Claim, history: History, usages: Usages, now_ms: int, rules: GateRules) -> Entry | Denial:
    """The place of a claim, or the reason against it.

    What lasts is said first, so that nobody waits for a slot to learn that all is done; the budget last, when a slot is free and as few
    reservations as possible count against it.
    """
    if history.erased:
        return Denial.TOMBSTONE
    if history.streaming:
        return Denial.CLAIMED
    if history.done_by_run or (history.done and not claim.force):
        return Denial.DONE
    entered = entry(usages.gates, usages.crowd, now_ms, rules, claim.priority)
    if isinstance(entered, Denial) or usages.fit(claim.estimate_ms):
        return entered
    return Denial.BUDGET
