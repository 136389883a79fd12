"""A folder of this machine: its files as objects, found, listed and read, and nothing outside it."""

import os
import socket
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.audio_store import READ_BYTES, FolderAudioStore
from connectors.catalogue import FolderListing
from connectors.files import key_of, name_of
from moderation.errors import AccessDeniedError, ConfigurationError, SourceChanged, SourceGone
from moderation.selection import LeftOut

PLAIN = {"b.wav": b"bb", "a/z.wav": b"z", "a.wav": b"", "a/b/c.flac": b"ccc", ".hidden/x": b"1", "a b+ü%20.wav": b"2"}
NAMES = st.lists(
    st.binary(min_size=1, max_size=12).filter(lambda name: not set(name) & set(b"/\0") and name not in {b".", b".."}),
    min_size=1,
    max_size=3,
).map(b"/".join)


@pytest.fixture
def folder(tmp_path) -> Path:
    root = tmp_path / "catalogue"
    for key, body in PLAIN.items():
        write(root / key, body)
    return root


def write(path, body):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)


async def shown(folder, cursor=None):
    source = FolderListing(folder)
    pages = [page for piece in (await source.outline()).pieces async for page in source.pages(piece, cursor)]
    assert pages[-1].cursor is None
    return [item for page in pages for item in page.items], [found for page in pages for found in page.left_out]


async def listed(folder):
    return (await shown(folder))[0]


async def whole(store, item):
    return b"".join([piece async for piece in store.stream(item)])


async def test_files_are_listed_in_the_order_of_their_keys(folder):
    items, left_out = await shown(folder)
    assert [(item.key, item.size_bytes) for item in items] == sorted((key, len(body)) for key, body in PLAIN.items())
    assert {item.bucket for item in items} == {str(folder.resolve())}
    assert {(item.version_id, item.storage_class) for item in items} == {(None, None)}
    assert left_out == []


async def test_a_listing_goes_on_behind_any_key(folder):
    keys = [item.key for item in await listed(folder)]
    for number, key in enumerate(keys):
        assert [item.key for item in (await shown(folder, key))[0]] == keys[number + 1 :]


async def test_pages_are_bounded(tmp_path):
    for number in range(1003):
        (tmp_path / f"{number:04}").touch()
    source = FolderListing(tmp_path)
    (piece,) = (await source.outline()).pieces
    assert [len(page.items) async for page in source.pages(piece)] == [1000, 3, 0]


async def test_a_folder_that_is_missing_or_a_file_is_refused(folder):
    for path in (folder / "nothing", folder / "b.wav"):
        with pytest.raises(ConfigurationError, match="there is no folder"):
            await shown(path)


async def test_links_out_of_the_folder_and_to_folders_are_left_out(folder, tmp_path):
    (tmp_path / "secret.wav").write_bytes(b"secret")
    (tmp_path / "catalogue-too").mkdir()
    (tmp_path / "catalogue-too" / "near.wav").write_bytes(b"near")
    (folder / "inside.wav").symlink_to("b.wav")
    (folder / "outside.wav").symlink_to(tmp_path / "secret.wav")
    (folder / "near.wav").symlink_to("../catalogue-too/near.wav")
    (folder / "nowhere.wav").symlink_to("nothing")
    (folder / "round").symlink_to(".")
    items, left_out = await shown(folder)
    assert [item.key for item in items] == sorted([*PLAIN, "inside.wav"])
    assert left_out == [(key, LeftOut.LINK) for key in ("near.wav", "nowhere.wav", "outside.wav", "round")]
    store = FolderAudioStore(folder)
    assert await whole(store, next(item for item in items if item.key == "inside.wav")) == b"bb"
    for key in ("outside.wav", "near.wav", "nowhere.wav"):
        with pytest.raises(SourceGone):
            await store.find(str(folder), key)


async def test_pipes_and_sockets_are_no_files_and_nobody_waits_for_them(folder, monkeypatch):
    os.mkfifo(folder / "pipe.wav")
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket.wav")
        _, left_out = await shown(folder)
    assert left_out == [("pipe.wav", LeftOut.NO_FILE), ("socket.wav", LeftOut.NO_FILE)]
    with pytest.raises(SourceGone, match="is no file"):
        await FolderAudioStore(folder).find(str(folder), "pipe.wav")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_a_folder_that_may_not_be_read_stops_the_listing(folder):
    (folder / "a").chmod(0)
    try:
        with pytest.raises(AccessDeniedError, match="may not be read"):
            await shown(folder)
    finally:
        (folder / "a").chmod(0o700)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(name=NAMES)
