"""The closed lists of words that columns, reports and commands share."""

import pytest

from moderation.outcomes import PENDING, QUARANTINED, SKIPPED, ExitCode, Reason, StopCause

RULES_SKIPPED = "sidecar folder_marker empty not_audio archived gone filtered second_stage"
RULES_QUARANTINED = (
    "undecodable unsupported_format unsupported_rate no_audio_track bad_parameters unknown_parameters incomplete too_long source_error"
    " hostile poison"
)
RULES_PENDING = "deferred_quota deferred_key deferred_service deferred_retry changed not_reached"
RULES_EXIT_CODES = {0, 1, 2, 3, 65, 69, 73, 75, 77, 78, 143}


@pytest.mark.parametrize(("group", "words"), [(SKIPPED, RULES_SKIPPED), (QUARANTINED, RULES_QUARANTINED), (PENDING, RULES_PENDING)])
def test_reasons_are_the_words_of_the_rules(group, words):
    assert {reason.value for reason in group} == set(words.split())


def test_every_reason_is_of_exactly_one_kind():
    assert sorted([*SKIPPED, *QUARANTINED, *PENDING]) == sorted(Reason)


def test_exit_codes_are_those_of_the_rules():
    assert {int(code) for code in ExitCode} == RULES_EXIT_CODES


@pytest.mark.parametrize(
    ("cause", "name", "code"),
    [
        (StopCause.ACCESS_DENIED, "AccessDenied", 77),
        (StopCause.CREDITS_EXHAUSTED, "CreditsExhausted", 75),
        (StopCause.CONFIGURATION, "Configuration", 78),
        (StopCause.SERVICE_UNREACHABLE, "ServiceUnreachable", 69),
        (StopCause.RESULTS_NOT_WRITABLE, "ResultsNotWritable", 73),
        (StopCause.TERMINATED, "Terminated", 143),
    ],
)
def test_a_stop_has_the_state_name_and_the_exit_code_of_the_rules(cause, name, code):
    assert cause == name
    assert cause.exit_code == code


def test_every_stop_has_an_exit_code_of_its_own():
    assert len({cause.exit_code for cause in StopCause}) == len(StopCause)
    assert ExitCode.OK not in {cause.exit_code for cause in StopCause}
