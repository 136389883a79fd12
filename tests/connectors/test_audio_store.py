"""Audio objects as they were listed: against a real S3 server, and against one that breaks bodies off."""

import asyncio
import gc
import threading
from collections.abc import Iterator
from contextlib import aclosing, nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from connectors.audio_store import READ_BYTES, RESUMES, S3AudioStore
from connectors.catalogue import S3Listing
from connectors.local_s3 import LocalS3
from connectors.s3 import S3Caller, S3Settings, S3Uri, s3_client
from moderation.catalogue import AudioObject
from moderation.errors import ConfigurationError, SourceChanged, SourceCorrupt, SourceError, SourceGone, UnreachableError

pytestmark = pytest.mark.net

BUCKET = "catalogue"
QUICK = {"max_attempts": 1, "connect_timeout": 2.0, "read_timeout": 5.0}


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Iterator[pytest.MonkeyPatch]:
    """No test sees the credentials or settings of whoever runs it."""
    empty = tmp_path_factory.mktemp("aws") / "nothing"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.setenv(name, str(empty))
        patch.setenv("AWS_ACCESS_KEY_ID", "soundcheck-test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret")
        yield patch


@pytest.fixture(scope="module")
def client(environment):
    with LocalS3() as server:
        client = s3_client(S3Settings(endpoint_url=server.endpoint_url, region="us-east-1", **QUICK))
        client.create_bucket(Bucket=BUCKET)
        yield client
        client.close()


@pytest.fixture
async def store(client):
    async with S3AudioStore(client, threads=4) as store:
        yield store


def put(client, key: str, body: bytes = b"0123456789", **extra) -> AudioObject:
    """The object as a listing or an inventory gives it."""
    answer = client.put_object(Bucket=BUCKET, Key=key, Body=body, **extra)
    return AudioObject(BUCKET, key, answer["ETag"].strip('"'), len(body), datetime.now(UTC), answer.get("VersionId"))


async def whole(store: S3AudioStore, item: AudioObject) -> bytes:
    return b"".join([piece async for piece in store.stream(item)])


# -- finding and listing ----------------------------------------------------------------------------------------------------------------


async def listed(client, prefix):
    async with S3Caller(client, threads=2) as caller:
        source = S3Listing(caller, [S3Uri(BUCKET, prefix)])
        return [item for piece in (await source.outline()).pieces async for page in source.pages(piece) for item in page.items]


async def test_an_object_is_found_as_it_is_listed(store, client):
    put(client, "list/b ü+.wav", b"12345", StorageClass="GLACIER")
    put(client, "list/a.wav", b"123")
    put(client, "lists.wav")
    first, second = await listed(client, "list/")
    assert (first.bucket, first.key, first.size_bytes, first.version_id) == (BUCKET, "list/a.wav", 3, None)
    assert (second.key, second.size_bytes, second.storage_class) == ("list/b ü+.wav", 5, "GLACIER")
    assert first.etag == "202cb962ac59075b964b07152d234b70"  # the MD5 of 123, without quotes
    for item in (first, second):
        found = await store.find(BUCKET, item.key)
        assert (found.object_id, found.size_bytes, found.version_id) == (item.object_id, item.size_bytes, None)
        assert abs(found.last_modified - item.last_modified) < timedelta(seconds=1)  # HEAD knows whole seconds


async def test_an_object_that_is_not_there_is_not_found(store):
    with pytest.raises(SourceGone, match=r"looking for s3://catalogue/nothing\.wav failed"):
        await store.find(BUCKET, "nothing.wav")


async def test_a_version_is_found_and_remembered(store, client):
    client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    try:
        item = put(client, "found.wav", b"old")
        put(client, "found.wav", b"new one")
        found = await store.find(BUCKET, "found.wav", item.version_id)
    finally:
        client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"})
    assert (found.object_id, found.version_id, found.size_bytes) == (item.object_id, item.version_id, 3)


async def test_a_bucket_that_is_missing(store, client):
    with pytest.raises(ConfigurationError, match="looking for s3://no-such-bucket/x failed: bucket no-such-bucket does not exist"):
        await store.find("no-such-bucket", "x")
    async with S3Caller(client, threads=2) as caller:
        with pytest.raises(ConfigurationError, match="listing s3://no-such-bucket/x failed: bucket no-such-bucket does not exist"):
            await S3Listing(caller, [S3Uri("no-such-bucket", "x")]).outline()


