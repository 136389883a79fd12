"""Lists a catalogue into an immutable Parquet manifest, the list that everything after it works from."""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing

import pyarrow as pa

from connectors.catalogue import Page, Source
from connectors.lake.manifest_parts import Listing, ManifestParts, PartProgress, PieceProgress
from connectors.lake.schemas import datasets
from connectors.lake.store import ResultStore
from moderation.catalogue import AudioObject
from moderation.errors import ConfigurationError, first_of_group
from moderation.selection import EVERYTHING, LeftOut, Selection
from tasks.progress import Progress
from tasks.records import Run

PIECES_AT_ONCE = 8
"""Pieces of a source side by side: S3 gives a page in some 100 ms, and a core reads eight in that time."""
PART_PAGES = 16
"""Pages held in memory for each of these."""
PART_SECONDS = 5.0
"""How much listing a process that is killed loses at most, of each piece."""
_MANIFESTS = datasets()["manifests"]
logger = logging.getLogger("soundcheck.list")


async def list_catalogue(source: Source, results: ResultStore, run: Run, progress: Progress, selection: Selection = EVERYTHING) -> int:
    """Write the manifest of what a source shows and a selection takes, and return how many objects that is.

    A listing that broke off goes on behind its last page when it is called again for the same run, and shows the state of its first
    beginning. Raises ConfigurationError for a missing bucket or a source without any object, AccessDeniedError or UnreachableError
    where S3 says so.
    """
    progress.step = f"listing {source}"
    parts = ManifestParts(results, run.run_id)
    listing = await asyncio.to_thread(parts.begun) or await _begin(source, parts, run)
    if listing.source != str(source):
        raise ConfigurationError(f"run {run.run_id} began to list {listing.source}: go on with that, or start a new run")
    before = await asyncio.to_thread(parts.progress, len(listing.pieces))
    lister = _Lister(source, parts, progress, selection)
    with first_of_group():
        await lister.list_all(listing.pieces, before)
    if progress.listed + progress.left_out.total() == 0:
        await asyncio.to_thread(parts.remove)
        raise ConfigurationError(f"there is nothing below {source}: check the prefix (it is taken literally, case and all)")
    progress.step = f"writing the manifest of {source}"
    await asyncio.to_thread(parts.finish, run.scan_date, listing)
    await asyncio.to_thread(parts.remove)
    return progress.listed


async def _begin(source: Source, parts: ManifestParts, run: Run) -> Listing:
    outline = await source.outline()
    listing = Listing(str(source), outline.pieces, outline.as_of or run.started_at)
    await asyncio.to_thread(parts.begin, listing)
    return listing


class _Lister:
    """One listing: its pieces side by side, what they show counted and written in parts."""

    def __init__(self, source: Source, parts: ManifestParts, progress: Progress, selection: Selection) -> None:
        self._source = source
        self._parts = parts
        self._progress = progress
        self._selection = selection
        self._places = asyncio.Semaphore(PIECES_AT_ONCE)
        self._clock = asyncio.get_running_loop().time
        self._began_at = self._clock()
        self._objects = 0

    async def list_all(self, pieces: Sequence[str], before: Sequence[PieceProgress]) -> None:
        """List what is left of all pieces."""
        self._progress.listed = sum(done.objects for done in before)
        left_out = sum((Counter(done.left_out) for done in before), Counter[str]())
        self._progress.left_out = Counter({LeftOut(why): count for why, count in left_out.items()})
        async with asyncio.TaskGroup() as group:
            for number, (piece, done) in enumerate(zip(pieces, before, strict=True)):
                if not done.finished:
                    group.create_task(self._list(number, piece, done))

    async def _list(self, number: int, piece: str, done: PieceProgress) -> None:
        part = _Part(self._parts, number, done, self._clock())
        async with self._places, aclosing(self._source.pages(piece, done.cursor)) as pages:
            try:
                async for page in pages:
                    table, left_out = await asyncio.to_thread(self._taken, page)
                    part.add(table, page.cursor, left_out)
                    self._count(table.num_rows, left_out)
                    if part.is_due(self._clock()):
                        await part.write(self._clock())
            finally:  # what was listed is kept, also when the next page cannot be had
                await part.write(self._clock())

    def _taken(self, page: Page) -> tuple[pa.Table, Counter[LeftOut]]:
        """The rows of a page that the selection takes, and what it leaves out."""
        left_out = Counter(why for _, why in page.left_out)
        for key in (key for key, why in page.left_out if why is LeftOut.GONE):
            logger.warning("%s names %r, which is not there", self._source, key)
        if self._selection is EVERYTHING:
            return manifest_table(page.items), left_out
        taken = []
        for item in page.items:
            why = self._selection.leaves_out(item)
            if why is None or self._selection.may_be_needed(item):
                taken.append(item)
            else:
                left_out[why] += 1
        return manifest_table(taken), left_out

    def _count(self, objects: int, left_out: Counter[LeftOut]) -> None:
        self._progress.listed += objects
        self._progress.left_out += left_out
        self._objects += objects + left_out.total()
        rate = self._objects / max(self._clock() - self._began_at, 1e-3)
        self._progress.step = f"listing {self._source}, {rate:,.0f} objects a second"


class _Part:
    """The part of a piece that is being filled."""

    def __init__(self, parts: ManifestParts, piece: int, done: PieceProgress, now: float) -> None:
        self._parts = parts
        self._piece = piece
        self._number = done.parts
        self._empty(now)

    def _empty(self, now: float) -> None:
        self._began_at = now
        self._rows: list[pa.Table] = []
        self._left_out: Counter[LeftOut] = Counter()
        self._cursor: str | None = None

    def add(self, rows: pa.Table, cursor: str | None, left_out: Counter[LeftOut]) -> None:
        """Add a page."""
        self._rows.append(rows)
        self._cursor = cursor
        self._left_out += left_out

    def is_due(self, now: float) -> bool:
        """Whether enough is held, or for long enough."""
        return len(self._rows) >= PART_PAGES or now - self._began_at >= PART_SECONDS

    async def write(self, now: float) -> None:
        """Write what is held, if anything is."""
        if self._rows:
            said = PartProgress(self._cursor, {why.value: count for why, count in self._left_out.items()})
            await asyncio.to_thread(self._parts.write, self._piece, self._number, self._rows, said)
            self._number += 1
            self._empty(now)


def manifest_table(items: Sequence[AudioObject]) -> pa.Table:
    """Rows of `manifests` for objects."""
    return pa.Table.from_pydict(
        {column.name: [getattr(item, column.name) for item in items] for column in _MANIFESTS.columns}, schema=_MANIFESTS.arrow_schema()
    )
