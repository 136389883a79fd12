"""The session: the client's and the server's machine against each other, and a good transcript broken in every way we know.

Nothing here has a socket or a clock: messages are handed from one machine to the other in the order that a test or Hypothesis decides.
"""

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation.endpoints import ENDPOINTS, Endpoint
from moderation.errors import Phase, SessionError
from moderation.formats import AudioFormat, StreamParameters
from moderation.messages import AiMusicDone, ErrorMessage, Frame, MusicDone, Window, encode
from moderation.results import Flag
from moderation.server_session import Close, Feed, Finish, Send, ServerSession, ServerState
from moderation.session import ENDED, TRANSITIONS, ClientSession, Event, State

MUSIC, AI_MUSIC = ENDPOINTS["music"], ENDPOINTS["ai_music"]
RAW = StreamParameters(AudioFormat.S16LE, 16000, 1)
BYTES_PER_MS = RAW.bytes_per_second // 1000
BOTH = pytest.mark.parametrize("endpoint", [MUSIC, AI_MUSIC], ids=["music", "ai_music"])


def item_of(endpoint, place):
    """The item that the pretended analysis finds at this place; each is another one."""
    start, share = place * endpoint.item_ms, round((place % 97) / 97, 4)
    if endpoint is MUSIC:
        return Frame(start_time_ms=start, end_time_ms=start + 192, music_prob=share, speech_prob=round(1 - share, 4))
    return Window(
        start_time_ms=start,
        end_time_ms=start + 4000,
        vocal_percentage=round(100 * share, 1),
        vocal_ai_percentage=100.0 if share > 0.5 else 0.0,
        vocal_ai_confidence=share,
        instrumental_percentage=50.0,
        silence_percentage=0.0,
    )


def done_of(endpoint, count, duration_ms=None):
    duration_ms = count * endpoint.item_ms if duration_ms is None else duration_ms
    if endpoint is MUSIC:
        return MusicDone(duration_ms=duration_ms, frame_count=count, music_pct=50.0, speech_pct=50.0, primary_label="music")
    figures = dict.fromkeys(("vocal_percentage", "vocal_ai_percentage", "instrumental_percentage", "instrumental_ai_percentage"), 50.0)
    return AiMusicDone(
        duration_ms=duration_ms,
        window_count=count,
        primary_verdict="ai-vocal-music",
        vocal_ai_confidence=0.5,
        instrumental_ai_confidence=0.5,
        silence_percentage=0.0,
        **figures,
    )


def failure_of(session):
    with pytest.raises(SessionError) as caught:
        session.result()
    return caught.value


def assert_columns(session_or_result, endpoint, places):
    """The columns are exactly these items of the pretended analysis, in this order."""
    wanted = [item_of(endpoint, place) for place in places]
    columns = session_or_result.columns
    assert list(columns.spans()) == [(item.start_time_ms, item.end_time_ms) for item in wanted]
    for name, values in columns.measures.items():
        expected = [getattr(item, name) for item in wanted]
        assert [None if value != value else value for value in values] == expected  # noqa: PLR0124 - NaN stands for null


# ---------------------------------------------------------------------------------------------------------- two machines, any schedule


