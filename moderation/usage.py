"""Where a gate and its budget stand, and whether one more session may start: everything that admission weighs (design.md section 5)."""

from dataclasses import dataclass

from moderation import budget
from moderation.admission import EVERY_ENDPOINT, Claim, Denial, History
from moderation.gate import Crowd, Entry, Gate, GateRules, Gates, entry


@dataclass(frozen=True, slots=True)
class Usage:
    """Where a gate and its budget of one month stand; endpoint "*" is the organisation as a whole.

    live counts sessions with an unexpired lease, admitted those of them that have a result; cap_ms is None where there is no limit.
    Times are milliseconds of audio.
    """

    org: str
    endpoint: str
    month: str
    gate: Gate
    live: int
    admitted: int
    cap_ms: int | None
    settled_ms: int
    at_risk_ms: int
    reserved_ms: int

    @property
    def left_ms(self) -> int | None:
        """Milliseconds of audio that may still be reserved this month; None without a cap."""
        return budget.left_ms(self.cap_ms, self.settled_ms, self.at_risk_ms, self.reserved_ms)

    def fits(self, estimate_ms: int) -> bool:
        """Whether the month's cap holds another reservation."""
        return budget.fits(self.cap_ms, self.settled_ms, self.at_risk_ms, self.reserved_ms, estimate_ms)


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
        return Crowd(self.endpoint.live, self.endpoint.admitted, self.whole.live)

    def fit(self, estimate_ms: int) -> bool:
        """Whether both caps hold another reservation."""
        return self.endpoint.fits(estimate_ms) and self.whole.fits(estimate_ms)


def decide(claim: Claim, history: History, usages: Usages, now_ms: int, rules: GateRules) -> Entry | Denial:
    """The place of a claim, or the reason against it.

    What lasts is said first, so that nobody waits for a slot to learn that all is done; the budget last, when a slot is free and as few
    reservations as possible count against it.
    """
    if history.erased:
        return Denial.TOMBSTONE
    if history.streaming:
        return Denial.CLAIMED
    if history.done and not claim.force:
        return Denial.DONE
    entered = entry(usages.gates, usages.crowd, now_ms, rules)
    if isinstance(entered, Denial) or usages.fit(claim.estimate_ms):
        return entered
    return Denial.BUDGET
