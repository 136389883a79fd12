"""What a failure means: every sentence of rules.md, '4003', '4029', 'Connection limit', 'Breaker' and 'Stop' that concerns gates."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.admission import Denial, SessionKind
from moderation.breaker import Breaker, BreakerState, OpenedBy
from moderation.errors import Phase
from moderation.gate import Crowd, Entry, Gate, GateRules, Gates, admitted, entry, left, started
from moderation.judgement import Failure, given_up, judge
from moderation.limits import ConnectionLimit, Place, Stage
from moderation.outcomes import Reason, StopCause
from moderation.refusals import (
    BAD_PARAMETERS,
    CAPACITY,
    INCOMPLETE,
    INSUFFICIENT,
    LOST,
    NOT_PERMITTED,
    NOT_VALIDATED,
    QUOTA,
    SERVICE_FAULT,
    TOO_BIG,
    UNDECODABLE,
    UNKNOWN_CODE,
    UNREACHABLE,
    WRONG_URL,
    Action,
)

RULES = GateRules()
MIDDLE = 0.5
S = 1_000
MINUTE = 60 * S
NOW = 100 * MINUTE
FRESH, STALE = NOW - 9 * MINUTE, NOW - 10 * MINUTE
ALONE, BESIDE, ELSEWHERE = Crowd(), Crowd(4, 4, 4, 4), Crowd(0, 0, 4, 4)
"""Nothing of ours in flight; four streaming at the endpoint; four at another one of the organisation."""
REFUSED = [Phase.CONNECTING, Phase.ADMITTED]
STREAMED = [Phase.STREAMING, Phase.DRAINING]
HELD = ConnectionLimit(Stage.HOLDING, 5, learned=5, raise_every_ms=30_000, raise_at_ms=NOW)
chances = st.floats(0, 1, exclude_max=True)


def gates_of(*, key_ok_ms=None, limit=HELD, breaker=None, whole=None):
    return Gates(Gate(16, limit=limit, breaker=breaker or Breaker(), key_ok_ms=key_ok_ms), Gate(breaker=whole or Breaker()))


def probing(by, session_id="s"):
    return Breaker().opened(by, 0, MIDDLE, RULES.breaker).started(session_id, NOW, RULES.breaker, as_probe=True)


def judged(gates, crowd, cause, phase=Phase.ADMITTED, now_ms=NOW, session_id="s", retry_after_ms=0):
    return judge(gates, crowd, Failure(session_id, phase, cause, retry_after_ms), now_ms, MIDDLE, RULES)


def reasons(gates):
    return tuple(gate.breaker.opened_by if gate.breaker.state is BreakerState.OPEN else None for gate in gates)


def refused_probe(gates, crowd, cause, phase=Phase.ADMITTED):
    """Send the probe as soon as it may go, and fail it."""
    now_ms = max(NOW, *(gate.breaker.until_ms for gate in gates), gates.endpoint.limit.rest_until_ms)
    answer = entry(gates, crowd, now_ms, RULES)
    assert answer == Entry(SessionKind.PROBE, Place.SLOT)
    return now_ms, judged(started(gates, "probe", answer, now_ms, RULES), crowd, cause, phase, now_ms, "probe")


def probed_until_the_stop(gates, crowd, cause):
    """The milliseconds from probe to probe while all are refused, and the last verdict."""
    times = [NOW]
    while True:
        now_ms, (gates, cause_then) = refused_probe(gates, crowd, cause)
        times.append(now_ms)
        if cause_then.action is Action.STOP:
            return [later - earlier for earlier, later in pairwise(times)], cause_then
        assert cause_then.action in {Action.WAIT, Action.RETRY}


# 4003


@pytest.mark.parametrize("phase", REFUSED)
def test_4003_in_preflight_is_repeated_after_5_s_and_20_s_then_the_run_stops(phase):
    gates, cause = judged(gates_of(limit=ConnectionLimit()), ALONE, NOT_PERMITTED, phase)
    assert reasons(gates) == (None, OpenedBy.PREFLIGHT)
    assert (cause.action, cause.reason) == (Action.WAIT, Reason.DEFERRED_KEY)
    pauses, cause = probed_until_the_stop(gates, ALONE, NOT_PERMITTED)
    assert pauses == [5 * S, 20 * S]
    assert (cause.stop, cause.reason) == (StopCause.ACCESS_DENIED, Reason.DEFERRED_KEY)
    assert "key is wrong" in cause.advice


@pytest.mark.parametrize("key_ok_ms", [None, FRESH, STALE])
@pytest.mark.parametrize("phase", REFUSED)
def test_4003_with_sessions_live_is_treated_as_full(phase, key_ok_ms):
    gates, cause = judged(gates_of(key_ok_ms=key_ok_ms), BESIDE, NOT_PERMITTED, phase)
    assert reasons(gates) == (None, None)
    assert gates.endpoint.limit.allowed == 4
    assert cause == CAPACITY


@pytest.mark.parametrize(
    ("key_ok_ms", "by"),
    [
        (FRESH, (OpenedBy.KEY, None)),
        (STALE, (None, OpenedBy.PREFLIGHT)),
        (None, (None, OpenedBy.PREFLIGHT)),
        (NOW + 1, (None, OpenedBy.PREFLIGHT)),
    ],
)
def test_4003_with_nothing_of_ours_in_flight_is_not_our_concurrency_the_breaker_opens(key_ok_ms, by):
    gates, cause = judged(gates_of(key_ok_ms=key_ok_ms), ALONE, NOT_PERMITTED)
    assert reasons(gates) == by
    assert gates.endpoint.limit == HELD
    assert cause.action is Action.WAIT


def test_4003_beside_a_session_without_a_result_and_with_a_key_that_has_not_worked_is_no_concurrency():
    """The other endpoint's first session, which is about to be refused as well."""
    gates, cause = judged(gates_of(key_ok_ms=STALE, limit=ConnectionLimit()), Crowd(0, 0, 1, 0), NOT_PERMITTED)
    assert reasons(gates) == (None, OpenedBy.PREFLIGHT)
    assert cause.action is Action.WAIT
    gates, cause = judged(gates, ALONE, NOT_PERMITTED, session_id="other")
    pauses, cause = probed_until_the_stop(gates, ALONE, NOT_PERMITTED)
    assert pauses == [5 * S, 20 * S]
    assert cause.stop is StopCause.ACCESS_DENIED


