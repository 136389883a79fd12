"""Probe and hold: every sentence of rules.md, 'Connection limit', and what holds whatever happens."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.limits import ConnectionLimit, LimitRules, Place, Stage

RULES = LimitRules()
MIDDLE = 0.5
"""The chance that changes nothing: no jitter, a pause of one second."""
CEILING = 16
chances = st.floats(0, 1, exclude_max=True)


def holding(allowed, **known):
    return ConnectionLimit(Stage.HOLDING, allowed, learned=allowed, raise_every_ms=30_000, raise_at_ms=30_000, **known)


def growing(allowed, learned=None):
    return ConnectionLimit(Stage.GROWING, allowed, learned)


def admitted(limit, session_id="s", together=1, ceiling=CEILING, now_ms=0, chance=MIDDLE):
    return limit.admitted(session_id, together, ceiling, now_ms, chance, RULES)


def refused(limit, session_id="s", others=1, now_ms=0, chance=MIDDLE):
    return limit.refused(session_id, others, now_ms, chance, RULES)


def raised(limit, now_ms, *, good):
    """The limit after the session beyond it went out and was admitted beside all others, or refused."""
    limit = limit.started("raise", Place.RAISE)
    return admitted(limit, "raise", limit.allowed + 1, now_ms=now_ms) if good else refused(limit, "raise", limit.allowed, now_ms)


# After preflight start at 2 (or 80 % of the last learned limit)


def test_preflight_is_one_session_alone():
    limit = ConnectionLimit()
    assert limit.place(0, CEILING, 0) is Place.SLOT
    assert limit.place(1, CEILING, 0) is Place.NONE


@pytest.mark.parametrize(
    ("learned", "allowed", "stage"),
    [
        (None, 2, Stage.GROWING),
        (1, 1, Stage.HOLDING),
        (2, 2, Stage.HOLDING),
        (3, 2, Stage.GROWING),
        (5, 4, Stage.GROWING),
        (10, 8, Stage.GROWING),
    ],
)
def test_after_preflight_sessions_start_at_two_or_at_80_percent_of_the_last_learned_limit(learned, allowed, stage):
    limit = admitted(ConnectionLimit(learned=learned))
    assert (limit.allowed, limit.stage) == (allowed, stage)


def test_a_start_is_never_above_the_ceiling_and_a_ceiling_of_nothing_admits_nothing():
    assert admitted(ConnectionLimit(learned=10), ceiling=3).allowed == 3
    closed = admitted(ConnectionLimit(), ceiling=0)
    assert closed.allowed == 1
    assert closed.place(0, 0, 0) is Place.NONE


def test_every_run_begins_with_preflight_and_remembers_the_learned_limit():
    limit = replace(holding(5), rest_until_ms=99, raising="r", raise_every_ms=900_000).reopened()
    assert limit == ConnectionLimit(Stage.PREFLIGHT, 1, learned=5, raise_at_ms=30_000)


# one more per admitted session, up to the configured ceiling


def test_one_more_for_every_admitted_session_up_to_the_ceiling():
    limit, seen = growing(2), []
    for _ in range(4):
        limit = admitted(limit, ceiling=5)
        seen.append(limit.allowed)
    assert seen == [3, 4, 5, 5]


def test_growth_ends_at_the_learned_limit_and_is_held_there():
    limit = admitted(growing(4, learned=5), now_ms=1_000)
    assert limit == ConnectionLimit(Stage.HOLDING, 5, 5, raise_every_ms=30_000, raise_at_ms=31_000)


def test_more_than_was_learned_is_believed_when_it_is_really_admitted():
    limit = admitted(growing(4, learned=5), together=7)
    assert (limit.stage, limit.allowed, limit.learned) == (Stage.HOLDING, 7, 7)


def test_in_growth_nothing_goes_beyond_the_limit():
    assert growing(3).place(2, CEILING, 0) is Place.SLOT
    assert growing(3).place(3, CEILING, 10**9) is Place.NONE


# On a capacity refusal the limit becomes what is really admitted now (at least 1), after a pause of 0.5 to 1.5 s


@pytest.mark.parametrize(("others", "allowed"), [(3, 3), (1, 1), (0, 1), (9, 8)])
def test_a_refusal_makes_what_is_really_admitted_the_limit(others, allowed):
    limit = refused(growing(8), others=others)
    assert (limit.stage, limit.allowed) == (Stage.HOLDING, allowed)


def test_what_was_learned_is_not_forgotten_for_a_refusal_beside_nothing():
    assert refused(holding(5), others=0).learned == 5
    assert refused(holding(5), others=2).learned == 2


@pytest.mark.parametrize(("chance", "pause_ms"), [(0.0, 500), (0.5, 1_000), (0.999, 1_499)])
def test_a_refusal_is_followed_by_a_pause(chance, pause_ms):
    limit = refused(holding(5), others=4, now_ms=7_000, chance=chance)
    assert limit.place(0, CEILING, 7_000 + pause_ms - 1) is Place.NONE
    assert limit.place(0, CEILING, 7_000 + pause_ms) is Place.SLOT


def test_a_pause_that_the_service_asked_for_is_a_floor():
    limit = refused(holding(5), others=4).rested(5_000)
    assert limit.place(0, CEILING, 4_999) is Place.NONE
    assert limit.place(0, CEILING, 5_000) is Place.SLOT
    assert limit.rested(10) == limit
    assert refused(limit, others=3).rest_until_ms == 5_000


# then a probe of +1 every 30 s, doubling to 15 minutes after a failed one, halving after a good one, +-25 % jitter


@pytest.mark.parametrize(
    ("limit", "live", "now_ms", "place"),
    [
        (holding(5), 4, 30_000, Place.SLOT),
        (holding(5), 5, 29_999, Place.NONE),
        (holding(5), 5, 30_000, Place.RAISE),
        (holding(5), 6, 30_000, Place.NONE),
        (holding(5, raising="other"), 5, 30_000, Place.NONE),
        (holding(CEILING), CEILING, 30_000, Place.NONE),
        (holding(CEILING + 4), CEILING, 30_000, Place.NONE),
    ],
    ids=["a slot first", "too early", "one beyond", "only one", "one at a time", "at the ceiling", "the ceiling was lowered"],
)
def test_one_session_beyond_the_limit_asks_whether_it_still_holds(limit, live, now_ms, place):
    assert limit.place(live, CEILING, now_ms) is place


def test_only_the_session_beyond_the_limit_is_noted():
    assert holding(5).started("s", Place.RAISE).raising == "s"
    assert holding(5).started("s", Place.SLOT).raising is None


def test_failed_raises_come_half_as_often_each_up_to_15_minutes():
    limit, now_ms, pauses = holding(5), 30_000, []
    for _ in range(7):
        limit = raised(limit, now_ms, good=False)
        pauses.append((limit.raise_at_ms - now_ms) // 1000)
        now_ms = limit.raise_at_ms
    assert pauses == [60, 120, 240, 480, 900, 900, 900]
    assert limit.allowed == limit.learned == 5


def test_good_raises_come_twice_as_often_each_down_to_30_seconds():
    limit, now_ms, pauses = replace(holding(5), raise_every_ms=900_000), 0, []
    for _ in range(7):
        limit = raised(limit, now_ms, good=True)
        pauses.append(limit.raise_at_ms - now_ms)
        now_ms = limit.raise_at_ms
    assert pauses == [450_000, 225_000, 112_500, 56_250, 30_000, 30_000, 30_000]
    assert limit.allowed == limit.learned == 12


@pytest.mark.parametrize(("chance", "at_ms"), [(0.0, 45_000), (0.5, 60_000), (0.9999, 74_997)])
def test_the_time_between_two_raises_has_a_jitter_of_a_quarter(chance, at_ms):
    limit = holding(5).started("raise", Place.RAISE)
    assert refused(limit, "raise", 5, chance=chance).raise_at_ms == at_ms


@pytest.mark.parametrize(("due_ms", "at_ms"), [(90_000, 90_000), (5_000, 31_000)])
def test_a_refusal_in_an_ordinary_place_leaves_the_time_between_raises_and_30_seconds_at_least(due_ms, at_ms):
    limit = replace(holding(5), raise_every_ms=900_000, raise_at_ms=due_ms, raising="raise")
    after = refused(limit, "s", 4, now_ms=1_000)
    assert (after.raise_every_ms, after.raise_at_ms, after.raising) == (900_000, at_ms, "raise")


def test_the_first_refusal_in_growth_is_followed_by_a_raise_after_30_seconds():
    limit = refused(growing(8), others=5, now_ms=1_000)
    assert (limit.raise_every_ms, limit.raise_at_ms) == (30_000, 31_000)


def test_a_raise_that_is_admitted_only_because_another_session_left_has_shown_nothing():
    limit = replace(holding(5), raise_every_ms=240_000, raising="raise")
    after = admitted(limit, "raise", together=5, now_ms=1_000)
    assert (after.allowed, after.raising, after.raise_every_ms, after.raise_at_ms) == (5, None, 240_000, 241_000)


def test_a_raise_that_ends_without_a_word_was_no_good_one():
    limit = holding(5, raising="raise")
    after = limit.left("raise", 50_000, MIDDLE, RULES)
    assert after == replace(limit, raising=None, raise_every_ms=60_000, raise_at_ms=110_000)
    assert replace(limit, raise_every_ms=900_000).left("raise", 0, MIDDLE, RULES).raise_every_ms == 900_000
    assert limit.left("s", 50_000, MIDDLE, RULES) == limit


def test_sessions_that_were_slow_to_show_a_result_count_when_they_do():
    """Refused while three others had no result yet: the limit is what is really admitted, then and later."""
    limit = refused(holding(6), others=2)
    assert limit.allowed == 2
    for together in (3, 4, 5):
        limit = admitted(limit, together=together)
        assert limit.allowed == limit.learned == together
    assert limit.raise_every_ms == 30_000
    assert admitted(limit, together=4) == limit


@given(st.integers(0, 5))
def test_a_refused_raise_says_nothing_against_the_limit_that_it_went_beyond(with_result):
    limit = refused(holding(5).started("raise", Place.RAISE), "raise", others=with_result)
    assert limit.allowed == limit.learned == 5


def test_what_is_admitted_raises_the_limit_no_further_than_the_ceiling():
    assert admitted(holding(2), together=9, ceiling=4).allowed == 4
    assert admitted(holding(6), together=9, ceiling=4).allowed == 6


# Breaker. Good: closed at limit 1


@pytest.mark.parametrize(("together", "allowed"), [(1, 1), (3, 3), (20, CEILING)])
def test_after_a_good_probe_the_limit_is_one_or_what_streams_beside_it(together, allowed):
    limit = replace(holding(5), rest_until_ms=10**9, raising="r", raise_every_ms=480_000).after_probe(together, CEILING)
    assert limit == ConnectionLimit(Stage.GROWING, allowed, 5, raise_every_ms=480_000, raise_at_ms=30_000)


def test_after_a_good_probe_growth_does_not_begin_to_ask_more_often():
    limit = replace(holding(2), raise_every_ms=480_000).after_probe(1, CEILING)
    assert admitted(limit, together=2).raise_every_ms == 480_000


# whatever happens

steps = st.lists(
    st.tuples(
        st.sampled_from(["admitted", "refused", "left", "probe", "reopened", "rested"]),
        st.integers(0, 20),
        st.integers(0, 100_000),
        chances,
        st.booleans(),
    ),
    max_size=60,
)


@given(steps, st.integers(1, CEILING))
def test_at_least_one_and_never_more_than_the_ceiling(steps, ceiling):
    limit, now_ms = ConnectionLimit(), 0
    for what, others, passed_ms, chance, raises in steps:
        now_ms += passed_ms
        if raises and limit.place(limit.allowed, ceiling, now_ms) is Place.RAISE:
            limit = limit.started("r", Place.RAISE)
        session_id = "r" if raises else "s"
        match what:
            case "admitted":
                limit = limit.admitted(session_id, others + 1, ceiling, now_ms, chance, RULES)
            case "refused":
                limit = limit.refused(session_id, others, now_ms, chance, RULES)
            case "left":
                limit = limit.left(session_id, now_ms, chance, RULES)
            case "probe":
                limit = limit.after_probe(others + 1, ceiling)
            case "reopened":
                limit = limit.reopened()
            case "rested":
                limit = limit.rested(now_ms + passed_ms)
        assert 1 <= limit.allowed <= ceiling
        assert limit.place(ceiling, ceiling, now_ms) is Place.NONE
        assert limit.raising in {None, "r"}
        if limit.stage is Stage.HOLDING:
            assert 30_000 <= limit.raise_every_ms <= 900_000
            assert limit.raise_at_ms <= now_ms + 1.25 * 900_000


@given(st.integers(1, CEILING), st.integers(0, 20), chances, st.sampled_from(["left", "admitted"]))
def test_the_end_of_a_session_that_asked_nothing_does_not_lower_the_limit(allowed, others, chance, how):
    limit = holding(allowed, raising="r")
    after = limit.left("s", 0, chance, RULES) if how == "left" else limit.admitted("s", others + 1, CEILING, 0, chance, RULES)
    assert after.allowed >= limit.allowed
    assert after.raising == "r"