class Conversation:
    """A client with some audio, a server whose analysis finds one item per item_ms, and the messages under way between them."""

    def __init__(self, endpoint, chunks, *, refusal=None):
        self.endpoint = endpoint
        self.client = ClientSession(endpoint, RAW, expected_ms=sum(chunks) // BYTES_PER_MS)
        self.server = ServerSession()
        self.chunks = deque(chunks)
        self.total = sum(chunks)
        self.up: deque[str | bytes] = deque()
        self.down: deque[Send | Close] = deque()
        self.fed = self.found = 0
        self.finished = False
        self.refusal = refusal
        self.closed = False
        self.seen_acknowledged = [0]

    @property
    def ready(self):
        """Items that the analysis has enough audio for."""
        return self.fed // BYTES_PER_MS // self.endpoint.item_ms

    def steps(self) -> list[Callable[[], None]]:
        """What could happen next."""
        possible = {
            self.client_sends: not self.client.end_sent and not self.closed,
            self.server_takes: bool(self.up),
            self.server_finds: self.server.state is not ServerState.CLOSED and (self.found < self.ready or self.finished),
            self.client_hears: bool(self.down),
        }
        return [step for step, can in possible.items() if can]

    def client_sends(self):
        if self.chunks:
            audio = bytes(self.chunks.popleft())
            self.client.sending(len(audio))
            self.up.append(audio)
        else:
            self.client.end_of_stream()
            self.up.append("")

    def server_takes(self):
        self.act(self.server.receive(self.up.popleft()))

    def server_finds(self):
        if self.refusal is not None and self.found >= self.refusal[0]:
            self.act(self.server.refuse(*self.refusal[1:]))
        elif self.found < self.ready:
            self.found += 1
            self.act(self.server.found(item_of(self.endpoint, self.found - 1)))
        else:
            self.act(self.server.found(done_of(self.endpoint, self.found)))

    def client_hears(self):
        match self.down.popleft():
            case Send(text):
                self.client.receive(text)
                self.seen_acknowledged.append(self.client.acknowledged_ms)
            case Close(code):
                self.client.closed(code)
                self.closed = True

    def act(self, actions):
        for action in actions:
            match action:
                case Feed(audio):
                    self.fed += len(audio)
                case Finish():
                    self.finished = True
                case _:
                    self.down.append(action)

    def run(self, choose):
        """Let things happen in the order chosen until nothing can."""
        while steps := self.steps():
            steps[choose(len(steps))]()


sizes = st.lists(st.integers(1, 40_000).map(lambda samples: 2 * samples), max_size=8)


@BOTH
@given(chunks=sizes, schedule=st.randoms(use_true_random=False))
@settings(deadline=None)
def test_whatever_the_schedule_the_result_is_the_same_and_clean(endpoint, chunks, schedule):
    talk = Conversation(endpoint, chunks)
    talk.run(schedule.randrange)
    result = talk.client.result()

    assert talk.fed == talk.client.bytes_sent == talk.total
    assert_columns(result, endpoint, range(talk.ready))
    assert result.flags == frozenset()
    assert result.done == done_of(endpoint, talk.ready)
    assert (result.close_code, result.wire_shape, result.extra) == (1000, "1", {})
    assert result.booked_ms == result.covered_ms == talk.ready * endpoint.item_ms
    assert result.sufficient == (talk.ready > 0)


@BOTH
@given(chunks=sizes, schedule=st.randoms(use_true_random=False))
@settings(deadline=None)
def test_what_is_acknowledged_only_grows_and_never_beyond_what_was_sent(endpoint, chunks, schedule):
    talk = Conversation(endpoint, chunks)
    while steps := talk.steps():
        steps[schedule.randrange(len(steps))]()
        assert talk.client.acknowledged_ms <= talk.client.audio_sent_ms
    assert talk.seen_acknowledged == sorted(talk.seen_acknowledged)


REFUSALS = [
    (1003, "Invalid sample_rate=50000."),
    (4002, "The audio could not be processed."),
    (4003, "This request is not permitted."),
    (4029, "Insufficient credits."),
]


@BOTH
@given(
    chunks=st.lists(st.integers(8000, 40_000).map(lambda samples: 2 * samples), min_size=1, max_size=6),
    refusal=st.tuples(st.integers(0, 8), st.sampled_from(REFUSALS)),
    schedule=st.randoms(use_true_random=False),
)
@settings(deadline=None)
def test_a_refusal_at_any_time_is_readable_and_leaves_no_result(endpoint, chunks, refusal, schedule):
    after, (code, text) = refusal
    talk = Conversation(endpoint, chunks, refusal=(after, code, text))
    talk.run(schedule.randrange)
    if talk.found < after:
        assert talk.client.result().flags == frozenset()
        return
    error = failure_of(talk.client)

    assert (error.close_code, error.text, error.protocol) == (code, text, None)
    assert talk.client.state is State.REFUSED
    assert len(talk.client.columns) == talk.found == after


@given(
    messages=st.lists(st.binary(max_size=4) | st.sampled_from(["", "", "end", " "]), max_size=8), found=st.lists(st.booleans(), max_size=8)
)
def test_a_server_says_nothing_after_its_close_and_closes_at_most_once(messages, found):
    server, said = ServerSession(), []
    for message in messages:
        said += server.receive(message)
    for is_item in found:
        said += server.found(item_of(MUSIC, 0) if is_item else done_of(MUSIC, 1))
    said += server.refuse(4029, "Insufficient credits.")

    closes = [place for place, action in enumerate(said) if isinstance(action, Close)]
    assert closes == [len(said) - 1]
    assert isinstance(said[-2], Send)
    assert server.state is ServerState.CLOSED


def test_a_server_feeds_audio_and_finishes_at_the_empty_text():
    server = ServerSession()
    assert server.receive(b"\1\2") == [Feed(b"\1\2")]
    assert server.receive(b"") == [Feed(b"")]
    assert server.receive("") == [Finish()]
    assert server.state is ServerState.FINISHING


@pytest.mark.parametrize(("before", "broken"), [([], "end"), ([b"\1"], "end"), ([""], b"\1"), ([""], ""), ([b"\1", ""], "end")], ids=repr)
def test_a_client_that_breaks_the_protocol_is_refused_with_1003(before, broken):
    server = ServerSession()
    for message in before:
        server.receive(message)
    error, close = server.receive(broken)
    assert json.loads(error.text)["type"] == "error"
    assert close == Close(1003)


def test_a_server_sends_items_as_they_are_found_and_closes_after_done():
    server = ServerSession()
    assert server.found(item_of(MUSIC, 0)) == [Send(encode(item_of(MUSIC, 0)))]
    assert server.found(done_of(MUSIC, 1)) == [Send(encode(done_of(MUSIC, 1))), Close(1000)]
    assert server.found(item_of(MUSIC, 1)) == []
    assert server.receive(b"late") == []
    assert server.refuse(4002, "late") == []


# ------------------------------------------------------------------------------------------------- a good transcript, and its mutations

COUNT = 60
END = ""


@dataclass(frozen=True)
class Sent:
    """A share of the audio that goes out."""

    share: float


SENT = Sent(1.0)


@dataclass(frozen=True)
class Received:
    """A message of the service in a transcript."""

    text: str | bytes


@dataclass(frozen=True)
class Closed:
    """The end of the connection in a transcript; None where it just broke."""

    code: int | None


ERROR = Received(encode(ErrorMessage("Internal server error")))
NOISE = Received("}{")
HEARTBEAT = Received('{"type": "heartbeat", "at": 7}')


def good(endpoint: Endpoint):
    """All audio, its end, every item, done, the normal close: what every mutation starts from."""
    items = [Received(encode(item_of(endpoint, place))) for place in range(COUNT)]
    return [SENT, END, *items, Received(encode(done_of(endpoint, COUNT))), Closed(1000)]


FIRST, MIDDLE, LAST, DONE = 2, 2 + COUNT // 2, 1 + COUNT, 2 + COUNT


def replay(endpoint, transcript, *, expected=True, parameters=RAW):
    duration_ms = COUNT * endpoint.item_ms
    session = ClientSession(endpoint, parameters, expected_ms=duration_ms if expected else None)
    for step in transcript:
        match step:
            case Received(text):
                session.receive(text)
            case Closed(code):
                session.closed(code)
            case Sent(share):
                session.sending(round(share * duration_ms * BYTES_PER_MS))
            case "":
                session.end_of_stream()
    return session


def edited(place, edit):
    """Change the decoded JSON of one message."""

    def mutate(transcript, endpoint):
        envelope = json.loads(transcript[place].text)
        edit(envelope, envelope.get(endpoint.item_name, envelope))
        transcript[place] = Received(json.dumps(envelope))

    return mutate


def setting(place, **values):
    """Set fields of an item, or of done; MEASURE and COUNT_FIELD stand for the endpoint's names."""

    def mutate(transcript, endpoint):
        names = {"MEASURE": measure(endpoint), "COUNT_FIELD": endpoint.count_field, "LABEL": endpoint.label_field}
        edited(place, lambda _, body: body.update({names.get(name, name): value for name, value in values.items()}))(transcript, endpoint)

    return mutate


def measure(endpoint):
    return "music_prob" if endpoint is MUSIC else "vocal_ai_confidence"


def shifting(place, start, end):
    """Move the start and the end of an item."""

    def edit(_, body):
        body["start_time_ms"] += start
        body["end_time_ms"] += end

    return edited(place, edit)


def without_field(transcript, endpoint):
    edited(MIDDLE, lambda _, body: body.pop(measure(endpoint)))(transcript, endpoint)


def replaced(place, *steps):
    def mutate(transcript, endpoint):
        transcript[place : place + 1] = [step(endpoint) if callable(step) else step for step in steps]

    return mutate


def inserted(place, *steps):
    def mutate(transcript, endpoint):
        transcript[place:place] = [step(endpoint) if callable(step) else step for step in steps]

    return mutate


def removed(start, end=None):
    def mutate(transcript, _):
        del transcript[start : end or start + 1]

    return mutate


def swapped(one, other):
    def mutate(transcript, _):
        transcript[one], transcript[other] = transcript[other], transcript[one]

    return mutate


def copied(source, place):
    def mutate(transcript, _):
        transcript.insert(place, transcript[source])

    return mutate


def counting(count, endpoint, **more):
    return {endpoint.count_field: count} | more


def recounted(*mutations, lost):
    """The mutations, and a done that agrees with what is left."""

    def mutate(transcript, endpoint):
        for mutation in mutations:
            mutation(transcript, endpoint)
        place = next(i for i, step in enumerate(transcript) if isinstance(step, Received) and '"done"' in step.text)
        edited(place, lambda _, body: body.update(counting(COUNT - lost, endpoint)))(transcript, endpoint)

    return mutate


def spaced(transcript, _):
    """Other white space and order of fields, the same meaning."""
    for place, step in enumerate(transcript):
        if isinstance(step, Received):
            transcript[place] = Received(json.dumps(dict(reversed(json.loads(step.text).items())), indent=2))


def emptied(transcript, endpoint):
    edited(DONE, lambda _, body: body.update(dict.fromkeys(endpoint.done_type.__struct_fields__)))(transcript, endpoint)


def unmeasured(transcript, endpoint):
    names = [name for name in endpoint.item_type.__struct_fields__ if not name.endswith("_time_ms")]
    edited(MIDDLE, lambda _, body: body.update(dict.fromkeys(names)))(transcript, endpoint)


def unclosed(transcript, _):
    """An error message, and then silence."""
    transcript[DONE:] = [ERROR]


def shortened_done(transcript, endpoint):
    setting(DONE, duration_ms=(COUNT - 2) * endpoint.item_ms)(transcript, endpoint)


def lengthened_done(transcript, endpoint):
    setting(DONE, duration_ms=2 * COUNT * endpoint.item_ms)(transcript, endpoint)


HARMLESS = {
    "nothing is changed": lambda transcript, endpoint: None,
    "the fields come in another order": spaced,
    "whole numbers come as floats": shifting(MIDDLE, 0.0, 0.0),
    "a measurement is at its lower bound": setting(MIDDLE, MEASURE=0),
    "a measurement is at its upper bound": setting(MIDDLE, MEASURE=1),
    "a verdict was never seen before": setting(DONE, LABEL="polka"),
    "done comes twice": copied(DONE, DONE + 1),
    "done, then the connection breaks": replaced(DONE + 1, Closed(None)),
    "done, then another close code": replaced(DONE + 1, Closed(4002)),
    "done, then going away": replaced(DONE + 1, Closed(1001)),
    "items come before the end was sent": swapped(1, FIRST),
}

FLAGGED = {
    "an item is lost in the middle": (removed(MIDDLE), {Flag.GAP, Flag.COUNT_MISMATCH}),
    "an item is lost and done agrees": (recounted(removed(MIDDLE), lost=1), {Flag.GAP}),
    "the first item is lost": (removed(FIRST), {Flag.GAP, Flag.COUNT_MISMATCH}),
    "the last item is lost": (removed(LAST), {Flag.COUNT_MISMATCH}),
    "a tenth of the items is lost at the end and done agrees": (recounted(removed(LAST - 5, LAST + 1), lost=6), {Flag.PARTIAL}),
    "all items are lost": (removed(FIRST, DONE), {Flag.COUNT_MISMATCH, Flag.PARTIAL}),
    "an item comes twice": (copied(MIDDLE, MIDDLE), {Flag.DUPLICATE}),
    "an item comes again later": (copied(MIDDLE, MIDDLE + 2), {Flag.GAP, Flag.COUNT_MISMATCH}),
    "two items are swapped": (swapped(MIDDLE, MIDDLE + 1), {Flag.GAP}),
    "an item starts early": (shifting(MIDDLE, -5, 0), {Flag.GAP}),
    "an item starts late": (shifting(MIDDLE, 5, 0), {Flag.GAP}),
    "an item ends early": (shifting(MIDDLE, 0, -5), {Flag.GAP}),
    "an item ends late": (shifting(MIDDLE, 0, 5), {Flag.GAP}),
    "an item lies elsewhere": (shifting(MIDDLE, 7, 7), {Flag.GAP}),
    "a measurement is null": (setting(MIDDLE, MEASURE=None), {Flag.MISSING}),
    "a measurement is missing": (without_field, {Flag.MISSING}),
    "an item has one more field": (setting(MIDDLE, noise=0.5), {Flag.SHAPE}),
    "a message has one more field": (edited(MIDDLE, lambda envelope, _: envelope.update(request="r7")), {Flag.SHAPE}),
    "done has one more field": (setting(DONE, request="r7"), {Flag.SHAPE}),
    "a message is of unknown type": (inserted(MIDDLE, HEARTBEAT), {Flag.SHAPE}),
    "done counts one more": (setting(DONE, COUNT_FIELD=COUNT + 1), {Flag.COUNT_MISMATCH}),
    "done counts one less": (setting(DONE, COUNT_FIELD=COUNT - 1), {Flag.COUNT_MISMATCH}),
    "done counts nothing": (setting(DONE, COUNT_FIELD=0), {Flag.COUNT_MISMATCH}),
    "done counts less than nothing": (setting(DONE, COUNT_FIELD=-1), {Flag.MISSING, Flag.SHAPE}),
    "done does not count": (setting(DONE, COUNT_FIELD=None), {Flag.MISSING}),
    "done ends before the last item": (shortened_done, {Flag.COUNT_MISMATCH}),
    "done says twice the audio": (lengthened_done, {Flag.PARTIAL}),
    "done has no duration": (setting(DONE, duration_ms=None), {Flag.MISSING}),
    "done has a negative duration": (setting(DONE, duration_ms=-1), {Flag.MISSING, Flag.SHAPE}),
    "done lasts longer than any column can hold": (setting(DONE, duration_ms=2**70), {Flag.MISSING, Flag.SHAPE}),
    "done has no verdict": (setting(DONE, LABEL=None), {Flag.MISSING}),
    "an item follows done": (inserted(DONE + 1, lambda endpoint: Received(encode(item_of(endpoint, COUNT)))), {Flag.AFTER_DONE}),
    "another done follows done": (inserted(DONE + 1, lambda endpoint: Received(encode(done_of(endpoint, 7)))), {Flag.AFTER_DONE}),
    "an error follows done": (inserted(DONE + 1, ERROR), {Flag.AFTER_DONE}),
    "garbage follows done": (inserted(DONE + 1, NOISE), {Flag.AFTER_DONE}),
    "an error comes just before done": (inserted(DONE, ERROR), {Flag.ERROR}),
    "an error comes between items, done all the same": (inserted(MIDDLE, ERROR), {Flag.ERROR}),
    "items speak of audio that was not sent": (replaced(0, Sent(0.3)), {Flag.AHEAD}),
}

VIOLATIONS = {
    "an item is no JSON": (replaced(MIDDLE, NOISE), "not_json"),
    "an item is cut off": (replaced(MIDDLE, lambda endpoint: Received(encode(item_of(endpoint, 30))[:-9])), "not_json"),
    "an item is empty": (replaced(MIDDLE, Received("")), "not_json"),
    "a measurement is NaN": (setting(MIDDLE, MEASURE=float("nan")), "not_json"),
    "a measurement is infinite": (setting(MIDDLE, MEASURE=float("inf")), "not_json"),
    "an item is too deep": (replaced(MIDDLE, Received("[" * 50_000)), "not_json"),
    "an item is half a surrogate": (replaced(MIDDLE, Received('{"type": "\ud800"}')), "not_json"),
    "an item is binary": (replaced(MIDDLE, lambda endpoint: Received(encode(item_of(endpoint, 30)).encode())), "binary_message"),
    "an item has no type": (edited(MIDDLE, lambda envelope, _: envelope.pop("type")), "no_type"),
    "a message is a list": (replaced(MIDDLE, Received("[]")), "no_type"),
    "an item has no body": (edited(MIDDLE, lambda envelope, _: [envelope.pop(name) for name in set(envelope) - {"type"}]), "no_item"),
    "a measurement is a word": (setting(MIDDLE, MEASURE="high"), "wrong_type"),
    "a time is a word": (setting(MIDDLE, start_time_ms="5760"), "wrong_type"),
    "a time is half a millisecond": (shifting(MIDDLE, 0.5, 0), "wrong_type"),
    "an item ends where it starts": (setting(MIDDLE, start_time_ms=9, end_time_ms=9), "bad_times"),
    "an item ends before it starts": (setting(MIDDLE, start_time_ms=9, end_time_ms=8), "bad_times"),
    "an item starts before the audio": (setting(MIDDLE, start_time_ms=-1), "bad_times"),
    "an item lies beyond a year": (shifting(MIDDLE, 10**12, 10**12), "bad_times"),
    "a measurement is too high": (setting(MIDDLE, MEASURE=1.5), "out_of_range"),
    "a measurement is negative": (setting(MIDDLE, MEASURE=-0.5), "out_of_range"),
    "an item measures nothing": (unmeasured, "no_measurement"),
    "done says nothing": (emptied, "empty_done"),
    "a verdict is a number": (setting(DONE, LABEL=7), "wrong_type"),
    "done comes before the end was sent": (swapped(1, DONE), "done_before_end"),
    "done comes first of all": (inserted(0, lambda endpoint: Received(encode(done_of(endpoint, 0)))), "done_before_end"),
}

ENDINGS = {
    "there is no done": (removed(DONE), 1000, None),
    "there is no done and it goes away": (replaced(DONE, Closed(1001)), 1001, None),
    "there is no done and it breaks": (replaced(DONE, Closed(None)), 1006, None),
    "there is no done and no close": (removed(DONE, DONE + 2), None, None),
    "nothing comes at all": (removed(FIRST, DONE + 2), None, None),
    "done is refused instead": (replaced(DONE, ERROR, Closed(1011)), 1011, "Internal server error"),
    "an error without a close": (unclosed, None, "Internal server error"),
    "a close without an error": (replaced(DONE, Closed(4029)), 4029, None),
    "an error without words": (replaced(DONE, Received('{"type": "error"}'), Closed(4002)), 4002, ""),
}


def last_close(transcript):
    """Only the first close of a mutated transcript happens: what stands behind it never comes."""
    for place, step in enumerate(transcript):
        if isinstance(step, Closed):
            return transcript[: place + 1]
    return transcript


def mutated(endpoint, mutate):
    transcript = good(endpoint)
    mutate(transcript, endpoint)
    return last_close(transcript)


def named(cases):
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), id=name) for name, case in cases.items()]


