"""Identities: the same on every host and in every release, and never shared by two things."""

import os
import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.identity import lake_id, object_id, object_key_id, params_hash, run_id, session_id

names = st.text(max_size=12)
instants = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds have none
chances = st.binary(min_size=10, max_size=10)
HEX = set("0123456789abcdef")


def milliseconds(instant):
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def test_identities_are_the_same_in_every_release():
    """Another value here would stream and pay for every object again."""
    assert object_id("music", "a/b.mp3", "d41d8cd98f00b204e9800998ecf8427e") == "925dd7416b8841a4d87ec989c9a468e3"
    assert object_key_id("music", "a/b.mp3") == "b2e30ca958997a1e0dde5276ed2298ed"
    assert lake_id("s3://results/soundcheck") == "4ee8a310fec38b7e"
    rule = "s16le:16000:1"
    assert params_hash(sidecar="e1", rule=rule, transcode="never") == "96e73b7e87987d82"
    assert params_hash(sidecar=None, rule=None, transcode="never") == "071df13b2ebdf573"


@given(names, names, names)
def test_identities_are_hexadecimal_and_of_one_length(bucket, key, etag):
    assert len(object_id(bucket, key, etag)) == len(object_key_id(bucket, key)) == 32
    assert len(params_hash(bucket=bucket)) == len(lake_id(key)) == 16
    assert set(object_id(bucket, key, etag) + object_key_id(bucket, key) + params_hash(bucket=bucket) + lake_id(key)) <= HEX


@given(st.tuples(names, names, names), st.tuples(names, names, names))
def test_objects_share_an_identity_only_if_they_are_the_same(one, other):
    assert (object_id(*one) == object_id(*other)) == (one == other)


@given(names, st.lists(st.integers(0, 12), min_size=4, max_size=4))
def test_where_one_part_ends_and_the_next_begins_matters(text, cuts):
    first, second = sorted(cuts[:2]), sorted(cuts[2:])
    one, other = ((text[:a], text[a:b], text[b:]) for a, b in (first, second))
    assert (object_id(*one) == object_id(*other)) == (one == other)


def test_a_place_is_not_a_version_with_an_empty_etag():
    assert object_key_id("bucket", "key") != object_id("bucket", "key", "")


def test_names_that_are_no_unicode_have_an_identity():
    """A folder may hold file names that are no UTF-8 (os.fsdecode)."""
    assert object_key_id("music", "\udce9.mp3") != object_key_id("music", "é.mp3")


@given(st.dictionaries(st.from_regex(r"[a-z]{1,6}", fullmatch=True), st.integers() | names, min_size=1, max_size=4))
def test_parameters_have_no_order(parameters):
    assert params_hash(**dict(reversed(parameters.items()))) == params_hash(**parameters)


@pytest.mark.parametrize(
    "changed",
    [
        {"sidecar": "e2"},
        {"rule": "s16le:8000:1"},
        {"transcode": "always"},
        {"more": 1},
    ],
)
def test_whatever_changes_a_result_changes_the_parameters(changed):
    known = {"sidecar": "e1", "rule": "s16le:16000:1", "transcode": "never"}
    assert params_hash(**known | changed) != params_hash(**known)


def test_a_lake_is_the_same_with_or_without_a_slash_at_its_end():
    assert lake_id("s3://results/") == lake_id("s3://results")
    assert lake_id("s3://results/a") != lake_id("s3://results/b")


@given(instants, chances)
def test_a_session_id_is_a_uuid_of_version_seven(now, chance):
    parsed = uuid.UUID(session_id(now, chance))

    assert str(parsed) == session_id(now, chance)
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122
    assert abs((parsed.int >> 80) - milliseconds(now)) <= 1


@given(instants, chances)
def test_a_session_id_keeps_its_chance_but_for_the_marks(now, chance):
    body = uuid.UUID(session_id(now, chance)).bytes[6:]
    kept = bytes([0x0F, 0xFF, 0x3F, *[0xFF] * 7])
    assert bytes(a & m for a, m in zip(body, kept, strict=True)) == bytes(a & m for a, m in zip(chance, kept, strict=True))


@given(instants, st.integers(2, 10**9), chances, chances)
def test_session_ids_sort_by_time_whatever_the_chance(now, later_ms, first, second):
    assert session_id(now, first) < session_id(now + timedelta(milliseconds=later_ms), second)


def test_session_ids_of_one_moment_differ_by_chance():
    now = datetime(2026, 11, 21, 5, 30, tzinfo=UTC)
    assert len({session_id(now, os.urandom(10)) for _ in range(1000)}) == 1000


def test_a_run_id_reads_as_its_start_in_utc():
    start = datetime(2026, 11, 21, 5, 30, 9, tzinfo=UTC)
    assert run_id(start, b"\x0a\xbc\xde\xff") == "20261121T053009Z-0abcde"
    assert run_id(start.astimezone(timezone(timedelta(hours=2))), b"\x0a\xbc\xde") == "20261121T053009Z-0abcde"


@given(instants, st.integers(1, 10**6), st.binary(min_size=3, max_size=3), st.binary(min_size=3, max_size=3))
def test_run_ids_sort_by_start(now, later_s, first, second):
    assert run_id(now, first) < run_id(now + timedelta(seconds=later_s), second)
