"""Cutting keys into ranges by looking at few of them."""

import itertools
from bisect import bisect_right

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.catalogue.key_ranges import PROBES, Seen, split_points
from odd_keys import KEYS


class Bucket:
    """The list API over sorted keys, without S3."""

    def __init__(self, keys, page=1000):
        self.keys = sorted(set(keys))
        self.page = page
        self.looks = 0

    async def look(self, prefix, after, delimiter, names):
        self.looks += 1
        seen = {}
        for key in self.keys[bisect_right(self.keys, after) :]:
            if key.startswith(prefix):
                end = key.find(delimiter, len(prefix)) if delimiter else -1
                seen[key if end < 0 else key[: end + 1]] = end >= 0
        shown = sorted(seen)[: min(names, self.page)]
        return Seen(shown, [name for name in shown if seen[name]], len(seen) > len(shown))


def sizes(keys, points):
    edges = [0, *(bisect_right(keys, point) for point in points), len(keys)]
    return [upper - lower for lower, upper in itertools.pairwise(edges)]


FOLDERS = [f"label {n // 500}/album {n // 20}/{n % 20}.flac" for n in range(10_000)]
FLAT = [f"track-{n:06}.flac" for n in range(10_000)]
HASHES = [f"{n * 2654435761 % 2**32:08x}.flac" for n in range(10_000)]
LOPSIDED = ["a/one.flac", "z/last.flac", *(f"m/{n // 100:03}/{n % 100}.flac" for n in range(10_000))]
WIDE = [f"{n:05}/track.flac" for n in range(10_000)]
CHAIN = [f"one/two/three/four/{n // 1250}/{n}.flac" for n in range(10_000)]


@pytest.mark.parametrize(
    "keys", [FOLDERS, FLAT, HASHES, LOPSIDED, WIDE, CHAIN], ids=["folders", "flat", "hashes", "lopsided", "wide", "chain"]
)
async def test_large_prefixes_are_cut_into_ranges_of_similar_size(keys):
    bucket = Bucket(keys, page=500)
    points = await split_points(bucket.look, "", 16)
    assert points == sorted(set(points))
    assert 5 <= len(points) <= 15
    assert max(sizes(bucket.keys, points)) <= len(keys) / 4
    assert bucket.looks <= PROBES + 1


async def test_what_fits_a_page_is_not_cut():
    bucket = Bucket(FLAT[:1000])
    assert await split_points(bucket.look, "", 16) == []
    assert bucket.looks == 1


async def test_one_range_needs_no_look():
    bucket = Bucket(FLAT)
    assert await split_points(bucket.look, "", 1) == []
    assert bucket.looks == 0


async def test_only_keys_below_the_prefix_count():
    bucket = Bucket([*FOLDERS, *(f"other/{n}" for n in range(5000))])
    points = await split_points(bucket.look, "label 1", 8)
    assert points
    assert all(point.startswith("label 1") for point in points)


@given(st.lists(KEYS, min_size=1, max_size=60), st.integers(2, 9), st.integers(1, 7))
async def test_any_keys_can_be_cut(keys, wanted, page):
    bucket = Bucket(keys, page)
    points = await split_points(bucket.look, "", wanted)
    assert points == sorted(set(points))
    assert len(points) < wanted