@pytest.mark.parametrize("at", ["endpoint", "whole"])
def test_4003_beside_a_session_without_a_result_and_with_a_key_that_works_is_treated_as_full(at):
    gates = gates_of()
    gates = gates._replace(**{at: replace(getattr(gates, at), key_ok_ms=FRESH)})
    assert judged(gates, Crowd(1, 0, 1, 0), NOT_PERMITTED).cause == CAPACITY


def test_a_key_that_worked_too_long_ago_by_the_last_probe_is_still_probed_three_times_in_all():
    gates, _ = judged(gates_of(key_ok_ms=NOW - 9 * MINUTE), ALONE, NOT_PERMITTED)
    pauses, cause = probed_until_the_stop(gates, ALONE, NOT_PERMITTED)
    assert len(pauses) == 3
    assert sum(pauses) > MINUTE
    assert cause.stop is StopCause.ACCESS_DENIED


def test_a_proven_key_that_is_refused_alone_is_probed_three_times_before_the_run_stops():
    gates, _ = judged(gates_of(key_ok_ms=FRESH), ALONE, NOT_PERMITTED)
    pauses, cause = probed_until_the_stop(gates, ALONE, NOT_PERMITTED)
    assert pauses == [30 * S, 60 * S, 120 * S]
    assert cause.stop is StopCause.ACCESS_DENIED


