"""When to try again, and when to give up: one layer of retries for the whole program (rules.md, 'Retries')."""

from dataclasses import dataclass

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

    attempts bounds the tries of an object for its own faults, patience those for the faults of others, waits those
    for a free slot (at full pauses these are some 40 minutes)
    """

    attempts: int = 3
    patience: int = 5
    waits: int = 40
    step_s: float = 2.0
    ceiling_s: float = 120.0
    refused_key_waits_s: tuple[float, ...] = (5.0, 20.0)
    """A refused key is tried again after each of these (rules.md, '4003')."""

    def verdict(self, cause: Cause, tries: int, chance: float, *, retry_after: float | None = None) -> Verdict:
        """What follows for an object whose `tries`-th try (from 1) failed for this cause; chance is a random number in [0, 1)."""
        if cause.action is Action.QUARANTINE:
            return GiveUp(cause.reason)
        if cause.stop is StopCause.ACCESS_DENIED and tries <= len(self.refused_key_waits_s):
            return RetryAfter(self.refused_key_waits_s[tries - 1])
        if cause.action is Action.STOP:
            return GiveUp(cause.reason, cause.stop)
        allowed = self._allowed(cause)
        if tries < allowed:
            return RetryAfter(max(min(retry_after or 0.0, MAX_RETRY_AFTER_S), self._pause(tries, chance)))
        if cause.spends_attempt:
            return GiveUp(cause.reason)
        return GiveUp(cause.reason, StopCause.SERVICE_UNREACHABLE)

    def _allowed(self, cause: Cause) -> int:
        if cause.spends_attempt:
            return min(self.attempts, cause.attempts or self.attempts)
        return self.waits if cause.action is Action.WAIT else self.patience

    def _pause(self, tries: int, chance: float) -> float:
        return float(chance * min(self.ceiling_s, self.step_s * 2**tries))
