"""From a source to the manifest: whole, in order, resumed where it broke, with what was left out counted."""

import json
import os
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from connectors.catalogue import Outline, Page, S3Listing
from connectors.lake.store import FolderStore
from connectors.local_s3 import LocalS3
from connectors.s3 import S3Caller, S3Settings, S3Uri, s3_client
from moderation.catalogue import AudioObject
from moderation.errors import ConfigurationError, UnreachableError
from moderation.selection import EVERYTHING, LeftOut, Selection
from tasks import list_catalogue as module
from tasks.list_catalogue import list_catalogue
from tasks.progress import Progress
from tasks.records import Run

RUN = Run("20260301T120000Z-abcdef", "default", datetime(2026, 3, 1, 12, tzinfo=UTC))
ROOT = Path(__file__).parents[2]
FOLDER = f"_runs/{RUN.run_id}"


def item(key, size=1000):
    return AudioObject("music", key, f"etag of {key}", size, datetime(2026, 2, 1, tzinfo=UTC), None, "STANDARD")


class Pieces:
    """A source of pieces with pages of keys; it breaks before the pages that breaks names, as (piece, page), once each."""

    def __init__(self, *pieces, breaks=(), left_out=(), as_of=None, name="s3://music/"):
        self.pieces = pieces
        self.breaks = set(breaks)
        self.left_out = left_out
        self.as_of = as_of
        self.name = name
        self.asked = []

    def __str__(self):
        return self.name

    async def outline(self):
        return Outline(tuple(map(str, range(len(self.pieces)))), self.as_of)

    async def pages(self, piece, cursor=None):
        pages = self.pieces[int(piece)]
        for number in range(int(cursor or 0), len(pages)):
            if (int(piece), number) in self.breaks:
                self.breaks.discard((int(piece), number))
                raise UnreachableError("S3 did not answer")
            self.asked.append((int(piece), number))
            yield Page([item(key) for key in pages[number]], str(number + 1) if number + 1 < len(pages) else None, self.left_out)


@pytest.fixture
def store(tmp_path):
    return FolderStore(tmp_path)


def manifest(store):
    return pl.read_parquet(BytesIO(store.get(f"{FOLDER}/manifest.parquet")))


def names(store):
    return list(store.list(f"{FOLDER}/"))


PAGES = [[f"{piece}/{page}/{number}" for number in range(3)] for piece in range(1) for page in range(40)]


async def test_the_manifest_has_the_objects_of_all_pieces_in_their_order(store):
    progress = Progress()
    source = Pieces([["b", "a"], ["c"]], [[]], [["a/1"], ["a/0"]])
    assert await list_catalogue(source, store, RUN, progress) == progress.listed == 5
    rows = manifest(store)
    assert rows["key"].to_list() == ["b", "a", "c", "a/1", "a/0"]
    first = item("b")
    assert rows.row(0, named=True) == {
        "bucket": "music",
        "key": "b",
        "version_id": None,
        "etag": "etag of b",
        "size_bytes": 1000,
        "last_modified": first.last_modified,
        "storage_class": "STANDARD",
        "object_id": first.object_id,
        "object_key_id": first.object_key_id,
    }
    assert names(store) == [f"{FOLDER}/manifest.parquet"]


@pytest.mark.fault(3)
@pytest.mark.parametrize(
    ("as_of", "watermark"), [(None, RUN.started_at), (datetime(2026, 2, 28, tzinfo=UTC), datetime(2026, 2, 28, tzinfo=UTC))]
)
async def test_the_manifest_says_what_was_listed_and_of_when_it_is(store, as_of, watermark):
    await list_catalogue(Pieces([["a"]], as_of=as_of), store, RUN, Progress())
    said = pq.read_metadata(BytesIO(store.get(f"{FOLDER}/manifest.parquet"))).metadata
    assert said[b"soundcheck.source"] == b"s3://music/"
    assert datetime.fromisoformat(said[b"soundcheck.watermark"].decode()) == watermark


@pytest.mark.fault(1, 2)
@pytest.mark.parametrize("breaks_at", [0, 1, 15, 16, 17, 39])
async def test_a_broken_listing_goes_on_behind_its_last_page(store, breaks_at):
    first = Pieces(PAGES, breaks=[(0, breaks_at)])
    with pytest.raises(UnreachableError, match="S3 did not answer"):
        await list_catalogue(first, store, RUN, Progress())
    assert not store.exists(f"{FOLDER}/manifest.parquet")
    second, progress = Pieces(PAGES), Progress()
    assert await list_catalogue(second, store, RUN, progress) == progress.listed == 120
    assert first.asked + second.asked == [(0, page) for page in range(40)]
    assert manifest(store)["key"].to_list() == [key for page in PAGES for key in page]
    assert names(store) == [f"{FOLDER}/manifest.parquet"]


async def test_pieces_that_are_finished_are_not_listed_again(store, monkeypatch):
    monkeypatch.setattr(module, "PIECES_AT_ONCE", 1)
    pieces = [[[f"{piece}/{page}"] for page in range(3)] for piece in range(4)]
    first = Pieces(*pieces, breaks=[(3, 1)], left_out=[("old", LeftOut.OLD_VERSION)])
    with pytest.raises(UnreachableError):
        await list_catalogue(first, store, RUN, Progress())
    second, progress = Pieces(*pieces, left_out=[("old", LeftOut.OLD_VERSION)]), Progress()
    assert await list_catalogue(second, store, RUN, progress) == 12
    assert first.asked + second.asked == [(piece, page) for piece in range(4) for page in range(3)]
    assert progress.left_out == {LeftOut.OLD_VERSION: 12}
    assert manifest(store)["key"].to_list() == [key for piece in pieces for page in piece for key in page]


