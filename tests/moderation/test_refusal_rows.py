"""The table of what a refusal means, row by row as the rules have it: whose fault it is, what follows, and what is at stake."""

import pytest

from moderation.errors import Phase, Scope, SessionError
from moderation.outcomes import ExitCode, Reason, StopCause
from moderation.refusals import Action, Cause, Tells, classify, why
from moderation.repeats import FORBIDDEN, OBJECTS, Repeats
from moderation.retry import GiveUp, RetryAfter, RetryRules


def text(*words):
    return [{"text": word} for word in words]


def code(*numbers):
    return [{"close_code": number} for number in numbers]


def status(*numbers):
    return [{"http_status": number, "phase": Phase.CONNECTING} for number in numbers]


LOST = [{"close_code": 1006, "phase": phase} for phase in (Phase.ADMITTED, Phase.STREAMING, Phase.DRAINING)]
UNTOUCHED = [{"phase": Phase.PREFLIGHT}, {"phase": Phase.CONNECTING}, {"close_code": 1006, "phase": Phase.CONNECTING}]
STALLED = [{"phase": Phase.ADMITTED}, {"phase": Phase.STREAMING}, {"phase": Phase.DRAINING}]

ROWS = {
    "key": (
        [*text("not permitted", "invalid key", "access denied"), *code(4001), *status(401, 403)],
        (Scope.KEY, Action.STOP, Tells.KEY, Reason.DEFERRED_KEY, StopCause.ACCESS_DENIED),
    ),
    "not validated": (
        text("unable to validate", "could not be validated", "try again"),
        (Scope.SERVICE, Action.RETRY, Tells.SERVICE, Reason.DEFERRED_SERVICE, None),
    ),
    "quota": (
        text("credit", "monthly", "quota", "usage limit"),
        (Scope.ORGANISATION, Action.STOP, Tells.QUOTA, Reason.DEFERRED_QUOTA, StopCause.CREDITS_EXHAUSTED),
    ),
    "capacity": (
        [*text("concurren", "too many", "connection limit"), *status(429)],
        (Scope.ORGANISATION, Action.WAIT, Tells.CAPACITY, Reason.DEFERRED_SERVICE, None),
    ),
    "4003 without telling text": (code(4003), (Scope.KEY, Action.STOP, Tells.KEY, Reason.DEFERRED_KEY, StopCause.ACCESS_DENIED)),
    "4029 without telling text": (
        code(4029),
        (Scope.ORGANISATION, Action.STOP, Tells.UNDECIDED, Reason.DEFERRED_QUOTA, StopCause.CREDITS_EXHAUSTED),
    ),
    "object": (
        [*code(4002), *text("could not be processed", "does not match the declared")],
        (Scope.OBJECT, Action.QUARANTINE, Tells.ADMITTED, Reason.UNDECODABLE, None),
    ),
    "1003": (code(1003), (Scope.CONFIG, Action.QUARANTINE, Tells.NOTHING, Reason.BAD_PARAMETERS, None)),
    "service": (
        [*text("internal server error"), *code(1011, 1012, 1013, 1001), *status(500, 502, 503, 599)],
        (Scope.SERVICE, Action.RETRY, Tells.SERVICE, Reason.DEFERRED_SERVICE, None),
    ),
    "1009": (code(1009), (Scope.CONFIG, Action.STOP, Tells.NOTHING, Reason.NOT_REACHED, StopCause.CONFIGURATION)),
    "before any byte": (UNTOUCHED, (Scope.NETWORK, Action.RETRY, Tells.NETWORK, Reason.DEFERRED_SERVICE, None)),
    "1006 while uploading": (LOST, (Scope.NETWORK, Action.RETRY, Tells.LOST, Reason.DEFERRED_SERVICE, None)),
    "no done, protocol faults, stall": (
        [*code(1000), {"protocol": "not_json"}, *STALLED],
        (Scope.SERVICE, Action.RETRY_THEN_QUARANTINE, Tells.NOTHING, Reason.INCOMPLETE, None),
    ),
    "any other code": (
        code(4004, 4030, 4031, 1008, 4999),
        (Scope.SERVICE, Action.RETRY_THEN_QUARANTINE, Tells.NOTHING, Reason.INCOMPLETE, None),
    ),
}
SIGNALS = [
    pytest.param(signal, expected, id=f"{row}: {' '.join(str(value) for value in signal.values())}")
    for row, (signals, expected) in ROWS.items()
    for signal in signals
]


