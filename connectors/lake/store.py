"""Where results lie: a folder or a bucket, behind a few verbs. A name is there whole or not at all."""

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from connectors.durable import TEMPORARY_PREFIX, replacing, sync_folder, writing_to
from connectors.s3 import S3_ERRORS, S3Settings, S3Uri, explain
from connectors.s3 import s3_client as new_s3_client
from moderation.errors import ConfigurationError, ResultsNotWritable, SourceGone, UnreachableError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LAYOUT = "v1"
"""The first part of every name's place: another layout of the lake would get another one."""


class ResultStore(Protocol):
    """A flat store of named bytes under `<results>/v1/`; names are relative to it and made of run ids and packages alone.

    url is the address that a person gave. Writing raises ResultsNotWritable; S3 that does not answer, UnreachableError; what
    cannot be read, ConfigurationError.
    """

    url: str

    def put(self, name: str, data: bytes) -> None:
        """Write a whole file, in place of an earlier one."""

    def writing(self, name: str) -> AbstractContextManager[BinaryIO]:
        """A file to fill bit by bit; it appears under its name when the block ends well, and never when it does not."""

    def get(self, name: str) -> bytes | None:
        """The bytes of a file, None where there is none."""

    def reading(self, name: str) -> AbstractContextManager[BinaryIO | None]:
        """A file to read here and there without holding it whole, None where there is none."""

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""

    def size(self, name: str) -> int:
        """How many bytes a file has, 0 where there is none."""

    def address(self, name: str) -> str:
        """Where a file is, for whoever reads it without the store: a path, or s3://bucket/key."""

    def list(self, prefix: str) -> Iterator[str]:
        """The names under a folder (`music_frames/`), sorted; unfinished files are passed over."""

    def leftovers(self, before: datetime) -> Iterator[str]:
        """The names of unfinished files that nobody has written to since then: a write broke off."""

    def delete(self, name: str) -> None:
        """Remove a file; one that is not there is fine."""

    def check_writable(self) -> None:
        """Write, read and delete a canary. Raises ResultsNotWritable with one sentence on what is missing."""

    def free_bytes(self) -> int | None:
        """How much more it takes; None where nobody can tell."""