def test_4003_while_ours_are_in_flight_at_another_endpoint_only_is_asked_again_more_and_more_seldom():
    gates, cause = judged(gates_of(), ELSEWHERE, NOT_PERMITTED)
    assert reasons(gates) == (OpenedBy.CROWDED, None)
    assert cause == CAPACITY
    for k in range(1, 30):
        now_ms, (gates, cause) = refused_probe(gates, ELSEWHERE, NOT_PERMITTED)
        assert gates.endpoint.breaker.until_ms - now_ms == min(900 * S, 30 * S * 2**k)
        assert cause == CAPACITY
    _, (gates, _) = refused_probe(gates, ALONE, NOT_PERMITTED)
    pauses, cause = probed_until_the_stop(gates, ALONE, NOT_PERMITTED)
    assert len(pauses) == 2
    assert cause.stop is StopCause.ACCESS_DENIED


@pytest.mark.parametrize("phase", STREAMED)
@pytest.mark.parametrize("crowd", [ALONE, BESIDE, ELSEWHERE])
def test_4003_in_mid_stream_opens_the_breaker_half_at_once(phase, crowd):
    gates, cause = judged(gates_of(key_ok_ms=FRESH), crowd, NOT_PERMITTED, phase)
    assert reasons(gates) == (OpenedBy.MID_STREAM, None)
    assert entry(gates, crowd, NOW, RULES) == Entry(SessionKind.PROBE, Place.SLOT)
    assert (cause.action, cause.stop, cause.attempts) == (Action.RETRY, None, 3), "the object is tried twice more at most"
    assert not cause.spends_attempt


def test_4003_in_mid_stream_accepted_probe_closes_refused_probes_end_the_run():
    gates, _ = judged(gates_of(key_ok_ms=FRESH), ALONE, NOT_PERMITTED, Phase.STREAMING)
    probe_out = started(gates, "probe", Entry(SessionKind.PROBE, Place.SLOT), NOW, RULES)
    assert reasons(admitted(probe_out, ALONE, "probe", NOW, MIDDLE, RULES)) == (None, None)
    pauses, cause = probed_until_the_stop(gates, ALONE, NOT_PERMITTED)
    assert pauses == [0, 30 * S, 60 * S]
    assert cause.stop is StopCause.ACCESS_DENIED


def test_a_key_that_could_not_be_validated_is_the_services_fault():
    gates, cause = judged(gates_of(), ALONE, NOT_VALIDATED)
    assert reasons(gates) == (None, None)
    assert cause is NOT_VALIDATED


# 4029


@pytest.mark.parametrize("phase", REFUSED)
@pytest.mark.parametrize("crowd", [BESIDE, ELSEWHERE])
def test_4029_beside_siblings_could_be_concurrency_the_limit_is_lowered_and_nothing_starts(phase, crowd):
    gates, cause = judged(gates_of(), crowd, INSUFFICIENT, phase)
    assert reasons(gates) == (None, OpenedBy.UNDECIDED)
    assert gates.endpoint.limit.allowed == max(1, crowd.admitted)
    assert entry(gates, crowd, NOW + 10**9, RULES) is Denial.BREAKER
    assert (cause.action, cause.stop) == (Action.WAIT, None)


def test_4029_when_nothing_is_in_flight_one_probe_accepted_it_was_concurrency_the_limit_is_remembered():
    gates, _ = judged(gates_of(), BESIDE, INSUFFICIENT)
    now_ms = gates.endpoint.limit.rest_until_ms
    answer = entry(gates, ALONE, now_ms, RULES)
    gates = admitted(started(gates, "probe", answer, now_ms, RULES), ALONE, "probe", now_ms, MIDDLE, RULES)
    assert reasons(gates) == (None, None)
    assert (gates.endpoint.limit.allowed, gates.endpoint.limit.learned) == (1, 4)


