"""Where audio objects lie: listing them, looking at their heads, and reading them as they were listed."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from connectors.s3 import S3Uri, explain
from moderation.catalogue import AudioObject
from moderation.errors import SourceError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

READ_BYTES = 256 * 1024
"""Bytes of one read: large enough that handing it between threads costs nothing that shows."""
RESUMES = 3
"""How often one object's broken body is taken up again by Range before its attempt ends."""
T = TypeVar("T")


class AudioStore(Protocol):
    """A place that lists and reads audio objects. Reading raises SourceChanged, SourceGone or SourceError."""

    def pages(self, source: S3Uri) -> AsyncIterator[list[AudioObject]]:
        """The objects below a prefix in key order, a page at a time."""

    async def head(self, item: AudioObject, size: int, offset: int = 0) -> bytes:
        """The first bytes of an object (or those behind `offset`), at most `size`."""

    async def metadata(self, item: AudioObject) -> Mapping[str, str]:
        """The user metadata of an object, names in lower case."""

    def stream(self, item: AudioObject) -> AsyncGenerator[bytes, None]:
        """The whole object, as listed."""


class S3AudioStore:
    """Audio objects in S3, through boto3 in threads of its own: never the limit (measurements.md: 1,000 MB a CPU-second)."""

    def __init__(self, client: "S3Client", threads: int = 32) -> None:
        self._client = client
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="s3")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)

    async def pages(self, source: S3Uri) -> AsyncIterator[list[AudioObject]]:
        """The objects below a prefix in key order, up to 1,000 a page. Raises ConfigurationError, AccessDeniedError or UnreachableError."""
        pages = iter(self._client.get_paginator("list_objects_v2").paginate(Bucket=source.bucket, Prefix=source.prefix))
        while True:
            page = await self._call(f"listing s3://{source.bucket}/{source.prefix}", lambda: next(pages, None))
            if page is None:
                return
            yield [_object(source.bucket, entry) for entry in page.get("Contents", [])]

    async def head(self, item: AudioObject, size: int, offset: int = 0) -> bytes:
        """At most `size` bytes from `offset`; none where the object ends before it."""
        if offset >= item.size_bytes:
            return b""
        end = min(item.size_bytes, offset + size) - 1
        return await self._call(_reading(item), lambda: self._get(item, Range=f"bytes={offset}-{end}").read())

    async def metadata(self, item: AudioObject) -> Mapping[str, str]:
        """The user metadata of an object, names in lower case."""
        answer = await self._call(_reading(item), lambda: self._client.head_object(**_as_listed(item)))
        return {name.lower(): value for name, value in answer["Metadata"].items()}

    async def stream(self, item: AudioObject) -> AsyncGenerator[bytes, None]:
        """The whole object as listed: If-Match holds its etag, a broken body is taken up again where it broke.

        Raises SourceChanged when it was overwritten, SourceGone when deleted, SourceError when it cannot be read to its end.
        """
        received, resumes = 0, 0
        while received < item.size_bytes:
            started_at = received
            body: Any = await self._call(_reading(item), lambda at=received: self._get(item, Range=f"bytes={at}-"))  # type: ignore[misc]
            try:
                while piece := await self._run(body.read, READ_BYTES):
                    received += len(piece)
                    yield piece
            except (HTTPClientError, BotoCoreError, OSError):
                pass
            finally:  # nobody waits: where a read hangs in its thread, so does closing what it reads
                self._threads.submit(body.close)
            resumes = 0 if received - started_at > READ_BYTES else resumes + (received < item.size_bytes)
            if resumes > RESUMES:
                raise SourceError(f"{_reading(item)} broke off {resumes} times, at last after {received} of {item.size_bytes} bytes")

    def _get(self, item: AudioObject, **extra: str) -> Any:
        return self._client.get_object(**(_as_listed(item) | extra))["Body"]

    async def _call(self, doing: str, call: Callable[[], T]) -> T:
        """Run a blocking call in a thread; its failure says what was being done."""
        failure: Exception
        try:
            return await self._run(call)
        except (ClientError, BotoCoreError, OSError) as error:
            failure = explain(error, doing)
        raise failure

    async def _run(self, call: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)


def _object(bucket: str, entry: Mapping[str, Any]) -> AudioObject:
    return AudioObject(
        bucket=bucket,
        key=entry["Key"],
        etag=entry["ETag"].strip('"'),
        size_bytes=entry["Size"],
        last_modified=entry["LastModified"],
        storage_class=entry.get("StorageClass"),
    )


def _as_listed(item: AudioObject) -> dict[str, Any]:
    """The request for an object that answers only for the version that was listed."""
    version = {"VersionId": item.version_id} if item.version_id else {}
    return {"Bucket": item.bucket, "Key": item.key, "IfMatch": f'"{item.etag}"'} | version


def _reading(item: AudioObject) -> str:
    return f"reading s3://{item.bucket}/{item.key}"