@BOTH
@pytest.mark.parametrize("mutate", named(HARMLESS))
def test_harmless_changes_leave_a_clean_result(endpoint, mutate):
    result = replay(endpoint, mutated(endpoint, mutate)).result()
    assert result.flags == frozenset()
    assert len(result.columns) == COUNT
    assert result.covered_ms == result.booked_ms == COUNT * endpoint.item_ms


@BOTH
@pytest.mark.parametrize(("mutate", "flags"), named(FLAGGED))
def test_a_paid_result_with_a_defect_is_kept_and_flagged(endpoint, mutate, flags):
    session = replay(endpoint, mutated(endpoint, mutate))
    assert session.result().flags == flags
    assert session.state is State.DONE


@BOTH
@pytest.mark.parametrize(("mutate", "name"), named(VIOLATIONS))
def test_what_breaks_the_protocol_leaves_no_result(endpoint, mutate, name):
    session = replay(endpoint, mutated(endpoint, mutate))
    error = failure_of(session)
    assert (error.protocol, session.state) == (name, State.BROKEN)
    assert session.over


@BOTH
@pytest.mark.parametrize(("mutate", "code", "text"), named(ENDINGS))
def test_without_done_there_is_no_result_whatever_the_close(endpoint, mutate, code, text):
    error = failure_of(replay(endpoint, mutated(endpoint, mutate)))
    assert (error.close_code, error.text, error.protocol) == (code, text, None)
    assert error.phase is Phase.DRAINING


