"""What a session leaves: packed columns, coverage, shares, and what is booked."""

import math
import struct
import sys
from array import array

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.endpoints import ENDPOINTS
from moderation.messages import Frame, MusicDone, Window
from moderation.results import Columns, Flag, SessionResult, SpooledSession, little_endian

MUSIC, AI_MUSIC = ENDPOINTS["music"], ENDPOINTS["ai_music"]
probability = st.none() | st.floats(0, 1)
spans = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda span: (span[0], span[0] + span[1])), max_size=12)


def frames(spans, music=0.5, speech=None):
    columns = Columns(MUSIC)
    for start, end in spans:
        columns.append(Frame(start_time_ms=start, end_time_ms=end, music_prob=music, speech_prob=speech))
    return columns


def result_of(columns, **done):
    known = MusicDone(**done)
    return SessionResult(MUSIC, columns, known, frozenset(), columns.covered_ms(), "1")


def numbers(packed, code):
    return list(struct.unpack(f"<{len(packed) // 8}{code}", packed))


@given(st.lists(st.tuples(st.integers(0, 2**53), probability, probability), max_size=20))
def test_columns_pack_to_little_endian_eight_byte_values(rows):
    columns = Columns(MUSIC)
    for start, music, speech in rows:
        columns.append(Frame(start_time_ms=start, end_time_ms=start + 192, music_prob=music, speech_prob=speech))
    packed = columns.packed()

    assert list(packed) == ["start_time_ms", "end_time_ms", "music_prob", "speech_prob"]
    assert len(columns) == len(rows)
    assert numbers(packed["start_time_ms"], "q") == [start for start, _, _ in rows]
    assert numbers(packed["end_time_ms"], "q") == [start + 192 for start, _, _ in rows]
    for name, place in (("music_prob", 1), ("speech_prob", 2)):
        assert [None if math.isnan(value) else value for value in numbers(packed[name], "d")] == [row[place] for row in rows]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5))
def test_a_big_endian_machine_packs_the_same_bytes(values):
    column = array("q", values)
    swapped = array("q", values)
    swapped.byteswap()
    other = {"little": "big", "big": "little"}[sys.byteorder]
    assert little_endian(swapped, other) == little_endian(column) == struct.pack(f"<{len(values)}q", *values)
    assert list(column) == values


def test_a_window_has_a_column_for_every_measurement_of_both_shapes():
    columns = Columns(AI_MUSIC)
    columns.append(Window(start_time_ms=0, end_time_ms=4000, vocal_percentage=12.5))

    packed = columns.packed()

    assert set(packed) == set(Window.__struct_fields__)
    assert numbers(packed["vocal_percentage"], "d") == [12.5]
    assert math.isnan(numbers(packed["vocal_ai_probability"], "d")[0])


def test_null_is_not_zero():
    packed = frames([(0, 192)], music=0.0, speech=None).packed()
    assert numbers(packed["music_prob"], "d") == [0.0]
    assert math.isnan(numbers(packed["speech_prob"], "d")[0])


@given(spans)
def test_covered_audio_is_every_millisecond_that_an_item_touches(spans):
    columns = frames(spans)
    assert columns.covered_ms() == len({ms for start, end in spans for ms in range(start, end)})
    assert list(columns.spans()) == spans


@given(spans, st.randoms(use_true_random=False))
def test_covered_audio_does_not_depend_on_the_order_received(spans, chance):
    shuffled = list(spans)
    chance.shuffle(shuffled)
    assert frames(shuffled).covered_ms() == frames(spans).covered_ms()


def test_a_result_without_items_is_no_evidence():
    assert not result_of(frames([]), duration_ms=0, frame_count=0).sufficient
    assert result_of(frames([(0, 192)]), duration_ms=192, frame_count=1).sufficient


@pytest.mark.parametrize(("duration", "booked"), [(5000, 5000), (384, 384), (100, 384), (0, 384), (None, 384)])
def test_the_greater_of_what_is_said_and_what_is_covered_is_booked(duration, booked):
    assert result_of(frames([(0, 192), (192, 384)]), duration_ms=duration).booked_ms == booked


def test_shares_count_items_at_or_over_the_threshold():
    columns = Columns(MUSIC)
    for place, (music, speech) in enumerate([(0.5, None), (0.49, 0.9), (0.9, 0.1)]):
        columns.append(Frame(start_time_ms=192 * place, end_time_ms=192 * place + 192, music_prob=music, speech_prob=speech))
    result = result_of(columns)

    assert result.share_over("music_prob", 0.5) == 66.7
    assert result.share_over("speech_prob", 0.5) == 33.3
    assert result.share_over("music_prob", 0.0) == 100.0
    assert result.share_over("music_prob", 1.0) == 0.0


def test_there_is_no_share_of_nothing():
    assert result_of(frames([])).share_over("music_prob", 0.5) is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_never_gives_a_greater_share(values, one, other):
    columns = Columns(MUSIC)
    for place, value in enumerate(values):
        columns.append(Frame(start_time_ms=place, end_time_ms=place + 1, music_prob=value))
    low, high = sorted((one, other))
    assert 0 <= result_of(columns).share_over("music_prob", high) <= result_of(columns).share_over("music_prob", low) <= 100


def test_flags_are_lower_case_words_without_the_comma_that_separates_them():
    assert all(flag.value.replace("_", "").isalpha() and flag.value.islower() for flag in Flag)
    assert {"after_done", "ahead", "count_mismatch", "duplicate", "gap", "missing", "partial", "range", "shape"} <= set(Flag)


def test_a_spooled_session_survives_its_encoding():
    spooled = SpooledSession(
        session_id="s",
        run_id="r",
        endpoint="music",
        object_id="o",
        attempt={"attempt": 1},
        booked_ms=384,
        sent_ms=400,
        summary={"music_pct": 12.5},
        items=frames([(0, 192), (192, 384)]).packed(),
    )
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spooled), type=SpooledSession) == spooled
