"""Gates: what may start now (rules.md; design.md section 5), and what holds for any sequence of sessions, ends and failures."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.admission import Denial, SessionKind
from moderation.breaker import Breaker, BreakerState, OpenedBy
from moderation.errors import Phase
from moderation.gate import Crowd, Entry, Gate, GateRules, Gates, admitted, awaited, closure, entry, left, started
from moderation.judgement import Failure, given_up, judge
from moderation.limits import ConnectionLimit, Place, Stage
from moderation.refusals import (
    BAD_PARAMETERS,
    CAPACITY,
    INCOMPLETE,
    INSUFFICIENT,
    LOST,
    NOT_PERMITTED,
    QUOTA,
    SERVICE_FAULT,
    UNDECODABLE,
    UNREACHABLE,
)

RULES = GateRules()
MIDDLE = 0.5
chances = st.floats(0, 1, exclude_max=True)
HELD = ConnectionLimit(Stage.HOLDING, 3, learned=3, raise_every_ms=30_000, raise_at_ms=30_000)
OBJECT = Entry(SessionKind.OBJECT, Place.SLOT)
PROBE = Entry(SessionKind.PROBE, Place.SLOT)


def gates_of(*, endpoint=None, whole=None):
    return Gates(replace(Gate(8, limit=HELD), **(endpoint or {})), replace(Gate(), **(whole or {})))


def opened(by, now_ms=0):
    return Breaker().opened(by, now_ms, MIDDLE, RULES.breaker)


def half_open(by):
    return opened(by).started("probe", 10**6, RULES.breaker, as_probe=True)


# what may start


@pytest.mark.parametrize(
    ("gates", "crowd", "now_ms", "answer"),
    [
        (gates_of(), Crowd(2, 2, 2), 0, OBJECT),
        (gates_of(), Crowd(3, 3, 3), 0, Denial.FULL),
        (gates_of(), Crowd(3, 3, 3), 30_000, Entry(SessionKind.OBJECT, Place.RAISE)),
        (gates_of(endpoint={"ceiling": 2}), Crowd(2, 2, 2), 30_000, Denial.FULL),
        (gates_of(endpoint={"ceiling": None}), Crowd(2, 2, 2), 0, OBJECT),
        (gates_of(endpoint={"ceiling": None}), Crowd(3, 3, 3), 30_000, Entry(SessionKind.OBJECT, Place.RAISE)),
        (gates_of(endpoint={"ceiling": 0}), Crowd(), 0, Denial.FULL),
        (gates_of(whole={"ceiling": 5}), Crowd(1, 1, 5), 0, Denial.FULL),
        (gates_of(whole={"ceiling": 5}), Crowd(1, 1, 4), 0, OBJECT),
        (gates_of(endpoint={"paused": True}), Crowd(), 0, Denial.PAUSED),
        (gates_of(whole={"paused": True}), Crowd(), 0, Denial.PAUSED),
        (gates_of(whole={"paused": True, "breaker": opened(OpenedBy.QUOTA)}), Crowd(), 0, Denial.PAUSED),
    ],
    ids=[
        "a free slot",
        "every slot taken",
        "one beyond the limit",
        "the ceiling",
        "no ceiling",
        "one beyond without a ceiling",
        "a ceiling of nothing",
        "the organisation's ceiling",
        "below the organisation's ceiling",
        "an endpoint's pause",
        "the organisation's pause",
        "a pause is said before a breaker",
    ],
)
def test_what_one_more_session_is_told(gates, crowd, now_ms, answer):
    assert entry(gates, crowd, now_ms, RULES) == answer


KEEPING = GateRules(kept_slots=1)


@pytest.mark.parametrize("priority", [-1, 0, 1])
@pytest.mark.parametrize(
    ("gates", "slots"),
    [
        (gates_of(endpoint={"limit": ConnectionLimit(Stage.GROWING, 3)}), 3),
        (gates_of(endpoint={"limit": ConnectionLimit(Stage.GROWING, 9), "ceiling": 5}), 5),
        (gates_of(endpoint={"limit": ConnectionLimit(Stage.GROWING, 9), "ceiling": None}), 9),
        (gates_of(endpoint={"limit": ConnectionLimit(Stage.GROWING, 9)}, whole={"ceiling": 4}), 4),
        (gates_of(endpoint={"limit": ConnectionLimit()}), 1),
        (gates_of(endpoint={"limit": ConnectionLimit(Stage.GROWING, 3)}, whole={"ceiling": 1}), 1),
        (gates_of(endpoint={"ceiling": 0}), 0),
    ],
    ids=["the limit", "the ceiling", "no ceiling", "the organisation's", "a limit of one", "one in the organisation", "nothing"],
)
def test_the_last_slot_is_kept_for_the_urgent_where_there_are_several(gates, slots, priority):
    open_to_it = slots if priority > 0 else max(min(slots, 1), slots - 1)
    seen = [live for live in range(slots + 2) if entry(gates, Crowd(live, live, live), 0, KEEPING, priority) == OBJECT]
    assert seen == list(range(open_to_it))
    assert [live for live in range(slots + 2) if entry(gates, Crowd(live, live, live), 0, RULES, priority) == OBJECT] == list(range(slots))


@pytest.mark.parametrize(("priority", "answer"), [(0, Denial.FULL), (1, PROBE)])
def test_a_kept_slot_is_not_for_the_probe_of_a_scan(priority, answer):
    gates = gates_of(endpoint={"breaker": opened(OpenedBy.SERVICE)})
    assert entry(gates, Crowd(2, 2, 2), 40_000, KEEPING, priority) == answer


def test_what_an_open_breaker_waits_for_is_known():
    assert closure(gates_of(endpoint={"breaker": opened(OpenedBy.SERVICE)}), 10_000) == (OpenedBy.SERVICE, 20_000)
    assert closure(gates_of(whole={"breaker": opened(OpenedBy.UNDECIDED)}), 10_000) == (OpenedBy.UNDECIDED, 0)
    assert closure(gates_of(whole={"breaker": half_open(OpenedBy.QUOTA)}), 10_000) == (OpenedBy.QUOTA, None)


@pytest.mark.parametrize(("now_ms", "expected"), [(0, (OpenedBy.QUOTA, 60_000)), (50_000, (OpenedBy.QUOTA, 10_000))])
def test_of_two_open_breakers_the_one_that_is_probed_last_is_waited_for(now_ms, expected):
    gates = gates_of(endpoint={"breaker": opened(OpenedBy.SERVICE)}, whole={"breaker": opened(OpenedBy.QUOTA)})
    assert closure(gates, now_ms) == expected


@pytest.mark.parametrize("gate", ["endpoint", "whole"])
def test_while_a_breaker_is_open_nothing_starts_but_its_probe(gate):
    gates = gates_of(**{gate: {"breaker": opened(OpenedBy.SERVICE)}})
    assert entry(gates, Crowd(), 29_999, RULES) is Denial.BREAKER
    assert entry(gates, Crowd(), 30_000, RULES) == PROBE
    probing = started(gates, "probe", PROBE, 30_000, RULES)
    assert entry(probing, Crowd(1, 0, 1), 10**9, RULES) is Denial.BREAKER


@pytest.mark.parametrize("live", [3, 4])
def test_a_probe_holds_a_slot_like_any_session_and_never_one_beyond_the_limit(live):
    gates = gates_of(endpoint={"breaker": opened(OpenedBy.SERVICE)})
    assert entry(gates, Crowd(live, live, live), 40_000, RULES) is Denial.FULL
    assert entry(gates, Crowd(2, 2, 2), 40_000, RULES) == PROBE


def test_both_breakers_are_asked_by_one_probe():
    gates = gates_of(endpoint={"breaker": opened(OpenedBy.SERVICE)}, whole={"breaker": opened(OpenedBy.QUOTA)})
    assert entry(gates, Crowd(), 59_999, RULES) is Denial.BREAKER
    assert entry(gates, Crowd(), 60_000, RULES) == PROBE
    probing = started(gates, "probe", PROBE, 60_000, RULES)
    assert all(gate.breaker.is_probe("probe") for gate in probing)
    closed = admitted(probing, Crowd(), "probe", 61_000, MIDDLE, RULES)
    assert all(gate.breaker == Breaker() for gate in closed)


def test_only_the_breaker_that_is_open_gets_the_probe():
    gates = started(gates_of(whole={"breaker": opened(OpenedBy.QUOTA)}), "probe", PROBE, 60_000, RULES)
    assert gates.whole.breaker.is_probe("probe")
    assert gates.endpoint.breaker.state is BreakerState.CLOSED


def test_an_undecided_4029_waits_until_nothing_of_the_organisation_is_in_flight():
    gates = gates_of(whole={"breaker": opened(OpenedBy.UNDECIDED)})
    assert entry(gates, Crowd(0, 0, 1), 10**6, RULES) is Denial.BREAKER
    assert entry(gates, Crowd(), 10**6, RULES) == PROBE


# what a first result shows


def test_a_first_result_proves_the_key_and_grows_the_limit():
    gates = admitted(gates_of(endpoint={"limit": ConnectionLimit()}), Crowd(), "s", 77, MIDDLE, RULES)
    assert [gate.key_ok_ms for gate in gates] == [77, 77]
    assert (gates.endpoint.limit.stage, gates.endpoint.limit.allowed) == (Stage.GROWING, 2)
    assert gates.whole.limit == ConnectionLimit()


def test_a_good_probe_leaves_one_slot_or_what_streams_beside_it():
    gates = gates_of(whole={"breaker": half_open(OpenedBy.QUOTA)})
    assert admitted(gates, Crowd(), "probe", 10**6, MIDDLE, RULES).endpoint.limit.allowed == 1
    assert admitted(gates, Crowd(2, 2, 4), "probe", 10**6, MIDDLE, RULES).endpoint.limit.allowed == 3


def test_without_a_ceiling_the_limit_grows_with_what_is_admitted():
    gates = gates_of(endpoint={"ceiling": None, "limit": ConnectionLimit(Stage.GROWING, 3)})
    assert admitted(gates, Crowd(2, 2, 2), "s", 0, MIDDLE, RULES).endpoint.limit.allowed == 4
    raising = started(gates_of(endpoint={"ceiling": None}), "s", Entry(SessionKind.OBJECT, Place.RAISE), 0, RULES)
    assert admitted(raising, Crowd(3, 3, 3), "s", 0, MIDDLE, RULES).endpoint.limit.allowed == 4


@pytest.mark.parametrize(
    ("endpoint", "entered", "hangs_on_it"),
    [
        ({"limit": ConnectionLimit()}, OBJECT, True),
        ({"limit": ConnectionLimit(Stage.GROWING, 7)}, OBJECT, True),
        ({"limit": ConnectionLimit(Stage.GROWING, 8)}, OBJECT, False),
        ({"limit": ConnectionLimit(Stage.GROWING, 8), "ceiling": None}, OBJECT, True),
        ({"limit": ConnectionLimit(), "ceiling": 1}, OBJECT, True),
        ({"limit": HELD}, OBJECT, False),
        ({"limit": HELD}, Entry(SessionKind.OBJECT, Place.RAISE), True),
        ({"limit": HELD}, PROBE, True),
    ],
)
def test_what_hangs_on_a_first_result(endpoint, entered, hangs_on_it):
    assert awaited(gates_of(endpoint=endpoint), entered) is hangs_on_it


# runs


def test_a_new_run_starts_with_preflight_unless_something_is_live():
    gate = Gate(8, limit=HELD, breaker=refused_three_times(), key_ok_ms=5)
    assert gate.reopened(10**9, live=0).limit.stage is Stage.PREFLIGHT
    assert gate.reopened(10**9, live=1).limit == HELD
    for again in (gate.reopened(10**9, live=0), gate.reopened(10**9, live=1)):
        assert again.breaker.may_probe(10**9, 0, RULES.breaker)
        assert (again.ceiling, again.key_ok_ms) == (8, 5)


def refused_three_times():
    breaker = opened(OpenedBy.SERVICE)
    for _ in range(3):
        breaker = breaker.started("p", breaker.until_ms, RULES.breaker, as_probe=True)
        breaker = breaker.probe_refused(OpenedBy.SERVICE, breaker.until_ms, MIDDLE, RULES.breaker)
    return breaker


# ends without a word


def test_a_probe_or_raise_that_ends_without_a_word_is_sent_again():
    gates = gates_of(endpoint={"limit": HELD.started("s", Place.RAISE), "breaker": opened(OpenedBy.SERVICE)})
    gates = started(gates, "s", PROBE, 30_000, RULES)
    after = left(gates, "s", 40_000, MIDDLE, RULES)
    assert (after.endpoint.breaker.state, after.endpoint.breaker.until_ms) == (BreakerState.OPEN, 40_000)
    assert (after.endpoint.limit.raising, after.endpoint.limit.raise_at_ms) == (None, 100_000)


def test_a_stale_probes_end_changes_nothing():
    gates = gates_of(endpoint={"breaker": half_open(OpenedBy.KEY)}, whole={"breaker": half_open(OpenedBy.QUOTA)})
    assert left(gates, "stale", 10**7, MIDDLE, RULES) == gates


# whatever happens: two endpoints, their sessions, and every kind of end

CAUSES = [NOT_PERMITTED, QUOTA, INSUFFICIENT, CAPACITY, SERVICE_FAULT, UNREACHABLE, LOST, UNDECODABLE, BAD_PARAMETERS, INCOMPLETE]
ENDPOINTS = ("music", "ai_music")


@dataclass(slots=True)
class Organisation:
    """A ledger that keeps nothing but gates and live sessions: their endpoint, and whether they have a result."""

    ceiling: int
    whole_ceiling: int | None
    now_ms: int = 0
    number: int = 0
    refusals: int = 0
    gates: dict[str, Gate] = field(default_factory=dict)
    live: dict[str, list] = field(default_factory=dict)

    def __post_init__(self):
        self.gates = {endpoint: Gate(self.ceiling) for endpoint in ENDPOINTS} | {"*": Gate(self.whole_ceiling)}

    def of(self, endpoint):
        return Gates(self.gates[endpoint], self.gates["*"])

    def keep(self, endpoint, gates):
        self.gates[endpoint], self.gates["*"] = gates

    def crowd(self, endpoint, without=None):
        others = [session for session_id, session in self.live.items() if session_id != without]
        here = [session for session in others if session[0] == endpoint]
        return Crowd(len(here), sum(session[1] for session in here), len(others))

    def start(self, endpoint):
        gates = self.of(endpoint)
        answer = entry(gates, self.crowd(endpoint), self.now_ms, RULES)
        if isinstance(answer, Denial):
            return
        broken = [gate.breaker for gate in gates if gate.breaker.state is not BreakerState.CLOSED]
        assert (answer.kind is SessionKind.PROBE) == bool(broken)
        assert all(breaker.state is BreakerState.OPEN and breaker.until_ms <= self.now_ms for breaker in broken)
        assert given_up(gates, self.now_ms, RULES) is None
        self.number += 1
        self.live[f"s{self.number}"] = [endpoint, False]
        self.keep(endpoint, started(gates, f"s{self.number}", answer, self.now_ms, RULES))

    def first_result(self, session_id, chance):
        endpoint, had_results = self.live[session_id]
        if not had_results:
            self.live[session_id][1] = True
            self.keep(endpoint, admitted(self.of(endpoint), self.crowd(endpoint, session_id), session_id, self.now_ms, chance, RULES))

    def leave(self, session_id, chance):
        endpoint, _ = self.live.pop(session_id)
        self.keep(endpoint, left(self.of(endpoint), session_id, self.now_ms, chance, RULES))

    def fail(self, session_id, cause, chance):
        endpoint, had_results = self.live.pop(session_id)
        gates = self.of(endpoint)
        self.refusals += any(gate.breaker.is_probe(session_id) for gate in gates)
        failure = Failure(session_id, Phase.STREAMING if had_results else Phase.ADMITTED, cause)
        after, judged = judge(gates, self.crowd(endpoint), failure, self.now_ms, chance, RULES)
        assert judged.spends_attempt == cause.spends_attempt
        if cause in {BAD_PARAMETERS, INCOMPLETE} or (cause is UNDECODABLE and had_results):
            assert after == left(gates, session_id, self.now_ms, chance, RULES)
        self.keep(endpoint, after)

    def run(self):
        for endpoint, gate in self.gates.items():
            live = len(self.live) if endpoint == "*" else self.crowd(endpoint).live
            self.gates[endpoint] = gate.reopened(self.now_ms, live)
        self.refusals = 0

    def check(self):
        for endpoint in ENDPOINTS:
            live = self.crowd(endpoint).live
            assert live <= self.ceiling
            assert 1 <= self.gates[endpoint].limit.allowed <= self.ceiling
            assert self.gates[endpoint].limit.raising in {None, *self.live}
            if given_up(self.of(endpoint), self.now_ms, RULES) is not None:
                assert self.refusals
        assert self.whole_ceiling is None or len(self.live) <= self.whole_ceiling
        for gate in self.gates.values():
            if gate.breaker.state is BreakerState.HALF_OPEN:
                assert gate.breaker.probe in self.live


happenings = st.lists(
    st.tuples(
        st.sampled_from(["start", "start", "start", "result", "result", "leave", "fail", "fail", "run"]),
        st.sampled_from(ENDPOINTS),
        st.integers(0, 10),
        st.sampled_from(CAUSES),
        st.sampled_from([0, 10, 1_000, 40_000, 1_000_000]),
        chances,
    ),
    max_size=80,
)


@given(happenings, st.integers(1, 6), st.none() | st.integers(1, 8))
def test_ceilings_hold_probes_are_alone_and_only_their_refusals_end_a_run(happenings, ceiling, whole_ceiling):
    organisation = Organisation(ceiling, whole_ceiling)
    for what, endpoint, which, cause, passed_ms, chance in happenings:
        organisation.now_ms += passed_ms
        if what == "start":
            organisation.start(endpoint)
        elif what == "run":
            organisation.run()
        elif organisation.live:
            session_id = sorted(organisation.live)[which % len(organisation.live)]
            if what == "result":
                organisation.first_result(session_id, chance)
            elif what == "leave":
                organisation.leave(session_id, chance)
            else:
                organisation.fail(session_id, cause, chance)
        organisation.check()
