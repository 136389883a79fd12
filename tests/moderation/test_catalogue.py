"""What a listing, its words and an object's bytes say together, and how a plan is cut."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.catalogue import (
    AudioObject,
    NotStreamable,
    ParameterRule,
    ShardRules,
    disagreement,
    length_class,
    parameters_reason,
    plan_shards,
    resolve_source,
    stated_source,
)
from moderation.errors import BadParameters
from moderation.formats import CONTAINERS, RAW_FORMATS, AudioFormat
from moderation.identity import object_id, object_key_id
from moderation.outcomes import QUARANTINED, SKIPPED, Reason
from moderation.sniffing import NOT_MEDIA, UNSUPPORTED_AUDIO, Content
from moderation.transcoding import SourceFormat

RAW = SourceFormat(AudioFormat.S16LE, 16000, 1)
SIDECAR = {"audio_format": "s16le", "sample_rate": 16000, "num_channels": 1}
METADATA = {"audio-format": "u8", "sample-rate": "8000", "num-channels": "2"}
RULES = (ParameterRule("calls/2026-*/*.pcm", "mulaw", 8000, 1), ParameterRule("calls/*", "alaw", 8000, 2))


def named(key, **more):
    known = {"bucket": "music", "etag": "e1", "size_bytes": 4096, "last_modified": datetime(2026, 11, 21, tzinfo=UTC)}
    return AudioObject(key=key, **known | more)


def assert_not_streamable(reason, *args):
    with pytest.raises(NotStreamable) as caught:
        resolve_source(*args)
    assert caught.value.reason is reason
    assert caught.value.detail == str(caught.value) != ""


def test_an_object_is_known_by_bucket_key_and_etag_alone():
    item = named("a.mp3")
    listed_elsewhere = replace(item, version_id="v7", storage_class="STANDARD", size_bytes=1)
    assert item.object_id == listed_elsewhere.object_id == object_id("music", "a.mp3", "e1")
    assert item.object_key_id == listed_elsewhere.object_key_id == object_key_id("music", "a.mp3")


def test_an_overwritten_object_is_another_one_in_the_same_place():
    item = named("a.mp3")
    overwritten = replace(item, etag="e2")
    assert item.object_id != overwritten.object_id
    assert item.object_key_id == overwritten.object_key_id


@pytest.mark.parametrize(
    ("key", "extension"),
    [
        ("a.mp3", "mp3"),
        ("A/B.C/song.FLAC", "flac"),
        ("a.tar.gz", "gz"),
        ("v1.2/song", ""),
        (".mp3", "mp3"),
        ("song.", ""),
        ("folder.wav/", ""),
        ("", ""),
    ],
)
def test_the_extension_is_that_of_the_name_in_lower_case(key, extension):
    assert named(key).extension == extension


def test_rules_match_the_whole_key_case_and_all():
    rule = ParameterRule("calls/*.pcm", "s16le", 16000, 1)
    assert rule.matches("calls/2026/one.pcm")
    assert not rule.matches("Calls/one.pcm")
    assert not rule.matches("more/calls/one.pcm")
    assert rule.source() == RAW


def test_a_sidecar_wins_over_metadata_and_metadata_over_rules():
    key = "calls/2026-11/one.pcm"
    assert stated_source(key, SIDECAR, METADATA, RULES) == RAW
    assert stated_source(key, None, METADATA, RULES) == SourceFormat(AudioFormat.U8, 8000, 2)
    assert stated_source(key, None, {"author": "me"}, RULES) == SourceFormat(AudioFormat.MULAW, 8000, 1)


def test_the_first_rule_that_matches_is_heard():
    assert stated_source("calls/one.pcm", None, {}, RULES) == SourceFormat(AudioFormat.ALAW, 8000, 2)
    assert stated_source("elsewhere/one.pcm", None, {}, RULES) is None


@pytest.mark.parametrize(
    ("sidecar", "metadata", "reason"),
    [
        ({}, {}, Reason.BAD_PARAMETERS),
        ({"audio_format": "mp4"}, {}, Reason.BAD_PARAMETERS),
        ({"audio_format": "s16le"}, {}, Reason.UNKNOWN_PARAMETERS),
        (SIDECAR | {"sample_rate": 999}, {}, Reason.BAD_PARAMETERS),
        (SIDECAR | {"sample_rate": 768_001}, {}, Reason.BAD_PARAMETERS),
        (SIDECAR | {"num_channels": 65}, {}, Reason.BAD_PARAMETERS),
        (SIDECAR | {"sample_rate": "fast"}, {}, Reason.BAD_PARAMETERS),
        ({"audio_format": "mp3", "sample_rate": 44100}, {}, Reason.BAD_PARAMETERS),
        (None, {"sample-rate": "8000"}, Reason.BAD_PARAMETERS),
        (None, METADATA | {"num-channels": "0"}, Reason.BAD_PARAMETERS),
    ],
)
def test_wrong_words_are_refused_before_they_cost_anything(sidecar, metadata, reason):
    with pytest.raises(BadParameters) as caught:
        stated_source("one.pcm", sidecar, metadata, RULES)
    refusal = parameters_reason(caught.value)
    assert refusal.reason is reason
    assert refusal.detail == str(caught.value)


@pytest.mark.parametrize("content", sorted(CONTAINERS))
@pytest.mark.parametrize("stated", [None, RAW, SourceFormat(AudioFormat.MP3)], ids=str)
@pytest.mark.parametrize("key", ["a.mp3", "a.pcm", "a", "a.txt"])
def test_bytes_of_a_container_win_over_name_and_words(key, content, stated):
    assert resolve_source(named(key), content, stated) == SourceFormat(content)


@pytest.mark.parametrize("content", sorted(UNSUPPORTED_AUDIO))
@pytest.mark.parametrize("stated", [None, RAW], ids=str)
def test_bytes_of_media_that_the_service_does_not_take_win_too(content, stated):
    assert resolve_source(named("a.pcm"), content, stated) == SourceFormat(content)


@pytest.mark.parametrize(("rate", "channels"), [(12_000, 1), (16_000, 9), (1000, 64), ("192000.0", " 2 ")])
def test_raw_audio_that_has_to_be_decoded_first_is_known_as_what_it_is(rate, channels):
    stated = stated_source("one.pcm", SIDECAR | {"sample_rate": rate, "num_channels": channels}, {}, ())
    assert stated == SourceFormat(AudioFormat.S16LE, int(float(rate)), int(channels))


@pytest.mark.parametrize("content", [Content.UNKNOWN, Content.EMPTY, *sorted(NOT_MEDIA)])
def test_raw_audio_by_word_is_believed_whatever_it_looks_like(content):
    assert resolve_source(named("a.bin"), content, RAW) == RAW


@pytest.mark.fault(11)
@pytest.mark.parametrize(
    ("key", "content", "stated", "reason"),
    [
        ("notes.txt", Content.TEXT, None, Reason.NOT_AUDIO),
        ("cover.mp3", Content.PICTURE, None, Reason.NOT_AUDIO),
        ("a.mp3", Content.TEXT, SourceFormat(AudioFormat.MP3), Reason.NOT_AUDIO),
        ("a.pcm", Content.UNKNOWN, None, Reason.UNKNOWN_PARAMETERS),
        ("a.raw", Content.UNKNOWN, None, Reason.UNKNOWN_PARAMETERS),
        ("a.F32LE", Content.UNKNOWN, None, Reason.UNKNOWN_PARAMETERS),
        ("a.flac", Content.UNKNOWN, None, Reason.UNDECODABLE),
        ("a.bin", Content.UNKNOWN, SourceFormat(AudioFormat.FLAC), Reason.UNDECODABLE),
        ("a.bin", Content.UNKNOWN, None, Reason.NOT_AUDIO),
        ("a", Content.UNKNOWN, None, Reason.NOT_AUDIO),
        ("a", Content.UNKNOWN, SourceFormat(AudioFormat.FLAC), Reason.UNDECODABLE),
    ],
)
def test_what_cannot_be_streamed_has_a_reason(key, content, stated, reason):
    assert_not_streamable(reason, named(key), content, stated)


@given(
    st.sampled_from(["a.mp3", "a.pcm", "a.txt", "a"]),
    st.sampled_from([*AudioFormat, *Content]),
    st.sampled_from([None, RAW, SourceFormat(AudioFormat.OGG)]),
)
def test_every_object_is_streamable_or_skipped_or_quarantined(key, content, stated):
    if content in RAW_FORMATS:
        return
    try:
        source = resolve_source(named(key), content, stated)
    except NotStreamable as refusal:
        reason = refusal.reason
    else:
        reason = None
        assert source.kind is content or source is stated
    assert reason is None or reason in SKIPPED | QUARANTINED


def test_a_name_that_asks_for_parameters_says_where_to_write_them():
    with pytest.raises(NotStreamable, match=r"calls/one\.pcm\.json"):
        resolve_source(named("calls/one.pcm"), Content.UNKNOWN, None)


estimates = st.lists(st.integers(0, 10_000), max_size=60)
shard_rules = st.builds(ShardRules, max_objects=st.integers(1, 12), max_audio_ms=st.integers(1, 30_000))


@given(estimates, shard_rules)
def test_every_position_is_in_exactly_one_shard(estimates, rules):
    shards = list(plan_shards(estimates, rules))
    assert sorted(position for shard in shards for position in shard) == list(range(len(estimates)))
    assert all(shards)


@given(estimates, shard_rules)
def test_shards_keep_both_bounds_but_for_one_object_that_is_longer(estimates, rules):
    for shard in plan_shards(estimates, rules):
        assert len(shard) <= rules.max_objects
        assert sum(estimates[position] for position in shard) <= rules.max_audio_ms or len(shard) == 1


@given(estimates, shard_rules)
def test_the_longest_class_goes_first_and_what_is_of_one_in_its_order(estimates, rules):
    order = [position for shard in plan_shards(estimates, rules) for position in shard]
    for earlier, later in itertools.pairwise(order):
        same = length_class(estimates[earlier]) == length_class(estimates[later])
        assert earlier < later if same else estimates[earlier] > estimates[later]


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_lengths_of_one_class_differ_by_less_than_an_eighth(one, other):
    shorter, longer = sorted((one, other))
    assert length_class(shorter) <= length_class(longer) <= longer
    if length_class(shorter) == length_class(longer):
        assert 8 * longer < 9 * shorter
    if 8 * longer >= 9 * shorter:
        assert length_class(shorter) < length_class(longer)


@given(estimates, shard_rules)
def test_a_shard_ends_only_where_the_next_object_would_break_a_bound(estimates, rules):
    shards = list(plan_shards(estimates, rules))
    for shard, following in itertools.pairwise(shards):
        audio = sum(estimates[position] for position in [*shard, following[0]])
        assert len(shard) == rules.max_objects or audio > rules.max_audio_ms


@given(estimates)
def test_a_plan_is_the_same_for_any_kind_of_sequence(estimates):
    rules = ShardRules()
    assert list(plan_shards(iter(estimates), rules)) == list(plan_shards(tuple(estimates), rules))


def test_shards_are_bounded_by_default():
    assert [len(shard) for shard in plan_shards([1] * 1200, ShardRules())] == [500, 500, 200]
    assert [len(shard) for shard in plan_shards([3_600_000] * 41, ShardRules())] == [20, 20, 1]


@pytest.mark.parametrize(
    ("key", "content", "stated", "said"),
    [
        ("a.mp3", AudioFormat.MP3, None, None),
        ("A.MP3", AudioFormat.MP3, None, None),
        ("a.mp3", AudioFormat.OGG, None, "named .mp3, but its bytes are ogg"),
        ("a.opus", AudioFormat.OGG, None, None),
        ("a.aif", AudioFormat.AIFF, None, None),
        ("a.m4a", Content.MP4, None, None),
        ("a.mp4", AudioFormat.WAV, None, "named .mp4, but its bytes are wav"),
        ("a.wav", Content.PICTURE, None, "named .wav, but its bytes are picture"),
        ("a.wav", Content.UNKNOWN, None, None),
        ("a.pcm", AudioFormat.FLAC, None, "named .pcm, but its bytes are flac"),
        ("a.pcm", Content.TEXT, None, None),
        ("a", AudioFormat.FLAC, None, None),
        ("a.xyz", AudioFormat.FLAC, None, None),
        (
            "a.pcm",
            AudioFormat.FLAC,
            "its sidecar says that it is raw audio",
            "its sidecar says that it is raw audio, but its bytes are flac",
        ),
        ("a.pcm", Content.TEXT, "its sidecar says that it is raw audio", None),
    ],
)
def test_what_an_object_is_called_is_held_against_its_bytes(key, content, stated, said):
    assert disagreement(named(key), content, stated) == said
