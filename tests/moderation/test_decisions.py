"""The rows of service.md's decision table that concern one session, a test each, in the order of the table.

The rest of the table is about what stands around a session: refusals (12, 13), plans (14 to 18, 27) and the ledger (28, 29).
"""

import json

import pytest

from moderation.errors import Phase
from moderation.messages import Window
from moderation.pacing import Deadlines, Pace, Watchdog
from moderation.refusals import classify
from moderation.results import Flag
from moderation.server_session import Close, Send, ServerSession
from moderation.session import ClientSession, State
from moderation.transcript import Closed, Ended, Received, Stalled
from moderation.violations import SAMPLE_CHARACTERS, Breach
from transcripts import (
    AI_MUSIC,
    BINARY,
    BOTH,
    ERROR,
    HEARTBEAT,
    MUSIC,
    NOISE,
    RAW,
    assert_columns,
    done,
    done_of,
    failure_of,
    item,
    item_of,
    measure,
    rows_of,
    sent,
    session_of,
)

SERVER_ERROR = "Internal server error"


def finished(endpoint, *items, count=None, duration_ms=None, expected_ms=None, audio_ms=1_000_000):
    """The session of a service that sends these items, then done; it counts them all unless told otherwise."""
    number = len(items) if count is None else count
    ending = [Ended(), done(endpoint, number, duration_ms), Closed(1000)]
    return session_of(endpoint, sent(audio_ms), *items, *ending, expected_ms=expected_ms)


def with_fields(endpoint, place, **fields):
    """An item with other or more fields; a field that is ... is left out."""
    envelope = json.loads(item(endpoint, place).text)
    body = envelope[endpoint.item_name] | fields
    return Received(json.dumps(envelope | {endpoint.item_name: {name: value for name, value in body.items() if value is not ...}}))


def reason(text):
    return Received(json.dumps({"type": "error", "error": text}))


@BOTH
def test_decision_1_items_are_taken_while_audio_is_sent(endpoint):
    session = session_of(endpoint, sent(9000), item(endpoint, 0))
    assert (session.state, session.acknowledged_ms) == (State.UPLOADING, endpoint.item_ms)
    assert ServerSession().found(item_of(endpoint, 0)) == [Send(item(endpoint, 0).text)]


@pytest.mark.parametrize(
    ("heard", "verdict"),
    [
        ([Ended(), ERROR, done(MUSIC, 0), Closed(1011)], "done"),
        ([ERROR, Closed(4029)], (SERVER_ERROR, 4029)),
        ([ERROR, Closed(None)], (SERVER_ERROR, 1006)),
        ([Closed(4029)], (None, 4029)),
        ([Closed(None)], (None, 1006)),
    ],
    ids=["done", "text over code", "text over transport", "code", "transport"],
)
def test_decision_2_done_goes_before_text_before_code_before_transport(heard, verdict):
    session = session_of(MUSIC, *heard)
    if verdict == "done":
        assert session.result().done == done_of(MUSIC, 0)
    else:
        assert ((error := failure_of(session)).text, error.close_code) == verdict


def test_decision_2_and_6_the_other_half_has_five_seconds():
    watchdog = Watchdog(Deadlines())
    watchdog.touch(0.0)
    watchdog.dying(100.0)
    watchdog.touch(102.0)
    assert watchdog.left_s(102.0) == 3.0


@BOTH
def test_decision_3_done_before_the_end_is_a_session_fault(endpoint):
    session = session_of(endpoint, item(endpoint, 0), done(endpoint, 1), Ended(), done(endpoint, 1), Closed(1000))
    assert failure_of(session).protocol is Breach.DONE_BEFORE_END


@pytest.mark.parametrize(("ending", "code"), [([Closed(4002)], 4002), ([Closed(1001)], 1001), ([Closed(None)], 1006), ([Stalled()], None)])
def test_decision_4_done_is_success_whatever_the_close_and_the_code_is_noted(ending, code):
    result = session_of(MUSIC, Ended(), done(MUSIC, 0), *ending).result()
    assert (result.flags, result.close_code) == (frozenset(), code)


@BOTH
@pytest.mark.parametrize("ending", [Closed(1000), Closed(1001), Closed(None), Stalled()], ids=str)
def test_decision_5_without_done_there_are_no_rows_whatever_the_close(endpoint, ending):
    error = failure_of(session_of(endpoint, sent(9000), item(endpoint, 0), Ended(), ending))
    assert (error.text, error.protocol, error.phase) == (None, None, Phase.DRAINING)


@pytest.mark.parametrize(
    ("heard", "text", "code"), [([ERROR], SERVER_ERROR, None), ([Closed(4003)], None, 4003)], ids=["no close", "no error"]
)
def test_decision_6_a_failure_is_told_by_the_half_that_came(heard, text, code):
    error = failure_of(session_of(MUSIC, *heard))
    assert (error.text, error.close_code) == (text, code)


def test_decision_6_the_server_sends_its_error_before_its_close():
    assert ServerSession().refuse(4029, "Insufficient credits.") == [reason_sent("Insufficient credits."), Close(4029)]