def test_every_known_defect_has_a_mutation():
    assert {flag for _, flags in FLAGGED.values() for flag in flags} == set(Flag) - {Flag.RANGE}


@BOTH
def test_a_figure_of_done_out_of_its_range_is_kept_and_flagged(endpoint):
    name = "music_pct" if endpoint is MUSIC else "instrumental_ai_percentage"
    result = replay(endpoint, mutated(endpoint, setting(DONE, **{name: 130.0}))).result()
    assert result.flags == {Flag.RANGE}
    assert getattr(result.done, name) == 130.0


@BOTH
def test_a_broken_message_is_kept_for_people_in_512_characters(endpoint):
    error = failure_of(replay(endpoint, mutated(endpoint, replaced(MIDDLE, Received("what" * 500)))))
    assert ("what" * 128) in str(error)
    assert ("what" * 129) not in str(error)


# ------------------------------------------------------------------------------------------------- the verdict of what came, in any order

steps_of_any_kind = st.lists(
    st.one_of(
        st.integers(0, 6).map(lambda place: Received(encode(item_of(MUSIC, place)))),
        st.integers(0, 6).map(lambda count: Received(encode(done_of(MUSIC, count)))),
        st.sampled_from([ERROR, NOISE, HEARTBEAT, SENT, END, Closed(1000), Closed(None), Received(b"\1")]),
        st.text(max_size=20).map(Received),
    ),
    max_size=14,
)


