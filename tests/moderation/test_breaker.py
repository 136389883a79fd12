"""The breaker: every sentence of rules.md, 'Breaker', the plans by which probes go out, and what holds whatever happens."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.breaker import Breaker, BreakerRules, BreakerState, OpenedBy
from moderation.outcomes import StopCause

RULES = BreakerRules()
MIDDLE = 0.5
"""The chance that changes nothing: no jitter."""
chances = st.floats(0, 1, exclude_max=True)
reasons = st.sampled_from(OpenedBy)
S = 1_000


def opened(by, now_ms=0, chance=MIDDLE):
    return Breaker().opened(by, now_ms, chance, RULES)


def probing(by, now_ms=0, session_id="probe"):
    """A breaker whose probe went out as soon as it might."""
    breaker = opened(by, now_ms)
    return breaker.started(session_id, breaker.until_ms, RULES, as_probe=True)


def refused(breaker, by=None, now_ms=None):
    """Send the next probe as soon as it may go, and refuse it."""
    if breaker.state is BreakerState.OPEN:
        now_ms = breaker.until_ms if now_ms is None else now_ms
        breaker = breaker.started("probe", now_ms, RULES, as_probe=True)
    return breaker.probe_refused(by or breaker.opened_by, breaker.until_ms if now_ms is None else now_ms, MIDDLE, RULES)


def counted(breaker, starts, refusals, now_ms=0):
    for _ in range(starts):
        breaker = breaker.started("s", now_ms, RULES, as_probe=False)
    one_too_many = False
    for _ in range(refusals):
        breaker, one_too_many = breaker.refusal(RULES)
    return breaker, one_too_many


# Closed; opens on five refusals in a row, on half of at least ten starts refused within 60 s


def test_a_new_breaker_is_closed():
    assert Breaker().state is BreakerState.CLOSED
    assert not Breaker().may_probe(0, 0, RULES)
    assert Breaker().given_up(10**9, RULES) is None


@pytest.mark.parametrize(("refusals", "enough"), [(1, False), (4, False), (5, True), (6, True)])
def test_five_refusals_in_a_row_are_too_many(refusals, enough):
    assert counted(Breaker(), 0, refusals)[1] is enough


def test_a_first_result_breaks_the_row():
    breaker, _ = counted(Breaker(), 4, 4)
    assert counted(breaker.accepted("s"), 1, 4)[1] is False
    assert counted(breaker, 1, 1)[1] is True


@pytest.mark.parametrize(
    ("starts", "refusals", "enough"), [(10, 4, False), (10, 5, True), (9, 4, False), (20, 9, False), (20, 10, True), (11, 5, False)]
)
def test_half_of_at_least_ten_starts_refused_are_too_many(starts, refusals, enough):
    breaker, _ = counted(Breaker(), starts, refusals - 1)
    _, one_too_many = breaker.accepted("s").refusal(RULES)  # never five in a row
    assert one_too_many is enough


@pytest.mark.parametrize(("later_ms", "enough"), [(59_999, True), (60_000, False)])
def test_starts_and_refusals_are_counted_within_60_seconds(later_ms, enough):
    breaker, _ = counted(Breaker(), 9, 4, now_ms=0)
    breaker = breaker.accepted("s").started("s", later_ms, RULES, as_probe=False)
    assert breaker.refusal(RULES)[1] is enough


# 1006 while uploading: three in 60 s across the organisation


@pytest.mark.parametrize(
    ("times", "enough"),
    [
        ((0,), False),
        ((0, 1), False),
        ((0, 1, 2), True),
        ((0, 59, 61), False),
        ((0, 59, 61, 62), True),
        ((0, 30, 59), True),
        ((0, 30, 60), False),
    ],
)
def test_three_lost_connections_within_any_60_seconds_are_too_many(times, enough):
    breaker, many = Breaker(), False
    for at in times:
        breaker, many = breaker.broke(at * S, RULES)
    assert many is enough
    assert len(breaker.lost) <= 3


# Open: no starts, 30 s x 2^k +-20 %, at most 15 minutes


@pytest.mark.parametrize("by", OpenedBy)
def test_nothing_is_sent_before_the_first_pause_is_over(by):
    breaker = opened(by, 7_000)
    first = RULES.plans[by].waits_ms[0]
    assert (breaker.state, breaker.opened_by, breaker.until_ms) == (BreakerState.OPEN, by, 7_000 + first)
    assert not breaker.may_probe(7_000 + first - 1, 0, RULES)
    assert breaker.may_probe(7_000 + first, 0, RULES)


@pytest.mark.parametrize("by", [OpenedBy.KEY, OpenedBy.CAPACITY, OpenedBy.CROWDED, OpenedBy.SERVICE, OpenedBy.NETWORK])
def test_pauses_double_from_30_seconds_to_15_minutes(by):
    assert [RULES.wait_ms(by, k, MIDDLE) // S for k in (0, 1, 2, 3, 4, 5, 6, 10_000)] == [30, 60, 120, 240, 480, 900, 900, 900]


@pytest.mark.parametrize(
    ("by", "seconds"),
    [
        (OpenedBy.PREFLIGHT, [5, 20, 40]),
        (OpenedBy.MID_STREAM, [0, 30, 60]),
        (OpenedBy.HIDDEN, [0, 30, 60]),
        (OpenedBy.QUOTA, [60, 120]),
        (OpenedBy.UNDECIDED, [0, 60, 120]),
    ],
)
def test_the_first_pauses_of_the_other_reasons_are_those_of_their_rule(by, seconds):
    assert [RULES.wait_ms(by, k, MIDDLE) // S for k in range(len(seconds))] == seconds


@given(reasons, st.integers(0, 100), chances)
def test_a_pause_has_a_jitter_of_20_percent_and_never_is_longer_than_15_minutes(by, refusals, chance):
    wait, middle = RULES.wait_ms(by, refusals, chance), RULES.wait_ms(by, refusals, MIDDLE)
    assert 0.8 * middle - 1 <= wait <= min(900 * S, 1.2 * middle)


# Half-open: exactly one probe


@given(reasons, st.integers(0, 10**9), st.integers(0, 5))
def test_a_half_open_breaker_has_exactly_one_probe(by, now_ms, live):
    breaker = probing(by)
    assert breaker.is_probe("probe")
    assert not breaker.is_probe("other")
    assert not breaker.may_probe(now_ms, live, RULES)


def test_while_4029_is_undecided_a_probe_waits_until_nothing_is_in_flight():
    assert not opened(OpenedBy.UNDECIDED).may_probe(10**9, 1, RULES)
    assert opened(OpenedBy.UNDECIDED).may_probe(0, 0, RULES)
    assert opened(OpenedBy.QUOTA).may_probe(60 * S, 7, RULES)


def test_a_probe_that_was_lost_is_sent_again_at_once():
    breaker = probing(OpenedBy.SERVICE).left("probe", 77 * S)
    assert (breaker.state, breaker.probe, breaker.until_ms, breaker.bad_probes) == (BreakerState.OPEN, None, 77 * S, 0)


@given(reasons, st.sampled_from(["left", "accepted"]))
def test_no_other_sessions_end_moves_a_half_open_breaker(by, how):
    breaker = probing(by)
    assert (breaker.left("stale", 5) if how == "left" else breaker.accepted("stale")) == breaker


# Good: closed at limit 1 (the limit's part is in test_limits)


@given(reasons)
def test_a_good_probe_closes_and_forgets(by):
    breaker = replace(probing(by), row=4, starts=9, refused=4, lost=(1, 2))
    assert breaker.accepted("probe") == Breaker()


# Bad: k + 1; after three bad probes or 30 minutes: the run stops


@pytest.mark.parametrize(
    ("by", "refusals", "stop"),
    [
        (OpenedBy.PREFLIGHT, 2, StopCause.ACCESS_DENIED),
        (OpenedBy.KEY, 3, StopCause.ACCESS_DENIED),
        (OpenedBy.MID_STREAM, 3, StopCause.ACCESS_DENIED),
        (OpenedBy.QUOTA, 1, StopCause.CREDITS_EXHAUSTED),
        (OpenedBy.UNDECIDED, 2, StopCause.CREDITS_EXHAUSTED),
        (OpenedBy.CAPACITY, 3, StopCause.SERVICE_UNREACHABLE),
        (OpenedBy.HIDDEN, 3, StopCause.SERVICE_UNREACHABLE),
        (OpenedBy.SERVICE, 3, StopCause.SERVICE_UNREACHABLE),
        (OpenedBy.NETWORK, 3, StopCause.SERVICE_UNREACHABLE),
    ],
)
def test_a_run_is_given_up_after_so_many_bad_probes(by, refusals, stop):
    breaker = opened(by)
    for _ in range(refusals):
        assert breaker.given_up(breaker.until_ms, RULES) is None
        before = breaker
        breaker = refused(breaker)
        assert breaker.until_ms - before.until_ms == RULES.wait_ms(by, breaker.bad_probes, MIDDLE)
    assert breaker.given_up(breaker.until_ms, RULES) is stop
    assert not breaker.may_probe(10**12, 0, RULES)


def test_a_full_organisation_that_is_ours_elsewhere_never_gives_up():
    breaker = opened(OpenedBy.CROWDED)
    for _ in range(50):
        breaker = refused(breaker)
        assert breaker.given_up(10**12, RULES) is None
    assert breaker.may_probe(breaker.until_ms, 3, RULES)


def test_what_was_crowded_gets_the_whole_patience_once_it_is_alone():
    breaker = opened(OpenedBy.CROWDED)
    for _ in range(9):
        breaker = refused(breaker)
    breaker = refused(breaker, OpenedBy.CAPACITY)
    since = breaker.opened_ms
    assert breaker.until_ms == since + 30 * S
    for _ in range(3):
        assert breaker.given_up(breaker.until_ms, RULES) is None
        breaker = refused(breaker)
    assert breaker.given_up(breaker.until_ms, RULES) is StopCause.SERVICE_UNREACHABLE


@pytest.mark.parametrize(("minutes", "stop"), [(29, None), (30, StopCause.SERVICE_UNREACHABLE)])
def test_a_run_is_given_up_after_30_minutes_once_a_probe_was_refused(minutes, stop):
    breaker = refused(opened(OpenedBy.SERVICE))
    assert breaker.given_up(30 * S + minutes * 60 * S, RULES) is stop


def test_the_30_minutes_begin_with_the_first_probe_however_long_that_was_waited_for():
    breaker = refused(opened(OpenedBy.UNDECIDED), now_ms=10**9)
    assert breaker.given_up(10**9, RULES) is None


def test_a_breaker_that_nobody_could_ask_is_waited_for():
    assert opened(OpenedBy.UNDECIDED).given_up(10**12, RULES) is None


def test_a_probe_that_is_out_is_waited_for():
    breaker = refused(opened(OpenedBy.SERVICE)).started("probe", 40 * S, RULES, as_probe=True)
    assert breaker.given_up(10**12, RULES) is None


@pytest.mark.parametrize("by", [OpenedBy.NETWORK, OpenedBy.SERVICE, OpenedBy.CAPACITY, OpenedBy.HIDDEN])
def test_bad_probes_count_together_where_the_service_cannot_be_reached_somehow(by):
    breaker = refused(refused(opened(OpenedBy.SERVICE)), by)
    assert (breaker.opened_by, breaker.bad_probes, breaker.settled) == (OpenedBy.SERVICE, 2, 0)


@pytest.mark.parametrize(
    ("known", "by", "then"),
    [
        (OpenedBy.KEY, OpenedBy.PREFLIGHT, OpenedBy.KEY),
        (OpenedBy.MID_STREAM, OpenedBy.KEY, OpenedBy.MID_STREAM),
        (OpenedBy.QUOTA, OpenedBy.UNDECIDED, OpenedBy.QUOTA),
        (OpenedBy.UNDECIDED, OpenedBy.QUOTA, OpenedBy.QUOTA),
        (OpenedBy.UNDECIDED, OpenedBy.HIDDEN, OpenedBy.UNDECIDED),
        (OpenedBy.KEY, OpenedBy.HIDDEN, OpenedBy.KEY),
        (OpenedBy.HIDDEN, OpenedBy.KEY, OpenedBy.KEY),
        (OpenedBy.CROWDED, OpenedBy.CAPACITY, OpenedBy.CAPACITY),
        (OpenedBy.CAPACITY, OpenedBy.CROWDED, OpenedBy.CROWDED),
        (OpenedBy.SERVICE, OpenedBy.KEY, OpenedBy.KEY),
    ],
)
def test_a_probe_confirms_what_is_known_or_brings_another_reason(known, by, then):
    breaker = refused(opened(known), by)
    assert breaker.opened_by is then
    assert breaker.until_ms == opened(known).until_ms + RULES.wait_ms(then, int(then is known), MIDDLE)


def test_another_reason_begins_anew_but_not_its_30_minutes():
    breaker = refused(refused(opened(OpenedBy.SERVICE)), OpenedBy.QUOTA)
    assert breaker.opened_by is OpenedBy.QUOTA
    assert breaker.given_up(breaker.until_ms, RULES) is None
    assert breaker.given_up(31 * 60 * S, RULES) is StopCause.CREDITS_EXHAUSTED
    assert refused(breaker).given_up(0, RULES) is StopCause.CREDITS_EXHAUSTED


# what else opens it


@given(reasons, st.sampled_from([by for by in OpenedBy if by is not OpenedBy.QUOTA]))
def test_an_open_breaker_keeps_its_reason(first, second):
    assert opened(first).opened(second, 99, MIDDLE, RULES) == opened(first)
    assert probing(first).opened(second, 99, MIDDLE, RULES) == probing(first)


@given(st.sampled_from([by for by in OpenedBy if by is not OpenedBy.QUOTA]))
def test_a_quota_that_is_named_is_not_asked_again_for_60_seconds(first):
    breaker = refused(opened(first)).opened(OpenedBy.QUOTA, 99 * S, MIDDLE, RULES)
    assert (breaker.state, breaker.opened_by, breaker.until_ms) == (BreakerState.OPEN, OpenedBy.QUOTA, 159 * S)
    assert breaker.opened(OpenedBy.QUOTA, 120 * S, MIDDLE, RULES) == breaker
    assert refused(breaker).given_up(0, RULES) is StopCause.CREDITS_EXHAUSTED


def test_a_probe_that_went_out_before_the_quota_was_named_is_not_the_one_that_ends_the_run():
    breaker = probing(OpenedBy.HIDDEN).opened(OpenedBy.QUOTA, 10 * S, MIDDLE, RULES)
    assert breaker.is_probe("probe")
    told = breaker.probe_refused(OpenedBy.QUOTA, 12 * S, MIDDLE, RULES)
    assert (told.until_ms, told.given_up(12 * S, RULES)) == (72 * S, None)
    assert refused(told).given_up(0, RULES) is StopCause.CREDITS_EXHAUSTED


def test_a_probe_that_is_lost_after_the_quota_was_named_leaves_its_pause_and_one_probe():
    breaker = probing(OpenedBy.HIDDEN).opened(OpenedBy.QUOTA, 10 * S, MIDDLE, RULES).left("probe", 12 * S)
    assert breaker.until_ms == 70 * S
    assert refused(breaker).given_up(0, RULES) is StopCause.CREDITS_EXHAUSTED


# runs


def test_a_new_run_may_probe_at_once_and_has_all_its_probes():
    breaker = refused(refused(refused(opened(OpenedBy.SERVICE))))
    again = breaker.reopened(10**9)
    assert again.given_up(10**9, RULES) is None
    assert again.may_probe(10**9, 0, RULES)
    assert refused(again, now_ms=10**9).given_up(10**9, RULES) is None


def test_a_new_run_forgets_what_was_counted_before_a_reboot_and_leaves_a_probe_alone():
    assert Breaker(row=3, lost=(10**9,), window_from_ms=10**9).reopened(5) == Breaker()
    assert probing(OpenedBy.KEY).reopened(10**9) == probing(OpenedBy.KEY)


# whatever happens


def start(breaker, now_ms):
    if breaker.state is BreakerState.CLOSED:
        return breaker.started("s", now_ms, RULES, as_probe=False)
    may_probe = breaker.may_probe(now_ms, 0, RULES)
    return breaker.started(f"probe at {now_ms}", now_ms, RULES, as_probe=True) if may_probe else breaker


MOVES = {
    "start": lambda breaker, _id, _by, now_ms, _chance: start(breaker, now_ms),
    "accepted": lambda breaker, session_id, _by, _now_ms, _chance: breaker.accepted(session_id),
    "refused": lambda breaker, session_id, by, now_ms, chance: (
        breaker.probe_refused(by, now_ms, chance, RULES) if breaker.is_probe(session_id) else breaker
    ),
    "left": lambda breaker, session_id, _by, now_ms, _chance: breaker.left(session_id, now_ms),
    "open": lambda breaker, _id, by, now_ms, chance: breaker.opened(by, now_ms, chance, RULES),
    "broke": lambda breaker, _id, _by, now_ms, _chance: breaker.broke(now_ms, RULES)[0],
    "run": lambda breaker, _id, _by, now_ms, _chance: breaker.reopened(now_ms),
}
happenings = st.lists(st.tuples(st.sampled_from(sorted(MOVES)), reasons, st.integers(0, 400_000), chances, st.booleans()), max_size=60)


@given(happenings)
def test_it_is_given_up_only_after_refused_probes_and_half_open_only_with_one(happenings):
    breaker, now_ms, refusals = Breaker(), 0, 0
    for what, by, passed_ms, chance, is_probe in happenings:
        now_ms += passed_ms
        session_id = breaker.probe if is_probe and breaker.probe else "stale"
        refusals += what == "refused" and breaker.is_probe(session_id)
        breaker = MOVES[what](breaker, session_id, by, now_ms, chance)
        if breaker.state is BreakerState.CLOSED or (what == "run" and breaker.state is BreakerState.OPEN):
            refusals = 0
        assert (breaker.state is BreakerState.HALF_OPEN) == (breaker.probe is not None)
        assert (breaker.state is BreakerState.CLOSED) == (breaker.opened_by is None)
        assert breaker.until_ms <= now_ms + 900_000
        assert refusals or breaker.given_up(now_ms, RULES) is None
