"""The breaker: when no session may start, and the one that asks whether they may again (rules.md, 'Breaker').

Times are milliseconds of the ledger's clock, chances random numbers in [0, 1).
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Self

from moderation.outcomes import StopCause


class BreakerState(StrEnum):
    """Whether sessions may start."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    """Exactly one session, the probe, is out."""


class OpenedBy(StrEnum):
    """What opened a breaker; it decides when probes go out and what their refusal means."""

    PREFLIGHT = "preflight"
    """The key was refused and has not worked in the last ten minutes: it may be wrong for all endpoints."""
    KEY = "key"
    """The key was refused though it worked minutes ago, and nothing of ours was in flight."""
    MID_STREAM = "mid_stream"
    """A session that had results was refused."""
    QUOTA = "quota"
    UNDECIDED = "undecided"
    """4029 without a text: concurrency or quota. A probe tells once nothing is in flight."""
    CAPACITY = "capacity"
    """No place for a session though nothing of ours was in flight."""
    CROWDED = "crowded"
    """No place at an endpoint where nothing of ours was in flight, while it was at others: they may fill the organisation's."""
    HIDDEN = "hidden"
    """Connections that broke without a reason, which a reset can hide."""
    SERVICE = "service"
    NETWORK = "network"


@dataclass(frozen=True, slots=True)
class ProbePlan:
    """When probes go out and how many refused ones end the run. waits_ms are the first pauses, the last of them doubles from there.

    refusals None: they never end it, since ours elsewhere are doing well.
    """

    waits_ms: tuple[int, ...]
    refusals: int | None
    stop: StopCause
    quiet: bool = False
    """Only while nothing of ours is in flight."""


_DOUBLING = (30_000,)


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """The figures of the rule; window_ms bounds the share of starts that may be refused."""

    in_a_row: int = 5
    starts: int = 10
    share: float = 0.5
    window_ms: int = 60_000
    hidden: int = 3
    longest_ms: int = 900_000
    patience_ms: int = 1_800_000
    """A breaker that was open for so long ends the run."""
    jitter: float = 0.2
    pause_factor: float = 1.0
    """On every pause before a probe: less than 1 for rehearsals."""
    plans: dict[OpenedBy, ProbePlan] = field(
        default_factory=lambda: {
            OpenedBy.PREFLIGHT: ProbePlan((5_000, 20_000), 2, StopCause.ACCESS_DENIED),
            OpenedBy.KEY: ProbePlan(_DOUBLING, 3, StopCause.ACCESS_DENIED),
            OpenedBy.MID_STREAM: ProbePlan((0, 30_000), 3, StopCause.ACCESS_DENIED),
            OpenedBy.QUOTA: ProbePlan((60_000,), 1, StopCause.CREDITS_EXHAUSTED),
            OpenedBy.UNDECIDED: ProbePlan((0, 60_000), 2, StopCause.CREDITS_EXHAUSTED, quiet=True),
            OpenedBy.CAPACITY: ProbePlan(_DOUBLING, 3, StopCause.SERVICE_UNREACHABLE),
            OpenedBy.CROWDED: ProbePlan(_DOUBLING, None, StopCause.SERVICE_UNREACHABLE),
            OpenedBy.HIDDEN: ProbePlan((0, 30_000), 3, StopCause.SERVICE_UNREACHABLE),
            OpenedBy.SERVICE: ProbePlan(_DOUBLING, 3, StopCause.SERVICE_UNREACHABLE),
            OpenedBy.NETWORK: ProbePlan(_DOUBLING, 3, StopCause.SERVICE_UNREACHABLE),
        }
    )

    def wait_ms(self, by: OpenedBy, refused: int, chance: float) -> int:
        """Milliseconds until the next probe, after so many refused ones for this reason."""
        waits = self.plans[by].waits_ms
        doublings = min(max(0, refused - len(waits) + 1), self.longest_ms.bit_length())
        wait = waits[min(refused, len(waits) - 1)] * 2**doublings
        return min(self.longest_ms, int(self.pause_factor * wait * (1 + self.jitter * (2 * chance - 1))))


