"""Inventories of S3: the same objects with the same identities as listing, and nothing that is not what the manifest promises."""

from datetime import UTC, datetime
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.catalogue import S3Inventory, S3Listing
from connectors.catalogue.inventory import plain_key
from connectors.catalogue.tables import TableFormat, table_rows
from connectors.s3 import S3Uri
from inventories import FOLDER, SCHEMA, WRITERS, Entry, inventory
from list_api import ListApi
from moderation.errors import ConfigurationError
from moderation.selection import LeftOut
from odd_keys import KEYS, ODD_KEYS

pytestmark = pytest.mark.net

MANIFEST = S3Uri("reports", f"{FOLDER}/manifest.json")
KINDS = pytest.mark.parametrize("kind", WRITERS)
VERSIONS = [
    Entry("a.wav", "v2"),
    Entry("a.wav", "v1", is_latest=False, etag="0" * 32),
    Entry("b.wav", "v4", is_delete_marker=True),
    Entry("b.wav", "v3", is_latest=False),
    Entry("c.wav", "null"),
]


async def shown(source):
    pages = [page for piece in (await source.outline()).pieces async for page in source.pages(piece)]
    return [item for page in pages for item in page.items], [found for page in pages for found in page.left_out]


def without_versions(kind, *parts, **more):
    return ListApi({"reports": [], "music": sorted(ODD_KEYS)}, inventory(kind, *parts, **more))


@KINDS
async def test_an_inventory_shows_the_objects_and_identities_of_the_listing(calling, kind):
    keys = sorted(ODD_KEYS)
    async with calling(without_versions(kind, *([Entry(key) for key in keys[start::3]] for start in range(3)))) as caller:
        items, left_out = await shown(S3Inventory(caller, MANIFEST))
        listed, _ = await shown(S3Listing(caller, [S3Uri("music")]))
    assert sorted(items, key=lambda item: item.key) == listed
    assert {item.object_id for item in items} == {item.object_id for item in listed}
    assert left_out == []


@KINDS
@settings(deadline=None)
@given(keys=st.lists(KEYS, min_size=1, max_size=20, unique=True))
def test_any_key_comes_through_a_part_as_it_is(kind, keys):
    part = BytesIO(WRITERS[kind]([Entry(key) for key in keys]))
    header = [name.strip() for name in SCHEMA.split(",")] if kind == "CSV" else None
    read = [row.key for row in table_rows(part, TableFormat(kind.lower()), "part", header)]
    assert [plain_key(key, TableFormat(kind.lower())) for key in read] == keys


@KINDS
async def test_of_versions_the_newest_are_taken(calling, kind):
    async with calling(without_versions(kind, VERSIONS)) as caller:
        items, left_out = await shown(S3Inventory(caller, MANIFEST))
    assert [(item.key, item.version_id) for item in items] == [("a.wav", "v2"), ("c.wav", "null")]
    assert left_out == [("a.wav", LeftOut.OLD_VERSION), ("b.wav", LeftOut.DELETE_MARKER), ("b.wav", LeftOut.OLD_VERSION)]


@KINDS
async def test_all_versions_may_be_taken_but_no_delete_markers(calling, kind):
    async with calling(without_versions(kind, VERSIONS)) as caller:
        items, left_out = await shown(S3Inventory(caller, MANIFEST, all_versions=True))
    assert [(item.key, item.version_id) for item in items] == [("a.wav", "v2"), ("a.wav", "v1"), ("b.wav", "v3"), ("c.wav", "null")]
    assert items[0].object_id != items[1].object_id
    assert left_out == [("b.wav", LeftOut.DELETE_MARKER)]


@KINDS
async def test_a_part_goes_on_behind_any_of_its_pages(calling, kind):
    entries = [Entry(f"{number:05}.wav") for number in range(2500)]
    async with calling(without_versions(kind, entries)) as caller:
        source = S3Inventory(caller, MANIFEST)
        (piece,) = (await source.outline()).pieces
        pages = [page async for page in source.pages(piece)]
        assert [len(page.items) for page in pages] == [1000, 1000, 500, 0]
        rest = [item.key async for page in source.pages(piece, pages[1].cursor) for item in page.items]
    assert rest == [entry.key for entry in entries[2000:]]


async def test_the_state_is_that_of_the_inventorys_beginning(calling):
    async with calling(without_versions("CSV", [Entry("a.wav")])) as caller:
        assert (await S3Inventory(caller, MANIFEST).outline()).as_of == datetime(2026, 3, 2, tzinfo=UTC)


def spoilt_part(bodies):
    bodies["reports/inventories/music/daily/data/part-0.csv.gz"] += b" "


def spoilt_manifest(bodies):
    bodies[f"reports/{FOLDER}/manifest.json"] += b" "


def lost_part(bodies):
    del bodies["reports/inventories/music/daily/data/part-0.csv.gz"]


def lost_manifest(bodies):
    del bodies[f"reports/{FOLDER}/manifest.json"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoilt_part, r"part-0\.csv\.gz has MD5 \w+, where the inventory's manifest says \w+"),
        (spoilt_manifest, r"manifest\.json has MD5 \w+, where .+manifest\.checksum says \w+"),
        (lost_part, r"there is no s3://reports/.+part-0\.csv\.gz"),
        (lost_manifest, r"there is no s3://reports/.+manifest\.json"),
    ],
)
async def test_what_is_not_as_promised_is_refused(calling, spoil, said):
    api = without_versions("CSV", [Entry("a.wav")])
    spoil(api.bodies)
    async with calling(api) as caller:
        with pytest.raises(ConfigurationError, match=said):
            await shown(S3Inventory(caller, MANIFEST))


async def test_an_inventory_may_come_without_its_checksum(calling):
    api = without_versions("CSV", [Entry("a.wav")])
    del api.bodies[f"reports/{FOLDER}/manifest.checksum"]
    async with calling(api) as caller:
        items, _ = await shown(S3Inventory(caller, MANIFEST))
    assert [item.key for item in items] == ["a.wav"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": SCHEMA.replace("ETag", "Owner").replace("Size, ", "")}, "it has no ETag, Size: add it to the inventory's fields"),
        ({"schema": SCHEMA.removesuffix(", EncryptionStatus")}, "row 1: it has 10 columns of 9"),
    ],
)
async def test_an_inventory_that_lacks_a_fact_is_refused(calling, changes, said):
    async with calling(without_versions("CSV", [Entry("a.wav")], **changes)) as caller:
        with pytest.raises(ConfigurationError, match=said):
            await shown(S3Inventory(caller, MANIFEST))


@pytest.mark.parametrize(("old", "new"), [(b'"CSV"', b'"ORC"'), (b'"files"', b'"fils"'), (b"1772409600000", b"yesterday"), (b"{", b"[")])
async def test_a_manifest_of_another_kind_is_refused(calling, old, new):
    api = without_versions("CSV", [Entry("a.wav")])
    del api.bodies[f"reports/{FOLDER}/manifest.checksum"]
    place = f"reports/{FOLDER}/manifest.json"
    api.bodies[place] = api.bodies[place].replace(old, new)
    async with calling(api) as caller:
        with pytest.raises(ConfigurationError, match="is no manifest of an S3 inventory"):
            await shown(S3Inventory(caller, MANIFEST))
