"""Sorted Parquet files of one dataset read as one, in order, without holding more than a batch of each."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from connectors.lake.columns import Dataset
from connectors.lake.parquet import fitted

BATCH_ROWS = 16 * 1024
"""Rows that are held of each file: some 2 MB of items."""
Key = tuple[Any, ...]


def merged_rows(files: Sequence[BinaryIO], dataset: Dataset, batch_rows: int = BATCH_ROWS) -> Iterator[pa.Table]:
    """The rows of files that are each in the dataset's order, in that order, in pieces. Pages are held against their checksums.

    Raises what Arrow raises for a damaged file.
    """
    cursors = [_Cursor(file, dataset, batch_rows) for file in files]
    while cursors := [cursor for cursor in cursors if cursor.fill()]:
        # nothing that is still unread comes before the first of their last rows
        reached = min(cursor.key(-1) for cursor in cursors)
        pieces = [cursor.take(reached) for cursor in cursors]
        yield pa.concat_tables(pieces).sort_by([(name, "ascending") for name in dataset.sorted_by])


class _Cursor:
    """A place in a file."""

    def __init__(self, file: BinaryIO, dataset: Dataset, batch_rows: int) -> None:
        self._dataset = dataset
        self._batches = pq.ParquetFile(file, page_checksum_verification=True).iter_batches(batch_rows)
        self._rows = dataset.arrow_schema().empty_table()

    def fill(self) -> bool:
        """Have rows in hand; whether there are any left."""
        while not self._rows.num_rows:
            batch = next(self._batches, None)
            if batch is None:
                return False
            self._rows = fitted(self._dataset, pa.Table.from_batches([batch]))
        return True

    def key(self, row: int) -> Key:
        """What a row in hand is sorted by."""
        return tuple(self._rows[name][row].as_py() for name in self._dataset.sorted_by)

    def take(self, last: Key) -> pa.Table:
        """Let go of the rows in hand up to a key."""
        count = bisect_right(range(self._rows.num_rows), last, key=self.key)
        taken, self._rows = self._rows.slice(0, count), self._rows.slice(count)
        return taken