@dataclass(frozen=True, slots=True)
class Breaker:
    """One gate's breaker.

    opened_ms is when its 30 minutes began: when it opened, or when its first probe went out. probe is the session that is out as one: no
    other's end moves a half-open breaker. bad_probes counts the refused ones since it opened, settled those of them before its reason
    became another. row counts starts that came to nothing since the last good one, starts and refused those since window_from_ms; lost
    has the times of the last connections that broke without a reason.
    """

    state: BreakerState = BreakerState.CLOSED
    opened_by: OpenedBy | None = None
    opened_ms: int = 0
    until_ms: int = 0
    bad_probes: int = 0
    settled: int = 0
    probe: str | None = None
    row: int = 0
    starts: int = 0
    refused: int = 0
    window_from_ms: int = 0
    lost: tuple[int, ...] = ()

    def may_probe(self, now_ms: int, live: int, rules: BreakerRules) -> bool:
        """Whether the next session may go out as the probe of an open breaker; `live` others are out."""
        if self.state is not BreakerState.OPEN or self.opened_by is None or now_ms < self.until_ms or self.given_up(now_ms, rules):
            return False
        return not (rules.plans[self.opened_by].quiet and live)

    def given_up(self, now_ms: int, rules: BreakerRules) -> StopCause | None:
        """What ends the run: too many refused probes, or too long a time without a good one. A probe that is out is waited for."""
        if self.state is not BreakerState.OPEN or self.opened_by is None or not self.bad_probes:
            return None
        plan = rules.plans[self.opened_by]
        if plan.refusals is None:
            return None
        spent = self.bad_probes - self.settled >= plan.refusals or now_ms - self.opened_ms >= rules.patience_ms
        return plan.stop if spent else None

    def reopened(self, now_ms: int) -> Self:
        """At the start of a run: an open breaker may be probed at once, a closed one forgets what it counted.

        The times that it remembers can be of before the host was booted.
        """
        if self.state is BreakerState.HALF_OPEN:
            return self
        if self.state is BreakerState.CLOSED:
            return type(self)()
        return replace(self, opened_ms=now_ms, until_ms=now_ms, bad_probes=0, settled=0)

    def started(self, session_id: str, now_ms: int, rules: BreakerRules, *, as_probe: bool) -> Self:
        """A session goes out."""
        if as_probe:
            opened_ms = self.opened_ms if self.bad_probes else now_ms
            return replace(self, state=BreakerState.HALF_OPEN, probe=session_id, opened_ms=opened_ms)
        if now_ms - self.window_from_ms >= rules.window_ms:
            return replace(self, window_from_ms=now_ms, starts=1, refused=0)
        return replace(self, starts=self.starts + 1)

    def accepted(self, session_id: str) -> Self:
        """A session has its first result: the row is broken, and a probe closes the breaker."""
        if self.state is BreakerState.HALF_OPEN and session_id == self.probe:
            return type(self)()
        return replace(self, row=0)

    def refusal(self, rules: BreakerRules) -> tuple[Self, bool]:
        """Count a start that came to nothing; and whether that is one too many."""
        counted = replace(self, row=self.row + 1, refused=self.refused + 1)
        many = counted.starts >= rules.starts and counted.refused >= rules.share * counted.starts
        return counted, counted.row >= rules.in_a_row or many

    def broke(self, now_ms: int, rules: BreakerRules) -> tuple[Self, bool]:
        """Count a connection that broke in mid-stream without a reason; and whether that is one too many."""
        recent = tuple(at_ms for at_ms in self.lost if now_ms - at_ms < rules.window_ms)[1 - rules.hidden :]
        counted = replace(self, lost=(*recent, now_ms))
        return counted, len(counted.lost) >= rules.hidden

    def opened(self, by: OpenedBy, now_ms: int, chance: float, rules: BreakerRules) -> Self:
        """No more starts, for this reason. One that is open already stays as it is, unless the quota is named: that is not asked again.

        A probe that is out by then was sent before: its refusal is not the one that ends the run.
        """
        if self.state is not BreakerState.CLOSED and (by is not OpenedBy.QUOTA or self.opened_by is OpenedBy.QUOTA):
            return self
        half_open = self.state is BreakerState.HALF_OPEN
        until_ms = now_ms + rules.wait_ms(by, 0, chance)
        told = replace(self, opened_by=by, opened_ms=now_ms, until_ms=until_ms, bad_probes=0, settled=int(half_open))
        return told if half_open else replace(told, state=BreakerState.OPEN)

    def probe_refused(self, by: OpenedBy, now_ms: int, chance: float, rules: BreakerRules) -> Self:
        """The probe came to nothing, by what it was told: a longer wait, or the first one of another reason."""
        assert self.opened_by is not None, "a breaker with a probe was opened"
        bad, settled, opened_ms = self.bad_probes + 1, self.settled, self.opened_ms
        if _confirms(self.opened_by, by):
            by = self.opened_by
        else:
            settled = bad
            opened_ms = now_ms if self.opened_by is OpenedBy.CROWDED else opened_ms
        until_ms = now_ms + rules.wait_ms(by, bad - settled, chance)
        told = replace(self, opened_by=by, opened_ms=opened_ms, bad_probes=bad, settled=settled)
        return replace(told, state=BreakerState.OPEN, probe=None, until_ms=until_ms)

    def left(self, session_id: str, now_ms: int) -> Self:
        """A session ended without a word about the service: a lost probe is sent again at once."""
        if self.state is not BreakerState.HALF_OPEN or session_id != self.probe:
            return self
        until_ms = max(now_ms, self.until_ms)
        return replace(self, state=BreakerState.OPEN, probe=None, until_ms=until_ms, settled=min(self.settled, self.bad_probes))

    def is_probe(self, session_id: str) -> bool:
        """Whether this session's end decides."""
        return self.state is BreakerState.HALF_OPEN and session_id == self.probe


_ALIKE = (
    frozenset({OpenedBy.PREFLIGHT, OpenedBy.KEY, OpenedBy.MID_STREAM}),
    frozenset({OpenedBy.CAPACITY, OpenedBy.HIDDEN, OpenedBy.SERVICE, OpenedBy.NETWORK}),
)
"""Reasons between which a refused probe cannot tell, or need not."""


def _confirms(known: OpenedBy, by: OpenedBy) -> bool:
    """Whether a refused probe says again what is known: it also does without words, or with 4029's two meanings where one is known."""
    if by in {known, OpenedBy.HIDDEN} or (known, by) == (OpenedBy.QUOTA, OpenedBy.UNDECIDED):
        return True
    return any({known, by} <= alike for alike in _ALIKE)