@pytest.mark.fault(2)
async def test_a_process_that_is_killed_loses_only_what_it_held(store, monkeypatch):
    async def killed(self, number, piece, done):
        """Writes parts when they are due and nothing at the end, as kill -9 would have it."""
        part = module._Part(self._parts, number, done, self._clock())
        async for page in self._source.pages(piece, done.cursor):
            table, left_out = self._taken(page)
            part.add(table, page.cursor, left_out)
            if part.is_due(self._clock()):
                await part.write(self._clock())

    first = Pieces(PAGES, breaks=[(0, 35)])
    with monkeypatch.context() as patch:
        patch.setattr(module._Lister, "_list", killed)
        with pytest.raises(UnreachableError):
            await list_catalogue(first, store, RUN, Progress())
    second = Pieces(PAGES)
    await list_catalogue(second, store, RUN, Progress())
    assert second.asked[0] == (0, 35 // module.PART_PAGES * module.PART_PAGES)
    assert manifest(store)["key"].to_list() == [key for page in PAGES for key in page]


async def test_a_run_goes_on_only_with_the_source_that_it_began_with(store):
    with pytest.raises(UnreachableError):
        await list_catalogue(Pieces(PAGES, breaks=[(0, 2)]), store, RUN, Progress())
    with pytest.raises(ConfigurationError, match="began to list s3://music/"):
        await list_catalogue(Pieces(PAGES, name="s3://voices/"), store, RUN, Progress())


async def test_what_the_selection_leaves_out_is_counted_by_reason(store):
    source = Pieces([["a.wav", "b.flac", "c.pcm", "c.pcm.json", "d.txt.json", "e.wav"]], left_out=[("gone", LeftOut.GONE)])
    progress = Progress()
    selection = Selection(include=["*.wav", "*.pcm"], exclude=["e.*"])
    assert await list_catalogue(source, store, RUN, progress, selection) == 3
    assert manifest(store)["key"].to_list() == ["a.wav", "c.pcm", "c.pcm.json"]
    assert progress.left_out == Counter({LeftOut.NOT_INCLUDED: 2, LeftOut.EXCLUDED: 1, LeftOut.GONE: 1})


@pytest.mark.parametrize("selection", [EVERYTHING, Selection(include=["*"])])
async def test_a_source_without_objects_is_an_error_and_leaves_nothing(store, selection):
    with pytest.raises(ConfigurationError, match="nothing below s3://music/"):
        await list_catalogue(Pieces([[]]), store, RUN, Progress(), selection)
    assert names(store) == []


async def test_a_selection_that_takes_nothing_is_none(store):
    assert await list_catalogue(Pieces([["a"]]), store, RUN, Progress(), Selection(include=["b"])) == 0
    assert manifest(store).height == 0


async def test_progress_says_how_fast_it_goes(store):
    progress, said = Progress(), []

    class Watched(Pieces):
        async def pages(self, piece, cursor=None):
            async for page in super().pages(piece, cursor):
                said.append(progress.step)
                yield page

    await list_catalogue(Watched(PAGES), store, RUN, progress)
    assert said[0] == "listing s3://music/"
    assert all(step.startswith("listing s3://music/, ") and step.endswith(" objects a second") for step in said[1:])
    assert progress.step == "writing the manifest of s3://music/"


@pytest.mark.torture
def test_a_million_keys_are_listed_in_bounded_memory(tmp_path):
    figures = tmp_path / "figures.json"
    subprocess.run(
        [sys.executable, "benchmarks/listing.py", "--json", str(figures)], cwd=ROOT, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    costs = {cost["lister"]: cost for cost in json.loads(figures.read_text())}
    assert costs["manifest"]["keys"] == 1_000_000
    assert costs["manifest"]["peak_mib"] * 1024 * 1024 < 400e6
    assert costs["pages"]["keys"] / costs["pages"]["cpu_s"] > 2 * costs["boto3"]["keys"] / costs["boto3"]["cpu_s"]


@pytest.mark.torture
@pytest.mark.timeout(900)
async def test_a_hundred_thousand_keys_of_another_server_are_listed_as_they_were_put(store, monkeypatch):
    from moto.core import DEFAULT_ACCOUNT_ID  # noqa: PLC0415 - heavy, and only here
    from moto.s3.models import s3_backends  # noqa: PLC0415

    put = [f"library/{number // 1000:03}/{number % 1000:03} + {number % 7}.flac" for number in range(100_000)]
    with LocalS3() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        client = s3_client(S3Settings())
        client.create_bucket(Bucket="music")
        backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        for key in put:
            backend.put_object("music", key, b"fLaC")
        async with S3Caller(client) as caller:
            progress = Progress()
            assert await list_catalogue(S3Listing(caller, [S3Uri("music")]), store, RUN, progress) == len(put)
    listed = manifest(store)
    assert listed["key"].to_list() == sorted(put)
    assert listed["object_id"].n_unique() == len(put)
    assert progress.listed == len(put)
