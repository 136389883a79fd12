import errno
import os
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from connectors.lake.store import FolderStore, S3Store, open_store
from connectors.s3 import S3Uri
from moderation.errors import ConfigurationError, ResultsNotWritable, UnreachableError

NAME = "runs/scan_date=2026-03-01/r1-start.parquet"


def test_gives_back_what_was_put(store):
    assert store.get(NAME) is None
    assert not store.exists(NAME)
    store.put(NAME, b"one")
    store.put(NAME, b"two")
    assert store.get(NAME) == b"two"
    assert store.exists(NAME)


def test_lists_a_folder_sorted(store):
    names = ["runs/scan_date=2026-03-02/b.parquet", "runs/scan_date=2026-03-01/c.parquet", "runs/scan_date=2026-03-01/a.parquet"]
    for name in [*names, "runs_other/x.parquet"]:
        store.put(name, b"")
    assert list(store.list("runs/")) == sorted(names)
    assert list(store.list("nothing/")) == []


def test_deletes_and_does_not_mind_what_is_gone(store):
    store.put(NAME, b"one")
    store.delete(NAME)
    store.delete(NAME)
    assert not store.exists(NAME)
    assert list(store.list("runs/")) == []


def test_a_file_filled_bit_by_bit_appears_at_the_end(store):
    with store.writing(NAME) as file:
        file.write(b"one")
        file.write(b"two")
        assert not store.exists(NAME)
        assert list(store.list("runs/")) == []
    assert store.get(NAME) == b"onetwo"


def test_a_file_whose_filling_fails_never_appears(store):
    def filling_that_fails():
        with store.writing(NAME) as file:
            file.write(b"one")
            raise ConnectionResetError(errno.ECONNRESET, "the source broke")

    with pytest.raises(ConnectionResetError):
        filling_that_fails()
    assert list(store.list("")) == []


def test_reads_here_and_there_in_a_file(store):
    store.put(NAME, b"0123456789")
    with store.reading(NAME) as file:
        assert (file.read(2), file.seek(7), file.read(), file.seek(0, 2)) == (b"01", 7, b"789", 10)
    with store.reading("runs/none.parquet") as file:
        assert file is None


def test_an_error_of_whoever_reads_is_its_own(store):
    def reading_that_fails():
        with store.reading(NAME):
            raise ConnectionResetError(errno.ECONNRESET, "what it is for broke")

    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            reading_that_fails()
        store.put(NAME, b"one")


def test_leftovers_are_temporary_files_that_nobody_writes_any_more(lake):
    lake.put(NAME, b"one")
    for name, age_s in (("old", 100), ("new", 10)):
        path = lake.root / "runs" / f".{name}.tmp"
        path.write_bytes(b"half")
        os.utime(path, (1_000_000 - age_s,) * 2)
    assert list(lake.leftovers(datetime.fromtimestamp(1_000_000 - 50, UTC))) == ["runs/.old.tmp"]


@pytest.mark.parametrize("name", ["../x", "a//b", "/etc/passwd", "a/.hidden", "", "ä", "a/../../b"])
def test_takes_no_name_that_leads_elsewhere(store, name):
    with pytest.raises(ValueError, match="no name for a result"):
        store.put(name, b"")


def test_the_canary_leaves_nothing(store):
    store.check_writable()
    assert list(store.list("")) == []


def test_everything_lies_below_v1(tmp_path, s3):
    open_store(str(tmp_path / "a b")).put(NAME, b"x")
    assert (tmp_path / "a b" / "v1" / NAME).read_bytes() == b"x"
    for url, key in (("s3://results-bucket", f"v1/{NAME}"), ("s3://results-bucket/p/q/", f"p/q/v1/{NAME}")):
        open_store(url, s3).put(NAME, url.encode())
        assert s3.get_object(Bucket="results-bucket", Key=key)["Body"].read() == url.encode()


def test_without_a_client_s3_is_found_by_the_environment(s3):
    open_store("s3://results-bucket/found").put(NAME, b"x")
    assert open_store("s3://results-bucket/found", s3).get(NAME) == b"x"


@pytest.mark.parametrize("url", ["gs://bucket/x", "s3://"])
def test_another_address_is_refused(url):
    with pytest.raises(ConfigurationError):
        open_store(url)


def test_a_listing_is_complete_beyond_one_page(own_s3):
    store = S3Store(S3Uri("results-bucket"), own_s3)
    own_s3.meta.events.register("provide-client-params.s3.ListObjectsV2", lambda params, **kwargs: {**params, "MaxKeys": 3})
    names = [f"runs/scan_date=2026-03-01/{number:04d}.parquet" for number in range(10)]
    for name in names:
        store.put(name, b"")
    assert list(store.list("runs/")) == names


def test_a_file_in_place_of_the_folder_is_not_writable(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ResultsNotWritable, match=r"^Cannot write to .*file/v1: ") as caught:
        FolderStore(tmp_path / "file").check_writable()
    assert "\n" not in str(caught.value)


def test_a_results_path_below_a_file_reads_as_empty(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    store = FolderStore(tmp_path / "file")
    assert store.get(NAME) is None
    assert list(store.list("runs/")) == []


def test_a_folder_in_place_of_a_file_cannot_be_read(tmp_path):
    (tmp_path / "v1" / NAME).mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="Cannot read"):
        FolderStore(tmp_path).get(NAME)


@pytest.mark.fault(66)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_what_the_disk_says_is_told_with_the_folder(tmp_path, monkeypatch, code):
    def full(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    (tmp_path / "v1").mkdir()
    with pytest.raises(ResultsNotWritable, match=os.strerror(code)) as caught:
        FolderStore(tmp_path).put("canary", b"x")
    assert str(tmp_path) in str(caught.value)
    assert list((tmp_path / "v1").iterdir()) == []


def test_a_missing_bucket_is_not_writable(s3):
    with pytest.raises(ResultsNotWritable, match="does not exist"):
        open_store("s3://no-such-bucket/x", s3).check_writable()


@pytest.mark.fault(72)
@pytest.mark.parametrize(("operation", "action"), [("PutObject", "s3:PutObject"), ("DeleteObject", "s3:DeleteObject")])
def test_a_missing_permission_is_named(own_s3, operation, action):
    _refuse(own_s3, operation, "AccessDenied", 403)
    with pytest.raises(ResultsNotWritable, match=action):
        open_store("s3://results-bucket/x", own_s3).check_writable()


def test_a_missing_permission_to_read_is_not_an_absent_file(own_s3):
    store = open_store("s3://results-bucket/x", own_s3)
    _refuse(own_s3, "GetObject", "AccessDenied", 403)
    _refuse(own_s3, "HeadObject", "403", 403)
    with pytest.raises(ConfigurationError):
        store.get(NAME)
    with pytest.raises(ConfigurationError):
        store.exists(NAME)


def test_an_s3_that_is_down_is_unreachable(own_s3):
    _refuse(own_s3, "PutObject", "ServiceUnavailable", 503)
    with pytest.raises(UnreachableError):
        open_store("s3://results-bucket/x", own_s3).check_writable()


def test_a_store_that_forgets_is_not_writable(own_s3):
    store = open_store("s3://results-bucket/x", own_s3)
    store.get = lambda name: None
    with pytest.raises(ResultsNotWritable, match="does not give back"):
        store.check_writable()


def _refuse(client, operation: str, code: str, status: int) -> None:
    """Answer an operation with an error, as S3 would, without asking it."""
    answer = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {}}}
    client.meta.events.register(f"before-call.s3.{operation}", lambda **kwargs: (SimpleNamespace(status_code=status), answer))
