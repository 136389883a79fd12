"""An S3 inventory as a source: the same objects with the same identities as listing the bucket, without listing it.

Format and names are those of AWS ('Locating your inventory list'): manifest.json names the parts with their MD5. Keys are URL-encoded in
CSV, a space as `+`, and plain in Parquet.
"""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from urllib.parse import unquote_plus

import msgspec

from connectors.catalogue.documents import fetched
from connectors.catalogue.facts import Facts, column
from connectors.catalogue.source import Outline, Page
from connectors.catalogue.tables import TableFormat, next_rows, table_rows
from connectors.s3 import S3Caller, S3Uri
from moderation.catalogue import AudioObject
from moderation.errors import ConfigurationError
from moderation.selection import LeftOut

NEEDED = ("key", "etag", "size_bytes", "last_modified")
"""Facts without which an object has no identity, or no row in a manifest."""
_WORDS = {"etag": "ETag", "size_bytes": "Size", "last_modified": "Last modified", "key": "Key"}
"""What the facts are called where somebody configures an inventory."""


class InventoryFile(msgspec.Struct, frozen=True):
    """One part of an inventory, as its manifest names it."""

    key: str
    md5: str = msgspec.field(name="MD5checksum")


class InventoryManifest(msgspec.Struct, frozen=True, rename="camel"):
    """What is in manifest.json; creation_timestamp in milliseconds since 1970."""

    source_bucket: str
    destination_bucket: str
    file_format: str
    file_schema: str
    creation_timestamp: str
    files: tuple[InventoryFile, ...]


class InventoryPart(msgspec.Struct, frozen=True):
    """A piece: a part with all that is needed to read it."""

    address: str
    md5: str
    source_bucket: str
    format: TableFormat
    header: tuple[str, ...] | None


class S3Inventory:
    """The objects in an inventory, from the address of its manifest.json in S3.

    Of an inventory with versions the old ones are left out unless all_versions; delete markers always are. Raises ConfigurationError
    for a part that is not what the manifest promises.
    """

    def __init__(self, caller: S3Caller, manifest: S3Uri, *, all_versions: bool = False) -> None:
        self._caller = caller
        self._manifest = manifest
        self._all_versions = all_versions

    def __str__(self) -> str:
        return str(self._manifest)

    async def outline(self) -> Outline:
        """The parts in the order of the manifest; the state is that of the inventory's beginning."""
        address = str(self._manifest)
        async with fetched(self._caller, address) as document:
            await self._check_manifest(document.md5)
            try:
                manifest = msgspec.json.decode(document.file.read(), type=InventoryManifest)
                as_of = datetime.fromtimestamp(int(manifest.creation_timestamp) / 1000, UTC)
                parts = tuple(_parts(manifest))
            except (msgspec.MsgspecError, ValueError, OverflowError) as error:
                raise ConfigurationError(f"{address} is no manifest of an S3 inventory: {error}") from error
        return Outline(tuple(msgspec.json.encode(part).decode() for part in parts), as_of)

    async def pages(self, piece: str, cursor: str | None = None) -> AsyncGenerator[Page, None]:
        """The objects of a part in its order, up to 1,000 rows a page."""
        part = msgspec.json.decode(piece, type=InventoryPart)
        async with fetched(self._caller, part.address) as document:
            if document.md5 != part.md5:
                raise ConfigurationError(f"{part.address} has MD5 {document.md5}, where the inventory's manifest says {part.md5}")
            done = int(cursor or 0)
            with closing(table_rows(document.file, part.format, part.address, part.header)) as table:
                rows = islice(table, done, None)
                while batch := await next_rows(rows):
                    done += len(batch)
                    yield self._page(batch, part, str(done))
            yield Page([], None)

    def _page(self, rows: Sequence[Facts], part: InventoryPart, cursor: str) -> Page:
        items: list[AudioObject] = []
        left_out: list[tuple[str, LeftOut]] = []
        for coded in rows:
            row = replace(coded, key=plain_key(coded.key, part.format))
            if row.is_delete_marker:
                left_out.append((row.key, LeftOut.DELETE_MARKER))
            elif not row.is_latest and not self._all_versions:
                left_out.append((row.key, LeftOut.OLD_VERSION))
            elif item := row.object(part.source_bucket):
                items.append(item)
            else:
                raise ConfigurationError(f"{part.address} lacks etag, size or time of {row.key!r}")
        return Page(items, cursor, left_out)

    async def _check_manifest(self, md5: str) -> None:
        """Hold manifest.json to the MD5 that AWS writes beside it."""
        beside = str(self._manifest).removesuffix("json") + "checksum"
        try:
            async with fetched(self._caller, beside) as document:
                said = document.file.read().decode("ascii", "replace").strip()
        except ConfigurationError:
            return  # a copy of an inventory may come without
        if said != md5:
            raise ConfigurationError(f"{self._manifest} has MD5 {md5}, where {beside} says {said}")


def plain_key(key: str, kind: TableFormat) -> str:
    """The key that a part of an inventory shows."""
    return unquote_plus(key) if kind is TableFormat.CSV else key


def _parts(manifest: InventoryManifest) -> Iterator[InventoryPart]:
    """The parts of an inventory. Raises ValueError for one that cannot be used."""
    formats = {"CSV": TableFormat.CSV, "Parquet": TableFormat.PARQUET}
    if manifest.file_format not in formats:
        raise ValueError(f"it is written as {manifest.file_format}; CSV and Parquet can be read")
    kind = formats[manifest.file_format]
    header = tuple(name.strip() for name in manifest.file_schema.split(",")) if kind is TableFormat.CSV else None
    if header is not None and (missing := [_WORDS[fact] for fact in NEEDED if fact not in map(column, header)]):
        raise ValueError(f"it has no {', '.join(missing)}: add it to the inventory's fields")
    bucket = manifest.destination_bucket.rpartition(":")[2]
    for file in manifest.files:
        yield InventoryPart(f"s3://{bucket}/{file.key}", file.md5, manifest.source_bucket, kind, header)
