"""A manifest while it is being written: parts of it, each with the place where its listing goes on, under the run's folder.

What breaks off leaves its parts; whoever goes on with the same run takes them up. Complete, they become the manifest, in the order of the
pieces, and go.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from io import BytesIO
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from connectors.lake.packages import rows_sink, run_file
from connectors.lake.parquet import ParquetSink
from connectors.lake.schemas import METADATA_SOURCE, METADATA_WATERMARK, datasets
from connectors.lake.store import ResultStore

_DATASET = "manifests"
_PROGRESS = "soundcheck.listing"


class Listing(msgspec.Struct, frozen=True):
    """What is being listed: a source by its address, its pieces in order, and the instant of which the manifest shows the state."""

    source: str
    pieces: tuple[str, ...]
    watermark: datetime


class PartProgress(msgspec.Struct, frozen=True):
    """What a part's footer says: where its piece goes on behind it, None for the last part; and what was left out, by reason."""

    cursor: str | None
    left_out: dict[str, int]


@dataclass(frozen=True, slots=True)
class PieceProgress:
    """How far a piece is: parts written, where it goes on, whether it is finished, its objects, and what was left out."""

    parts: int = 0
    cursor: str | None = None
    finished: bool = False
    objects: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)


class ManifestParts:
    """The parts of one run's manifest. One process at a time may write them. Raises what the store raises."""

    def __init__(self, store: ResultStore, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self._folder = run_file(run_id, "listing")

    def begun(self) -> Listing | None:
        """What an earlier process began to list for this run."""
        text = self._store.get(f"{self._folder}/listing.json")
        return None if text is None else msgspec.json.decode(text, type=Listing)

    def begin(self, listing: Listing) -> None:
        """Put on record what will be listed."""
        self._store.put(f"{self._folder}/listing.json", msgspec.json.encode(listing))

    def progress(self, pieces: int) -> list[PieceProgress]:
        """How far each piece is."""
        found = [PieceProgress()] * pieces
        for name in self._names():
            piece = int(name.rpartition("/")[2].partition("-")[0])
            found[piece] = self._with_part(found[piece], name)
        return found

    def write(self, piece: int, part: int, rows: Sequence[pa.Table], said: PartProgress) -> None:
        """Add a part of a piece; both count from 0."""
        out = BytesIO()
        with ParquetSink(out, datasets()[_DATASET], run_id=self._run_id) as sink:
            for table in rows:
                sink.write(table)
            sink.describe({_PROGRESS: msgspec.json.encode(said).decode()})
        self._store.put(f"{self._folder}/{piece:05}-{part:07}.parquet", out.getvalue())

    def finish(self, scan_date: date, listing: Listing) -> None:
        """Write the manifest of all parts. It appears whole."""
        with rows_sink(self._store, _DATASET, self._run_id, scan_date, datasets()[_DATASET].stem) as sink:
            sink.describe({METADATA_SOURCE: listing.source, METADATA_WATERMARK: listing.watermark.isoformat()})
            for name in self._names():
                sink.write(self._part(name).read())

    def remove(self) -> None:
        """Delete the parts."""
        for name in [*self._names(), f"{self._folder}/listing.json"]:
            self._store.delete(name)

    def _names(self) -> list[str]:
        return sorted(name for name in self._store.list(f"{self._folder}/") if name.endswith(".parquet"))

    def _part(self, name: str) -> Any:
        data = self._store.get(name)
        assert data is not None, f"{name} was deleted by somebody else"
        return pq.ParquetFile(BytesIO(data))

    def _with_part(self, before: PieceProgress, name: str) -> PieceProgress:
        footer = self._part(name).metadata
        said = msgspec.json.decode(footer.metadata[_PROGRESS.encode()], type=PartProgress)
        return PieceProgress(
            before.parts + 1,
            said.cursor,
            said.cursor is None,
            before.objects + footer.num_rows,
            Counter(before.left_out) + Counter(said.left_out),
        )
