"""Probe and hold: how many sessions may be live at one endpoint, learned from what the service admits (rules.md, 'Connection limit').

Times are milliseconds of the ledger's clock, chances random numbers in [0, 1).
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self


@dataclass(frozen=True, slots=True)
class LimitRules:
    """The figures of the rule: sessions at the start, the pause after a refusal and the time between two raises in milliseconds."""

    start: int = 2
    start_share: float = 0.8
    """Of the limit that was learned last."""
    rest_ms: tuple[int, int] = (500, 1_500)
    raise_ms: int = 30_000
    longest_raise_ms: int = 900_000
    jitter: float = 0.25


class Stage(StrEnum):
    """How the limit is being found."""

    PREFLIGHT = "preflight"
    """One session alone, until the service has given it a result."""
    GROWING = "growing"
    """One more for every session that gets a result."""
    HOLDING = "holding"
    """A limit is known; one session beyond it asks now and then whether it still holds."""


class Place(StrEnum):
    """What there is for one more session."""

    NONE = "none"
    SLOT = "slot"
    RAISE = "raise"
    """The one session beyond the limit that asks for a higher one."""


@dataclass(frozen=True, slots=True)
class ConnectionLimit:
    """The sessions that may be live at an endpoint now, and what was learned about it.

    allowed never is less than 1; learned is the last limit that a refusal or a raise showed; raising is the session beyond the limit.
    """

    stage: Stage = Stage.PREFLIGHT
    allowed: int = 1
    learned: int | None = None
    rest_until_ms: int = 0
    raise_every_ms: int = 0
    raise_at_ms: int = 0
    raising: str | None = None

    def reopened(self) -> Self:
        """At the start of a run while nothing is live: one session first."""
        return replace(self, stage=Stage.PREFLIGHT, allowed=1, rest_until_ms=0, raise_every_ms=0, raising=None)

    def rests(self, now_ms: int) -> bool:
        """Whether nothing starts for a moment, since the service has refused a session."""
        return now_ms < self.rest_until_ms

    def place(self, live: int, ceiling: int, now_ms: int) -> Place:
        """What there is for one more session beside `live` others, under the configured ceiling."""
        if self.rests(now_ms):
            return Place.NONE
        if live < min(self.allowed, ceiling):
            return Place.SLOT
        may_raise = self.stage is Stage.HOLDING and self.raising is None and self.allowed < ceiling and now_ms >= self.raise_at_ms
        return Place.RAISE if may_raise and live == self.allowed else Place.NONE

    def started(self, session_id: str, place: Place) -> Self:
        """A session goes out."""
        return replace(self, raising=session_id) if place is Place.RAISE else self

    def admitted(self, session_id: str, together: int, ceiling: int, now_ms: int, chance: float, rules: LimitRules) -> Self:
        """A session has its first result: the service holds it, whatever the upgrade said, and `together` of ours in all."""
        if self.stage is Stage.HOLDING:
            return self._held(session_id, together, ceiling, now_ms, chance, rules)
        start = max(rules.start, int(rules.start_share * (self.learned or 0)))
        allowed = max(1, min(start if self.stage is Stage.PREFLIGHT else self.allowed + 1, ceiling))
        if self.learned is None or self.learned > max(allowed, together):
            return replace(self, stage=Stage.GROWING, allowed=allowed)
        known = max(1, min(max(self.learned, together), ceiling))
        every = max(rules.raise_ms, self.raise_every_ms)
        at_ms = _raise_at(every, now_ms, chance, rules)
        return replace(self, stage=Stage.HOLDING, allowed=known, learned=known, raise_every_ms=every, raise_at_ms=at_ms)

    def _held(self, session_id: str, together: int, ceiling: int, now_ms: int, chance: float, rules: LimitRules) -> Self:
        """What is really admitted can be more than the limit: sessions that had no result yet when a refusal lowered it, or a raise."""
        raised = min(together, ceiling) > self.allowed
        known = replace(self, allowed=min(together, ceiling), learned=min(together, ceiling)) if raised else self
        if session_id != self.raising:
            return known
        every = max(rules.raise_ms, self.raise_every_ms // 2) if raised else self.raise_every_ms
        return replace(known, raising=None, raise_every_ms=every, raise_at_ms=_raise_at(every, now_ms, chance, rules))

    def after_probe(self, together: int, ceiling: int) -> Self:
        """The probe of a breaker was admitted: what is admitted by then, and more for every other one."""
        return replace(self, stage=Stage.GROWING, allowed=max(1, min(together, ceiling)), rest_until_ms=0, raising=None)

    def refused(self, session_id: str, admitted: int, now_ms: int, chance: float, rules: LimitRules) -> Self:
        """The service had no place for a session; `admitted` others have a result and are live: that is the limit now.

        A raise that is refused says nothing against the limit that it went beyond, where some may not have had time for a result. The time
        between raises is doubled by them alone: where every refusal began it anew, others who come and go made for twice as many.
        """
        rest_from, rest_to = rules.rest_ms
        failed_raise = session_id == self.raising
        every = min(rules.longest_raise_ms, 2 * self.raise_every_ms) if failed_raise else max(rules.raise_ms, self.raise_every_ms)
        raise_at_ms = _raise_at(every, now_ms, chance, rules)
        if self.stage is Stage.HOLDING and not failed_raise:
            raise_at_ms = max(self.raise_at_ms, _raise_at(rules.raise_ms, now_ms, chance, rules))
        allowed = self.allowed if failed_raise else max(1, min(self.allowed, admitted))
        return replace(
            self,
            stage=Stage.HOLDING,
            allowed=allowed,
            learned=allowed if admitted or failed_raise else self.learned,
            rest_until_ms=max(self.rest_until_ms, now_ms + rest_from + int((rest_to - rest_from) * chance)),
            raising=None if failed_raise else self.raising,
            raise_every_ms=every,
            raise_at_ms=raise_at_ms,
        )

    def left(self, session_id: str, now_ms: int, chance: float, rules: LimitRules) -> Self:
        """A session ended without a word about the limit; a raise that told nothing was no good one, since a refusal can lose its words."""
        if session_id != self.raising:
            return self
        every = min(rules.longest_raise_ms, 2 * self.raise_every_ms)
        return replace(self, raising=None, raise_every_ms=every, raise_at_ms=_raise_at(every, now_ms, chance, rules))

    def rested(self, until_ms: int) -> Self:
        """The service asked for a pause."""
        return replace(self, rest_until_ms=max(self.rest_until_ms, until_ms))


def _raise_at(every_ms: int, now_ms: int, chance: float, rules: LimitRules) -> int:
    return now_ms + int(every_ms * (1 + rules.jitter * (2 * chance - 1)))
