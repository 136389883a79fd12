"""Sessions for tests: what a pretended analysis finds in any endpoint's audio, and good transcripts of it."""

import pytest

from moderation.endpoints import ENDPOINTS
from moderation.errors import SessionError
from moderation.formats import AudioFormat, StreamParameters
from moderation.messages import TIMES, ErrorMessage, encode, upper_bound, whole_of, words_of
from moderation.transcript import Closed, Ended, Opened, Received, Sent, replay

MUSIC, AI_MUSIC = ENDPOINTS["music"], ENDPOINTS["ai_music"]
BOTH = pytest.mark.parametrize("endpoint", [MUSIC, AI_MUSIC], ids=["music", "ai_music"])
RAW = StreamParameters(AudioFormat.S16LE, 16000, 1)
BYTES_PER_MS = RAW.bytes_per_second // 1000
WORDS = ("polka", "speech", "nothing")

ERROR = Received(encode(ErrorMessage("Internal server error")))
NOISE = Received("}{")
HEARTBEAT = Received('{"type": "heartbeat", "at": 7}')
BINARY = Received("\1", binary=True)

COUNT = 60
"""Items of a good transcript."""
SENT, END, FIRST, MIDDLE, LAST, DONE, CLOSE = 1, 2, 3, 3 + COUNT // 2, 2 + COUNT, 3 + COUNT, 4 + COUNT
"""Where they stand in a good transcript."""


def item_of(endpoint, place):
    """The item that the pretended analysis finds at this place: in the first shape, and no two next to each other alike."""
    share, start = (place % 97) / 97, place * endpoint.item_ms
    words = words_of(endpoint.item_type)
    found = {
        name: WORDS[place % 3] if name in words else round(upper_bound(name) * share, 4) for name in sorted(endpoint.shapes[0].measures)
    }
    return endpoint.item_type(start_time_ms=start, end_time_ms=start + endpoint.item_ms, **found)


def done_of(endpoint, count, duration_ms=None):
    """The summary after so many items."""
    words, whole = words_of(endpoint.done_type), whole_of(endpoint.done_type)
    figures = {
        name: WORDS[0] if name in words else upper_bound(name) / 2 for name in endpoint.done_type.__struct_fields__ if name not in whole
    }
    duration_ms = count * endpoint.item_ms if duration_ms is None else duration_ms
    return endpoint.done_type(duration_ms=duration_ms, **{endpoint.count_field: count}, **figures)


def measure(endpoint):
    """A probability or confidence of its items."""
    words = words_of(endpoint.item_type)
    return min(name for name in endpoint.shapes[0].measures if name not in words and upper_bound(name) == 1)


def item(endpoint, place):
    return Received(encode(item_of(endpoint, place)))


def done(endpoint, count, duration_ms=None):
    return Received(encode(done_of(endpoint, count, duration_ms)))


def opened(endpoint, *, expected_ms=None, parameters=RAW):
    return Opened(endpoint.name, parameters, expected_ms)


def sent(duration_ms):
    """So much audio of RAW."""
    return Sent(duration_ms * BYTES_PER_MS)


def good(endpoint, count=COUNT, *, expected=True):
    """All audio, its end, every item, done, the normal close: what every mutation starts from."""
    duration_ms = count * endpoint.item_ms
    items = [item(endpoint, place) for place in range(count)]
    opening = opened(endpoint, expected_ms=duration_ms if expected else None)
    return [opening, sent(duration_ms), Ended(), *items, done(endpoint, count), Closed(1000)]


def session_of(endpoint, *entries, expected_ms=None, parameters=RAW):
    """A session to which this has happened."""
    return replay([opened(endpoint, expected_ms=expected_ms, parameters=parameters), *entries], {endpoint.name: endpoint})


def failure_of(session):
    with pytest.raises(SessionError) as caught:
        session.result()
    return caught.value


def assert_columns(session_or_result, endpoint, places):
    """The columns are exactly these items of the pretended analysis, in this order."""
    wanted = [item_of(endpoint, place) for place in places]
    assert rows_of(session_or_result.columns) == [values_of(found) for found in wanted]


def assert_in_order(endpoint, spans):
    """From the start, each as long as an item; a last window alone may be short (service.md, decision 20)."""
    whole = [(place * endpoint.item_ms, (place + 1) * endpoint.item_ms) for place in range(len(spans))]
    assert spans[:-1] == whole[:-1], spans
    if spans and spans != whole:
        assert endpoint.last_item_may_be_short, spans
        assert spans[-1][0] == whole[-1][0] < spans[-1][1] < whole[-1][1], spans


def rows_of(columns):
    """The items of the columns as tuples, nulls as None, times first."""
    measures = [[None if value != value else value for value in column] for column in columns.measures.values()]  # noqa: PLR0124 - NaN
    names = [*columns.times, *columns.measures, *columns.words]
    rows = zip(*columns.times.values(), *measures, *columns.words.values(), strict=True)
    return [tuple(value for _, value in sorted(zip(names, row, strict=True))) for row in rows]


def values_of(found):
    """An item as rows_of has it."""
    return tuple(getattr(found, name) for name in sorted(found.__struct_fields__))


def measures_of(endpoint):
    return [name for name in endpoint.item_type.__struct_fields__ if name not in TIMES]