def cause_of(signal) -> Cause:
    return classify(SessionError("it ended", **{"phase": Phase.ADMITTED} | signal))


@pytest.mark.parametrize(("signal", "expected"), SIGNALS)
def test_a_row_of_the_table_means_what_the_rules_say(signal, expected):
    cause = cause_of(signal)
    assert (cause.scope, cause.action, cause.tells, cause.reason, cause.stop) == expected


@pytest.mark.parametrize("row", ROWS)
def test_only_an_objects_and_a_sessions_own_faults_spend_its_attempts(row):
    signals, _ = ROWS[row]
    spends = row in {"object", "1003", "no done, protocol faults, stall", "any other code"}
    assert {cause_of(signal).spends_attempt for signal in signals} == {spends}


@pytest.mark.parametrize(("row", "tries"), [("no done, protocol faults, stall", 3), ("any other code", 2), ("object", 1), ("1003", 1)])
def test_a_fault_of_its_own_is_tried_as_often_as_the_rules_say(row, tries):
    cause = cause_of(ROWS[row][0][0])
    verdicts = [RetryRules().verdict(cause, number, 0.5) for number in range(1, tries + 1)]
    assert all(isinstance(verdict, RetryAfter) for verdict in verdicts[:-1])
    assert verdicts[-1] == GiveUp(cause.reason, None)


@pytest.mark.fault(24, 33)
@pytest.mark.parametrize(("number", "stop"), [(1003, StopCause.CONFIGURATION), (4030, StopCause.SERVICE_UNREACHABLE), (1000, None)])
def test_the_same_code_from_three_distinct_objects_stops_the_run_where_it_is_none_of_theirs(number, stop):
    repeats, cause = Repeats(), cause_of({"close_code": number})
    told = [repeats.failed(str(object_id), cause, number) for object_id in (1, 1, *range(2, OBJECTS + 1))]
    assert told == [*[None] * OBJECTS, stop]


@pytest.mark.fault(6)
def test_three_objects_in_a_row_that_may_not_be_read_stop_the_run():
    repeats = Repeats()
    assert [repeats.failed(each, FORBIDDEN, None) for each in "ab"] == [None, None]
    repeats.done()
    assert [repeats.failed(each, FORBIDDEN, None) for each in "cde"] == [None, None, StopCause.ACCESS_DENIED]


def test_the_service_says_for_how_long_at_least_it_wants_to_be_left_alone():
    assert RetryRules().verdict(cause_of(status(429)[0]), 1, 0.5, retry_after=7.0) == RetryAfter(7.0)


ENDINGS = {
    "AccessDenied": (StopCause.ACCESS_DENIED, ExitCode.ACCESS_DENIED, 77),
    "CreditsExhausted": (StopCause.CREDITS_EXHAUSTED, ExitCode.EXHAUSTED, 75),
    "Configuration": (StopCause.CONFIGURATION, ExitCode.CONFIGURATION, 78),
    "ServiceUnreachable": (StopCause.SERVICE_UNREACHABLE, ExitCode.UNREACHABLE, 69),
    "ResultsNotWritable": (StopCause.RESULTS_NOT_WRITABLE, ExitCode.CANNOT_WRITE, 73),
    "Terminated": (StopCause.TERMINATED, ExitCode.DRAINED, 143),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_stop_has_its_state_and_exit_code(name):
    stop, code_of_ours, number = ENDINGS[name]
    assert (stop.value, stop.exit_code, int(stop.exit_code)) == (name, code_of_ours, number)


def test_there_are_no_other_stops():
    assert {stop for stop, _, _ in ENDINGS.values()} == set(StopCause)


@pytest.mark.parametrize("stop", [stop for stop in StopCause if stop not in {StopCause.TERMINATED, StopCause.RESULTS_NOT_WRITABLE}])
def test_a_stop_that_another_process_has_seen_says_what_to_do(stop):
    assert why(stop).stop is stop
    assert why(stop).advice
