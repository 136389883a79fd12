"""What every failure means: the rows of the rules' table, every published text, and what is said first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.errors import Phase, Scope, SessionError
from moderation.outcomes import PENDING, QUARANTINED, Reason, StopCause
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
    Cause,
    classify,
)

CAUSES = [
    NOT_PERMITTED,
    NOT_VALIDATED,
    QUOTA,
    CAPACITY,
    UNDECODABLE,
    BAD_PARAMETERS,
    WRONG_URL,
    SERVICE_FAULT,
    TOO_BIG,
    UNREACHABLE,
    INCOMPLETE,
    INSUFFICIENT,
    LOST,
    UNKNOWN_CODE,
]


def failure(phase=Phase.ADMITTED, **known):
    return SessionError("it ended", phase=phase, **known)


def texts(cause, *words):
    return [pytest.param({"text": text}, cause, id=text) for text in words]


def codes(cause, *numbers):
    return [pytest.param({"close_code": number}, cause, id=f"close {number}") for number in numbers]


def statuses(cause, *numbers):
    return [pytest.param({"http_status": number, "phase": Phase.CONNECTING}, cause, id=f"HTTP {number}") for number in numbers]


TABLE = [
    *texts(NOT_PERMITTED, "not permitted", "invalid key", "Invalid API key", "invalid api_key", "access denied"),
    *codes(NOT_PERMITTED, 4001),
    *statuses(NOT_PERMITTED, 401, 403),
    *texts(NOT_VALIDATED, "unable to validate", "could not be validated", "try again"),
    *texts(QUOTA, "credit", "monthly", "quota", "usage limit"),
    *texts(CAPACITY, "concurrent", "concurrency", "too many", "connection limit"),
    *statuses(CAPACITY, 429),
    *codes(NOT_PERMITTED, 4003),
    *codes(INSUFFICIENT, 4029),
    *codes(UNDECODABLE, 4002),
    *texts(UNDECODABLE, "could not be processed", "does not match the declared"),
    *codes(BAD_PARAMETERS, 1003),
    *texts(SERVICE_FAULT, "internal server error"),
    *codes(SERVICE_FAULT, 1011, 1012, 1013, 1001),
    *statuses(SERVICE_FAULT, 500, 502, 503, 504, 599),
    *codes(TOO_BIG, 1009),
    pytest.param({"phase": Phase.CONNECTING}, UNREACHABLE, id="timeout or reset before any byte"),
    pytest.param({"phase": Phase.PREFLIGHT}, UNREACHABLE, id="timeout or reset in preflight"),
    pytest.param({"close_code": 1006, "phase": Phase.CONNECTING}, UNREACHABLE, id="1006 before any byte"),
    *[
        pytest.param({"close_code": 1006, "phase": phase}, LOST, id=f"1006 while {phase}")
        for phase in (Phase.ADMITTED, Phase.STREAMING, Phase.DRAINING)
    ],
    *codes(INCOMPLETE, 1000, 1002, 1005, 1007),
    *[pytest.param({"protocol": name}, INCOMPLETE, id=name) for name in ("not_json", "done_before_end", "empty_done")],
    *[pytest.param({"phase": phase}, INCOMPLETE, id=f"stall while {phase}") for phase in (Phase.ADMITTED, Phase.STREAMING, Phase.DRAINING)],
    *codes(UNKNOWN_CODE, 4004, 4030, 4031, 1008, 3000, 4999),
    *statuses(WRONG_URL, 300, 301, 307, 400, 404, 426, 499),
    *statuses(UNKNOWN_CODE, 200, 204, 299, 600),
]

PUBLISHED = [
    ("Internal server error", SERVICE_FAULT),
    ("This request is not permitted.", NOT_PERMITTED),
    ("Insufficient credits.", QUOTA),
    ("Unable to validate request. Please try again.", NOT_VALIDATED),
    ("Audio data does not match the declared audio_format.", UNDECODABLE),
    ("The audio could not be processed. It may be corrupted or in an unsupported format.", UNDECODABLE),
    ("Invalid audio_format='mp4'. Valid values: ['wav', 'mp3']", BAD_PARAMETERS),
    ("Raw audio formats require sample_rate and num_channels query parameters", BAD_PARAMETERS),
    ("sample_rate and num_channels require audio_format to be specified", BAD_PARAMETERS),
    ("Invalid sample_rate=50000. Valid values: [8000, 11025]", BAD_PARAMETERS),
    ("Invalid num_channels=12. Must be between 1 and 8", BAD_PARAMETERS),
    ("audio_format query parameter is required. Valid values: ['wav']", BAD_PARAMETERS),
    ("Monthly usage limit reached.", QUOTA),
    ("Unable to complete the request", SERVICE_FAULT),
    ("Invalid input audio", UNDECODABLE),
]


@pytest.mark.parametrize(("known", "cause"), TABLE)
def test_every_row_of_the_table_has_its_cause(known, cause):
    assert classify(failure(**known)) is cause


@pytest.mark.parametrize(("text", "cause"), PUBLISHED, ids=[text for text, _ in PUBLISHED])
def test_every_published_text_means_the_same_with_any_code_or_none(text, cause):
    for code in (None, 1000, 1003, 1006, 1011, 4002, 4003, 4029, 4031):
        assert classify(failure(close_code=code, text=text)) is cause


@pytest.mark.parametrize(("text", "cause"), PUBLISHED, ids=[text for text, _ in PUBLISHED])
def test_case_and_the_final_stop_say_nothing(text, cause):
    for written in (text.upper(), text.lower(), text.rstrip("."), text + " . "):
        assert classify(failure(text=written)) is cause


def test_4003_has_two_opposite_meanings_told_apart_by_text():
    assert classify(failure(close_code=4003, text="The request could not be validated, try again.")) is NOT_VALIDATED
    assert classify(failure(close_code=4003, text="The request is not permitted.")) is NOT_PERMITTED


def test_4029_has_two_meanings_told_apart_by_text():
    assert classify(failure(close_code=4029, text="Too many concurrent connections.")) is CAPACITY
    assert classify(failure(close_code=4029, text="Insufficient credits.")) is QUOTA
    assert classify(failure(close_code=4029)) is INSUFFICIENT


def test_the_reason_of_a_close_is_heard_where_no_message_came():
    transient = "Could not be validated, try again."
    assert classify(failure(close_code=4003, close_reason=transient)) is NOT_VALIDATED
    assert classify(failure(close_code=4003, close_reason="bye")) is classify(failure(close_code=4003))
    assert classify(failure(close_code=4003, close_reason=transient, text="This request is not permitted.")) is NOT_PERMITTED


@given(st.sampled_from([1000, 1003, 1006, 1011, 4002, 4003, 4029, 4030]), st.text(alphabet="xyz .", max_size=30))
def test_an_unknown_text_falls_back_to_the_code(code, text):
    assert classify(failure(close_code=code, text=text)) is classify(failure(close_code=code))


def test_text_is_heard_before_the_status_of_a_refused_upgrade():
    assert classify(failure(Phase.CONNECTING, http_status=403, text="Monthly usage limit reached.")) is QUOTA
    assert classify(failure(Phase.CONNECTING, http_status=429, text="<html>")) is CAPACITY


def test_a_broken_protocol_is_heard_before_the_close_that_follows_it():
    assert classify(failure(close_code=1006, protocol="not_json")) is INCOMPLETE
    assert classify(failure(close_code=1011, protocol="not_json")) is INCOMPLETE


def test_a_broken_handshake_is_no_fault_of_the_object():
    """A proxy in between, or a connection that broke before it stood: the object has not even been touched."""
    assert classify(failure(Phase.CONNECTING, protocol="handshake")) is UNREACHABLE


session_errors = st.builds(
    failure,
    st.sampled_from(Phase),
    http_status=st.none() | st.integers(100, 599),
    close_code=st.none() | st.integers(1000, 4999),
    text=st.none() | st.text(max_size=30) | st.sampled_from([text for text, _ in PUBLISHED]),
    protocol=st.none() | st.just("not_json"),
)


@given(session_errors)
def test_every_failure_has_one_of_the_causes(error):
    assert classify(error) in CAUSES


@given(session_errors)
def test_before_the_connection_stands_no_object_is_at_fault_without_a_word_from_the_service(error):
    if error.phase is Phase.CONNECTING and error.text is None and error.http_status is None and error.close_code is None:
        assert not classify(error).spends_attempt


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.name)
def test_only_object_session_and_parameter_faults_spend_attempts(cause):
    assert cause.spends_attempt == (cause in {UNDECODABLE, BAD_PARAMETERS, INCOMPLETE, UNKNOWN_CODE})
    assert cause.reason in (QUARANTINED if cause.spends_attempt else PENDING)


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.name)
def test_what_stops_a_run_says_how_it_ends(cause):
    assert (cause.action is Action.STOP) == (cause.stop is not None)


@pytest.mark.parametrize(
    ("cause", "scope"),
    [
        (NOT_PERMITTED, Scope.KEY),
        (NOT_VALIDATED, Scope.SERVICE),
        (QUOTA, Scope.ORGANISATION),
        (INSUFFICIENT, Scope.ORGANISATION),
        (CAPACITY, Scope.ORGANISATION),
        (UNDECODABLE, Scope.OBJECT),
        (BAD_PARAMETERS, Scope.CONFIG),
        (WRONG_URL, Scope.CONFIG),
        (SERVICE_FAULT, Scope.SERVICE),
        (TOO_BIG, Scope.CONFIG),
        (UNREACHABLE, Scope.NETWORK),
        (LOST, Scope.NETWORK),
        (INCOMPLETE, Scope.SERVICE),
        (UNKNOWN_CODE, Scope.SERVICE),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_every_cause_is_a_fault_of_what_the_rules_say(cause, scope):
    assert cause.scope is scope


def test_causes_have_names_of_their_own():
    assert len({cause.name for cause in CAUSES}) == len(CAUSES)


def test_a_stop_has_the_state_that_the_rules_name():
    assert NOT_PERMITTED.stop is StopCause.ACCESS_DENIED
    assert QUOTA.stop is StopCause.CREDITS_EXHAUSTED
    assert {WRONG_URL.stop, TOO_BIG.stop} == {StopCause.CONFIGURATION}


def test_a_cause_of_ones_own_has_the_usual_attempts():
    assert Cause("mine", Scope.OBJECT, Action.RETRY_THEN_QUARANTINE, Reason.POISON).attempts is None
