"""What a failed session means for its gates, and with them for its object: the rules of 4003, 4029 and all the others (rules.md).

`refusals` knows what was said; here it meets what is known besides: whether the key worked lately, who else is live, what a breaker
waits for. Pure; times are milliseconds of the ledger's clock.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

from moderation.breaker import Breaker, BreakerRules, OpenedBy
from moderation.errors import Phase
from moderation.gate import Crowd, Gate, GateRules, Gates, admitted, left
from moderation.outcomes import StopCause
from moderation.refusals import CAPACITY, Action, Cause, Tells
from moderation.retry import MAX_RETRY_AFTER_S


@dataclass(frozen=True, slots=True)
class Failure:
    """A session that failed: how far it was, and what the table of refusals makes of what it was told.

    retry_after_ms is the pause that the service asked for.
    """

    session_id: str
    phase: Phase
    cause: Cause
    retry_after_ms: int = 0

    @property
    def had_results(self) -> bool:
        """Whether the service had admitted it."""
        return self.phase in {Phase.STREAMING, Phase.DRAINING}


class Judgement(NamedTuple):
    """The gates after a failure, and what it means for the object and the run."""

    gates: Gates
    cause: Cause


MID_STREAM_TRIES = 3
"""Of an object that is refused with 4003 after results: it is tried twice more."""

_OF_ALL = frozenset({OpenedBy.PREFLIGHT, OpenedBy.QUOTA, OpenedBy.UNDECIDED})
"""Reasons that close the whole organisation at once: a key that has not worked anywhere is asked for at one endpoint only."""
_OF_KEY = frozenset({OpenedBy.KEY, OpenedBy.MID_STREAM})
"""Reasons that close an endpoint whose key worked once, and may be refused for longer than that counts as a proof."""
_COUNTED = frozenset({OpenedBy.SERVICE, OpenedBy.NETWORK, OpenedBy.HIDDEN})
"""Reasons that open a breaker by their number only."""
_SPEAKS_AGAINST = {
    Tells.QUOTA: OpenedBy.QUOTA,
    Tells.UNDECIDED: OpenedBy.UNDECIDED,
    Tells.SERVICE: OpenedBy.SERVICE,
    Tells.NETWORK: OpenedBy.NETWORK,
    Tells.LOST: OpenedBy.HIDDEN,
}


def judge(gates: Gates, crowd: Crowd, failure: Failure, now_ms: int, chance: float, rules: GateRules) -> Judgement:
    """Take a failure into the gates. The cause that comes back says what follows for the object: WAIT where only admission decides."""
    tells = _told(gates, crowd, failure, now_ms, rules)
    if tells is Tells.ADMITTED and not failure.had_results:
        return Judgement(admitted(gates, crowd, failure.session_id, now_ms, chance, rules), failure.cause)
    if tells in {Tells.ADMITTED, Tells.NOTHING}:
        return Judgement(left(gates, failure.session_id, now_ms, chance, rules), failure.cause)
    by = _reason(tells, gates.endpoint, crowd, failure, now_ms, rules)
    limit = gates.endpoint.limit
    if tells in {Tells.CAPACITY, Tells.UNDECIDED}:
        limit = limit.refused(failure.session_id, crowd.admitted, now_ms, chance, rules.limit)
    else:
        limit = limit.left(failure.session_id, now_ms, chance, rules.limit)
    if failure.retry_after_ms:
        limit = limit.rested(now_ms + min(failure.retry_after_ms, int(MAX_RETRY_AFTER_S * 1000)))
    after = Gates(
        replace(gates.endpoint, limit=limit, breaker=_endpoints_breaker(gates, failure, by, now_ms, chance, rules.breaker)),
        replace(gates.whole, breaker=_organisations_breaker(gates, failure, by, now_ms, chance, rules.breaker)),
    )
    return Judgement(after, _meaning(tells, failure, given_up(after, now_ms, rules)))


def _told(gates: Gates, crowd: Crowd, failure: Failure, now_ms: int, rules: GateRules) -> Tells:
    """What a failure says where others of ours are live, or none are: 4003 and 4029 have two opposite meanings each (service.md).

    Others that are live speak for the key only where it has worked: in preflight they may be about to be refused as well. A session that
    asked for a higher limit is taken to have learned that there is none: the quota would be said to the others, too.
    """
    tells = failure.cause.tells
    works = crowd.whole_admitted > 0 or any(gate.has_proven_key(now_ms, rules) for gate in gates)
    if tells is Tells.KEY and crowd.whole and works and not failure.had_results:
        return Tells.CAPACITY
    if tells is Tells.UNDECIDED and (failure.had_results or not crowd.whole):
        return Tells.QUOTA
    if tells is Tells.UNDECIDED and gates.endpoint.limit.raising == failure.session_id:
        return Tells.CAPACITY
    return tells


def _reason(tells: Tells, gate: Gate, crowd: Crowd, failure: Failure, now_ms: int, rules: GateRules) -> OpenedBy | None:
    """What a failure speaks against; None where the limit alone has the answer."""
    if tells is Tells.CAPACITY:
        if crowd.live:
            return None
        return OpenedBy.CROWDED if crowd.whole else OpenedBy.CAPACITY
    if tells is Tells.KEY:
        if failure.had_results:
            return OpenedBy.MID_STREAM
        confirms = gate.breaker.is_probe(failure.session_id) and gate.breaker.opened_by in _OF_KEY
        return OpenedBy.KEY if confirms or gate.has_proven_key(now_ms, rules) else OpenedBy.PREFLIGHT
    return _SPEAKS_AGAINST[tells]


def _endpoints_breaker(gates: Gates, failure: Failure, by: OpenedBy | None, now_ms: int, chance: float, rules: BreakerRules) -> Breaker:
    """The endpoint's breaker: the end of its probe, or one failure more; what is asked of the whole organisation is not its affair."""
    breaker, session_id = gates.endpoint.breaker, failure.session_id
    if by is None or by in _OF_ALL:
        return breaker.left(session_id, now_ms)
    if breaker.is_probe(session_id):
        return breaker.probe_refused(by, now_ms, chance, rules)
    if gates.whole.breaker.is_probe(session_id) and by is not OpenedBy.CROWDED:
        return breaker
    one_too_many = False
    if not failure.had_results:
        breaker, one_too_many = breaker.refusal(rules)
    return breaker.opened(by, now_ms, chance, rules) if one_too_many or by not in _COUNTED else breaker