def reason_sent(text):
    return Send(json.dumps({"type": "error", "error": text}, separators=(",", ":")))


@pytest.mark.parametrize("text", ["Insufficient credits.", "INSUFFICIENT CREDITS", "insufficient credits!"])
def test_decision_7_a_reason_is_kept_raw_and_understood_in_other_spellings(text):
    error = failure_of(session_of(MUSIC, reason(text), Closed(4029)))
    assert error.text == text
    assert classify(error).name == "quota"


def test_decision_7_an_unknown_reason_falls_back_to_the_code():
    said, unsaid = (failure_of(session_of(MUSIC, *heard, Closed(4002))) for heard in ([reason("Computer says no")], []))
    assert classify(said).name == classify(unsaid).name


@BOTH
def test_decision_8_unknown_messages_are_ignored_and_counted_with_one_sample(endpoint):
    hint = Received('{"type": "hint"}')
    result = finished(endpoint, item(endpoint, 0), HEARTBEAT, hint, HEARTBEAT, item(endpoint, 1), count=2).result()
    assert_columns(result, endpoint, range(2))
    assert result.flags == {Flag.SHAPE}
    assert result.extra == {"unknown_messages": {"heartbeat": 2, "hint": 1}, "unknown_sample": HEARTBEAT.text}


@BOTH
def test_decision_9_extra_fields_are_kept_and_flagged(endpoint):
    result = finished(endpoint, with_fields(endpoint, 0, noise=[1])).result()
    assert (result.extra, result.flags) == ({"noise": [1]}, {Flag.SHAPE})


@BOTH
@pytest.mark.parametrize("value", [None, ...], ids=["null", "missing"])
def test_decision_9_a_measurement_that_is_not_there_is_null_and_flagged(endpoint, value):
    result = finished(endpoint, with_fields(endpoint, 0, **{measure(endpoint): value})).result()
    assert result.flags == {Flag.MISSING}
    assert None in rows_of(result.columns)[0]


@BOTH
def test_decision_9_whole_floats_are_whole_numbers(endpoint):
    result = finished(endpoint, with_fields(endpoint, 0, start_time_ms=0.0, end_time_ms=float(endpoint.item_ms))).result()
    assert (list(result.columns.spans()), result.flags) == ([(0, endpoint.item_ms)], frozenset())


@pytest.mark.parametrize("probability", [0.7, None])
def test_decision_9_the_newer_shape_is_known_and_its_null_is_no_defect(probability):
    window = Window(
        start_time_ms=0,
        end_time_ms=4000,
        vocal_percentage=10.0,
        instrumental_percentage=80.0,
        silence_percentage=10.0,
        vocal_ai_probability=probability,
        instrumental_ai_probability=0.2,
    )
    server = ServerSession(AI_MUSIC.shapes[1])
    texts = [action.text for action in server.found(window) + server.found(done_of(AI_MUSIC, 1)) if isinstance(action, Send)]
    result = session_of(AI_MUSIC, sent(4000), Ended(), *map(Received, texts)).result()
    assert (result.flags, result.wire_shape) == (frozenset(), "2")
    assert "vocal_ai_percentage" not in texts[0]


DEEP = '{"type": "frame", "frame": ' + '{"a":' * 100 + "1" + "}" * 100 + "}"


@pytest.mark.parametrize(
    ("message", "breach"),
    [
        (NOISE, Breach.NOT_JSON),
        (BINARY, Breach.BINARY_MESSAGE),
        (with_fields(MUSIC, 0, music_prob=float("nan")), Breach.NOT_JSON),
        (with_fields(MUSIC, 0, music_prob=1.01), Breach.OUT_OF_RANGE),
        (with_fields(MUSIC, 0, start_time_ms=-1), Breach.BAD_TIMES),
        (with_fields(MUSIC, 0, more=json.loads(DEEP)), Breach.TOO_DEEP),
        (Received("[" * 100_000), Breach.NOT_JSON),
    ],
    ids=["not JSON", "binary", "NaN", "out of range", "bad times", "deep", "too deep to parse"],
)
def test_decision_10_what_is_no_message_is_a_fault_with_its_first_512_characters(message, breach):
    error = failure_of(finished(MUSIC, item(MUSIC, 0), message))
    assert error.protocol == breach
    assert message.text[:SAMPLE_CHARACTERS] in error.detail
    assert message.text[: SAMPLE_CHARACTERS + 1] not in error.detail or len(message.text) <= SAMPLE_CHARACTERS


@BOTH
@pytest.mark.parametrize("places", [[0, 1, 1, 2], [0, 1, 2, 0], [0, 1, 2, 1]], ids=str)
def test_decision_11_an_exact_duplicate_is_dropped_and_counted_also_when_others_are_between(endpoint, places):
    session = finished(endpoint, *(item(endpoint, place) for place in places), count=3)
    assert_columns(session, endpoint, range(3))
    assert (session.duplicates, session.result().flags) == (1, {Flag.DUPLICATE})


