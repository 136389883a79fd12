"""When to try again, and when to give up: one layer of retries for the whole program (rules.md, 'Retries')."""

from dataclasses import dataclass
from typing import ClassVar

from moderation.budget import MS_PER_HOUR
from moderation.outcomes import Reason, StopCause
from moderation.refusals import Action, Cause


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """Try the object again after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The object ends here: quarantined or left pending, as the reason says; `stop` ends the run as well."""

    reason: Reason
    stop: StopCause | None = None


Verdict = RetryAfter | GiveUp
MAX_RETRY_AFTER_S = 15 * 60.0
"""The most that a Retry-After header is honoured for (faults.toml, 18): as long as the breaker ever stays open."""


@dataclass(frozen=True, slots=True)
class RetryRules:
    """Full jitter: a random share of min(ceiling_s, step_s x 2^n).

    attempts bounds the tries of an object for its own faults, patience those for the faults of others. What a run waits for as a whole
    (a slot, a breaker) is admission's to end, and bounds nothing here.
    """

    attempts: int = 3
    patience: int = 5
    step_s: float = 2.0
    ceiling_s: float = 120.0

    def verdict(self, cause: Cause, tries: int, chance: float, *, retry_after: float | None = None) -> Verdict:
        """What follows for an object whose `tries`-th try (from 1, by `Cause.counted_as`) failed for this cause.

        chance is a random number in [0, 1), retry_after in seconds.
        """
        floor_s = min(retry_after or 0.0, MAX_RETRY_AFTER_S)
        match cause.action:
            case Action.QUARANTINE | Action.STOP:
                return GiveUp(cause.reason, cause.stop)
            case Action.WAIT:
                return RetryAfter(floor_s)
            case Action.RETRY_THEN_QUARANTINE:
                allowed = min(self.attempts, cause.attempts or self.attempts)
            case Action.RETRY:
                allowed = min(self.patience, cause.attempts or self.patience)
        return RetryAfter(max(floor_s, self._pause(tries, chance))) if tries < allowed else GiveUp(cause.reason, cause.stop)

    def _pause(self, tries: int, chance: float) -> float:
        return float(chance * min(self.ceiling_s, self.step_s * 2**tries))


@dataclass(slots=True)
class RetryBudget:
    """The audio that one run may stream again: a tenth of its plan, or an hour (rules.md, 'Retries'). Milliseconds of audio."""

    planned_ms: int
    spent_ms: int = 0

    SHARE: ClassVar[float] = 0.1
    LEAST_MS: ClassVar[int] = MS_PER_HOUR

    def allows(self, more_ms: int) -> bool:
        """Whether an object of this length may be streamed again; if so it is counted."""
        if self.spent_ms + more_ms > max(self.SHARE * self.planned_ms, self.LEAST_MS):
            return False
        self.spent_ms += more_ms
        return True
