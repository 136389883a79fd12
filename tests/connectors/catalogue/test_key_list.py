"""Lists of keys, as people and programs write them."""

import csv
import gzip
import io
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.audio_store import S3AudioStore
from connectors.catalogue import KeyList, S3Listing
from connectors.catalogue.tables import TableFormat, table_rows
from connectors.s3 import S3Uri
from list_api import ListApi, changed, etag
from moderation.errors import ConfigurationError
from moderation.selection import LeftOut
from odd_keys import KEYS, ODD_KEYS

pytestmark = pytest.mark.net


def as_csv(rows):
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def as_parquet(rows):
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def as_json_lines(rows):
    return "".join(json.dumps(row, default=str) + "\n" for row in rows).encode()


WRITERS = {TableFormat.CSV: as_csv, TableFormat.PARQUET: as_parquet, TableFormat.JSON_LINES: as_json_lines}
KINDS = pytest.mark.parametrize("kind", WRITERS)
KEPT = [key for key in ODD_KEYS if key != ".."]
"""Without the one that no HTTP client sends: it takes it for a path."""


def known(key):
    return {"key": key, "etag": f'"{etag(key)}"', "size": len(key), "last_modified": changed(key), "storage_class": "STANDARD"}


async def shown(source):
    pages = [page for piece in (await source.outline()).pieces async for page in source.pages(piece)]
    return [item for page in pages for item in page.items], [found for page in pages for found in page.left_out]


@KINDS
@pytest.mark.parametrize("facts", [lambda key: {"key": key}, known], ids=["asked", "known"])
async def test_a_list_gives_the_identities_of_the_listing(calling, kind, facts):
    api = ListApi({"music": sorted(ODD_KEYS)}, {f"lists/keys.{kind}": WRITERS[kind]([facts(key) for key in KEPT])})
    async with calling(api) as caller, S3AudioStore(caller.client) as store:
        items, left_out = await shown(KeyList(caller, store, f"s3://lists/keys.{kind}", "music"))
        listed, _ = await shown(S3Listing(caller, [S3Uri("music")]))
    identities = {item.key: (item.object_id, item.size_bytes, item.last_modified) for item in listed}
    assert {item.key: (item.object_id, item.size_bytes, item.last_modified) for item in items} == {key: identities[key] for key in KEPT}
    assert [item.key for item in items] == KEPT
    assert left_out == []


@KINDS
@settings(deadline=None)
@given(keys=st.lists(KEYS, min_size=1, max_size=20))
def test_any_key_comes_through_a_list_as_it_is(kind, keys):
    table = io.BytesIO(WRITERS[kind]([{"key": key} for key in keys]))
    assert [row.key for row in table_rows(table, kind, "list")] == keys


async def test_rows_may_name_their_bucket_and_version(calling, tmp_path):
    (tmp_path / "keys.csv").write_text("bucket,key,version_id\nmusic,a.wav,v7\n,b.wav,\n")
    api = ListApi({"music": ["a.wav"], "voices": ["b.wav"]})
    async with calling(api) as caller, S3AudioStore(caller.client) as store:
        items, _ = await shown(KeyList(caller, store, str(tmp_path / "keys.csv"), "voices"))
    assert [(item.bucket, item.key, item.version_id) for item in items] == [("music", "a.wav", "v7"), ("voices", "b.wav", None)]


async def test_objects_bring_their_sidecars_and_what_is_not_there_is_gone(calling, tmp_path):
    (tmp_path / "keys.csv").write_text("key\ncall.pcm\nlost.wav\nplain.wav\n")
    api = ListApi({"music": ["call.pcm", "call.pcm.json", "plain.wav"]})
    async with calling(api) as caller, S3AudioStore(caller.client) as store:
        items, left_out = await shown(KeyList(caller, store, f"file://{tmp_path}/keys.csv", "music"))
    assert [item.key for item in items] == ["call.pcm", "call.pcm.json", "plain.wav"]
    assert left_out == [("lost.wav", LeftOut.GONE)]


async def test_a_missing_bucket_is_no_missing_object(calling, tmp_path):
    (tmp_path / "keys.csv").write_text("key\na.wav\n")
    async with calling(ListApi({})) as caller, S3AudioStore(caller.client) as store:
        source = KeyList(caller, store, str(tmp_path / "keys.csv"), "typo")
        with pytest.raises(ConfigurationError, match="bucket typo does not exist"):
            await shown(source)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