@BOTH
@pytest.mark.parametrize("places", [[0, 2, 3], [1, 2, 3], [0, 2, 1], [2, 1, 0]], ids=str)
def test_decision_11_gaps_and_other_orders_are_kept_as_received_and_flagged(endpoint, places):
    result = finished(endpoint, *(item(endpoint, place) for place in places)).result()
    assert_columns(result, endpoint, places)
    assert Flag.GAP in result.flags


@BOTH
@pytest.mark.parametrize(
    "times",
    [{"start_time_ms": 1}, {"end_time_ms": 5000}, {"start_time_ms": 0, "end_time_ms": 9000}],
    ids=["late start", "wrong length", "overlap"],
)
def test_decision_11_another_place_is_kept_as_received_and_flagged(endpoint, times):
    result = finished(endpoint, with_fields(endpoint, 0, **times)).result()
    assert Flag.GAP in result.flags
    assert len(result.columns) == 1


@BOTH
@pytest.mark.parametrize("rest_ms", [0, 100, 191])
def test_decision_19_a_remainder_under_one_item_is_in_the_duration_and_not_covered(endpoint, rest_ms):
    whole_ms = 10 * endpoint.item_ms
    items = (item(endpoint, place) for place in range(10))
    result = finished(endpoint, *items, duration_ms=whole_ms + rest_ms, expected_ms=whole_ms + rest_ms).result()
    assert result.flags == frozenset()
    assert (result.done.duration_ms, result.covered_ms, result.booked_ms) == (whole_ms + rest_ms, whole_ms, whole_ms + rest_ms)


@pytest.mark.parametrize("end_ms", [5500, 8000], ids=["short", "whole"])
def test_decision_20_a_last_window_may_be_short(end_ms):
    last = with_fields(AI_MUSIC, 1, end_time_ms=end_ms)
    assert finished(AI_MUSIC, item(AI_MUSIC, 0), last, duration_ms=5500).result().flags == frozenset()


@BOTH
def test_decision_21_a_clip_under_one_item_is_done_without_rows_and_without_evidence(endpoint):
    result = finished(endpoint, duration_ms=100, expected_ms=100, audio_ms=100).result()
    assert (result.flags, result.sufficient, len(result.columns), result.wire_shape) == (frozenset(), False, 0, "1")


@BOTH
@pytest.mark.parametrize(("count", "duration_items"), [(1, 2), (3, 2), (2, 0)], ids=["counts less", "counts more", "ends early"])
def test_decision_22_a_done_that_disagrees_is_kept_and_flagged(endpoint, count, duration_items):
    items = [item(endpoint, 0), item(endpoint, 1)]
    result = finished(endpoint, *items, count=count, duration_ms=duration_items * endpoint.item_ms).result()
    assert result.flags == {Flag.COUNT_MISMATCH}
    assert_columns(result, endpoint, range(2))


def test_decision_23_percentages_are_recomputed_and_their_drift_is_no_defect():
    frames = [with_fields(MUSIC, place, music_prob=value) for place, value in enumerate([0.5, 0.49, 0.9, 1.0])]
    result = finished(MUSIC, *frames).result()
    assert [result.share_over(measured, 0.5) for figure, measured in MUSIC.shares if figure == "music_pct"] == [75.0]
    assert (result.done.music_pct, result.flags) == (50.0, frozenset())


def test_decision_24_shares_of_a_window_need_not_sum_to_100():
    window = with_fields(AI_MUSIC, 0, vocal_percentage=90.0, instrumental_percentage=80.0, silence_percentage=0.0)
    assert finished(AI_MUSIC, window).result().flags == frozenset()


def test_decision_25_silence_has_its_deadlines():
    deadlines = Deadlines()
    assert (deadlines.connect_s, deadlines.progress_s) == (15, 120)
    assert deadlines.after_end(60_000) == 60 + 0.25 * 60


@BOTH
@pytest.mark.parametrize(("over_ms", "flags"), [(0, set()), (1, {Flag.AHEAD})])
def test_decision_26_items_may_be_an_item_and_a_second_ahead_of_the_audio_and_no_more(endpoint, over_ms, flags):
    session = ClientSession(endpoint, RAW)
    session.sending(32 * 500)
    ahead = with_fields(endpoint, 0, end_time_ms=500 + endpoint.item_ms + 1000 + over_ms)
    session.receive(ahead.text)
    assert session.flags - {Flag.GAP} == flags


def test_decision_26b_audio_goes_as_fast_as_accepted_or_at_a_pace():
    assert Pace().due_s(10**9, 32_000) == 0
    assert Pace(2.0).due_s(64_000, 32_000) == 1.0


@BOTH
def test_decision_30_a_label_never_seen_before_is_stored(endpoint):
    envelope = json.loads(done(endpoint, 0).text) | {endpoint.label_field: "waltz"}
    result = session_of(endpoint, Ended(), Received(json.dumps(envelope))).result()
    assert (getattr(result.done, endpoint.label_field), result.flags) == ("waltz", frozenset())
