"""The client's and the server's machine against each other, in whatever order things happen: never an illegal state, never a wrong row.

Nothing here has a socket or a clock: messages go from one machine to the other in the order that Hypothesis decides, and after every step
`Conversation.check` holds what must never be otherwise. 10,000 examples in all.
"""

import json
from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conversation import Conversation
from moderation.messages import ErrorMessage, Item, UnknownMessage, decode, encode
from moderation.server_session import (
    SERVER_TRANSITIONS,
    Close,
    Feed,
    Finish,
    Send,
    ServerEvent,
    ServerSession,
    ServerState,
)
from moderation.session import State
from moderation.violations import Breach, Violation
from transcripts import (
    AI_MUSIC,
    BYTES_PER_MS,
    MUSIC,
    assert_columns,
    assert_in_order,
    done_of,
    failure_of,
    item_of,
    rows_of,
    values_of,
)

CODES = [
    (1003, "Invalid sample_rate=50000."),
    (1011, "Internal server error"),
    (4002, "The audio could not be processed."),
    (4003, "This request is not permitted."),
    (4029, "Insufficient credits."),
]
REFUSALS = [(after, code, text) for after in range(9) for code, text in CODES]
"""How many items come first, and what the server says then."""


class Script:
    """What happens in an example, read off random bytes: Hypothesis draws those in one go, and drawing is most of an example's time."""

    def __init__(self, octets):
        head, schedule = octets[:12], octets[12:]
        self.endpoint = (MUSIC, AI_MUSIC)[head[0] % 2]
        self.chunks = [size * self.endpoint.item_ms * BYTES_PER_MS // 100 for size in head[4 : 4 + head[1] % 9]]
        self.refusal = REFUSALS[head[2] % len(REFUSALS)]
        self.is_refused = head[3] >= 192
        self.trouble = 1 + head[3] % 6
        self.schedule = schedule

    def __repr__(self):
        return f"{self.endpoint.name} {self.chunks} {self.refusal if self.is_refused else None} {self.trouble} {list(self.schedule)}"

    def conversation(self, **more):
        return Conversation(self.endpoint, self.chunks, **more)


scripts = st.binary(min_size=20, max_size=50).map(Script)


@given(scripts)
@settings(max_examples=2500)
def test_whatever_the_schedule_and_the_chunks_the_result_is_the_same_and_clean(script):
    talk, endpoint = script.conversation(), script.endpoint
    talk.run(cycle(script.schedule))
    result = talk.client.result()

    assert talk.fed == talk.client.bytes_sent == talk.total
    assert_columns(result, endpoint, range(talk.ready))
    assert result.flags == frozenset()
    assert result.done == done_of(endpoint, talk.ready)
    assert (result.close_code, result.wire_shape, result.extra) == (1000, "1", {})
    assert result.booked_ms == result.covered_ms == talk.ready * endpoint.item_ms
    assert result.sufficient == (talk.ready > 0)
    assert talk.client.acknowledged_ms <= talk.client.audio_sent_ms


@given(scripts)
@settings(max_examples=2500)
def test_a_refusal_at_any_time_is_readable_and_leaves_no_result(script):
    after, code, text = script.refusal
    talk = script.conversation(refusal=script.refusal)
    talk.run(cycle(script.schedule))
    if talk.found < after:
        assert talk.client.result().flags == frozenset()
        return
    error = failure_of(talk.client)

    assert (error.close_code, error.text, error.protocol) == (code, text, None)
    assert talk.client.state is State.REFUSED
    assert len(talk.client.columns) == talk.found == after


@given(scripts)
@settings(max_examples=5000)
def test_whatever_goes_wrong_the_verdict_follows_from_what_was_heard(script):
    talk, endpoint = script.conversation(refusal=script.refusal if script.is_refused else None, trouble=script.trouble), script.endpoint
    talk.run(cycle(script.schedule))
    done, items, text, breach = judge(endpoint, talk.heard)
    if done is None:
        error = failure_of(talk.client)
        assert (error.text, error.protocol) == (text, None if text is not None else breach)
        return
    result = talk.client.result()
    assert result.done == done
    assert rows_of(result.columns) == [values_of(item) for item in items]
    if not result.flags:
        assert_in_order(endpoint, list(result.columns.spans()))
        assert getattr(done, endpoint.count_field) == len(items)


def judge(endpoint, heard):
    """The summary that counts, the items before it, the service's words and what it broke: by the rules, without a machine.

    heard is what the client was told in order; None stands for the end that it sent.
    """
    items, ended, text, breach = [], False, None, None
    for message in heard:
        if message is None:
            ended = True
            continue
        try:
            said = decode(message, endpoint.item_name, endpoint.item_type, endpoint.done_type).message
        except Violation as violation:
            breach = breach or violation.name
            continue
        match said:
            case ErrorMessage(words):
                text = text or words
            case Item():
                items += [said] if said not in items else []
            case UnknownMessage():
                pass
            case done if not ended:
                breach = breach or Breach.DONE_BEFORE_END
            case done if all(getattr(done, name) is None for name in done.__struct_fields__):
                breach = breach or Breach.EMPTY_DONE
            case done if breach is None:
                return done, items, text, breach
    return None, items, text, breach


# ------------------------------------------------------------------------------------------------------------- the server's machine alone


@given(st.lists(st.binary(max_size=4) | st.sampled_from(["", "", "end", " "]), max_size=8), st.lists(st.booleans(), max_size=8))
def test_a_server_says_nothing_after_its_close_and_closes_exactly_once(messages, found):
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


def test_a_server_sends_in_the_shape_that_it_was_given():
    window = item_of(AI_MUSIC, 0)
    for shape in AI_MUSIC.shapes:
        assert ServerSession(shape).found(window) == [Send(encode(window, shape))]


@pytest.mark.parametrize("state", ServerState)
@pytest.mark.parametrize("event", ServerEvent)
def test_the_servers_table_leads_to_the_close_and_never_back(state, event):
    order = list(ServerState)
    reached = SERVER_TRANSITIONS.get((state, event), ServerState.CLOSED)
    assert order.index(reached) >= order.index(state)
    assert (reached is ServerState.CLOSED) or event not in {ServerEvent.DONE, ServerEvent.REFUSAL}
