"""The client's session: its table, what it counts, how far it has come, and what it says at its end."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversation import RANK
from moderation.drift import MAX_EXTRA_CHARACTERS, MAX_TYPES, OTHER_TYPES
from moderation.errors import Phase
from moderation.formats import AudioFormat, StreamParameters
from moderation.messages import Frame, MusicDone, Window, encode
from moderation.results import Flag
from moderation.session import TRANSITIONS, ClientSession, Event, State
from moderation.transcript import Closed, Ended, Garbled, Received, Stalled, replay
from mutations import mutated, recounted, removed, setting
from transcripts import (
    AI_MUSIC,
    BINARY,
    BOTH,
    BYTES_PER_MS,
    COUNT,
    DONE,
    ERROR,
    FIRST,
    HEARTBEAT,
    LAST,
    MIDDLE,
    MUSIC,
    NOISE,
    RAW,
    done,
    done_of,
    failure_of,
    good,
    item,
    item_of,
    sent,
    session_of,
)

# ---------------------------------------------------------------------------------------------------------------------------- the table


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_the_table_leads_from_every_end_only_to_a_better_known_one(state, event):
    reached = TRANSITIONS.get((state, event), state)
    assert RANK[reached] >= RANK[state]
    assert reached is not State.DONE or event is Event.DONE or state is State.DONE


entries = st.lists(
    st.one_of(
        st.integers(0, 6).map(lambda place: item(MUSIC, place)),
        st.integers(0, 6).map(lambda count: done(MUSIC, count)),
        st.sampled_from([ERROR, NOISE, HEARTBEAT, BINARY, sent(500), Ended(), Closed(1000), Closed(None), Garbled("RSV"), Stalled()]),
        st.text(max_size=20).map(Received),
    ),
    max_size=14,
)


@given(entries, entries)
def test_after_done_nothing_that_comes_changes_what_was_found(before, after):
    session = session_of(MUSIC, *before)
    session.end_of_stream()
    session.receive(done(MUSIC, len(session.columns)).text)
    if session.state is not State.DONE:
        return
    found = session.columns.packed(), session.result().done
    for entry in after:
        if isinstance(entry, Received):
            session.receive(entry.text)
    session.garbled("RSV")
    assert (session.columns.packed(), session.result().done) == found
    assert session.state is State.DONE


# -------------------------------------------------------------------------------------------------------------------------- the verdict


def test_a_refusal_is_heard_over_the_protocol_that_broke_before_it():
    error = failure_of(session_of(MUSIC, sent(500), NOISE, ERROR, Closed(1011)))
    assert (error.text, error.protocol, error.close_code) == ("Internal server error", None, 1011)


def test_the_first_error_and_the_first_violation_are_told():
    other = Received('{"type": "error", "error": "Insufficient credits."}')
    assert failure_of(session_of(MUSIC, ERROR, other)).text == "Internal server error"
    assert failure_of(session_of(MUSIC, NOISE, Received("[]"))).protocol == "not_json"


def test_items_behind_a_broken_message_are_not_taken():
    assert len(session_of(MUSIC, sent(500), NOISE, item(MUSIC, 0)).columns) == 0


def test_words_of_the_service_are_cut_to_512_characters():
    session = session_of(MUSIC, Received(json.dumps({"type": "error", "error": "no " * 1000})))
    assert failure_of(session).text == ("no " * 1000)[:512]


@pytest.mark.parametrize(
    ("entries", "phase"),
    [
        ([], Phase.ADMITTED),
        ([sent(500)], Phase.ADMITTED),
        ([sent(500), HEARTBEAT], Phase.ADMITTED),
        ([sent(500), Ended()], Phase.ADMITTED),
        ([sent(500), item(MUSIC, 0)], Phase.STREAMING),
        ([sent(500), item(MUSIC, 0), Ended()], Phase.DRAINING),
    ],
)
def test_the_phase_is_how_far_the_session_has_come(entries, phase):
    assert session_of(MUSIC, *entries).phase is phase


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ([item(MUSIC, 0), Ended(), Closed(1000)], "ended without a done message while draining (close code 1000)"),
        ([item(MUSIC, 0), Ended()], "ended without a done message while draining"),
        ([Closed(None)], "closed before a done message while admitted (close code 1006)"),
        ([Closed(1011, "oops")], "closed before a done message while admitted (close code 1011; close reason: oops)"),
        ([ERROR, Closed(1011)], "refused by the service while admitted (close code 1011; service says: Internal server error)"),
        ([NOISE, Closed(1000)], "the service broke the protocol (not_json): }{ while admitted (close code 1000)"),
        ([Garbled("invalid opcode")], "the service broke the protocol (bad_frame): invalid opcode while admitted"),
        ([item(MUSIC, 1), Stalled()], "nothing moved at 384 ms of audio while streaming"),
        ([Stalled(), Closed(4003)], "closed before a done message while admitted (close code 4003)"),
    ],
)
def test_a_failure_tells_people_what_happened(entries, sentence):
    assert str(failure_of(session_of(MUSIC, *entries))) == sentence


# --------------------------------------------------------------------------------------------------------------------- coverage and shapes


@pytest.mark.parametrize(("endpoint", "lost", "partial"), [(MUSIC, 3, False), (MUSIC, 4, False), (MUSIC, 5, True), (AI_MUSIC, 5, True)])
def test_less_than_95_percent_and_an_item_is_partial(endpoint, lost, partial):
    """57 of 60 items are 95 %; one more item may be under way at the end of any audio."""
    result = replay(mutated(endpoint, recounted(removed(LAST + 1 - lost, LAST + 1), lost=lost))).result()
    assert (Flag.PARTIAL in result.flags) == partial


@BOTH
@pytest.mark.parametrize(("short_ms", "flags"), [(0, set()), (1, {Flag.COUNT_MISMATCH})])
def test_done_may_end_one_item_before_the_last_and_no_more(endpoint, short_ms, flags):
    transcript = mutated(endpoint, setting(DONE, duration_ms=(COUNT - 1) * endpoint.item_ms - short_ms))
    assert replay(transcript).result().flags == flags


def test_coverage_is_held_against_the_services_own_duration_where_ours_is_not_known():
    transcript = good(MUSIC, expected=False)
    recounted(removed(LAST - 9, LAST + 1), lost=10)(transcript, MUSIC)
    assert replay(transcript).result().flags == {Flag.PARTIAL}


def test_audio_shorter_than_one_item_is_a_clean_result_without_evidence():
    nothing = MusicDone(duration_ms=0, frame_count=0, music_pct=0.0, speech_pct=0.0, primary_label="unknown")
    result = session_of(MUSIC, sent(100), Ended(), Received(encode(nothing)), Closed(1000), expected_ms=100).result()
    assert result.flags == frozenset()
    assert not result.sufficient


def test_a_last_window_may_be_short_but_only_the_last():
    short = json.dumps({"type": "window", "window": {**json.loads(item(AI_MUSIC, 1).text)["window"], "end_time_ms": 5500}})
    opening = [sent(9500), Ended(), item(AI_MUSIC, 0), Received(short)]
    following = Window(start_time_ms=5500, end_time_ms=9500, **dict.fromkeys(AI_MUSIC.shapes[0].measures, 0.0))

    assert session_of(AI_MUSIC, *opening, done(AI_MUSIC, 2, 5500)).result().flags == frozenset()
    assert session_of(AI_MUSIC, *opening, Received(encode(following)), done(AI_MUSIC, 3, 9500)).result().flags == {Flag.GAP}


def test_a_last_frame_may_not_be_short():
    short = Received(encode(Frame(start_time_ms=0, end_time_ms=100, music_prob=0.5, speech_prob=0.5)))
    assert session_of(MUSIC, sent(100), Ended(), short, done(MUSIC, 1, 100)).result().flags == {Flag.GAP}


def newer(place, probability):
    shares = {"vocal_percentage": 10.0, "instrumental_percentage": 80.0, "silence_percentage": 10.0}
    span = {"start_time_ms": 4000 * place, "end_time_ms": 4000 * place + 4000}
    window = {**span, **shares, "vocal_ai_probability": probability, "instrumental_ai_probability": 0.2}
    return Received(json.dumps({"type": "window", "window": window}))


def test_the_newer_shape_of_windows_is_clean_also_with_nothing_to_evaluate():
    result = session_of(AI_MUSIC, sent(8000), Ended(), newer(0, 0.7), newer(1, None), done(AI_MUSIC, 2), Closed(1000)).result()
    assert result.flags == frozenset()
    assert result.wire_shape == "2"
    assert result.columns.measures["vocal_ai_probability"][0] == 0.7


def test_both_shapes_in_one_session_are_named():
    result = session_of(AI_MUSIC, sent(8000), Ended(), item(AI_MUSIC, 0), newer(1, 0.7), done(AI_MUSIC, 2)).result()
    assert result.wire_shape == "1,2"


# ------------------------------------------------------------------------------------------------------------------------ what is counted


@BOTH
def test_items_ahead_of_the_audio_are_tolerated_by_an_item_and_a_second(endpoint):
    session = ClientSession(endpoint, RAW)
    session.receive(encode(item_of(endpoint, 0)))
    assert session.flags == set()
    for place in range(1, 2 + 1000 // endpoint.item_ms):
        session.receive(encode(item_of(endpoint, place)))
    assert session.flags == {Flag.AHEAD}


@pytest.mark.parametrize(("sent_ms", "flags"), [(999, {Flag.AHEAD}), (1000, set())])
def test_the_tolerance_for_items_ahead_is_exact(sent_ms, flags):
    short = json.dumps({"type": "window", "window": {**json.loads(item(AI_MUSIC, 1).text)["window"], "end_time_ms": 6000}})
    assert session_of(AI_MUSIC, sent(sent_ms), item(AI_MUSIC, 0), Received(short)).flags == flags


def test_a_container_cannot_be_ahead_of_its_bytes():
    items = [item(MUSIC, place) for place in range(COUNT)]
    session = session_of(MUSIC, *items, parameters=StreamParameters(AudioFormat.MP3))
    assert session.flags == set()
    assert session.audio_sent_ms == session.acknowledged_ms == COUNT * 192


def test_what_is_acknowledged_does_not_shrink_with_an_item_that_comes_late():
    session = session_of(MUSIC, sent(5000), item(MUSIC, 5), item(MUSIC, 2))
    assert session.acknowledged_ms == 6 * 192


@given(st.lists(st.integers(0, 10**6), max_size=10))
def test_raw_audio_sent_is_counted_exactly(chunks):
    session = ClientSession(MUSIC, RAW)
    for size in chunks:
        session.sending(size)
    assert session.bytes_sent == sum(chunks)
    assert session.audio_sent_ms == sum(chunks) // BYTES_PER_MS


FLAC = StreamParameters(AudioFormat.FLAC)


@pytest.mark.parametrize(
    ("parameters", "expected_ms", "end_sent", "end_ms"),
    [(RAW, None, False, None), (RAW, None, True, 2000), (RAW, 5000, True, 5000), (FLAC, None, True, None), (FLAC, 5000, False, 5000)],
)
def test_where_the_audio_ends_is_known_by_its_header_or_by_what_was_sent(parameters, expected_ms, end_sent, end_ms):
    session = ClientSession(MUSIC, parameters, expected_ms=expected_ms)
    session.sending(2000 * BYTES_PER_MS)
    if end_sent:
        session.end_of_stream()
    assert session.end_ms == end_ms


# ------------------------------------------------------------------------------------------------------------ what nobody has told us about


def test_unknown_messages_are_counted_with_one_sample():
    session = session_of(MUSIC, HEARTBEAT, HEARTBEAT, Received('{"type": "hint"}'))
    assert session.drift.messages == {"heartbeat": 2, "hint": 1}
    assert session.drift.sample == HEARTBEAT.text


def test_types_without_end_are_counted_together():
    session = session_of(MUSIC, *(Received(f'{{"type": "t{number}"}}') for number in range(MAX_TYPES + 7)))
    assert len(session.drift.messages) == MAX_TYPES + 1
    assert session.drift.messages[OTHER_TYPES] == 7


def test_extra_fields_are_kept_once_as_they_came_first():
    edits = [setting(FIRST, noise=1), setting(MIDDLE, noise=2), setting(DONE, request="r7", duration_ms=2**70)]
    transcript = good(MUSIC)
    for edit in edits:
        edit(transcript, MUSIC)
    assert replay(transcript).result().extra == {"noise": 1, "request": "r7", "duration_ms": 2**70}


def test_fields_without_end_are_kept_as_far_as_they_fit():
    session = session_of(MUSIC, sent(10**6))
    for place in range(2000):
        envelope = json.loads(item(MUSIC, place).text) | {f"field {place}": "x" * 50, "first": place}
        session.receive(json.dumps(envelope))
    kept = json.dumps(session.drift.fields)
    assert 0.9 * MAX_EXTRA_CHARACTERS < len(kept) < 1.1 * MAX_EXTRA_CHARACTERS
    assert session.drift.fields["first"] == 0
    assert session.flags == {Flag.SHAPE}


def test_one_field_that_is_too_long_is_left_out_and_the_next_is_kept():
    session = session_of(MUSIC, sent(500), Received(json.dumps(json.loads(item(MUSIC, 0).text) | {"long": "x" * 100_000, "short": 1})))
    assert session.drift.fields == {"short": 1}
    assert session.flags == {Flag.SHAPE}


def test_the_summary_of_done_is_the_one_that_came():
    assert replay(good(AI_MUSIC)).result().done == done_of(AI_MUSIC, COUNT)