@given(steps_of_any_kind)
@settings(max_examples=300, deadline=None)
def test_only_a_done_after_the_end_yields_a_result_and_anything_else_an_error(transcript):
    session = replay(MUSIC, transcript)
    behind = transcript[transcript.index(END) :] if END in transcript else []
    if session.state is State.DONE:
        assert session.result().done.frame_count is not None
        assert any(isinstance(step, Received) and '"done"' in str(step.text) for step in behind)
    else:
        assert isinstance(failure_of(session), SessionError)
    assert session.over == (session.state in ENDED)


@given(steps_of_any_kind)
@settings(max_examples=300, deadline=None)
def test_an_unflagged_result_is_every_item_from_the_start_without_a_gap(transcript):
    session = replay(MUSIC, transcript, expected=False)
    if session.state is State.DONE and not (result := session.result()).flags:
        assert_columns(result, MUSIC, range(result.done.frame_count))


@given(st.integers(FIRST, DONE), st.integers(0, 400), st.integers(0, 0x2FF).map(chr))
@settings(max_examples=300, deadline=None)
def test_one_wrong_character_never_moves_an_item_unnoticed(place, where, character):
    transcript = good(MUSIC)
    text = transcript[place].text
    where %= len(text)
    transcript[place] = Received(text[:where] + character + text[where + 1 :])
    session = replay(MUSIC, transcript)
    if session.state is State.DONE and not (result := session.result()).flags:
        assert list(result.columns.spans()) == [(192 * i, 192 * i + 192) for i in range(COUNT)]
        assert result.done.frame_count == COUNT