def test_4029_when_nothing_is_in_flight_one_probe_refused_it_is_the_quota():
    gates, _ = judged(gates_of(), BESIDE, INSUFFICIENT)
    now_ms, (gates, cause) = refused_probe(gates, ALONE, INSUFFICIENT)
    assert reasons(gates) == (None, OpenedBy.QUOTA)
    assert gates.whole.breaker.until_ms == now_ms + 60 * S
    assert cause.action is Action.WAIT
    _, (_, cause) = refused_probe(gates, ALONE, INSUFFICIENT)
    assert cause.stop is StopCause.CREDITS_EXHAUSTED


def test_4029_to_the_one_beyond_the_limit_is_concurrency_and_drains_nothing():
    gates, cause = judged(gates_of(limit=replace(HELD, raising="s")), Crowd(5, 5, 5), INSUFFICIENT)
    assert reasons(gates) == (None, None)
    assert (gates.endpoint.limit.allowed, gates.endpoint.limit.raise_every_ms) == (5, 60 * S)
    assert cause == CAPACITY


@pytest.mark.parametrize(
    ("cause", "phase", "crowd"),
    [
        *[(QUOTA, phase, crowd) for phase in REFUSED + STREAMED for crowd in (ALONE, BESIDE, ELSEWHERE)],
        *[(INSUFFICIENT, phase, ALONE) for phase in REFUSED],
        *[(INSUFFICIENT, phase, BESIDE) for phase in STREAMED],
    ],
)
def test_quota_no_new_start_one_probe_after_60_s_refused_stop(cause, phase, crowd):
    gates, then = judged(gates_of(key_ok_ms=FRESH), crowd, cause, phase)
    assert reasons(gates) == (None, OpenedBy.QUOTA)
    assert (then.action, then.stop, then.reason) == (Action.WAIT, None, Reason.DEFERRED_QUOTA)
    assert entry(gates, ALONE, NOW + 60 * S - 1, RULES) is Denial.BREAKER
    pauses, then = probed_until_the_stop(gates, crowd, cause)
    assert pauses == [60 * S]
    assert (then.action, then.stop) == (Action.STOP, StopCause.CREDITS_EXHAUSTED)


def test_quota_running_sessions_finish_and_their_ends_change_nothing():
    gates, _ = judged(gates_of(), BESIDE, QUOTA)
    assert left(gates, "sibling", NOW, MIDDLE, RULES) == gates
    assert admitted(gates, BESIDE, "sibling", NOW, MIDDLE, RULES).whole.breaker == gates.whole.breaker


def test_quota_closes_every_endpoint_even_when_a_probe_of_one_learns_it():
    gates, cause = judged(gates_of(breaker=probing(OpenedBy.SERVICE)), ELSEWHERE, QUOTA)
    assert reasons(gates) == (OpenedBy.SERVICE, OpenedBy.QUOTA)
    assert gates.endpoint.breaker.bad_probes == 0
    assert cause.action is Action.WAIT


def test_an_undecided_4029_said_again_to_a_quotas_probe_is_the_quota():
    _, cause = judged(gates_of(whole=probing(OpenedBy.QUOTA)), BESIDE, INSUFFICIENT)
    assert cause.stop is StopCause.CREDITS_EXHAUSTED


def test_an_undecided_4029_said_to_another_probe_beside_siblings_waits_for_them():
    gates, _ = judged(gates_of(whole=probing(OpenedBy.HIDDEN)), BESIDE, INSUFFICIENT)
    assert reasons(gates) == (None, OpenedBy.UNDECIDED)


# Connection limit


@pytest.mark.fault(52)
@pytest.mark.parametrize("phase", REFUSED + STREAMED)
def test_on_a_capacity_refusal_the_limit_becomes_what_is_really_admitted_after_a_pause(phase):
    gates, cause = judged(gates_of(), Crowd(4, 3, 6), CAPACITY, phase)
    assert reasons(gates) == (None, None)
    assert (gates.endpoint.limit.allowed, gates.endpoint.limit.rest_until_ms) == (3, NOW + S)
    assert cause == CAPACITY
    assert not cause.spends_attempt


