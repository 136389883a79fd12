"""Prefixes of S3 as a source: listed by ranges of keys."""

import itertools
from collections.abc import AsyncGenerator, Iterable, Sequence
from functools import partial
from typing import Any

import msgspec

from connectors.catalogue.key_ranges import Seen, split_points
from connectors.catalogue.list_pages import ListPage, list_page, prepare
from connectors.catalogue.source import Outline, Page
from connectors.s3 import S3Caller, S3Uri
from moderation.catalogue import AudioObject
from moderation.errors import ConfigurationError

RANGES = 32
"""Ranges of a prefix: enough that uneven ones even out over those that are listed at once."""
OUTLINED_PREFIXES = 16
"""Of so many prefixes the outline keeps the one page that they have until they are listed: of each up to 1,000 objects."""


class KeyRange(msgspec.Struct, frozen=True):
    """The keys below a prefix that come after one key, up to and with another; None is the end."""

    bucket: str
    prefix: str
    after: str = ""
    until: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is all that lies below the prefix."""
        return self.after == "" and self.until is None


class S3Listing:
    """Everything below some prefixes, without what lies in an archive or elsewhere: keys, etags, sizes, times and classes.

    A prefix inside another one is listed once. ranges is the most pieces that a prefix is cut into; cutting needs a store that lists in
    the order of UTF-8, as S3 does, and pages raises ConfigurationError for another one. With ranges = 1 any order will do.
    """

    def __init__(self, caller: S3Caller, prefixes: Sequence[S3Uri], ranges: int = RANGES) -> None:
        self._caller = caller
        self._prefixes = _outermost(prefixes)
        self._ranges = ranges
        self._outlined: dict[tuple[str, str], ListPage] = {}
        """By bucket and prefix, the one page that the outline has seen: it is not asked for again."""
        prepare(caller.client)

    def __str__(self) -> str:
        return ", ".join(map(str, self._prefixes))

    async def outline(self) -> Outline:
        """The ranges of keys, prefix by prefix; a prefix of one page is one range."""
        ranges: list[KeyRange] = []
        for uri in self._prefixes:
            points = await split_points(partial(self._look, uri.bucket), uri.prefix, self._ranges)
            starts, ends = ["", *points], [*points, None]
            ranges += [KeyRange(uri.bucket, uri.prefix, after, until) for after, until in zip(starts, ends, strict=True)]
        return Outline(tuple(msgspec.json.encode(keys).decode() for keys in ranges))

    async def pages(self, piece: str, cursor: str | None = None) -> AsyncGenerator[Page, None]:
        """The objects of a range, up to 1,000 a page, in the order of the store."""
        keys = msgspec.json.decode(piece, type=KeyRange)
        last = keys.after if cursor is None or keys.is_whole else cursor
        request = {"ContinuationToken": cursor} if cursor is not None and keys.is_whole else {"StartAfter": last} if last else {}
        outlined = self._outlined.pop((keys.bucket, keys.prefix), None) if keys.is_whole and cursor is None else None
        while True:
            page = outlined or await self._page(keys.bucket, Prefix=keys.prefix, **request)
            token = page.token
            items = page.items
            if not keys.is_whole:
                _check_order(itertools.chain([last], (item.key for item in items)), keys.bucket)
                items = _up_to(items, keys.until)
                token = page.token if len(items) == len(page.items) else None
                last = items[-1].key if items else last
            yield Page(items, None if token is None else token if keys.is_whole else last)
            if token is None:
                return
            request = {"ContinuationToken": token}

    async def _page(self, bucket: str, **request: Any) -> ListPage:
        doing = f"listing {S3Uri(bucket, request['Prefix'])}"
        return await self._caller.call(doing, partial(list_page, self._caller.client, bucket, **request))

    async def _look(self, bucket: str, prefix: str, after: str, delimiter: str, names: int) -> Seen:
        given = {name: text for name, text in (("StartAfter", after), ("Delimiter", delimiter)) if text}
        page = await self._page(bucket, Prefix=prefix, MaxKeys=names, **given)
        if not given and page.token is None and len(self._outlined) < OUTLINED_PREFIXES:
            self._outlined[bucket, prefix] = page
        return Seen(sorted([item.key for item in page.items] + page.folders), page.folders, page.token is not None)


def _up_to(items: list[AudioObject], until: str | None) -> list[AudioObject]:
    """The objects of a range that ends at a key."""
    if until is None or not items or items[-1].key <= until:
        return items
    return [item for item in items if item.key <= until]


def _check_order(keys: Iterable[str], bucket: str) -> None:
    """Hold the store to the order that ranges are cut by: Python compares texts as UTF-8 would."""
    if any(before >= key for before, key in itertools.pairwise(keys)):
        raise ConfigurationError(f"bucket {bucket} is not listed in the order of its keys' UTF-8: list it in one range")


def _outermost(prefixes: Iterable[S3Uri]) -> list[S3Uri]:
    """The prefixes in order, without those that lie below another one."""
    kept: list[S3Uri] = []
    for uri in sorted(set(prefixes), key=lambda uri: (uri.bucket, uri.prefix)):
        if not (kept and kept[-1].bucket == uri.bucket and uri.prefix.startswith(kept[-1].prefix)):
            kept.append(uri)
    return kept