# -- looking ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "offset", "head"),
    [(4, 0, b"0123"), (10, 0, b"0123456789"), (99, 0, b"0123456789"), (4, 8, b"89"), (4, 9, b"9"), (4, 10, b""), (4, 99, b"")],
)
async def test_the_head_of_an_object(store, client, size, offset, head):
    assert await store.head(put(client, "head.wav"), size, offset) == head


async def test_the_head_of_an_empty_object(store, client):
    assert await store.head(put(client, "empty.wav", b""), 16) == b""


async def test_metadata(store, client):
    item = put(client, "meta.pcm", Metadata={"Audio-Format": "s16le", "Sample-Rate": "8000"})
    assert await store.metadata(item) == {"audio-format": "s16le", "sample-rate": "8000"}
    assert await store.metadata(put(client, "plain.pcm")) == {}


# -- reading as listed ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, READ_BYTES - 1, READ_BYTES, READ_BYTES + 1, 3 * READ_BYTES + 7])
async def test_a_whole_object(store, client, size):
    body = bytes(range(256)) * (size // 256 + 1)
    assert await whole(store, put(client, "whole.wav", body[:size])) == body[:size]


async def test_many_at_once(store, client):
    items = [put(client, f"many/{number}.wav", bytes([number]) * 300_000) for number in range(20)]
    bodies = await asyncio.gather(*(whole(store, item) for item in items))
    assert bodies == [bytes([number]) * 300_000 for number in range(20)]


READINGS = {
    "stream": whole,
    "head": lambda store, item: store.head(item, 4),
    "metadata": lambda store, item: store.metadata(item),
}


@pytest.mark.fault(4)
@pytest.mark.parametrize("reading", READINGS)
async def test_an_object_that_was_overwritten(store, client, reading):
    item = put(client, "changed.wav")
    put(client, "changed.wav", b"something else")
    with pytest.raises(SourceChanged, match="was overwritten since it was listed"):
        await READINGS[reading](store, item)


@pytest.mark.fault(5)
@pytest.mark.parametrize("reading", READINGS)
async def test_an_object_that_was_deleted(store, client, reading):
    item = put(client, "gone.wav")
    client.delete_object(Bucket=BUCKET, Key="gone.wav")
    with pytest.raises(SourceGone, match=r"reading s3://catalogue/gone\.wav failed"):
        await READINGS[reading](store, item)


@pytest.mark.parametrize(
    ("reading", "found"), [("stream", b"0123456789"), ("head", b"0123"), ("metadata", {"audio-format": "s16le"})], ids=READINGS
)
async def test_a_version_that_an_inventory_names(store, client, reading, found):
    client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    try:
        item = put(client, f"{reading}.wav", Metadata={"audio-format": "s16le"})
        put(client, f"{reading}.wav", b"something else", Metadata={"audio-format": "u8"})
        assert item.version_id
        assert await READINGS[reading](store, item) == found
    finally:
        client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"})


async def given(body: bytes):
    for at in range(0, len(body), 4):
        yield body[at : at + 4]


@pytest.mark.fault(8)
@pytest.mark.parametrize(
    ("shown", "encrypted", "is_corrupt"),
    [(True, {}, True), (False, {}, False), (True, {"ServerSideEncryption": "aws:kms"}, False)],
    ids=["in a bucket with MD5 for etags", "where nothing shows that", "of an object that is encrypted otherwise"],
)
async def test_bytes_that_are_not_those_that_were_put_there(client, shown, encrypted, is_corrupt):
    good, bad = put(client, "good.wav", b"0123456789"), put(client, "bad.wav", b"9876543210", **encrypted)
    async with S3AudioStore(client, checks=True) as store:
        if shown:
            assert b"".join([piece async for piece in store.checked(good, store.stream(good))]) == b"0123456789"
        with pytest.raises(SourceCorrupt, match="not those that were put there") if is_corrupt else nullcontext():
            assert b"".join([piece async for piece in store.checked(bad, given(b"98765x3210"))]) == b"98765x3210"


async def test_where_tls_guards_them_or_an_etag_is_no_md5_bytes_are_taken_as_they_come(client):
    item, pieces = put(client, "a.wav"), given(b"")
    async with S3AudioStore(client) as unchecked, S3AudioStore(client, checks=True) as checking:
        assert unchecked.checked(item, pieces) is pieces, "loopback has no wire"
        assert checking.checked(replace(item, etag=f"{item.etag}-2"), pieces) is pieces
    await pieces.aclose()


# -- bodies that break off --------------------------------------------------------------------------------------------------------------

ETAG = "0123456789abcdef0123456789abcdef"
BODY = bytes(range(256)) * 4000


class Breaking(ThreadingHTTPServer):
    """An S3 of one object whose answers end early: after `gives` bytes each, at their promised length where there are no more of these."""

    daemon_threads = True

    def __init__(self, gives: list[int]) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.gives = gives
        self.hang, self.hanging, self.go_on = False, threading.Event(), threading.Event()
        self.requests: list[tuple[str | None, str | None]] = []

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self.shutdown()
        self.server_close()

    def client(self, **settings):
        return s3_client(
            S3Settings(**{"endpoint_url": f"http://127.0.0.1:{self.server_address[1]}", "region": "us-east-1"} | QUICK | settings)
        )


class Answer(BaseHTTPRequestHandler):
    server: Breaking

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.requests.append((asked, self.headers.get("If-Match")))
        rest = BODY[int(asked.removeprefix("bytes=").rstrip("-")) :]
        self.send_response(206)
        self.send_header("Content-Length", str(len(rest)))
        self.send_header("ETag", f'"{ETAG}"')
        self.end_headers()
        self.wfile.write(rest[: self.server.gives.pop(0)] if self.server.gives else rest)
        if self.server.hang:
            self.server.hanging.set()
            self.server.go_on.wait(20)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


ITEM = AudioObject(BUCKET, "broken.wav", ETAG, len(BODY), datetime.now(UTC))


@pytest.mark.fault(7)
async def test_a_broken_body_is_taken_up_where_it_broke(environment):
    with Breaking([300_000, 0, 5]) as server:
        async with S3AudioStore(server.client(), threads=2) as store:
            assert await whole(store, ITEM) == BODY
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for asked, _ in server.requests]
    assert starts[0] == 0
    assert starts == sorted(starts)
    assert len(starts) == 1 + RESUMES
    assert {match for _, match in server.requests} == {f'"{ETAG}"'}