def test_zero_admitted_opens_the_breaker():
    gates, cause = judged(gates_of(), ALONE, CAPACITY)
    assert reasons(gates) == (OpenedBy.CAPACITY, None)
    assert cause == CAPACITY
    pauses, cause = probed_until_the_stop(gates, ALONE, CAPACITY)
    assert pauses == [30 * S, 60 * S, 120 * S]
    assert cause.stop is StopCause.SERVICE_UNREACHABLE


@given(st.integers(1, 30), st.sampled_from(REFUSED), st.sampled_from([CAPACITY, NOT_PERMITTED]))
def test_refusals_beside_others_of_ours_never_open_a_breaker_however_many(times, phase, cause):
    gates = gates_of(key_ok_ms=FRESH)
    for _ in range(times):
        gates, _ = judged(gates, BESIDE, cause, phase)
    assert reasons(gates) == (None, None)


@pytest.mark.fault(18)
@pytest.mark.parametrize(("asked_ms", "pause_ms"), [(0, S), (5 * S, 5 * S), (10**9, 15 * MINUTE)])
def test_retry_after_is_a_floor_of_the_pause_and_heard_for_15_minutes_at_most(asked_ms, pause_ms):
    gates, _ = judged(gates_of(), BESIDE, CAPACITY, Phase.CONNECTING, retry_after_ms=asked_ms)
    assert gates.endpoint.limit.rest_until_ms == NOW + pause_ms
    gates, _ = judged(gates_of(limit=ConnectionLimit()), ALONE, SERVICE_FAULT, Phase.CONNECTING, retry_after_ms=asked_ms)
    assert entry(gates, ALONE, NOW + pause_ms - S, RULES) == (Denial.FULL if asked_ms else Entry(SessionKind.OBJECT, Place.SLOT))


@pytest.mark.parametrize(
    "cause", [UNDECODABLE, BAD_PARAMETERS, INCOMPLETE, UNKNOWN_CODE, WRONG_URL, TOO_BIG, SERVICE_FAULT, UNREACHABLE, NOT_PERMITTED]
)
def test_a_raise_that_fails_for_another_reason_is_tried_again(cause):
    gates, _ = judged(gates_of(limit=replace(HELD, raising="s")), BESIDE, cause, Phase.STREAMING)
    assert (gates.endpoint.limit.raising, gates.endpoint.limit.allowed) == (None, 5)


def test_a_full_organisation_is_no_verdict_on_what_a_probe_asked():
    """The probe holds a slot like any session: it goes again when one is free, and counts for nothing."""
    before = gates_of(breaker=probing(OpenedBy.SERVICE), whole=probing(OpenedBy.QUOTA))
    gates, cause = judged(before, BESIDE, CAPACITY)
    assert reasons(gates) == (OpenedBy.SERVICE, OpenedBy.QUOTA)
    assert [gate.breaker.bad_probes for gate in gates] == [0, 0]
    assert gates.endpoint.limit.allowed == 4
    assert entry(gates, BESIDE, NOW + MINUTE, RULES) is Denial.FULL
    assert cause == CAPACITY


def test_a_quotas_probe_where_ours_elsewhere_fill_the_organisation_is_not_repeated_at_once():
    gates, _ = judged(gates_of(whole=probing(OpenedBy.QUOTA)), ELSEWHERE, CAPACITY)
    assert reasons(gates) == (OpenedBy.CROWDED, OpenedBy.QUOTA)
    assert entry(gates, ELSEWHERE, NOW + 30 * S - 1, RULES) is Denial.BREAKER


# Breaker


def opened_after(cause, phase=Phase.CONNECTING, crowd=BESIDE, pause_ms=S):
    """How many failures in a row open which breaker, and for what."""
    gates, now_ms = gates_of(), NOW
    for number in range(1, 30):
        now_ms += pause_ms
        gates, then = judged(gates, crowd, cause, phase, now_ms)
        assert then is cause
        if any(reasons(gates)):
            return number, reasons(gates)
    return None


