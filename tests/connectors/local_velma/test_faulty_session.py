"""A session with faults, without a wire: what it says, in which order, and when it says nothing."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.local_velma.faults import FAULTS, parse_faults
from connectors.local_velma.faulty_messages import Frame as RawFrame
from connectors.local_velma.faulty_session import FaultySession, Hold, Note, Pause, Reset, Revoke
from moderation.endpoints import ENDPOINTS
from moderation.messages import AiMusicDone, Frame, MusicDone, Window
from moderation.server_session import Close, Feed, Finish, Send, ServerSession, ServerState

MUSIC, AI_MUSIC = ENDPOINTS["music"], ENDPOINTS["ai_music"]
DONE = MusicDone(duration_ms=1920, frame_count=10, music_pct=50.0, speech_pct=0.0, primary_label="music")


def faulty(spec: str, endpoint=MUSIC) -> FaultySession:
    return FaultySession(ServerSession(endpoint.shapes[0]), endpoint, parse_faults(spec))


def frame(number: int) -> Frame:
    return Frame(start_time_ms=192 * number, end_time_ms=192 * (number + 1), music_prob=0.5, speech_prob=0.25)


def starts(steps) -> list[int]:
    return [json.loads(step.text)["frame"]["start_time_ms"] // 192 for step in steps if isinstance(step, Send) and '"frame"' in step.text]


client_messages = st.one_of(st.binary(max_size=5), st.sampled_from(["", "x"]))
found_messages = st.one_of(st.integers(0, 9).map(frame), st.just(DONE))
happenings = st.lists(
    st.one_of(
        st.tuples(st.just("receive"), client_messages),
        st.tuples(st.just("found"), found_messages),
        st.tuples(st.just("refuse"), st.sampled_from([4003, 4029])),
    ),
    max_size=12,
)


def tell(session, event: str, what) -> list:
    return session.refuse(what, "No.") if event == "refuse" else getattr(session, event)(what)


@given(happenings)
def test_without_faults_it_is_the_honest_session(events):
    honest, other = ServerSession(), FaultySession(ServerSession(), MUSIC)
    assert other.opened() == []
    for event, what in events:
        assert tell(other, event, what) == tell(honest, event, what)
        assert other.state is honest.state


@given(st.lists(st.sampled_from([name for name, kind in FAULTS.items() if not kind.form]), max_size=4, unique=True), happenings)
def test_nothing_follows_a_close_a_reset_or_a_hold(names, events):
    session, ended = faulty("+".join(names)), False
    steps = session.opened()
    for event, what in [*events, ("refuse", 4003)]:
        steps += tell(session, event, what)
    for step in steps:
        assert not ended or isinstance(step, (Hold, Feed, Finish, Note)), step
        ended = ended or isinstance(step, (Close, Reset, Hold))
    assert ended


@pytest.mark.parametrize(
    ("seconds", "at_once"), [(0, [[0], [1], [2], [3]]), (0.5, [[], [], [0, 1, 2], [3]]), (0.576, [[], [], [0, 1, 2], [3]]), (9, [[]] * 4)]
)
def test_a_buffer_is_full_when_so_much_audio_was_analysed(seconds, at_once):
    session = faulty(f"buffer={seconds}")
    assert [starts(session.found(frame(number))) for number in range(4)] == at_once


def test_what_was_kept_back_comes_before_done():
    session = faulty("buffer=9+reorder@items=0")
    session.opened()
    assert starts(session.found(frame(0))) == []
    steps = session.found(frame(1)) + session.found(DONE)
    assert starts(steps) == [1, 0]
    assert isinstance(steps[-1], Close)


def test_an_item_that_would_come_after_the_next_comes_before_done():
    session = faulty("reorder@items=1")
    assert starts(session.found(frame(0))) == [0]
    steps = session.found(frame(1)) + session.found(DONE)
    assert starts(steps) == [1]
    assert [type(step) for step in steps] == [Note, Send, Send, Close]


@pytest.mark.parametrize(
    ("spec", "told", "before"),
    [
        ("close=4003", [("opened",)], 0),
        ("close=4003@items=0", [("opened",)], 0),
        ("close=4003@bytes=10", [("opened",), ("receive", bytes(9)), ("receive", bytes(1))], 2),
        ("close=4003@end", [("opened",), ("receive", bytes(9)), ("receive", "")], 2),
        ("close=4003@items=2", [("opened",), ("found", frame(0)), ("found", frame(1))], 2),
        ("close=4003@done", [("opened",), ("found", frame(0)), ("found", DONE)], 2),
    ],
)
def test_places(spec, told, before):
    """It happens with the last of these, and not before."""
    session = faulty(spec)
    for number, (event, *what) in enumerate(told):
        steps = getattr(session, event)(*what)
        assert (Note(parse_faults(spec)[0].spec) in steps) == (number == before)
        assert (session.state is ServerState.CLOSED) == (number == before)


def test_a_place_that_was_passed_by_a_large_message_is_reached():
    assert Close(4003) in faulty("close=4003@bytes=10").receive(bytes(1000))


def test_a_fault_happens_once():
    session = faulty("unknown_type@items=1+dup@items=2")
    steps = [step for number in range(6) for step in session.found(frame(number))]
    assert sum(isinstance(step, RawFrame) for step in steps) == 1
    assert starts(steps) == [0, 1, 2, 2, 3, 4, 5]


def test_faults_of_one_place_happen_in_the_order_of_their_spec():
    (first, pause, second, revoke, *_) = faulty("pause=1@upgrade+revoke@upgrade+close=4029").opened()
    assert (first, pause, second, revoke) == (Note("pause=1@upgrade"), Pause(1.0), Note("revoke@upgrade"), Revoke())
    assert faulty("pause=1@upgrade+revoke@upgrade+close=4029").opened()[-1] == Close(4003)


def test_a_change_that_waits_for_an_item_does_not_take_done_for_one():
    session = faulty("null@items=0")
    session.opened()
    (send, close) = session.found(DONE)
    assert json.loads(send.text)["music_pct"] == 50.0
    assert close == Close(1000)


@pytest.mark.parametrize("spec", ["stall@upgrade", "error_noclose=4003@upgrade"])
def test_a_session_that_is_stuck_does_nothing_whatever_happens(spec):
    session = faulty(spec)
    assert session.opened()[-1] == Hold()
    for event, what in [("receive", b"audio"), ("receive", ""), ("found", frame(0)), ("found", DONE), ("refuse", 4029)]:
        assert tell(session, event, what) == [Hold()]


def test_the_other_endpoint():
    window = Window(
        start_time_ms=0,
        end_time_ms=4000,
        vocal_percentage=60.0,
        vocal_ai_percentage=0.0,
        vocal_ai_confidence=0.1,
        instrumental_percentage=90.0,
        silence_percentage=2.5,
    )
    done = AiMusicDone(duration_ms=4000, window_count=1, primary_verdict="not-ai-music", vocal_percentage=60.0)
    session = faulty("null@items=0+range@done+done_off=1+label=maybe+duration_off=-1+after_done", AI_MUSIC)
    session.opened()
    _, item = session.found(window)
    assert json.loads(item.text) == {
        "type": "window",
        "window": {
            "start_time_ms": 0,
            "end_time_ms": 4000,
            "vocal_percentage": None,
            "vocal_ai_percentage": 0.0,
            "vocal_ai_confidence": 0.1,
            "instrumental_percentage": 90.0,
            "silence_percentage": 2.5,
        },
    }
    *_, last, _, another, close = session.found(done)
    said = json.loads(last.text)
    assert {name: said[name] for name in ("duration_ms", "window_count", "primary_verdict", "vocal_percentage")} == {
        "duration_ms": 3999,
        "window_count": 2,
        "primary_verdict": "maybe",
        "vocal_percentage": 101.5,
    }
    assert json.loads(another.text)["window"]["end_time_ms"] == 4000
    assert close == Close(1000)