@given(steps_of_any_kind, steps_of_any_kind)
@settings(deadline=None)
def test_after_done_nothing_that_comes_changes_what_was_found(before, after):
    session = replay(MUSIC, before)
    session.end_of_stream()
    session.receive(encode(done_of(MUSIC, len(session.columns))))
    if session.state is not State.DONE:
        return
    found = session.columns.packed(), session.result().done
    for step in after:
        if isinstance(step, Received):
            session.receive(step.text)
    assert (session.columns.packed(), session.result().done) == found
    assert session.state is State.DONE


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_the_table_leads_from_every_end_only_to_a_better_known_one(state, event):
    reached = TRANSITIONS.get((state, event), state)
    rank = {State.UPLOADING: 0, State.DRAINING: 1, State.BROKEN: 2, State.REFUSED: 3, State.DONE: 4}
    assert rank[reached] >= rank[state]
    assert reached is not State.DONE or event is Event.DONE or state is State.DONE


def test_a_refusal_is_heard_over_the_protocol_that_broke_before_it():
    session = replay(MUSIC, [SENT, NOISE, ERROR, Closed(1011)])
    error = failure_of(session)
    assert (error.text, error.protocol, error.close_code) == ("Internal server error", None, 1011)


def test_the_first_error_and_the_first_violation_are_told():
    other = Received(encode(ErrorMessage("Insufficient credits.")))
    assert failure_of(replay(MUSIC, [ERROR, other])).text == "Internal server error"
    assert failure_of(replay(MUSIC, [NOISE, Received("[]")])).protocol == "not_json"


