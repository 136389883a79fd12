"""Slots of one process: given back once, and all that there are only while no fewer are taken and nobody has told of more."""

import pytest

from ledger_facts import Clock, claim_of
from tasks.own_slots import OwnSlots, Taken

ONE, TWO, ELSEWHERE = claim_of(1), claim_of(2), claim_of(3, endpoint="ai_music")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def slots(clock):
    """All slots of music are taken by two sessions, and one of another endpoint is live."""
    slots = OwnSlots(clock)
    for claim in (ONE, TWO, ELSEWHERE):
        slots.take(claim)
    slots.are_all("music", slots.taken("music"), 1.5)
    return slots


def test_a_slot_is_given_back_once_and_its_session_stays_until_it_is_booked(slots):
    slots.give_back(ELSEWHERE)
    assert (slots.taken("ai_music"), slots.given_back) == (Taken(0, 2), (ELSEWHERE.session_id,))
    assert slots.has_sessions("ai_music")
    slots.end(ELSEWHERE)
    assert (slots.taken("ai_music"), slots.given_back) == (Taken(0, 2), ())
    assert not slots.has_sessions("ai_music")


def test_all_slots_are_ours_for_a_while_at_that_endpoint(slots, clock):
    assert (slots.all_for_s("music"), slots.all_for_s("ai_music")) == (1.5, 0.0)
    clock.ms += 1_499
    assert slots.all_for_s("music") == pytest.approx(0.001)
    clock.ms += 2
    assert slots.all_for_s("music") == 0.0


@pytest.mark.parametrize("claim", [ONE, ELSEWHERE])
def test_one_that_is_given_back_may_be_asked_for_until_it_is_taken_again(slots, claim):
    slots.give_back(claim)
    assert slots.all_for_s("music") == 0.0
    slots.take(claim_of(4, endpoint=claim.endpoint))
    slots.end(claim)
    assert slots.all_for_s("music") == 1.5


@pytest.mark.parametrize("tells", [lambda slots: slots.end(TWO), lambda slots: slots.may_be_more("music")])
def test_whatever_may_have_told_the_ledger_of_a_higher_limit_ends_it(slots, tells):
    tells(slots)
    slots.take(claim_of(4))
    assert slots.all_for_s("music") == 0.0
