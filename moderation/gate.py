"""A gate: what an organisation's sessions at one endpoint (or in all) may do now, and what each of their ends changes about it (rules.md).

Pure: the ledger loads two gates under its lock, asks here, and writes back what it gets. Times are milliseconds of the ledger's clock.
"""

from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

from moderation.admission import Denial, SessionKind
from moderation.breaker import Breaker, BreakerRules, BreakerState, OpenedBy
from moderation.limits import ConnectionLimit, LimitRules, Place, Stage

KEY_NOTED_MS = 1_000
"""How long a key counts as seen to work before that is noted again: a small part of GateRules.key_fresh_ms."""


@dataclass(frozen=True, slots=True)
class GateRules:
    """The figures of admission. A key that worked within key_fresh_ms is known to be good.

    kept_slots are left to runs above priority 0, where the limit allows it. While only others run they idle, and as the limit is never
    filled nobody asks for a higher one.
    """

    limit: LimitRules = field(default_factory=LimitRules)
    breaker: BreakerRules = field(default_factory=BreakerRules)
    key_fresh_ms: int = 600_000
    kept_slots: int = 0

    def open_to(self, priority: int, slots: int) -> int:
        """How many of the slots there are for a run of this priority: at least one, where there is one."""
        return slots if priority > 0 else max(min(slots, 1), slots - self.kept_slots)


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate as the ledger keeps it. ceiling None is no limit, as the organisation's gate usually has none; that one learns no limit.

    cap_ms (audio) and cap_micros (millionths of the currency) are what any month may cost at most, None is no limit. price_micros is the
    endpoint's price of an audio-hour; the organisation's gate has none.
    """

    ceiling: int | None = None
    cap_ms: int | None = None
    cap_micros: int | None = None
    price_micros: int | None = None
    paused: bool = False
    limit: ConnectionLimit = field(default_factory=ConnectionLimit)
    breaker: Breaker = field(default_factory=Breaker)
    key_ok_ms: int | None = None

    def at(self, now_ms: int, rules: "GateRules") -> Self:
        """The same at this instant: what lies further ahead than any rule reaches is of a clock that has started anew (a reboot)."""
        ahead_ms = now_ms + 2 * max(rules.limit.longest_raise_ms, rules.breaker.longest_ms)
        limit, breaker = self.limit, self.breaker
        if max(limit.rest_until_ms, limit.raise_at_ms, breaker.until_ms) <= ahead_ms and (self.key_ok_ms or 0) <= now_ms:
            return self
        return replace(
            self,
            limit=replace(limit, rest_until_ms=min(limit.rest_until_ms, now_ms), raise_at_ms=min(limit.raise_at_ms, now_ms)),
            breaker=replace(
                breaker,
                until_ms=min(breaker.until_ms, now_ms),
                opened_ms=min(breaker.opened_ms, now_ms),
                lost=(),
                window_from_ms=min(breaker.window_from_ms, now_ms),
            ),
            key_ok_ms=None,
        )

    def key_seen_ms(self, now_ms: int) -> int:
        """When the key is noted to have worked, where it has now: not anew for every session, as each note is a gate to be written."""
        known = self.key_ok_ms
        return known if known is not None and 0 <= now_ms - known < KEY_NOTED_MS else now_ms

    def has_proven_key(self, now_ms: int, rules: "GateRules") -> bool:
        """Whether the key has worked here lately."""
        return self.key_ok_ms is not None and 0 <= now_ms - self.key_ok_ms < rules.key_fresh_ms

    def reopened(self, now_ms: int, live: int) -> Self:
        """At the start of a run: one session first where nothing is live; an open breaker may be probed."""
        return replace(self, limit=self.limit if live else self.limit.reopened(), breaker=self.breaker.reopened(now_ms))

    def bound(self, live: int) -> int:
        """The sessions that the settings allow beside each other; without a ceiling always one more than are live."""
        return live + 1 if self.ceiling is None else self.ceiling


class Gates(NamedTuple):
    """The two gates that hold for a session: its endpoint's and the organisation's."""

    endpoint: Gate
    whole: Gate


@dataclass(frozen=True, slots=True)
class Crowd:
    """The live sessions beside the one in question, and those of them that have a result: at its endpoint, and in the organisation."""

    live: int = 0
    admitted: int = 0
    whole: int = 0
    whole_admitted: int = 0

    def without_one(self) -> "Crowd":
        """The same without one that has a result: the one in question itself, or one that may have its place by now."""
        return Crowd(*(max(0, count - 1) for count in (self.live, self.admitted, self.whole, self.whole_admitted)))


@dataclass(frozen=True, slots=True)
class Entry:
    """A session may start: as what, and on which place."""

    kind: SessionKind
    place: Place


def entry(gates: Gates, crowd: Crowd, now_ms: int, rules: GateRules, priority: int = 0) -> Entry | Denial:
    """Whether one more session may start. A breaker is probed by one session alone, which needs a free slot like any other."""
    if any(gate.paused for gate in gates):
        return Denial.PAUSED
    broken = [gate for gate in gates if gate.breaker.state is not BreakerState.CLOSED]
    if any(not gate.breaker.may_probe(now_ms, crowd.whole, rules.breaker) for gate in broken):
        return Denial.BREAKER
    if gates.whole.ceiling is not None and crowd.whole >= rules.open_to(priority, gates.whole.ceiling):
        return Denial.FULL
    limit = gates.endpoint.limit
    bound = gates.endpoint.bound(max(crowd.live, limit.allowed))
    place = limit.place(crowd.live, bound, now_ms)
    if place is Place.NONE or (broken and place is Place.RAISE):
        return Denial.FULL
    if place is Place.SLOT and crowd.live >= rules.open_to(priority, min(limit.allowed, bound)):
        return Denial.FULL
    return Entry(SessionKind.PROBE if broken else SessionKind.OBJECT, place)


class Closure(NamedTuple):
    """What an open breaker was opened by, and the milliseconds until it is probed; None while its probe is out."""

    opened_by: OpenedBy | None
    probe_in_ms: int | None


def closure(gates: Gates, now_ms: int) -> Closure:
    """Of the breakers that are not closed, the one that is probed last: nothing starts before."""
    broken = [gate.breaker for gate in gates if gate.breaker.state is not BreakerState.CLOSED]
    last = max(broken, key=lambda breaker: (breaker.state is BreakerState.HALF_OPEN, breaker.until_ms))
    probe_in_ms = max(0, last.until_ms - now_ms) if last.state is BreakerState.OPEN else None
    return Closure(last.opened_by, probe_in_ms)


def started(gates: Gates, session_id: str, entered: Entry, now_ms: int, rules: GateRules) -> Gates:
    """A session goes out."""
    as_probe = entered.kind is SessionKind.PROBE
    endpoint, whole = (
        replace(
            gate,
            breaker=gate.breaker.started(session_id, now_ms, rules.breaker, as_probe=as_probe and gate.breaker.state is BreakerState.OPEN),
        )
        for gate in gates
    )
    return Gates(replace(endpoint, limit=endpoint.limit.started(session_id, entered.place)), whole)


def awaited(gates: Gates, entered: Entry) -> bool:
    """Whether something hangs on the first result of a session that starts: the next place, a higher limit, a breaker that is open."""
    limit, ceiling = gates.endpoint.limit, gates.endpoint.ceiling
    grown = limit.stage is Stage.HOLDING or (limit.stage is Stage.GROWING and ceiling is not None and limit.allowed >= ceiling)
    return entered != Entry(SessionKind.OBJECT, Place.SLOT) or not grown


def admitted(gates: Gates, crowd: Crowd, session_id: str, now_ms: int, chance: float, rules: GateRules) -> Gates:
    """A session has its first result, or ended well without one: key, organisation and service are fine."""
    endpoint, whole = (replace(gate, breaker=gate.breaker.accepted(session_id), key_ok_ms=gate.key_seen_ms(now_ms)) for gate in gates)
    together, ceiling = crowd.admitted + 1, endpoint.bound(max(crowd.live, endpoint.limit.allowed))
    if any(gate.breaker.is_probe(session_id) for gate in gates):
        limit = endpoint.limit.after_probe(together, ceiling)
    else:
        limit = endpoint.limit.admitted(session_id, together, ceiling, now_ms, chance, rules.limit)
    return Gates(replace(endpoint, limit=limit), whole)


def left(gates: Gates, session_id: str, now_ms: int, chance: float, rules: GateRules) -> Gates:
    """A session ended without a word about key, organisation or service: cancelled, dead, or for its object's sake."""
    endpoint, whole = (replace(gate, breaker=gate.breaker.left(session_id, now_ms)) for gate in gates)
    return Gates(replace(endpoint, limit=endpoint.limit.left(session_id, now_ms, chance, rules.limit)), whole)