def test_a_done_that_follows_an_error_while_uploading_is_no_result():
    session = replay(MUSIC, [SENT, ERROR, Received(encode(done_of(MUSIC, 0))), END, Closed(1011)])
    assert failure_of(session).text == "Internal server error"


def test_items_behind_a_broken_message_are_not_taken():
    session = replay(MUSIC, [SENT, NOISE, Received(encode(item_of(MUSIC, 0)))])
    assert len(session.columns) == 0


@pytest.mark.parametrize(
    ("transcript", "phase"),
    [
        ([], Phase.ADMITTED),
        ([SENT], Phase.ADMITTED),
        ([SENT, HEARTBEAT], Phase.ADMITTED),
        ([SENT, Received(encode(item_of(MUSIC, 0)))], Phase.STREAMING),
        ([SENT, END], Phase.DRAINING),
        ([SENT, Received(encode(item_of(MUSIC, 0))), END], Phase.DRAINING),
    ],
)
def test_the_phase_is_how_far_the_session_has_come(transcript, phase):
    assert replay(MUSIC, transcript).phase is phase


@pytest.mark.parametrize(
    ("transcript", "sentence"),
    [
        ([SENT, END, Closed(1000)], "ended without a done message while draining (close code 1000)"),
        ([SENT, END], "ended without a done message while draining"),
        ([SENT, Closed(None)], "closed before a done message while admitted (close code 1006)"),
        ([ERROR, Closed(1011)], "refused by the service while admitted (close code 1011; service says: Internal server error)"),
        ([NOISE, Closed(1000)], "the service broke the protocol (not_json): }{ while admitted (close code 1000)"),
    ],
)
def test_a_failure_tells_people_what_happened(transcript, sentence):
    assert str(failure_of(replay(MUSIC, transcript))) == sentence


# --------------------------------------------------------------------------------------------------- coverage, shapes and what is kept


@pytest.mark.parametrize(("endpoint", "lost", "partial"), [(MUSIC, 3, False), (MUSIC, 4, False), (MUSIC, 5, True), (AI_MUSIC, 5, True)])
def test_less_than_95_percent_and_an_item_is_partial(endpoint, lost, partial):
    """57 of 60 items are 95 %; one more item may be under way at the end of any audio."""
    result = replay(endpoint, mutated(endpoint, recounted(removed(LAST + 1 - lost, LAST + 1), lost=lost))).result()
    assert (Flag.PARTIAL in result.flags) == partial


@BOTH
@pytest.mark.parametrize(("short_ms", "flags"), [(0, set()), (1, {Flag.COUNT_MISMATCH})])
def test_done_may_end_one_item_before_the_last_and_no_more(endpoint, short_ms, flags):
    transcript = mutated(endpoint, setting(DONE, duration_ms=(COUNT - 1) * endpoint.item_ms - short_ms))
    assert replay(endpoint, transcript).result().flags == flags


def test_coverage_is_held_against_the_services_own_duration_where_ours_is_not_known():
    transcript = mutated(MUSIC, recounted(removed(LAST - 9, LAST + 1), lost=10))
    assert replay(MUSIC, transcript, expected=False).result().flags == {Flag.PARTIAL}


