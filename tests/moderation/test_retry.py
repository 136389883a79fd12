"""When an object is tried again, and how it ends when it is not."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.budget import MS_PER_HOUR
from moderation.errors import Scope
from moderation.judgement import MID_STREAM_TRIES
from moderation.outcomes import QUARANTINED, Reason, StopCause
from moderation.refusals import (
    BAD_PARAMETERS,
    CAPACITY,
    INCOMPLETE,
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
    Cause,
)
from moderation.retry import MAX_RETRY_AFTER_S, GiveUp, RetryAfter, RetryBudget, RetryRules

RULES = RetryRules()
SESSION_FAULTS = [INCOMPLETE, UNKNOWN_CODE]
TRANSIENT = [NOT_VALIDATED, SERVICE_FAULT, UNREACHABLE]
WAITS = [CAPACITY, *(replace(cause, action=Action.WAIT, stop=None) for cause in (NOT_PERMITTED, QUOTA))]
"""As they come back from the ledger, which has judged them."""
ENDING = [*SESSION_FAULTS, *TRANSIENT, NOT_PERMITTED, QUOTA, UNDECODABLE, BAD_PARAMETERS, WRONG_URL, TOO_BIG]
chances = st.floats(0, 1, exclude_max=True)


def life_of(cause, chance=0.5, rules=RULES):
    """The pauses between the tries of an object that always fails for this cause, and its end."""
    pauses, tries = [], 1
    while isinstance(verdict := rules.verdict(cause, tries, chance), RetryAfter):
        pauses.append(verdict.seconds)
        tries += 1
        assert tries < 100, "tried for ever"
    return pauses, verdict


@pytest.mark.parametrize(("cause", "reason"), [(UNDECODABLE, Reason.UNDECODABLE), (BAD_PARAMETERS, Reason.BAD_PARAMETERS)])
def test_an_objects_own_fault_is_never_paid_for_twice(cause, reason):
    assert life_of(cause) == ([], GiveUp(reason))


def test_a_fault_of_the_session_is_tried_three_times_then_quarantined():
    pauses, end = life_of(INCOMPLETE)
    assert len(pauses) == 2
    assert end == GiveUp(Reason.INCOMPLETE)


def test_an_unknown_code_is_tried_once_more_only():
    pauses, end = life_of(UNKNOWN_CODE)
    assert len(pauses) == 1
    assert end == GiveUp(Reason.INCOMPLETE)


def test_settings_can_lower_the_attempts_of_every_fault():
    assert life_of(UNKNOWN_CODE, rules=RetryRules(attempts=1)) == ([], GiveUp(Reason.INCOMPLETE))
    assert len(life_of(UNKNOWN_CODE, rules=RetryRules(attempts=9))[0]) == 1


@pytest.mark.parametrize("cause", TRANSIENT, ids=lambda cause: cause.name)
def test_a_fault_of_the_service_leaves_the_object_pending_and_ends_no_run_by_itself(cause):
    pauses, end = life_of(cause)
    assert len(pauses) == RULES.patience - 1
    assert end == GiveUp(Reason.DEFERRED_SERVICE)


def test_a_cause_can_allow_fewer_tries_than_patience_has_and_never_more():
    refused = replace(NOT_PERMITTED, action=Action.RETRY, stop=None, attempts=MID_STREAM_TRIES)
    pauses, end = life_of(refused)
    assert len(pauses) == MID_STREAM_TRIES - 1
    assert end == GiveUp(Reason.DEFERRED_KEY)
    assert len(life_of(refused, rules=RetryRules(patience=2))[0]) == 1


@pytest.mark.parametrize("cause", WAITS, ids=lambda cause: cause.name)
def test_what_admission_decides_is_asked_again_for_ever_and_at_once(cause):
    """The ledger says when; a breaker that gives up ends the run."""
    assert cause.action is Action.WAIT
    assert all(RULES.verdict(cause, tries, 0.999) == RetryAfter(0.0) for tries in (1, 40, 10_000))


@pytest.mark.parametrize("cause", [WRONG_URL, TOO_BIG], ids=lambda cause: cause.name)
def test_a_wrong_configuration_stops_the_run_at_once(cause):
    assert life_of(cause) == ([], GiveUp(Reason.NOT_REACHED, StopCause.CONFIGURATION))


@given(st.sampled_from(SESSION_FAULTS + TRANSIENT), st.integers(1, 40), chances)
def test_a_pause_is_a_random_share_of_a_doubling_bounded_step(cause, tries, chance):
    verdict = RetryRules(attempts=99, patience=99).verdict(Cause(cause.name, cause.scope, cause.action, cause.reason), tries, chance)
    assert verdict == RetryAfter(pytest.approx(chance * min(120.0, 2.0 * 2**tries)))


def test_pauses_double():
    assert life_of(SERVICE_FAULT, chance=0.5)[0] == [2.0, 4.0, 8.0, 16.0]


@given(st.sampled_from([*TRANSIENT, CAPACITY]), chances, st.floats(0, 600))
def test_the_servers_own_wish_is_a_floor(cause, chance, wish):
    asked, unasked = (RULES.verdict(cause, 1, chance, retry_after=after).seconds for after in (wish, None))
    assert asked == max(wish, unasked)


@pytest.mark.parametrize("wish", [901.0, 86_400.0, 1e300])
def test_the_servers_own_wish_is_heard_for_a_quarter_of_an_hour_at_most(wish):
    assert RULES.verdict(SERVICE_FAULT, 1, 0.5, retry_after=900.0) == RetryAfter(MAX_RETRY_AFTER_S) == RetryAfter(900.0)
    assert RULES.verdict(SERVICE_FAULT, 1, 0.5, retry_after=wish) == RetryAfter(900.0)


@given(st.sampled_from([*ENDING, *WAITS]), st.integers(1, 20), chances)
def test_only_the_objects_or_the_sessions_faults_ever_quarantine(cause, tries, chance):
    verdict = RULES.verdict(cause, tries, chance)
    if isinstance(verdict, GiveUp) and verdict.reason in QUARANTINED:
        assert cause.spends_attempt
        assert verdict.stop is None


@pytest.mark.parametrize("cause", ENDING, ids=lambda cause: cause.name)
def test_every_object_that_admission_does_not_hold_back_ends(cause):
    pauses, end = life_of(cause, chance=0.999)
    assert len(pauses) < max(RULES.attempts, RULES.patience)
    assert end.reason is cause.reason


def test_once_given_up_more_tries_change_nothing():
    for cause in ENDING:
        pauses, end = life_of(cause)
        assert all(RULES.verdict(cause, len(pauses) + more, 0.5) == end for more in range(1, 8))


def test_a_cause_that_stops_without_a_name_leaves_the_object_pending():
    cancelled = Cause("cancelled", Scope.CONFIG, Action.STOP, Reason.NOT_REACHED)
    assert life_of(cancelled) == ([], GiveUp(Reason.NOT_REACHED, None))


@pytest.mark.parametrize(("planned_hours", "allowed_hours"), [(0, 1), (9, 1), (10, 1), (30, 3)])
def test_a_tenth_of_the_plan_or_an_hour_may_be_streamed_again(planned_hours, allowed_hours):
    budget = RetryBudget(planned_hours * MS_PER_HOUR)
    assert not budget.allows(allowed_hours * MS_PER_HOUR + 1)
    assert budget.allows(allowed_hours * MS_PER_HOUR - 1), "what is not allowed is not counted"
    assert not budget.allows(2)
    assert budget.allows(1)
    assert not budget.allows(1)