async def test_a_list_goes_on_behind_any_of_its_pages(calling, tmp_path, pack):
    keys = [f"{number:05}.json" for number in range(2300)]
    path = tmp_path / "keys.jsonl.gz"
    path.write_bytes(pack(as_json_lines([known(key) for key in keys])))
    async with calling(ListApi({"music": []})) as caller, S3AudioStore(caller.client) as store:
        source = KeyList(caller, store, str(path), "music")
        (piece,) = (await source.outline()).pieces
        pages = [page async for page in source.pages(piece)]
        assert [len(page.items) for page in pages] == [1000, 1000, 300, 0]
        rest = [item.key async for page in source.pages(piece, pages[0].cursor) for item in page.items]
        assert rest == keys[1000:]
        path.write_bytes(path.read_bytes() + b"\n")
        with pytest.raises(ConfigurationError, match="was changed since its listing began"):
            _ = [page async for page in source.pages(piece, pages[0].cursor)]


async def test_a_compressed_list_that_is_damaged_says_so(calling, tmp_path):
    packed = bytearray(gzip.compress(b"key\n" + os.urandom(5000).hex().encode()))
    packed[100:200] = bytes(100)
    (tmp_path / "keys.csv.gz").write_bytes(packed)
    async with calling(ListApi({})) as caller, S3AudioStore(caller.client) as store:
        with pytest.raises(ConfigurationError, match=r"keys.csv.gz cannot be read at row 1"):
            await shown(KeyList(caller, store, str(tmp_path / "keys.csv.gz"), "music"))


async def test_the_longest_keys_have_no_sidecar_and_nobody_asks_for_one(calling, tmp_path):
    key = "k" * 1020 + ".wav"
    (tmp_path / "keys.csv").write_text(f"key\n{key}\n")
    async with calling(ListApi({"music": [key]})) as caller, S3AudioStore(caller.client) as store:
        found, _ = await shown(KeyList(caller, store, str(tmp_path / "keys.csv"), "music"))
    assert [item.key for item in found] == [key]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("keys.csv", "name\na.wav\n", "row 1: it has no column `key`"),
        ("keys.csv", "", "row 1: it has no column `key`"),
        ("keys.csv", "key,Key\na,b\n", "row 1: two of its columns are the same"),
        ("keys.csv", "key,size\na.wav,1\nb.wav\n", "row 2: it has 1 columns of 2"),
        ("keys.csv", "key,size\na.wav,large\n", "row 1: invalid literal"),
        ("keys.csv", "key,size\na.wav,-1\n", "row 1: '-1' is no size in bytes"),
        ("keys.csv", "key\na.wav\n\n", "row 2: it has 0 columns of 1"),
        ("keys.csv", "key,size\n,1\n", "row 1: it has no key"),
        ("keys.csv", "key,is_latest\na,perhaps\n", "row 1: 'perhaps' is neither true nor false"),
        ("keys.csv", 'key\n"a\n', "row 1: unexpected end of data"),
        ("keys.jsonl", '{"key": "a"}\n["b"]\n', "row 2: it is no JSON object"),
        ("keys.jsonl", '{"key": 7}\n', "row 1: 7 is no text"),
        ("keys.jsonl", '{"key": "a", "size": 1.5}\n', r"row 1: 1\.5 is no size"),
        ("keys.jsonl", "{", "row 1: Expecting property name"),
        ("keys.parquet", "PAR1", "row 1: "),
        ("keys.jsonl", '{"key": "a\\ud800.wav"}\n', "row 1: 'utf-8' codec can't encode"),
        ("keys.jsonl", "[" * 200_000, "row 1: maximum recursion depth"),
        ("keys.csv", "key\na.wav\n", "names no bucket for 'a.wav'"),
        ("keys.txt", "a.wav\n", "is of no known format"),
        ("missing/keys.csv", None, "cannot be read: No such file"),
    ],
)
async def test_a_list_that_cannot_be_read_says_where(calling, tmp_path, name, text, said):
    if text is not None:
        (tmp_path / name).write_text(text)
    async with calling(ListApi({})) as caller, S3AudioStore(caller.client) as store:
        with pytest.raises(ConfigurationError, match=said):
            await shown(KeyList(caller, store, str(tmp_path / name)))