def test_audio_shorter_than_one_item_is_a_clean_result_without_evidence():
    session = ClientSession(MUSIC, RAW, expected_ms=100)
    session.sending(3200)
    session.end_of_stream()
    session.receive(encode(MusicDone(duration_ms=0, frame_count=0, music_pct=0.0, speech_pct=0.0, primary_label="unknown")))
    session.closed(1000)
    assert session.result().flags == frozenset()
    assert not session.result().sufficient


def test_a_last_window_may_be_short_but_only_the_last():
    short = json.dumps({"type": "window", "window": {**json.loads(encode(item_of(AI_MUSIC, 1)))["window"], "end_time_ms": 5500}})
    opening = [SENT, END, Received(encode(item_of(AI_MUSIC, 0))), Received(short)]
    following = Window(start_time_ms=5500, end_time_ms=9500, **dict.fromkeys(AI_MUSIC.shapes[0].measures, 0.0))
    end = [Received(encode(done_of(AI_MUSIC, 2, 5500))), Closed(1000)]
    longer_end = [Received(encode(following)), Received(encode(done_of(AI_MUSIC, 3, 9500))), Closed(1000)]

    assert replay(AI_MUSIC, opening + end, expected=False).result().flags == frozenset()
    assert replay(AI_MUSIC, opening + longer_end, expected=False).result().flags == {Flag.GAP}


def test_a_last_frame_may_not_be_short():
    short = Received(encode(Frame(start_time_ms=0, end_time_ms=100, music_prob=0.5, speech_prob=0.5)))
    transcript = [SENT, END, short, Received(encode(done_of(MUSIC, 1, 100))), Closed(1000)]
    assert replay(MUSIC, transcript, expected=False).result().flags == {Flag.GAP}


def newer(place, probability):
    shares = {"vocal_percentage": 10.0, "instrumental_percentage": 80.0, "silence_percentage": 10.0}
    span = {"start_time_ms": 4000 * place, "end_time_ms": 4000 * place + 4000}
    window = {**span, **shares, "vocal_ai_probability": probability, "instrumental_ai_probability": 0.2}
    return Received(json.dumps({"type": "window", "window": window}))


def test_the_newer_shape_of_windows_is_clean_also_with_nothing_to_evaluate():
    transcript = [SENT, END, newer(0, 0.7), newer(1, None), Received(encode(done_of(AI_MUSIC, 2))), Closed(1000)]
    result = replay(AI_MUSIC, transcript, expected=False).result()
    assert result.flags == frozenset()
    assert result.wire_shape == "2"
    assert result.columns.measures["vocal_ai_probability"][0] == 0.7


def test_both_shapes_in_one_session_are_named():
    items = [Received(encode(item_of(AI_MUSIC, 0))), newer(1, 0.7)]
    result = replay(AI_MUSIC, [SENT, END, *items, Received(encode(done_of(AI_MUSIC, 2))), Closed(1000)], expected=False).result()
    assert result.wire_shape == "1,2"


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
    session = ClientSession(AI_MUSIC, RAW)
    session.sending(sent_ms * BYTES_PER_MS)
    session.receive(encode(item_of(AI_MUSIC, 0)))
    session.receive(json.dumps({"type": "window", "window": {**json.loads(encode(item_of(AI_MUSIC, 1)))["window"], "end_time_ms": 6000}}))
    assert session.flags == flags


def test_a_container_cannot_be_ahead_of_its_bytes():
    session = replay(MUSIC, good(MUSIC)[2:], parameters=StreamParameters(AudioFormat.MP3), expected=False)
    assert session.flags == set()
    assert session.audio_sent_ms == session.acknowledged_ms == COUNT * 192


def test_unknown_messages_are_counted_with_one_sample():
    session = replay(MUSIC, mutated(MUSIC, inserted(MIDDLE, HEARTBEAT, HEARTBEAT, Received('{"type": "hint"}'))))
    assert session.unknown == {"heartbeat": 2, "hint": 1}
    assert session.unknown_sample == HEARTBEAT.text


def test_extra_fields_are_kept_once_as_they_came_first():
    edits = [setting(FIRST, noise=1), setting(MIDDLE, noise=2), setting(DONE, request="r7", duration_ms=2**70)]
    transcript = good(MUSIC)
    for edit in edits:
        edit(transcript, MUSIC)
    assert replay(MUSIC, transcript).result().extra == {"noise": 1, "request": "r7", "duration_ms": 2**70}


@given(st.lists(st.integers(0, 10**6), max_size=10))
def test_raw_audio_sent_is_counted_exactly(chunks):
    session = ClientSession(MUSIC, RAW)
    for size in chunks:
        session.sending(size)
    assert session.bytes_sent == sum(chunks)
    assert session.audio_sent_ms == sum(chunks) * 1000 // RAW.bytes_per_second
