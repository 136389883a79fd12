"""What a listing alone says of its objects."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from moderation.catalogue import AudioObject, ParameterRule
from moderation.identity import params_hash
from moderation.outcomes import SKIPPED, Reason
from moderation.selection import Selection
from planning import manifest_row
from tasks.listed import listing_of, with_sidecars

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def named(key, **more):
    known = {"bucket": "music", "etag": f"e-{key}", "size_bytes": 4096, "last_modified": NOW}
    return AudioObject(key=key, **known | more)


def listing(*items, rules=(), **more):
    return listing_of(pl.DataFrame([manifest_row(item) for item in items], infer_schema_length=None), rules, **more)


def hashes(*items, rules=()):
    return dict(listing(*items, rules=rules).select("key", "params_hash").iter_rows())


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (named("a/"), Reason.FOLDER_MARKER),
        (named("a/", size_bytes=0), Reason.FOLDER_MARKER),
        (named("call.pcm.json"), Reason.SIDECAR),
        (named("call.pcm.json", size_bytes=0), Reason.SIDECAR),
        (named("orphan.pcm.json"), None),
        (named("a.mp3", size_bytes=0), Reason.EMPTY),
        (named("a.mp3", size_bytes=0, storage_class="GLACIER"), Reason.EMPTY),
        (named("a.mp3", storage_class="GLACIER"), Reason.ARCHIVED),
        (named("a.mp3", storage_class="DEEP_ARCHIVE"), Reason.ARCHIVED),
        (named("a.mp3", storage_class="GLACIER_IR"), None),
        (named("a.mp3", storage_class="STANDARD_IA"), None),
        (named("a.mp3"), None),
        (named("notes.txt"), None),
        (named("call.pcm.json", bucket="other"), None),
        (named("line\nbreak/../%2F.pcm.json"), None),
    ],
    ids=lambda value: repr(getattr(value, "key", value)),
)
def test_a_listing_alone_tells_what_is_no_audio(item, reason):
    found = listing(named("call.pcm"), named("b.mp3", storage_class="STANDARD"), item).filter(pl.col("object_id") == item.object_id)
    assert found["skip"].to_list() == [reason]
    assert reason is None or reason in SKIPPED


@pytest.mark.parametrize(
    ("selection", "filtered"),
    [
        (Selection(), []),
        (Selection(modified_from=NOW), ["song.json"]),
        (Selection(max_bytes=5000), ["song.json"]),
        (Selection(storage_classes=frozenset({"STANDARD"})), ["song.json"]),
        (Selection(include=["call.pcm", "song"]), ["other.json", "song.json"]),
    ],
)
def test_what_might_have_been_a_sidecar_and_is_none_has_to_pass_the_filters(selection, filtered):
    old = {"last_modified": NOW - timedelta(1), "size_bytes": 9000, "storage_class": "STANDARD_IA"}
    found = listing(named("call.pcm"), named("call.pcm.json", **old), named("song.json", **old), named("other.json"), selection=selection)
    assert found.filter(pl.col("skip") == Reason.FILTERED)["key"].sort().to_list() == filtered
    assert found.filter(pl.col("key") == "call.pcm.json")["skip"].to_list() == [Reason.SIDECAR]


def test_an_object_that_is_listed_twice_counts_once_in_its_first_place():
    found = listing(named("b"), named("a"), named("b"), named("b", etag="another"))
    assert found["key"].to_list() == ["b", "a", "b"]
    assert found["position"].to_list() == [0, 1, 2]


def test_a_sidecar_is_found_in_the_listing_and_the_newest_one_is_heard():
    old, new = named("x.pcm.json", etag="old", last_modified=NOW - timedelta(1)), named("x.pcm.json", etag="new")
    other = named("x.pcm.json", bucket="other")
    listed = listing(named("x.pcm"), new, old, other, named("y.pcm"))
    found = dict(with_sidecars(listed.filter(~pl.col("key").str.ends_with(".json")), listed))
    assert found == {named("x.pcm"): new, named("y.pcm"): None}


def test_a_sidecar_and_a_rule_make_results_others_and_nothing_else_does():
    rules = (ParameterRule("calls/2026*", "mulaw", 8000, 1), ParameterRule("calls/*", "alaw", 8000, 2))
    plain = params_hash(sidecar=None, rule=None, transcode="never")
    found = hashes(named("calls/2026-1.pcm"), named("calls/1999.pcm"), named("x.pcm"), named("x.pcm.json"), named("y.pcm"), rules=rules)
    assert found == {
        "calls/2026-1.pcm": params_hash(sidecar=None, rule="mulaw:8000:1", transcode="never"),
        "calls/1999.pcm": params_hash(sidecar=None, rule="alaw:8000:2", transcode="never"),
        "x.pcm": params_hash(sidecar="e-x.pcm.json", rule=None, transcode="never"),
        "x.pcm.json": plain,
        "y.pcm": plain,
    }
    later = named("y.pcm", last_modified=NOW + timedelta(9), storage_class="STANDARD_IA", version_id="v2")
    assert hashes(later) == {"y.pcm": plain}