async def test_every_name_has_a_key_under_which_it_is_found(tmp_path_factory, name):
    root = tmp_path_factory.mktemp("names")
    write(root / os.fsdecode(name), b"audio")
    (item,) = await listed(root)
    item.key.encode()
    assert name_of(item.key) == name
    store = FolderAudioStore(root)
    assert await store.find(item.bucket, item.key) == item
    assert await whole(store, item) == b"audio"


@given(st.binary(), st.binary())
def test_names_and_keys_are_one_to_one(name, other):
    assert name_of(key_of(name)) == name
    assert (key_of(name) == key_of(other)) == (name == other)


@pytest.mark.parametrize("name", [b"\xff\xfe.wav", "\U0010ff41".encode(), b"\xf4\x8f\xbd\x81\xff"])
def test_names_that_are_no_text_have_keys_that_are(name):
    assert key_of(name).encode()
    assert name_of(key_of(name)) == name


@pytest.mark.parametrize(
    "key", ["../secret.wav", "a/../b.wav", "/b.wav", "a//z.wav", "./b.wav", "", "a/", "b.wav/x", "b\0", "a", "\U0010ff62.wav", "no.wav"]
)
async def test_a_key_that_no_listing_shows_leads_nowhere(folder, tmp_path, key):
    (tmp_path / "secret.wav").write_bytes(b"secret")
    with pytest.raises(SourceGone):
        await FolderAudioStore(folder).find(str(folder.resolve()), key)


async def test_other_folders_and_versions_are_not_here(folder, tmp_path):
    store = FolderAudioStore(folder)
    with pytest.raises(SourceGone, match="is not the folder"):
        await store.find(str(tmp_path), "catalogue/b.wav")
    with pytest.raises(SourceGone, match="files have none"):
        await store.find(str(folder.resolve()), "b.wav", "v1")


async def test_parts_of_a_file(folder):
    store = FolderAudioStore(folder)
    item = await store.find(str(folder.resolve()), "a/b/c.flac")
    assert [await store.head(item, 2), await store.head(item, 9, 2), await store.head(item, 2, 9)] == [b"cc", b"c", b""]
    assert await store.metadata(item) == {}


@pytest.mark.parametrize("size", [0, 1, READ_BYTES, 2 * READ_BYTES + 5])
async def test_a_whole_file(folder, size):
    (folder / "b.wav").write_bytes(os.urandom(size))
    store = FolderAudioStore(folder)
    assert await whole(store, await store.find(str(folder.resolve()), "b.wav")) == (folder / "b.wav").read_bytes()


def rewrite(path):
    path.write_bytes(b"xx")


def move_over(path):
    other = path.with_name("other")
    other.write_bytes(b"xx")
    other.rename(path)


@pytest.mark.parametrize("change", [rewrite, move_over])
async def test_a_file_that_is_changed_is_another_object(folder, change):
    before = next(item for item in await listed(folder) if item.key == "b.wav")
    os.utime(folder / "b.wav", ns=(0, 0))
    item = next(item for item in await listed(folder) if item.key == "b.wav")
    assert (item.object_id != before.object_id, item.object_key_id) == (True, before.object_key_id)
    change(folder / "b.wav")
    store = FolderAudioStore(folder)
    with pytest.raises(SourceChanged, match="was changed since it was listed"):
        await whole(store, item)
    with pytest.raises(SourceChanged):
        await store.head(item, 1)


async def test_a_file_that_is_changed_while_it_is_read_ends_the_reading(folder):
    (folder / "b.wav").write_bytes(bytes(3 * READ_BYTES))
    store = FolderAudioStore(folder)
    item = await store.find(str(folder.resolve()), "b.wav")
    pieces = store.stream(item)
    assert await anext(pieces) == bytes(READ_BYTES)
    os.truncate(folder / "b.wav", READ_BYTES)
    with pytest.raises(SourceChanged):
        await anext(pieces)


async def test_a_file_that_is_restored_with_its_time_is_the_same_object(folder):
    (before,) = [item for item in await listed(folder) if item.key == "b.wav"]
    facts = (folder / "b.wav").stat()
    (folder / "b.wav").unlink()
    (folder / "b.wav").write_bytes(PLAIN["b.wav"])
    os.utime(folder / "b.wav", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert before in await listed(folder)


async def test_a_file_that_is_deleted_is_gone(folder):
    item = (await listed(folder))[-1]
    (folder / item.key).unlink()
    with pytest.raises(SourceGone):
        await whole(FolderAudioStore(folder), item)