@pytest.mark.fault(14, 15)
@pytest.mark.parametrize("crowd", [ALONE, BESIDE])
@pytest.mark.parametrize(
    ("cause", "by"), [(SERVICE_FAULT, OpenedBy.SERVICE), (NOT_VALIDATED, OpenedBy.SERVICE), (UNREACHABLE, OpenedBy.NETWORK)]
)
def test_five_refusals_in_a_row_open_the_breaker(cause, by, crowd):
    assert opened_after(cause, crowd=crowd) == (5, (by, None))


@pytest.mark.fault(26)
def test_three_lost_uploads_in_60_s_across_the_organisation_let_one_probe_decide_for_all():
    assert opened_after(LOST, Phase.STREAMING) == (3, (None, OpenedBy.HIDDEN))
    assert opened_after(LOST, Phase.ADMITTED) == (3, (None, OpenedBy.HIDDEN))
    assert opened_after(LOST, Phase.STREAMING, pause_ms=31 * S) is None


def test_five_uploads_in_a_row_that_were_lost_before_a_result_open_the_endpoints_breaker():
    assert opened_after(LOST, Phase.ADMITTED, pause_ms=31 * S) == (5, (OpenedBy.HIDDEN, None))


@pytest.mark.parametrize("cause", [SERVICE_FAULT, UNREACHABLE])
def test_faults_in_mid_stream_are_no_refusals(cause):
    assert opened_after(cause, Phase.STREAMING) is None


@pytest.mark.fault(28)
def test_half_of_ten_starts_failing_within_a_minute_open_the_breaker():
    gates = gates_of()
    for number in range(10):
        gates = started(gates, f"s{number}", Entry(SessionKind.OBJECT, Place.SLOT), NOW, RULES)
    for number in range(9):
        if number % 2:
            gates = admitted(gates, BESIDE, f"s{number}", NOW, MIDDLE, RULES)
        else:
            assert reasons(gates) == (None, None)
            gates, _ = judged(gates, BESIDE, SERVICE_FAULT, session_id=f"s{number}")
    assert reasons(gates) == (OpenedBy.SERVICE, None)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("cause", [SERVICE_FAULT, UNREACHABLE, LOST])
def test_after_three_bad_probes_the_run_stops(cause, whole):
    gates = gates_of(whole=probing(OpenedBy.HIDDEN)) if whole else gates_of(breaker=probing(OpenedBy.SERVICE))
    gates, _ = judged(gates, ALONE, cause)
    for last in (False, True):
        _, (gates, then) = refused_probe(gates, ALONE, cause)
        assert (then.action is Action.STOP) == last
    assert then.stop is given_up(gates, NOW, RULES) is StopCause.SERVICE_UNREACHABLE


def test_hidden_refusals_are_named_by_the_first_probe_that_hears_a_word():
    gates, _ = judged(gates_of(whole=probing(OpenedBy.HIDDEN), key_ok_ms=FRESH), ALONE, NOT_PERMITTED)
    assert reasons(gates) == (None, OpenedBy.KEY)


@pytest.mark.parametrize("by", [OpenedBy.KEY, OpenedBy.PREFLIGHT, OpenedBy.QUOTA])
def test_a_probe_that_is_lost_without_a_word_confirms_what_was_known(by):
    gates, _ = judged(gates_of(whole=probing(by)), ALONE, LOST)
    assert (gates.whole.breaker.opened_by, gates.whole.breaker.bad_probes) == (by, 1)


def test_the_organisations_probe_says_nothing_about_its_endpoint_alone():
    gates, _ = judged(gates_of(whole=probing(OpenedBy.HIDDEN)), ALONE, SERVICE_FAULT)
    assert gates.endpoint.breaker == Breaker()


def test_a_good_probe_may_fail_for_its_object_afterwards():
    gates, cause = judged(gates_of(breaker=probing(OpenedBy.SERVICE)), ALONE, UNDECODABLE)
    assert reasons(gates) == (None, None)
    assert gates.endpoint.key_ok_ms == NOW
    assert cause is UNDECODABLE


