"""S3 for catalogues, on loopback and fast: the list API over sorted keys of any kind, their HEAD, and bodies that a test puts there."""

import asyncio
import hashlib
import re
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import parse_qsl, quote_plus, unquote
from xml.sax.saxutils import escape

_PLAIN = re.compile(r"[A-Za-z0-9/._-]*").fullmatch
_LAST = "\U0010ffff"


LONGEST_KEY = 1024
"""Bytes; S3 refuses longer ones."""


@dataclass
class ListApi:
    """Buckets by name, their keys in order of their bytes. An object's size, etag and times are made up from its key.

    requests are the listings so far; breaks holds the numbers of those, from 1, whose connection is closed without an answer, slow those
    that are answered with SlowDown. bodies are objects by `bucket/key` that no listing shows.
    """

    buckets: dict[str, Sequence[str]]
    bodies: dict[str, bytes] = field(default_factory=dict)
    breaks: set[int] = field(default_factory=set)
    slow: set[int] = field(default_factory=set)
    requests: list[dict[str, str]] = field(default_factory=list)

    def answer(self, bucket: str, query: dict[str, str]) -> str:
        """One page of ListObjectsV2."""
        keys, prefix, delimiter = self.buckets[bucket], query.get("prefix", ""), query.get("delimiter", "")
        coded = query.get("encoding-type") == "url"
        write = _quoted if coded else escape
        wanted = int(query.get("max-keys", "1000"))
        last = query.get("continuation-token") or query.get("start-after", "")
        at = max(bisect_left(keys, prefix), bisect_right(keys, last))
        entries: list[str] = []
        while len(entries) < wanted and at < len(keys) and keys[at].startswith(prefix):
            last = keys[at]
            at += 1
            if delimiter and (end := last.find(delimiter, len(prefix))) >= 0:
                folder = last[: end + len(delimiter)]
                entries.append(f"<CommonPrefixes><Prefix>{write(folder)}</Prefix></CommonPrefixes>")
                at = bisect_right(keys, folder + _LAST)
                last = keys[at - 1]
            else:
                entries.append(_contents(last, write))
        more = at < len(keys) and keys[at].startswith(prefix)
        token = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if more else ""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{bucket}</Name><Prefix>{write(prefix)}</Prefix><KeyCount>{len(entries)}</KeyCount><MaxKeys>{wanted}</MaxKeys>"
            f"{'<EncodingType>url</EncodingType>' * coded}<IsTruncated>{str(more).lower()}</IsTruncated>{token}"
            f"{''.join(entries)}</ListBucketResult>"
        )

    def object(self, bucket: str, key: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer for an object: one that is listed has a body of zeros."""
        if (body := self.bodies.get(f"{bucket}/{key}")) is not None:
            return 200, {"ETag": f'"{hashlib.md5(body).hexdigest()}"', "Last-Modified": format_datetime(changed(key), usegmt=True)}, body
        if key in self.buckets.get(bucket, ()):
            return 200, {"ETag": f'"{etag(key)}"', "Last-Modified": format_datetime(changed(key), usegmt=True)}, bytes(len(key))
        if len(key.encode()) > LONGEST_KEY:
            return 400, {}, b"<Error><Code>KeyTooLongError</Code></Error>"
        code = "NoSuchKey" if bucket in self.buckets else "NoSuchBucket"
        return 404, {}, f"<Error><Code>{code}</Code><BucketName>{bucket}</BucketName></Error>".encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests."""
        try:
            while line := await reader.readline():
                while (await reader.readline()).strip():
                    pass
                verb, target, _ = line.decode().split()
                path, _, question = target.partition("?")
                bucket, _, key = path[1:].partition("/")
                status, headers = 200, {"Content-Type": "application/xml"}
                if key:
                    status, headers, body = self.object(bucket, unquote(key))
                else:
                    query = dict(parse_qsl(question, keep_blank_values=True))
                    self.requests.append(query)
                    if len(self.requests) in self.breaks:
                        return
                    body = self.answer(bucket, query).encode()
                    if len(self.requests) in self.slow:
                        status, body = 503, b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
                head = "".join(f"{name}: {value}\r\n" for name, value in (headers | {"Content-Length": str(len(body))}).items())
                writer.write(f"HTTP/1.1 {status} OK\r\n{head}\r\n".encode() + body * (verb != "HEAD"))
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):  # the client is gone, or the server ends
            pass
        finally:
            writer.close()


def _contents(key: str, write: Callable[[str], str]) -> str:
    return (
        f"<Contents><Key>{write(key)}</Key><LastModified>{changed(key):%Y-%m-%dT%H:%M:%S}.000Z</LastModified>"
        f"<ETag>&quot;{etag(key)}&quot;</ETag><Size>{len(key)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
    )


def etag(key: str) -> str:
    """The etag that a key has."""
    return hashlib.md5(key.encode()).hexdigest()


def changed(key: str) -> datetime:
    """When the object with a key was written."""
    return datetime(2026, 3, 1, 12, 0, len(key) % 60, tzinfo=UTC)


def _quoted(key: str) -> str:
    return key if _PLAIN(key) else quote_plus(key, safe="/")


@contextmanager
def list_api(api: ListApi) -> Iterator[str]:
    """The address of the API, which a thread serves."""
    started: Future[tuple[int, Callable[[], object]]] = Future()

    async def run() -> None:
        ended = asyncio.Event()
        server = await asyncio.start_server(api.serve, "127.0.0.1", 0)
        loop = asyncio.get_running_loop()
        started.set_result((server.sockets[0].getsockname()[1], lambda: loop.call_soon_threadsafe(ended.set)))
        await ended.wait()
        server.close()

    thread = threading.Thread(target=asyncio.run, args=(run(),), name="list-api")
    thread.start()
    try:
        port, end = started.result()
        yield f"http://127.0.0.1:{port}"
    finally:
        end()
        thread.join()
