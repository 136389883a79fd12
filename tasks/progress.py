"""How far a run is: counts per endpoint that its tasks keep and that people are shown."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from moderation.admission import Denial, Refusal
from moderation.budget import ms_to_hours
from moderation.outcomes import PENDING, SKIPPED, Reason
from moderation.selection import LeftOut


class Standing(StrEnum):
    """Where an object stands at one endpoint; every listed object has exactly one."""

    DONE = "done"
    QUARANTINED = "quarantined"
    SKIPPED = "skipped"
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one object at one endpoint in this run. detail is a sentence for people; streamed whether audio was paid for.

    An object is counted by its object_id: equal keys may lie in several buckets, and a key may have several versions.
    """

    object_id: str
    key: str
    endpoint: str
    reason: Reason | None = None
    detail: str = ""
    streamed: bool = False
    new: bool = False
    """Whether this run is the first to find it so; an earlier run's quarantine is not news."""
    example: bool = False
    """Whether it is one of many that `Progress.know` has counted already."""

    @property
    def standing(self) -> Standing:
        """Done without a reason, else what the reason means."""
        return standing_of(self.reason)


def standing_of(reason: Reason | None) -> Standing:
    """Done without a reason, else what the reason means."""
    if reason is None:
        return Standing.DONE
    if reason in PENDING:
        return Standing.PENDING
    return Standing.SKIPPED if reason in SKIPPED else Standing.QUARANTINED


@dataclass(frozen=True, slots=True)
class Changes:
    """How many objects of a listing are what. What is no audio, by its listing or its bytes, counts nowhere.

    deleted counts keys with results that are listed no more; None where the sources do not show all that lies somewhere.
    """

    new: int
    changed: int
    unchanged: int
    deleted: int | None


@dataclass(slots=True)
class EndpointProgress:
    """The counts of one endpoint, audio in milliseconds: planned_ms is an estimate, audio_ms booked, at_risk_ms possibly billed."""

    planned: int = 0
    planned_ms: int = 0
    live: int = 0
    sessions: int = 0
    audio_ms: int = 0
    at_risk_ms: int = 0
    streamed_estimate_ms: int = 0
    """The estimates of what has ended, to compare with planned_ms."""
    refusals: int = 0
    claimed: int = 0
    """Objects that wait for another session that streams them."""
    saved_ms: int = 0
    """Audio, known by the results of the first stage, that the cascade leaves out."""
    changes: Changes | None = None
    """What is new; None before the plan is made, and where it is taken up again."""
    standings: Counter[Standing] = field(default_factory=Counter)
    reasons: Counter[Reason] = field(default_factory=Counter)


RANK = {Standing.DONE: 0, Standing.SKIPPED: 1, Standing.PENDING: 2, Standing.QUARANTINED: 3}
"""Which standing an object has as a whole when its endpoints differ: the one that asks most of a person."""


