"""The rule between a claim and what the ledger knows: which reason against it is given, and when there is none."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.admission import BREAKER_CLOSED, EVERY_ENDPOINT, Claim, Denial, History, Usage, denial_of

CLAIM = Claim("s1", "lake", "acme", "music", "o1", "k1", "p1", "r1", 0, "w1", 1, "2026-03", 1000)
UNKNOWN = History(streaming=False, done=False, erased=False)
FREE = Usage(
    "acme", "music", "2026-03", 4, 3, paused=False, breaker=BREAKER_CLOSED, cap_ms=9000, settled_ms=5000, at_risk_ms=1000, reserved_ms=2000
)
UNLIMITED = replace(FREE, endpoint=EVERY_ENDPOINT, ceiling=None, live=99, cap_ms=None)

AGAINST = {
    Denial.TOMBSTONE: ({}, {"erased": True}),
    Denial.CLAIMED: ({}, {"streaming": True}),
    Denial.DONE: ({}, {"done": True}),
    Denial.PAUSED: ({"paused": True}, {}),
    Denial.BREAKER: ({"breaker": "open"}, {}),
    Denial.FULL: ({"live": 4}, {}),
    Denial.BUDGET: ({"reserved_ms": 2001}, {}),
}


def test_a_free_slot_and_a_budget_that_just_holds_it_are_enough():
    assert denial_of(CLAIM, [FREE, UNLIMITED], UNKNOWN) is None


@pytest.mark.parametrize("reason", Denial)
@pytest.mark.parametrize("at", [0, 1], ids=["endpoint", "organisation"])
def test_each_reason_is_given_wherever_it_holds(reason, at):
    usage, history = AGAINST[reason]
    usages = [FREE, FREE]
    usages[at] = replace(FREE, **usage)
    assert denial_of(CLAIM, usages, replace(UNKNOWN, **history)) is reason


@given(st.sets(st.sampled_from(list(Denial)), min_size=1))
def test_of_several_reasons_the_one_that_lasts_is_given(reasons):
    usage = {name: value for reason in reasons for name, value in AGAINST[reason][0].items()}
    history = {name: value for reason in reasons for name, value in AGAINST[reason][1].items()}
    assert denial_of(CLAIM, [replace(FREE, **usage)], replace(UNKNOWN, **history)) is min(reasons, key=list(Denial).index)


def test_force_streams_what_is_paid_for_and_nothing_that_streams_or_was_erased():
    forced = replace(CLAIM, force=True)
    assert denial_of(forced, [FREE], replace(UNKNOWN, done=True)) is None
    assert denial_of(forced, [FREE], replace(UNKNOWN, done=True, streaming=True)) is Denial.CLAIMED
    assert denial_of(forced, [FREE], replace(UNKNOWN, done=True, erased=True)) is Denial.TOMBSTONE


def test_what_is_left_of_a_month_counts_what_is_reserved():
    assert FREE.left_ms == 1000
    assert UNLIMITED.left_ms is None


def test_nobody_reserves_less_than_nothing():
    assert replace(CLAIM, estimate_ms=0).estimate_ms == 0
    with pytest.raises(ValueError, match="cannot reserve -1 ms"):
        replace(CLAIM, estimate_ms=-1)