@pytest.mark.parametrize(("phase", "allowed"), [*[(phase, 4) for phase in REFUSED], *[(phase, 3) for phase in STREAMED]])
def test_an_objects_fault_admits_its_session_once(phase, allowed):
    gates = gates_of(limit=ConnectionLimit(Stage.GROWING, 3))
    assert judged(gates, BESIDE, UNDECODABLE, phase).gates.endpoint.limit.allowed == allowed


# Stop


def test_while_a_run_stops_whatever_fails_for_others_stops_too_and_stays_pending():
    spent = replace(probing(OpenedBy.QUOTA, "probe").probe_refused(OpenedBy.QUOTA, NOW, MIDDLE, RULES.breaker))
    gates = gates_of(whole=spent)
    for cause in (SERVICE_FAULT, UNREACHABLE, LOST, CAPACITY, NOT_PERMITTED):
        _, then = judged(gates, BESIDE, cause, Phase.STREAMING)
        assert (then.action, then.stop, then.reason) == (Action.STOP, StopCause.CREDITS_EXHAUSTED, cause.reason)
        assert not then.spends_attempt
    for cause in (UNDECODABLE, INCOMPLETE):
        assert judged(gates, BESIDE, cause, Phase.STREAMING).cause is cause


# whatever happens

crowds = st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(0, 8)).map(lambda n: Crowd(n[0], min(n[:2]), n[0] + n[2]))
states = st.sampled_from([None, *OpenedBy])
SPEAKING = [NOT_PERMITTED, NOT_VALIDATED, QUOTA, INSUFFICIENT, CAPACITY, SERVICE_FAULT, UNREACHABLE, LOST]
SILENT = [BAD_PARAMETERS, WRONG_URL, TOO_BIG, INCOMPLETE, UNKNOWN_CODE]


def any_gates(by, whole_by, probe, key_ok_ms):
    return gates_of(key_ok_ms=key_ok_ms, breaker=by and probing(by, probe), whole=whole_by and probing(whole_by, probe))


gates_drawn = st.builds(any_gates, states, states, st.sampled_from(["s", "other"]), st.none() | st.integers(0, NOW))


@given(gates_drawn, crowds, st.sampled_from([*SILENT, UNDECODABLE]), st.sampled_from(Phase), chances)
def test_an_objects_faults_never_move_a_gate_but_as_admitted(gates, crowd, cause, phase, chance):
    after, then = judge(gates, crowd, Failure("s", phase, cause), NOW, chance, RULES)
    was_admitted = cause is UNDECODABLE and phase not in STREAMED
    expected = admitted(gates, crowd, "s", NOW, chance, RULES) if was_admitted else left(gates, "s", NOW, chance, RULES)
    assert after == expected
    assert then is cause


@given(gates_drawn, crowds, st.sampled_from(SPEAKING), st.sampled_from(Phase), chances)
def test_others_faults_never_spend_an_attempt_or_raise_a_limit(gates, crowd, cause, phase, chance):
    after, then = judge(gates, crowd, Failure("s", phase, cause), NOW, chance, RULES)
    assert not then.spends_attempt
    assert then.name in {cause.name, "capacity"}
    assert (then.stop is not None) == (then.action is Action.STOP)
    assert 1 <= after.endpoint.limit.allowed <= gates.endpoint.limit.allowed


@given(gates_drawn, crowds, st.sampled_from([c for c in SPEAKING if c is not QUOTA]), st.sampled_from(Phase), chances)
def test_a_stale_end_leaves_a_half_open_breaker_and_its_reason_alone(gates, crowd, cause, phase, chance):
    after, _ = judge(gates, crowd, Failure("stale", phase, cause), NOW, chance, RULES)
    for before, gate in zip(gates, after, strict=True):
        if before.breaker.state is BreakerState.HALF_OPEN:
            assert gate.breaker.probe == before.breaker.probe
            assert gate.breaker.state is BreakerState.HALF_OPEN
            assert gate.breaker.opened_by in {before.breaker.opened_by, OpenedBy.QUOTA}