class FolderStore:
    """Results in a folder of a local or mounted file system; every change is durable when the call returns."""

    def __init__(self, folder: Path) -> None:
        self.url = str(folder)
        self.root = folder / LAYOUT

    def put(self, name: str, data: bytes) -> None:
        """Write a whole file durably."""
        with self.writing(name) as file:
            file.write(data)

    def writing(self, name: str) -> AbstractContextManager[BinaryIO]:
        """A temporary file beside the final one, renamed at the end."""
        return replacing(self._path(name))

    def get(self, name: str) -> bytes | None:
        """The bytes of a file, None where there is none."""
        try:
            return self._path(name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ConfigurationError(f"Cannot read {self._path(name)}: {error.strerror}.") from error

    @contextmanager
    def reading(self, name: str) -> Iterator[BinaryIO | None]:
        """The file itself."""
        path = self._path(name)
        try:
            file = path.open("rb")
        except (FileNotFoundError, NotADirectoryError):
            yield None
            return
        except OSError as error:
            raise ConfigurationError(f"Cannot read {path}: {error.strerror}.") from error
        with file:
            yield file

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return self._path(name).is_file()

    def size(self, name: str) -> int:
        """The size of a file."""
        path = self._path(name)
        return path.stat().st_size if path.is_file() else 0

    def address(self, name: str) -> str:
        """The path of a file."""
        return str(self._path(name))

    def list(self, prefix: str) -> Iterator[str]:
        """The names under a folder, sorted."""
        for path in sorted((self.root / prefix).rglob("*")):
            if path.is_file() and not path.name.startswith(TEMPORARY_PREFIX):
                yield path.relative_to(self.root).as_posix()

    def leftovers(self, before: datetime) -> Iterator[str]:
        """The temporary files that nobody has written to since then."""
        for path in sorted(self.root.rglob(f"{TEMPORARY_PREFIX}*")):
            try:
                if path.is_file() and path.stat().st_mtime < before.timestamp():
                    yield path.relative_to(self.root).as_posix()
            except FileNotFoundError:  # it got its name, or was taken away, just now
                continue

    def delete(self, name: str) -> None:
        """Remove a file durably; its folder stays."""
        path = self._path(name)
        with writing_to(path.parent):
            if path.exists():
                path.unlink(missing_ok=True)
                sync_folder(path.parent)

    def check_writable(self) -> None:
        """Write, read and delete a canary."""
        _send_canary(self)

    def free_bytes(self) -> int | None:
        """What is free on its disk."""
        there = next(folder for folder in (self.root, *self.root.parents) if folder.is_dir())
        return shutil.disk_usage(there).free

    def _path(self, name: str) -> Path:
        return self.root / _checked(name)


class S3Store:
    """Results in a bucket of S3 or a compatible store. A put is atomic by S3's own promise; large files go up in parts."""

    def __init__(self, uri: S3Uri, client: "S3Client") -> None:
        self.url = str(uri)
        self.bucket = uri.bucket
        self.root = f"{uri.prefix.rstrip('/')}/{LAYOUT}".lstrip("/")
        self.client = client

    def put(self, name: str, data: bytes) -> None:
        """Write a whole object in one request."""
        with self._changing("writing"):
            self.client.put_object(Bucket=self.bucket, Key=self._key(name), Body=data)

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """A local temporary file that is sent up at the end."""
        with writing_to(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            with self._changing("writing"):
                self.client.upload_fileobj(file, self.bucket, self._key(name))

    def get(self, name: str) -> bytes | None:
        """The bytes of an object, None where there is none."""
        try:
            return self.client.get_object(Bucket=self.bucket, Key=self._key(name))["Body"].read()
        except S3_ERRORS as error:
            self._raise_unless_absent(error)
            return None

    @contextmanager
    def reading(self, name: str) -> Iterator[BinaryIO | None]:
        """A local temporary copy of the object."""
        with writing_to(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as file:
            try:
                self.client.download_fileobj(self.bucket, self._key(name), file)
            except S3_ERRORS as error:
                self._raise_unless_absent(error)
                yield None
                return
            file.seek(0)
            yield file

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        try:
            self.client.head_object(Bucket=self.bucket, Key=self._key(name))
        except S3_ERRORS as error:
            self._raise_unless_absent(error)
            return False
        return True

    def size(self, name: str) -> int:
        """The size of an object."""
        try:
            return self.client.head_object(Bucket=self.bucket, Key=self._key(name))["ContentLength"]
        except S3_ERRORS as error:
            self._raise_unless_absent(error)
            return 0

    def address(self, name: str) -> str:
        """The S3 address of a file."""
        return f"s3://{self.bucket}/{self._key(name)}"

    def list(self, prefix: str) -> Iterator[str]:
        """The names under a prefix, sorted by their UTF-8 bytes as S3 gives them."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"{self.root}/{prefix}")
        try:
            for page in pages:
                yield from (entry["Key"].removeprefix(f"{self.root}/") for entry in page.get("Contents", ()))
        except S3_ERRORS as error:
            raise explain(error, f"listing {self.url}") from error

    def leftovers(self, before: datetime) -> Iterator[str]:
        """None: an object is there whole or not at all, and a lifecycle rule of the bucket ends uploads that broke off."""
        del before
        yield from ()

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is fine."""
        with self._changing("deleting in"):
            self.client.delete_object(Bucket=self.bucket, Key=self._key(name))

    def check_writable(self) -> None:
        """Write, read and delete a canary; the message names the permission that is missing."""
        _send_canary(self)

    def free_bytes(self) -> int | None:
        """None: a bucket has no end."""
        return None

    def _key(self, name: str) -> str:
        return f"{self.root}/{_checked(name)}"

    @contextmanager
    def _changing(self, verb: str) -> Iterator[None]:
        try:
            yield
        except S3_ERRORS as error:
            explained = explain(error, f"{verb} {self.url}")
            if isinstance(explained, UnreachableError | ResultsNotWritable):
                raise explained from error
            raise ResultsNotWritable(str(explained)) from error

    def _raise_unless_absent(self, error: Exception) -> None:
        explained = explain(error, f"reading {self.url}")
        if not isinstance(explained, SourceGone):
            raise explained from error


def open_store(url: str, s3_client: "S3Client | None" = None) -> ResultStore:
    """The store at a path or an `s3://bucket/prefix`; s3_client None means AWS's own chain. Raises ConfigurationError for a bad address."""
    if "://" not in url:
        return FolderStore(Path(url).absolute())
    return S3Store(S3Uri.parse(url), s3_client or new_s3_client(S3Settings()))


def _send_canary(store: ResultStore) -> None:
    name, song = f"_canary-{secrets.token_hex(8)}", secrets.token_bytes(16)
    store.put(name, song)
    heard = store.get(name)
    store.delete(name)
    if heard != song:
        raise ResultsNotWritable(f"{store.url} does not give back what was written to it.")


def _checked(name: str) -> str:
    """The name itself. Raises ValueError for one that could leave the root or hide in it."""
    parts = name.split("/")
    if not name.isascii() or any(not part or part.startswith(TEMPORARY_PREFIX) for part in parts):
        raise ValueError(f"{name!r} is no name for a result")
    return name
