"""The rule between a claim and what the ledger knows: which reason against it is given, and when there is none."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.admission import EVERY_ENDPOINT, Claim, Denial, History, SessionKind
from moderation.breaker import Breaker, BreakerState, OpenedBy
from moderation.gate import Entry, Gate, GateRules
from moderation.limits import ConnectionLimit, Place, Stage
from moderation.usage import Usage, Usages, decide

CLAIM = Claim("s1", "lake", "acme", "music", "o1", "k1", "p1", "r1", 0, "w1", 1, "2026-03", 1000)
UNKNOWN = History(streaming=False, done=False, done_by_run=False, erased=False)
GATE = Gate(ceiling=4, cap_ms=9000, limit=ConnectionLimit(stage=Stage.GROWING, allowed=4))
FREE = Usage("acme", "music", "2026-03", GATE, live=3, admitted=3, settled_ms=5000, at_risk_ms=1000, reserved_ms=2000)
WHOLE = replace(FREE, endpoint=EVERY_ENDPOINT)
UNLIMITED = replace(WHOLE, gate=Gate(), live=99)
OPEN = Breaker(state=BreakerState.OPEN, opened_by=OpenedBy.SERVICE, until_ms=60_000)

AGAINST = {
    Denial.TOMBSTONE: ({}, {"erased": True}),
    Denial.CLAIMED: ({}, {"streaming": True}),
    Denial.DONE: ({}, {"done": True}),
    Denial.PAUSED: ({"gate": replace(GATE, paused=True)}, {}),
    Denial.BREAKER: ({"gate": replace(GATE, breaker=OPEN)}, {}),
    Denial.FULL: ({"live": 4}, {}),
    Denial.BUDGET: ({"reserved_ms": 2001}, {}),
}


def decided(claim=CLAIM, endpoint=FREE, whole=UNLIMITED, history=UNKNOWN):
    return decide(claim, history, Usages(endpoint, whole), 1000, GateRules())


def test_a_free_slot_and_a_budget_that_just_holds_it_are_enough():
    assert decided() == Entry(SessionKind.OBJECT, Place.SLOT)


@pytest.mark.parametrize("reason", Denial)
@pytest.mark.parametrize("at", ["endpoint", "whole"])
def test_each_reason_is_given_wherever_it_holds(reason, at):
    usage, history = AGAINST[reason]
    of = {"endpoint": FREE, "whole": WHOLE}
    of[at] = replace(of[at], **usage)
    assert decided(**of, history=replace(UNKNOWN, **history)) is reason


@given(st.sets(st.sampled_from(list(Denial)), min_size=1))
def test_of_several_reasons_the_one_that_lasts_is_given(reasons):
    gate = replace(GATE, paused=Denial.PAUSED in reasons, breaker=OPEN if Denial.BREAKER in reasons else GATE.breaker)
    usage = {name: value for reason in reasons for name, value in AGAINST[reason][0].items()} | {"gate": gate}
    history = {name: value for reason in reasons for name, value in AGAINST[reason][1].items()}
    assert decided(endpoint=replace(FREE, **usage), history=replace(UNKNOWN, **history)) is min(reasons, key=list(Denial).index)


def test_force_streams_what_others_have_paid_for_and_nothing_of_its_own_run_that_streams_or_was_erased():
    forced = replace(CLAIM, force=True)
    assert isinstance(decided(forced, history=replace(UNKNOWN, done=True)), Entry)
    assert decided(forced, history=replace(UNKNOWN, done=True, done_by_run=True)) is Denial.DONE
    assert decided(forced, history=replace(UNKNOWN, done=True, streaming=True)) is Denial.CLAIMED
    assert decided(forced, history=replace(UNKNOWN, done=True, erased=True)) is Denial.TOMBSTONE


def test_nobody_reserves_less_than_nothing():
    assert replace(CLAIM, estimate_ms=0).estimate_ms == 0
    with pytest.raises(ValueError, match="cannot reserve -1 ms"):
        replace(CLAIM, estimate_ms=-1)
