"""The sources of a run as people write them, and what is opened for each.

s3://bucket/prefix is listed; inventory:s3://bucket/path/manifest.json is an S3 Inventory; keys:FILE (a path or s3://bucket/key; CSV,
Parquet or JSON lines) names objects; everything else is a folder of this machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from connectors.audio_store import AudioStore
from connectors.catalogue import FolderListing, KeyList, S3Inventory, S3Listing, SeveralSources, Source
from connectors.s3 import S3Caller, S3Uri
from flows.request import Portion, Request
from moderation.errors import ConfigurationError


class SourceKind(StrEnum):
    """What an address names."""

    PREFIX = "s3"
    INVENTORY = "inventory"
    KEYS = "keys"
    FOLDER = "folder"


@dataclass(frozen=True, slots=True)
class SourceAddress:
    """The kind of a source and where it is."""

    kind: SourceKind
    address: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """The source that is written. Raises ConfigurationError for what is none."""
        kind, colon, address = text.partition(":")
        if colon and kind in {SourceKind.INVENTORY, SourceKind.KEYS}:
            if not address or (kind == SourceKind.INVENTORY and not address.startswith("s3://")):
                raise ConfigurationError(f"{text!r} names no {kind}: write inventory:s3://bucket/path/manifest.json, or keys:FILE")
            return cls(SourceKind(kind), address)
        if "://" in text:
            return cls(SourceKind.PREFIX, str(S3Uri.parse(text)))
        if not text:
            raise ConfigurationError("an empty source: write s3://bucket/prefix, or . for this folder")
        return cls(SourceKind.FOLDER, text)


def prefixes_of(sources: Sequence[str]) -> list[S3Uri]:
    """The prefixes of S3 among some sources."""
    parsed = [SourceAddress.parse(text) for text in sources]
    return [S3Uri.parse(each.address) for each in parsed if each.kind is SourceKind.PREFIX]


def listed_whole(request: Request) -> list[S3Uri]:
    """The prefixes of which a request lists everything: what has results there and is not listed was deleted."""
    return [] if request.portion.is_filtered or request.where else prefixes_of(request.sources)


def open_source(sources: Sequence[str], portion: Portion, caller: S3Caller, audio: AudioStore) -> Source:
    """All of them as one source: prefixes together first, then the others as they come."""
    opened: list[Source] = []
    if prefixes := prefixes_of(sources):
        opened.append(S3Listing(caller, prefixes))
    for source in map(SourceAddress.parse, sources):
        match source.kind:
            case SourceKind.INVENTORY:
                opened.append(S3Inventory(caller, S3Uri.parse(source.address), all_versions=portion.all_versions))
            case SourceKind.KEYS:
                opened.append(KeyList(caller, audio, source.address, portion.bucket))
            case SourceKind.FOLDER:
                opened.append(FolderListing(Path(source.address).expanduser()))
    return opened[0] if len(opened) == 1 else SeveralSources(opened)
