"""A list of keys as a source: what somebody wants analysed, by name."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import closing
from itertools import islice
from typing import Protocol

import msgspec

from connectors.catalogue.documents import fetched
from connectors.catalogue.facts import Facts
from connectors.catalogue.source import Outline, Page
from connectors.catalogue.tables import TableFormat, next_rows, table_rows
from connectors.s3 import S3Caller
from moderation.catalogue import SIDECAR_SUFFIX, AudioObject
from moderation.errors import ConfigurationError, SourceGone, first_of_group
from moderation.selection import LeftOut

ASKED_AT_ONCE = 32
LONGEST_KEY = 1024
"""Bytes of a key in S3, which answers a longer one with an error and not that it is missing."""
"""Objects that are asked for side by side: as many as the S3 client has connections."""


class Finder(Protocol):
    """Whoever knows an object by its place: an audio store."""

    async def find(self, bucket: str, key: str, version_id: str | None = None) -> AudioObject:
        """The object that lies there now, or that version of it. Raises SourceGone."""


class ListPiece(msgspec.Struct, frozen=True):
    """The one piece of a list: its content, so that a list that was changed is not taken up in its middle."""

    md5: str


class KeyList:
    """The objects that a table names, in its order: CSV with a header, Parquet or JSON lines, by the ending of its address.

    `key` must be there; bucket, version_id, etag, size_bytes, last_modified and storage_class may (names as in our own datasets or
    in an inventory). Rows without bucket are of the one given. Where etag, size or time is missing the object is asked for; one that is
    not there is left out as gone. Each object brings its sidecar, as a listing would show it: its etag is part of what makes a result.
    """

    def __init__(self, caller: S3Caller, finder: Finder, address: str, bucket: str | None = None) -> None:
        self._caller = caller
        self._finder = finder
        self._address = address
        self._format = TableFormat.of(address)
        self._bucket = bucket
        self._asking = asyncio.Semaphore(ASKED_AT_ONCE)

    def __str__(self) -> str:
        return self._address

    async def outline(self) -> Outline:
        """The whole list as one piece."""
        async with fetched(self._caller, self._address) as document:
            return Outline((msgspec.json.encode(ListPiece(document.md5)).decode(),))

    async def pages(self, piece: str, cursor: str | None = None) -> AsyncGenerator[Page, None]:
        """The objects of the list, up to 1,000 rows a page. Raises ConfigurationError where it is another one by now."""
        async with fetched(self._caller, self._address) as document:
            if document.md5 != msgspec.json.decode(piece, type=ListPiece).md5:
                raise ConfigurationError(f"{self._address} was changed since its listing began: start anew")
            done = int(cursor or 0)
            with closing(table_rows(document.file, self._format, self._address)) as table:
                rows = islice(table, done, None)
                while batch := await next_rows(rows):
                    done += len(batch)
                    yield await self._page(batch, str(done))
            yield Page([], None)

    async def _page(self, rows: Sequence[Facts], cursor: str) -> Page:
        with first_of_group():
            async with asyncio.TaskGroup() as group:
                asked = [(row, group.create_task(self._object(row)), group.create_task(self._sidecar(row))) for row in rows]
        found = [item for _, *answers in asked for answer in answers if (item := answer.result()) is not None]
        return Page(found, cursor, [(row.key, LeftOut.GONE) for row, answer, _ in asked if answer.result() is None])

    async def _object(self, row: Facts) -> AudioObject | None:
        bucket = self._bucket_of(row)
        return row.object(bucket) or await self._find(bucket, row.key, row.version_id)

    async def _sidecar(self, row: Facts) -> AudioObject | None:
        name = row.key + SIDECAR_SUFFIX
        if row.key.endswith(SIDECAR_SUFFIX) or len(name.encode()) > LONGEST_KEY:
            return None
        return await self._find(self._bucket_of(row), name)

    async def _find(self, bucket: str, key: str, version_id: str | None = None) -> AudioObject | None:
        async with self._asking:
            try:
                return await self._finder.find(bucket, key, version_id)
            except SourceGone:
                return None

    def _bucket_of(self, row: Facts) -> str:
        if bucket := row.bucket or self._bucket:
            return bucket
        raise ConfigurationError(f"{self._address} names no bucket for {row.key!r}: add a column `bucket`, or say which one is meant")
