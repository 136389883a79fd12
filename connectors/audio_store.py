"""Where audio objects lie: finding them, looking at their heads, and reading them as they were listed."""

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from botocore.exceptions import BotoCoreError, HTTPClientError

from connectors.files import etag_of, file_object, open_file
from connectors.s3 import S3Caller, is_open_to_changes
from moderation.catalogue import AudioObject
from moderation.errors import SourceChanged, SourceCorrupt, SourceError, SourceGone

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

READ_BYTES = 256 * 1024
"""Bytes of one read: large enough that handing it between threads costs nothing that shows."""
RESUMES = 3
"""How often one object's broken body is taken up again by Range before its attempt ends."""
_MD5 = re.compile("[0-9a-f]{32}")
T = TypeVar("T")


class AudioStore(Protocol):
    """A place to read audio objects from. Reading raises SourceChanged, SourceGone or SourceError."""

    async def find(self, bucket: str, key: str, version_id: str | None = None) -> AudioObject:
        """The object that lies in a place now, or that version of it, as a listing shows it. Raises SourceGone."""

    async def head(self, item: AudioObject, size: int, offset: int = 0) -> bytes:
        """The first bytes of an object (or those behind `offset`), at most `size`."""

    async def metadata(self, item: AudioObject) -> Mapping[str, str]:
        """The user metadata of an object, names in lower case."""

    def stream(self, item: AudioObject, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """The whole object as listed, or what lies behind `offset`."""

    def checked(self, item: AudioObject, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """The pieces of a whole object as they come. Where it can be known, raises SourceCorrupt at their end if they are not its."""


class S3AudioStore:
    """Audio objects in S3, through boto3 in threads of its own: never the limit (measurements.md: 1,000 MB a CPU-second).

    checks says whether bytes are held against their MD5 (some 0.2 CPU-seconds for 100 MB); None: where nothing else guards them.
    """

    def __init__(self, client: "S3Client", threads: int = 32, *, checks: bool | None = None) -> None:
        self._client = client
        self._caller = S3Caller(client, threads)
        self._checks = is_open_to_changes(client) if checks is None else checks
        self._with_md5: set[str] = set()
        """Buckets whose etags were seen to be the MD5 of what lies there: those of plain uploads are, by most stores."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._caller.__aexit__(kind, error, trace)

    async def find(self, bucket: str, key: str, version_id: str | None = None) -> AudioObject:
        """The object in a place. Raises ConfigurationError for a missing bucket, SourceGone for a missing object."""
        place: dict[str, Any] = {"Bucket": bucket, "Key": key} | ({"VersionId": version_id} if version_id else {})
        doing = f"looking for s3://{bucket}/{key}"
        try:
            found: Any = await self._caller.call(doing, lambda: self._client.head_object(**place))
        except SourceGone:  # an answer to HEAD does not say whether it is the object or the bucket that is missing
            await self._caller.call(doing, lambda: self._client.get_object(**place, Range="bytes=0-0"))
            raise
        size, changed = found["ContentLength"], found["LastModified"]
        return AudioObject(bucket, key, found["ETag"].strip('"'), size, changed, version_id, found.get("StorageClass"))

    async def head(self, item: AudioObject, size: int, offset: int = 0) -> bytes:
        """At most `size` bytes from `offset`; none where the object ends before it."""
        if offset >= item.size_bytes:
            return b""
        end = min(item.size_bytes, offset + size) - 1
        return await self._caller.call(_reading(item), lambda: self._get(item, Range=f"bytes={offset}-{end}").read())

    async def metadata(self, item: AudioObject) -> Mapping[str, str]:
        """The user metadata of an object, names in lower case."""
        answer = await self._caller.call(_reading(item), lambda: self._client.head_object(**_as_listed(item)))
        return {name.lower(): value for name, value in answer["Metadata"].items()}

    async def stream(self, item: AudioObject, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """The object as listed, from `offset` on: If-Match holds its etag, a broken body is taken up again where it broke.

        Raises SourceChanged when it was overwritten, SourceGone when deleted, SourceError when it cannot be read to its end.
        """
        received, resumes = offset, 0
        while received < item.size_bytes:
            started_at = received
            body: Any = await self._caller.call(_reading(item), lambda at=received: self._get(item, Range=f"bytes={at}-"))  # type: ignore[misc]
            try:
                while piece := await self._caller.run(body.read, READ_BYTES):
                    received += len(piece)
                    yield piece
            except (HTTPClientError, BotoCoreError, OSError):
                pass
            finally:  # nobody waits: where a read hangs in its thread, so does closing what it reads
                self._caller.threads.submit(body.close)
            resumes = 0 if received - started_at > READ_BYTES else resumes + (received < item.size_bytes)
            if resumes > RESUMES:
                raise SourceError(f"{_reading(item)} broke off {resumes} times, at last after {received} of {item.size_bytes} bytes")

    def checked(self, item: AudioObject, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """The pieces, held against the etag where it is an MD5: as one of a plain upload is, in a bucket that has shown that it is."""
        return self._held_against_md5(item, pieces) if self._checks and _MD5.fullmatch(item.etag) else pieces

    async def _held_against_md5(self, item: AudioObject, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        digest = hashlib.md5(usedforsecurity=False)
        async with aclosing(pieces):
            async for piece in pieces:
                digest.update(piece)
                yield piece
        if digest.hexdigest() == item.etag:
            self._with_md5.add(item.bucket)
        elif item.bucket in self._with_md5 and await self._is_plain(item):
            raise SourceCorrupt(f"{_reading(item)}: the bytes that came are not those that were put there (MD5 {digest.hexdigest()})")

    async def _is_plain(self, item: AudioObject) -> bool:
        """Whether nothing is known of an object that would give it another etag than its MD5."""
        answer = await self._caller.call(_reading(item), lambda: self._client.head_object(**_as_listed(item)))
        return answer.get("ServerSideEncryption") in {None, "AES256"} and "SSECustomerAlgorithm" not in answer

    def _get(self, item: AudioObject, **extra: str) -> Any:
        return self._client.get_object(**(_as_listed(item) | extra))["Body"]


class FolderAudioStore:
    """Audio objects in the files of one folder, each read only while it is what was listed: the same size and time of change."""

    def __init__(self, folder: Path) -> None:
        self._root = folder.resolve()

    async def find(self, bucket: str, key: str, version_id: str | None = None) -> AudioObject:
        """The file with a key. Raises SourceGone; files have no versions."""
        if version_id is not None:
            raise SourceGone(f"there is no version {version_id} of {key!r}: files have none")
        return await self._reading(bucket, key, lambda file: file_object(self._root, key, os.fstat(file)))

    async def head(self, item: AudioObject, size: int, offset: int = 0) -> bytes:
        """At most `size` bytes from `offset`."""
        return await self._reading(item.bucket, item.key, lambda file: _read(item, file, size, offset))

    async def metadata(self, item: AudioObject) -> Mapping[str, str]:
        """Nothing: files have none."""
        del item
        return {}

    async def stream(self, item: AudioObject, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """The file as listed, from `offset` on.

        Raises SourceChanged as soon as it is another one, SourceGone, AccessDeniedError or SourceError.
        """
        file = await asyncio.to_thread(self._open, item.bucket, item.key)
        try:
            received = offset
            while received < item.size_bytes:
                piece = await asyncio.to_thread(_read, item, file, READ_BYTES, received)
                if not piece:
                    raise SourceError(f"{item.key!r} in {item.bucket} ended after {received} of {item.size_bytes} bytes")
                received += len(piece)
                yield piece
        finally:
            os.close(file)

    def checked(self, item: AudioObject, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """The pieces: of a file's bytes nobody has noted what they were."""
        del item
        return pieces

    async def _reading(self, bucket: str, key: str, read: Callable[[int], T]) -> T:
        """What is read from an open file."""

        def opened() -> T:
            file = self._open(bucket, key)
            try:
                return read(file)
            finally:
                os.close(file)

        return await asyncio.to_thread(opened)

    def _open(self, bucket: str, key: str) -> int:
        if bucket != str(self._root):
            raise SourceGone(f"{bucket} is not the folder {self._root}")
        return open_file(self._root, key)


class AudioStores:
    """Audio objects in S3 and in folders of this machine, told apart by their bucket: that of a file is the path of its folder."""

    def __init__(self, s3: S3AudioStore) -> None:
        self._s3 = s3

    def _of(self, bucket: str) -> AudioStore:
        return FolderAudioStore(Path(bucket)) if bucket.startswith("/") else self._s3

    async def find(self, bucket: str, key: str, version_id: str | None = None) -> AudioObject:
        """The object in a place. Raises SourceGone."""
        return await self._of(bucket).find(bucket, key, version_id)

    async def head(self, item: AudioObject, size: int, offset: int = 0) -> bytes:
        """At most `size` bytes from `offset`."""
        return await self._of(item.bucket).head(item, size, offset)

    async def metadata(self, item: AudioObject) -> Mapping[str, str]:
        """The user metadata of an object."""
        return await self._of(item.bucket).metadata(item)

    def stream(self, item: AudioObject, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """The object as listed, from `offset` on."""
        return self._of(item.bucket).stream(item, offset)

    def checked(self, item: AudioObject, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """The pieces of a whole object."""
        return self._of(item.bucket).checked(item, pieces)


def _read(item: AudioObject, file: int, size: int, offset: int) -> bytes:
    """A part of an open file that is what was listed, also when it has been read. Raises SourceChanged or SourceError."""
    try:
        piece = os.pread(file, size, offset)
        etag = etag_of(os.fstat(file))
    except OSError as error:
        raise SourceError(f"{item.key!r} in {item.bucket} cannot be read: {error.strerror}") from error
    if etag != item.etag:
        raise SourceChanged(f"{item.key!r} in {item.bucket} was changed since it was listed: the next run takes the new one")
    return piece


def _as_listed(item: AudioObject) -> dict[str, Any]:
    """The request for an object that answers only for the version that was listed."""
    version = {"VersionId": item.version_id} if item.version_id else {}
    return {"Bucket": item.bucket, "Key": item.key, "IfMatch": f'"{item.etag}"'} | version


def _reading(item: AudioObject) -> str:
    return f"reading s3://{item.bucket}/{item.key}"
