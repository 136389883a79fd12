"""Filters of a run: what they take, and the reason for what they leave out."""

from datetime import UTC, datetime, timedelta

import pytest

from moderation.catalogue import AudioObject
from moderation.outcomes import SKIPPED, Reason
from moderation.selection import EVERYTHING, LeftOut, Selection

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def item(key="albums/one.flac", size=1000, changed=NOON, storage_class=None):
    return AudioObject("music", key, "e1", size, changed, None, storage_class)


@pytest.mark.parametrize(
    ("selection", "given", "why"),
    [
        (EVERYTHING, item(size=0), None),
        (Selection(include=["*.flac"]), item(), None),
        (Selection(include=["*.wav", "albums/*"]), item(), None),
        (Selection(include=["*.wav"]), item(), LeftOut.NOT_INCLUDED),
        (Selection(include=["*.FLAC"]), item(), LeftOut.NOT_INCLUDED),
        (Selection(include=["one.flac"]), item(), LeftOut.NOT_INCLUDED),
        (Selection(include=["albums/*"]), item("albums/a\nb"), None),
        (Selection(exclude=["albums/*"]), item(), LeftOut.EXCLUDED),
        (Selection(exclude=["singles/*"]), item(), None),
        (Selection(include=["*.flac"], exclude=["albums/*"]), item(), LeftOut.EXCLUDED),
        (Selection(min_bytes=1000, max_bytes=1000), item(), None),
        (Selection(min_bytes=1001), item(), LeftOut.SIZE),
        (Selection(max_bytes=999), item(), LeftOut.SIZE),
        (Selection(max_bytes=0), item(size=1), LeftOut.SIZE),
        (Selection(modified_from=NOON), item(), None),
        (Selection(modified_from=NOON + timedelta(microseconds=1)), item(), LeftOut.MODIFIED),
        (Selection(modified_until=NOON + timedelta(microseconds=1)), item(), None),
        (Selection(modified_until=NOON), item(), LeftOut.MODIFIED),
        (Selection(storage_classes=frozenset({"STANDARD"})), item(), None),
        (Selection(storage_classes=frozenset({"STANDARD"})), item(storage_class="STANDARD_IA"), LeftOut.STORAGE_CLASS),
        (Selection(storage_classes=frozenset({"GLACIER_IR"})), item(), LeftOut.STORAGE_CLASS),
        (Selection(include=["*.wav"], min_bytes=9999), item(), LeftOut.NOT_INCLUDED),
    ],
)
def test_the_first_filter_that_an_object_does_not_pass_is_the_reason(selection, given, why):
    assert selection.leaves_out(given) is why


@pytest.mark.parametrize("why", LeftOut)
def test_what_is_left_out_counts_as_skipped(why):
    assert why.reason in SKIPPED
    assert (why.reason is Reason.GONE) == (why is LeftOut.GONE)


@pytest.mark.parametrize(
    ("key", "needed"),
    [
        ("calls/one.pcm.json", True),
        ("calls/one.pcm", False),
        ("calls/one.wav.json", False),
        ("calls/old/one.pcm.json", False),
    ],
)
def test_a_sidecar_is_kept_for_an_object_whose_key_passes_whatever_its_own_size_and_time(key, needed):
    selection = Selection(include=["*.pcm"], exclude=["calls/old/*"], min_bytes=5000, modified_from=NOON + timedelta(days=1))
    assert selection.leaves_out(item(key)) is not None
    assert selection.may_be_needed(item(key)) is needed