@dataclass(slots=True)
class Progress:
    """The counts of a run: objects listed, and per endpoint what became of them.

    outcomes keeps those that are not done, for reports; known counts the objects that were settled before anything was looked at, and
    cut those that are pending only because a bound of the plan leaves them for a later run. left_out counts what the source showed and
    the selection did not take, which is not among the listed.
    """

    listed: int = 0
    left_out: Counter[LeftOut] = field(default_factory=Counter)
    step: str = "starting"
    endpoints: dict[str, EndpointProgress] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    refusals: dict[str, Refusal] = field(default_factory=dict)
    """What the next session of an endpoint waits for."""
    known: Counter[Standing] = field(default_factory=Counter)
    cut: int = 0
    spent_before_ms: tuple[int, int] = (0, 0)
    """Milliseconds of audio that the run had booked, and possibly was billed for, before it was taken up again: in no other count."""
    decisions: Counter[str] = field(default_factory=Counter)
    """How many objects a policy allows, blocks and leaves to a person, over all that is known of the organisation's."""

    def of(self, endpoint: str) -> EndpointProgress:
        """The counts of an endpoint, from zero when it is new."""
        return self.endpoints.setdefault(endpoint, EndpointProgress())

    def add(self, outcome: Outcome) -> None:
        """Count an object's end."""
        counts = self.of(outcome.endpoint)
        counts.standings[outcome.standing] += 1
        if outcome.reason is not None:
            counts.reasons[outcome.reason] += 1
            self.outcomes.append(outcome)

    def know(self, endpoint: str, reason: Reason | None, count: int) -> None:
        """Count the ends of many objects at an endpoint, of which nothing more need be said; `known` has each of them once."""
        counts = self.of(endpoint)
        counts.standings[standing_of(reason)] += count
        if reason is not None:
            counts.reasons[reason] += count

    def objects(self) -> dict[Standing, int]:
        """Every listed object once; what nothing is known of yet is pending. Sums up to `listed`."""
        worst: dict[str, Standing] = {}
        for outcome in self.outcomes:
            if not outcome.example:
                worst[outcome.object_id] = max(outcome.standing, worst.get(outcome.object_id, Standing.DONE), key=RANK.__getitem__)
        counts = Counter(worst.values()) + self.known
        not_done = counts.total() - counts[Standing.DONE]
        reached = min((counts.standings.total() for counts in self.endpoints.values()), default=0)
        pending = counts[Standing.PENDING] + self.listed - max(reached, not_done)
        done = self.listed - pending - counts[Standing.SKIPPED] - counts[Standing.QUARANTINED]
        return {
            Standing.DONE: done,
            Standing.QUARANTINED: counts[Standing.QUARANTINED],
            Standing.SKIPPED: counts[Standing.SKIPPED],
            Standing.PENDING: pending,
        }

    def pending_reasons(self) -> Counter[Reason]:
        """Why objects stay pending, over all endpoints."""
        return Counter(outcome.reason for outcome in self.outcomes if outcome.reason in PENDING)

    @property
    def newly_quarantined(self) -> int:
        """Objects that this run was the first to quarantine."""
        return len({outcome.object_id for outcome in self.outcomes if outcome.new and outcome.standing is Standing.QUARANTINED})

    @property
    def sessions(self) -> int:
        """Sessions that were opened, over all endpoints."""
        return sum(counts.sessions for counts in self.endpoints.values())

    @property
    def audio_ms(self) -> int:
        """Milliseconds of audio booked, over all endpoints."""
        return sum(counts.audio_ms for counts in self.endpoints.values())

    @property
    def at_risk_ms(self) -> int:
        """Milliseconds of audio that failed sessions sent: possibly billed."""
        return sum(counts.at_risk_ms for counts in self.endpoints.values())

    @property
    def saved_ms(self) -> int:
        """Milliseconds of audio that the cascade leaves out, over all endpoints."""
        return sum(counts.saved_ms for counts in self.endpoints.values())

    @property
    def planned_ms(self) -> int:
        """Milliseconds of audio planned, an estimate."""
        return sum(counts.planned_ms for counts in self.endpoints.values())

    @property
    def share(self) -> float:
        """How much of the planned audio has ended, 0 to 1, by its estimates."""
        ended = sum(counts.streamed_estimate_ms for counts in self.endpoints.values())
        return ended / self.planned_ms if self.planned_ms else 0.0

    def line(self) -> str:
        """The run in one line for people."""
        live = sum(counts.live for counts in self.endpoints.values())
        ended = sum(counts.standings.total() for counts in self.endpoints.values())
        claimed = sum(counts.claimed for counts in self.endpoints.values())
        counts = f"{self.listed} objects listed, {ended} ended, {live} live, {ms_to_hours(self.audio_ms):.2f} audio-hours"
        elsewhere = [f"{claimed} claimed elsewhere"] if claimed else []
        waits = [f"{endpoint} {waits}" for endpoint, waits in sorted(self.waits().items())]
        return "; ".join([f"{self.step}: {counts}", *elsewhere, *waits])

    def waits(self) -> dict[str, str]:
        """What nothing starts for, in words, by endpoint; without those that only wait for one of their own slots."""
        return {
            endpoint: _waits_for(refusal)
            for endpoint, refusal in self.refusals.items()
            if refusal.denial is not Denial.FULL or not self.of(endpoint).live
        }


def _waits_for(refusal: Refusal) -> str:
    match refusal.denial:
        case Denial.PAUSED:
            return "is paused: soundcheck resume goes on"
        case Denial.BUDGET:
            return "waits for what running sessions leave of the cap"
        case Denial.BREAKER:
            probe = "its probe is out" if refusal.probe_in_ms is None else f"next probe in {refusal.probe_in_ms / 1000:.0f} s"
            return f"starts nothing ({refusal.opened_by}): {probe}"
        case _:
            return "waits for a slot"