@pytest.mark.fault(7)
async def test_a_body_that_breaks_too_often(environment):
    with Breaking([1000] * 9) as server:
        async with S3AudioStore(server.client(), threads=2) as store:
            with pytest.raises(SourceError, match=rf"broke off {RESUMES + 1} times, at last after \d+ of {len(BODY)} bytes"):
                await whole(store, ITEM)
    assert len(server.requests) == 1 + RESUMES


async def test_a_store_that_is_gone(environment):
    with Breaking([]) as server:
        client = server.client()
    async with S3AudioStore(client, threads=2) as store:
        with pytest.raises(UnreachableError, match=r"reading s3://catalogue/broken\.wav failed"):
            await whole(store, ITEM)


async def test_a_reader_that_is_cancelled_does_not_wait_for_a_read_that_hangs(environment):
    with Breaking([300_000]) as server:
        server.hang = True
        async with S3AudioStore(server.client(read_timeout=60.0), threads=2) as store:
            reader = asyncio.create_task(whole(store, ITEM))
            assert await asyncio.to_thread(server.hanging.wait, 20)
            await asyncio.sleep(0.05)
            reader.cancel()
            ended, _ = await asyncio.wait([reader], timeout=10)
            server.go_on.set()
            assert ended


async def test_a_reader_that_stops_early(environment):
    with Breaking([]) as server:
        async with S3AudioStore(server.client(), threads=2) as store, aclosing(store.stream(ITEM)) as pieces:
            async for piece in pieces:
                assert BODY.startswith(piece)
                break
    gc.collect()


async def test_its_threads_end_with_it(client):
    async with S3AudioStore(client, threads=3) as store:
        item = put(client, "threads.wav")
        await asyncio.gather(*(whole(store, item) for _ in range(9)))
        assert [thread for thread in threading.enumerate() if thread.name.startswith("s3_")]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("s3_")]
