"""Transcripts: whatever a session is told can be written down, read, and told again."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation.endpoints import ENDPOINTS
from moderation.errors import BadParameters, SessionError
from moderation.formats import AudioFormat, StreamParameters
from moderation.messages import ErrorMessage, Frame, MusicDone, encode
from moderation.session import ClientSession
from moderation.transcript import Closed, Ended, Opened, Received, RecordedSession, Sent, Stalled, from_lines, replay, to_line

MUSIC = ENDPOINTS["music"]
RAW = StreamParameters(AudioFormat.S16LE, 16000, 1)
FLAC = StreamParameters(AudioFormat.FLAC)
DONE = encode(MusicDone(duration_ms=192, frame_count=1, music_pct=0.0, speech_pct=0.0, primary_label="neither"))


def frame(place: int) -> str:
    return encode(Frame(start_time_ms=place * 192, end_time_ms=place * 192 + 192, music_prob=0.5, speech_prob=0.25))


messages = st.one_of(
    st.integers(0, 5).map(frame),
    st.sampled_from([DONE, encode(ErrorMessage("Insufficient credits.")), '{"type": "news", "text": "ü\\n"}', "}{"]),
    st.text(max_size=20),
    st.binary(max_size=20),
)
tellings = st.lists(
    st.one_of(
        st.integers(0, 1 << 40).map(lambda size: ("sending", size)),
        st.just(("end_of_stream",)),
        messages.map(lambda message: ("receive", message)),
        st.text(max_size=20).map(lambda complaint: ("garbled", complaint)),
        st.just(("stalled",)),
        st.tuples(st.just("closed"), st.none() | st.integers(1000, 4999), st.none() | st.text(max_size=20)),
    ),
    max_size=12,
)


def outcome(session: ClientSession) -> dict[str, object]:
    """All that comes of a session."""
    known = {"state": session.state, "phase": session.phase, "sent": session.bytes_sent}
    try:
        result = session.result()
    except SessionError as error:
        return known | {"error": vars(error), "says": str(error)}
    facts = {name: getattr(result, name) for name in ("done", "flags", "covered_ms", "wire_shape", "extra", "close_code")}
    return known | facts | {"columns": result.columns.packed()}


@settings(max_examples=60, deadline=None)
@given(tellings, st.sampled_from([RAW, FLAC]), st.none() | st.integers(0, 10_000))
def test_a_replay_comes_to_the_same(tellings, parameters, expected_ms):
    lines: list[bytes] = []
    recorded = RecordedSession(MUSIC, parameters, expected_ms=expected_ms, tell=lambda entry: lines.append(to_line(entry)))
    plain = ClientSession(MUSIC, parameters, expected_ms=expected_ms)
    for name, *arguments in tellings:
        for session in (recorded, plain):
            getattr(session, name)(*arguments)
    assert all(line.count(b"\n") == 1 and line.endswith(b"\n") for line in lines)
    assert outcome(replay(from_lines(lines))) == outcome(recorded) == outcome(plain)


def test_a_transcript_reads_like_this():
    lines: list[str] = []
    session = RecordedSession(MUSIC, RAW, expected_ms=192, tell=lambda entry: lines.append(to_line(entry).decode()))
    session.sending(6144)
    session.receive('{"type":"news"}')
    session.end_of_stream()
    session.receive(b"\xff")
    session.closed(4003, "not permitted")
    assert lines == [
        '{"event":"opened","endpoint":"music","parameters":{"audio_format":"s16le","sample_rate":16000,"num_channels":1},"expected_ms":192}\n',
        '{"event":"sent","size":6144}\n',
        '{"event":"received","text":"{\\"type\\":\\"news\\"}"}\n',
        '{"event":"ended"}\n',
        '{"event":"received","text":"ÿ","binary":true}\n',
        '{"event":"closed","code":4003,"reason":"not permitted"}\n',
    ]


def test_another_endpoint_can_be_replayed_too():
    session = replay([Opened("other", RAW), Sent(6144), Received(frame(0)), Ended(), Received(DONE), Closed(1000)], {"other": MUSIC})
    assert len(session.result().columns) == 1


@pytest.mark.parametrize(
    "transcript", [[], [Sent(1)], [Opened("speech", RAW)], [Opened("music", RAW), Opened("music", RAW)], [Stalled(), Opened("music", RAW)]]
)
def test_what_does_not_begin_with_one_known_session_is_no_transcript(transcript):
    with pytest.raises(ValueError, match=r"a transcript begins with a session of|a session is opened once"):
        replay(transcript)


@pytest.mark.parametrize(
    "line",
    [b"", b"{}", b'{"event":"sung"}', b'{"event":"sent"}', b'{"event":"sent","size":"6"}', b'{"event":"opened","endpoint":"music"}'],
)
def test_lines_that_are_no_entries(line):
    with pytest.raises(ValueError, match=r".+"):
        from_lines([line])


def test_parameters_that_no_session_has_are_no_entry():
    line = b'{"event":"opened","endpoint":"music","parameters":{"audio_format":"flac","sample_rate":16000,"num_channels":1}}'
    with pytest.raises((BadParameters, ValueError)):
        from_lines([line])