def _organisations_breaker(gates: Gates, failure: Failure, by: OpenedBy | None, now_ms: int, chance: float, rules: BreakerRules) -> Breaker:
    """The organisation's breaker: the end of its probe, or a reason that closes all endpoints."""
    breaker, session_id = gates.whole.breaker, failure.session_id
    if by is None or by is OpenedBy.CROWDED:
        return breaker.left(session_id, now_ms)
    if breaker.is_probe(session_id):
        return breaker.probe_refused(by, now_ms, chance, rules)
    one_too_many = False
    if by is OpenedBy.HIDDEN:
        breaker, one_too_many = breaker.broke(now_ms, rules)
    return breaker.opened(by, now_ms, chance, rules) if one_too_many or by in _OF_ALL else breaker


def _meaning(tells: Tells, failure: Failure, stop: StopCause | None) -> Cause:
    """What follows for the object: the run's stop where a breaker gave up, else admission decides when it is tried again."""
    cause = CAPACITY if tells is Tells.CAPACITY else failure.cause
    if stop is not None:
        return replace(cause, action=Action.STOP, stop=stop)
    if tells is Tells.KEY and failure.had_results:
        return replace(cause, action=Action.RETRY, stop=None, attempts=MID_STREAM_TRIES)
    if tells in {Tells.KEY, Tells.QUOTA, Tells.UNDECIDED}:
        return replace(cause, action=Action.WAIT, stop=None)
    return cause


def given_up(gates: Gates, now_ms: int, rules: GateRules) -> StopCause | None:
    """What ends the run, where a breaker's probes have come to nothing."""
    stops = (gate.breaker.given_up(now_ms, rules.breaker) for gate in gates)
    return next((stop for stop in stops if stop is not None), None)
