"""Prefixes of S3: whole, in order, whatever the keys are, in ranges or not, and from any page on."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.catalogue import S3Listing
from connectors.catalogue.list_pages import list_page, parse_page
from connectors.s3 import S3Uri
from list_api import ListApi, changed, etag
from moderation.catalogue import AudioObject
from moderation.errors import ConfigurationError, UnreachableError
from odd_keys import KEYS, ODD_KEYS

pytestmark = pytest.mark.net

FOLDERS = [f"albums/{number:03}/" for number in range(75)]
"""Folder markers: keys where ranges are cut."""
MANY = sorted(
    ["albums/", "singles/"]
    + FOLDERS
    + [f"{folder}{number:02} prélude.flac" for folder in FOLDERS for number in range(40)]
    + [f"singles/{number}.mp3" for number in range(1200)]
)


async def pages(source, piece, cursor=None):
    return [page async for page in source.pages(piece, cursor)]


async def listed(source):
    return [item for piece in (await source.outline()).pieces for page in await pages(source, piece) for item in page.items]


def objects(keys, bucket="music"):
    return [AudioObject(bucket, key, etag(key), len(key), changed(key), None, "STANDARD") for key in sorted(keys)]


async def test_a_small_prefix_is_one_piece_of_one_page_and_listed_once(calling):
    api = ListApi({"music": ["a/1.wav", "a/2.wav", "ab.wav", "b.wav"]})
    async with calling(api) as caller:
        source = S3Listing(caller, [S3Uri("music", "a")])
        (piece,) = (await source.outline()).pieces
        (page,) = await pages(source, piece)
        assert len(api.requests) == 1
        assert await pages(source, piece) == [page]
        assert len(api.requests) == 2, "and anew for whoever asks again"
    assert page.items == objects(["a/1.wav", "a/2.wav", "ab.wav"])
    assert page.cursor is None


@pytest.mark.parametrize("ranges", [1, 8])
async def test_a_large_prefix_is_listed_whole_and_in_order(calling, ranges):
    async with calling(ListApi({"music": MANY})) as caller:
        source = S3Listing(caller, [S3Uri("music")], ranges)
        outline = await source.outline()
        assert len(outline.pieces) == (1 if ranges == 1 else pytest.approx(8, abs=3))
        assert outline.as_of is None
        assert await listed(source) == objects(MANY)


@pytest.mark.parametrize("ranges", [1, 8])
async def test_a_piece_goes_on_behind_any_of_its_pages(calling, ranges):
    async with calling(ListApi({"music": MANY})) as caller:
        source = S3Listing(caller, [S3Uri("music")], ranges)
        pieces = (await source.outline()).pieces
        whole = [await pages(source, piece) for piece in pieces]
        piece = max(range(len(pieces)), key=lambda number: len(whole[number]))
        assert [page.cursor is None for page in whole[piece]] == [False] * (len(whole[piece]) - 1) + [True]
        for number, page in enumerate(whole[piece][:-1], 1):
            rest = await pages(S3Listing(caller, [S3Uri("music")], ranges), pieces[piece], page.cursor)
            assert [item for more in rest for item in more.items] == [item for more in whole[piece][number:] for item in more.items]


async def test_prefixes_inside_others_are_listed_once(calling):
    async with calling(ListApi({"music": ["a/1", "a/b/2", "c/3"], "voices": ["a/4"]})) as caller:
        source = S3Listing(caller, [S3Uri("voices", "a/"), S3Uri("music", "a/b/"), S3Uri("music", "a/"), S3Uri("music", "a/")])
        assert await listed(source) == [*objects(["a/1", "a/b/2"]), *objects(["a/4"], "voices")]
        assert str(source) == "s3://music/a/, s3://voices/a/"


@pytest.mark.fault(81)
async def test_odd_keys_are_data(calling):
    async with calling(ListApi({"music": sorted(ODD_KEYS)})) as caller:
        assert await listed(S3Listing(caller, [S3Uri("music")])) == objects(ODD_KEYS)


@pytest.mark.fault(81)
@settings(deadline=None)
@given(st.sets(KEYS, min_size=1, max_size=30))
def test_any_keys_are_listed_as_they_are(keys):
    answer = ListApi({"music": sorted(keys)}).answer("music", {"encoding-type": "url"})
    page = parse_page("music", answer.encode())
    assert page is not None
    assert page.items == objects(keys)


def test_a_store_that_does_not_encode_keys_is_taken_at_its_word():
    page = parse_page("music", ListApi({"music": ["a%20b+c<é>"]}).answer("music", {}).encode())
    assert page is not None
    assert [item.key for item in page.items] == ["a%20b+c<é>"]


def test_what_is_no_page_is_left_to_boto3():
    assert parse_page("music", b"<ListBucketsResult><Buckets/></ListBucketsResult>") is None


async def test_the_same_client_still_gives_others_their_dictionaries(calling):
    async with calling(ListApi({"music": ["a b", "c"]})) as caller:
        await listed(S3Listing(caller, [S3Uri("music")]))
        answer = caller.client.list_objects_v2(Bucket="music")
        assert [entry["Key"] for entry in answer["Contents"]] == ["a b", "c"]
        caller.client.meta.events.unregister("before-parse.s3.ListObjectsV2", unique_id="soundcheck-list-page")
        with pytest.raises(UnreachableError, match="no listing"):
            list_page(caller.client, "music")


async def test_a_store_that_lists_in_another_order_is_refused_in_ranges_and_taken_whole(calling):
    class Shuffled(ListApi):
        def answer(self, bucket, query):
            text = super().answer(bucket, query)
            head, *entries = text.split("<Contents>")
            if len(entries) < 2:
                return text
            last, tail = entries[-1].split("</ListBucketResult>")
            return "<Contents>".join([head, last, *entries[:-1]]) + "</ListBucketResult>" + tail

    async with calling(Shuffled({"music": MANY})) as caller:
        with pytest.raises(ConfigurationError, match="bucket music is not listed in the order of its keys' UTF-8: list it in one range"):
            await listed(S3Listing(caller, [S3Uri("music")], 8))
        whole = await listed(S3Listing(caller, [S3Uri("music")], 1))
    assert sorted(whole, key=lambda item: item.key) == objects(MANY)


@pytest.mark.fault(2)
async def test_a_listing_that_breaks_off_says_so(calling):
    api = ListApi({"music": MANY}, breaks={3})
    async with calling(api) as caller:
        source = S3Listing(caller, [S3Uri("music")], 1)
        (piece,) = (await source.outline()).pieces
        with pytest.raises(UnreachableError, match="listing s3://music/ failed"):
            await pages(source, piece)


@pytest.mark.fault(1)
async def test_a_throttled_listing_is_asked_for_again_by_botocore_and_says_what_s3_wants_when_that_does_not_help(calling):
    api = ListApi({"music": MANY}, slow={2, 3})
    async with calling(api, attempts=5) as caller:
        assert await listed(S3Listing(caller, [S3Uri("music")], 1)) == objects(MANY)
    async with calling(ListApi({"music": MANY}, slow={2}), attempts=1) as caller:
        with pytest.raises(
            UnreachableError, match=r"listing s3://music/ failed: S3 is failing or wants fewer requests \(HTTP 503 SlowDown"
        ):
            await listed(S3Listing(caller, [S3Uri("music")], 1))


@pytest.mark.fault(3)
async def test_what_comes_and_goes_between_pages_is_listed_at_most_once_and_what_stays_always(calling):
    """What was added behind the last page is seen, what was added before it by the next listing; what went is only listed by then."""
    keys = [f"{number:05}" for number in range(0, 6000, 2)]
    api = ListApi({"music": keys})
    async with calling(api) as caller:
        source = S3Listing(caller, [S3Uri("music")], 1)
        [piece] = (await source.outline()).pieces
        found = []
        async for page in source.pages(piece):
            found += [item.key for item in page.items]
            if len(found) == len(page.items):
                api.buckets["music"] = sorted({*keys, "00001", "05999"} - {"00000", "05000"})
    assert found == sorted({*keys, "05999"} - {"05000"})
    async with calling(api) as caller:
        assert await listed(S3Listing(caller, [S3Uri("music")], 1)) == objects(api.buckets["music"])
