"""Segments: what is on, what lasts, and that they tile what the items cover."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.endpoints import ENDPOINTS
from moderation.messages import Frame, Window
from moderation.results import Columns
from moderation.segments import SegmentRules, segments

MUSIC, AI_MUSIC = ENDPOINTS["music"], ENDPOINTS["ai_music"]
AT_ONCE = SegmentRules(min_ms=0)
probability = st.none() | st.floats(0, 1)


def frames(*pairs, length=192, begin=0):
    """Frames that follow each other, with (music_prob, speech_prob)."""
    return frames_at(*((begin + place * length, begin + (place + 1) * length, *pair) for place, pair in enumerate(pairs)))


def frames_at(*items):
    columns = Columns(MUSIC)
    for start, end, music, speech in items:
        columns.append(Frame(start_time_ms=start, end_time_ms=end, music_prob=music, speech_prob=speech))
    return columns


def windows(*measures):
    columns = Columns(AI_MUSIC)
    for place, measured in enumerate(measures):
        columns.append(Window(start_time_ms=4000 * place, end_time_ms=4000 * (place + 1), **measured))
    return columns


def places(found):
    return [(segment.kind, segment.start_ms, segment.end_ms) for segment in found]


def test_kinds_are_what_is_on_together():
    assert MUSIC.segment_kinds == ("music", "speech", "music+speech", "neither")
    assert AI_MUSIC.segment_kinds == ("ai_vocal",)
    found = segments(MUSIC, frames((0.9, 0.1), (0.8, 0.7), (0.1, 0.9), (0.1, 0.2)), AT_ONCE)
    assert places(found) == [("music", 0, 192), ("music+speech", 192, 384), ("speech", 384, 576), ("neither", 576, 768)]
    assert [segment.mean for segment in found] == [0.9, 0.7, 0.9, None], "of two the smaller one's"


def test_what_is_on_stays_on_until_it_falls_below_the_lower_threshold():
    found = segments(MUSIC, frames((0.45, 0), (0.5, 0), (0.4, 0), (0.45, 0), (0.39, 0), (0.45, 0)), AT_ONCE)
    assert places(found) == [("neither", 0, 192), ("music", 192, 768), ("neither", 768, 1152)]
    assert found[1].mean == pytest.approx(0.45)
    assert (found[1].greatest, found[1].items) == (0.5, 3)


def test_what_is_not_known_is_off():
    found = segments(MUSIC, frames((0.9, None), (None, 0.9), (None, None)), AT_ONCE)
    assert places(found) == [("music", 0, 192), ("speech", 192, 384), ("neither", 384, 576)]


def test_a_change_that_does_not_last_is_none():
    music, silence = (0.9, 0.0), (0.0, 0.0)
    rules = SegmentRules(min_ms=500)
    found = segments(MUSIC, frames(silence, *[music] * 5, silence, silence, *[music] * 4, *[silence] * 3, music), rules)
    assert places(found) == [("music", 0, 12 * 192), ("neither", 12 * 192, 16 * 192)]
    assert found[0].items == 12
    assert found[0].mean == pytest.approx(0.9 * 9 / 12)


def test_all_that_there_is_may_be_short():
    assert places(segments(MUSIC, frames((0.9, 0.0), length=100), SegmentRules())) == [("music", 0, 100)]
    assert segments(MUSIC, frames(), SegmentRules()) == []


def test_where_items_are_missing_a_segment_ends():
    found = segments(MUSIC, frames_at((0, 192, 0.9, 0), (192, 384, 0.9, 0), (1000, 1192, 0.45, 0), (1192, 1384, 0.9, 0)), AT_ONCE)
    assert places(found) == [("music", 0, 384), ("neither", 1000, 1192), ("music", 1192, 1384)], "and what was on before says nothing"


def test_items_that_overlap_or_come_late_count_once():
    found = segments(MUSIC, frames_at((192, 384, 0.9, 0), (0, 192, 0.9, 0), (100, 300, 0.1, 0), (300, 576, 0.9, 0)), AT_ONCE)
    assert places(found) == [("music", 0, 192), ("neither", 192, 300), ("music", 300, 576)]
    assert [segment.items for segment in found] == [1, 1, 2]


def test_ai_vocals_of_either_shape():
    older = windows(
        {"vocal_ai_percentage": 0.0, "vocal_ai_confidence": 0.2},
        {"vocal_ai_percentage": 100.0, "vocal_ai_confidence": 0.7},
        {"vocal_ai_percentage": 100.0, "vocal_ai_confidence": 0.9},
        {"vocal_ai_percentage": 0.0, "vocal_ai_confidence": 0.6},
    )
    [span] = segments(AI_MUSIC, older, SegmentRules())
    assert (span.kind, span.start_ms, span.end_ms, span.items, span.greatest) == ("ai_vocal", 4000, 12000, 2, 0.9)
    assert span.mean == pytest.approx(0.8)
    newer = windows({"vocal_ai_probability": 0.9}, {"vocal_ai_probability": None}, {"vocal_ai_probability": 0.6})
    assert places(segments(AI_MUSIC, newer, SegmentRules())) == [("ai_vocal", 0, 4000), ("ai_vocal", 8000, 12000)]


@pytest.mark.parametrize("wrong", [{"enter": 0.4, "leave": 0.5}, {"leave": 0.0}, {"enter": 1.1}, {"min_ms": -1}, {"enter": math.nan}])
def test_rules_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match="segments"):
        SegmentRules(**wrong)


def test_rows_say_by_which_rules_they_were_made():
    assert SegmentRules().version == "1:enter=0.5,leave=0.4,min_ms=960"
    assert SegmentRules(min_ms=0).version != SegmentRules().version


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8), probability, probability), max_size=40),
    st.sampled_from([0, 1, 5, 20]),
)
def test_segments_tile_what_the_items_cover(items, min_ms):
    columns = frames_at(*((start, start + length, music, speech) for start, length, music, speech in items))
    found = segments(MUSIC, columns, SegmentRules(min_ms=min_ms))
    assert sum(segment.end_ms - segment.start_ms for segment in found) == columns.covered_ms()
    for before, after in pairwise(found):
        assert before.end_ms <= after.start_ms
        if before.end_ms == after.start_ms:
            assert before.kind != after.kind, "else they are one"
            assert min(after.end_ms - after.start_ms, before.end_ms - before.start_ms) >= min_ms
    for segment in found:
        assert segment.mean is None or 0 <= segment.mean <= segment.greatest <= 1
        assert (segment.mean is None) or segment.kind != "neither"
