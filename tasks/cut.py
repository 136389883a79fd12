"""How a plan is cut: to a sample, to so many objects, to so many hours. What is cut stays pending for a later run."""

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from moderation.budget import hours_to_ms


@dataclass(frozen=True, slots=True)
class Cut:
    """What a plan takes of what is left to do; None is all of it. limit counts objects to stream, max_hours audio over all endpoints."""

    sample: int | None = None
    limit: int | None = None
    max_hours: float | None = None

    def meter(self) -> "Meter":
        """A fresh count of what was taken."""
        return Meter(self.limit, None if self.max_hours is None else hours_to_ms(self.max_hours))


class Meter:
    """Counts objects and audio in the order of the listing, and says where a bound is reached: at the first object that is too much."""

    def __init__(self, limit: int | None, most_ms: int | None) -> None:
        self._limit = limit
        self._most_ms = most_ms
        self._objects = 0
        self._ms = 0
        self.is_full = limit == 0
        """Whether nothing more is taken."""

    @property
    def is_bounded(self) -> bool:
        """Whether there is any bound."""
        return self._limit is not None or self._most_ms is not None

    def take(self, objects: Iterable[tuple[int | None, int]]) -> int:
        """How many of these are within the bounds: given the milliseconds of each (None: it is not streamed) and for how many endpoints."""
        taken = 0
        for estimate_ms, endpoints in objects:
            if self.is_full or (estimate_ms is not None and not self._add(estimate_ms * endpoints)):
                break
            taken += 1
        return taken

    def _add(self, ms: int) -> bool:
        """Whether an object of so much audio is within the bounds."""
        if self._most_ms is not None and self._ms + ms > self._most_ms:
            self.is_full = True
            return False
        self._ms += ms
        self._objects += 1
        self.is_full = self._objects == self._limit
        return True


def sampled(left: pl.DataFrame, size: int | None) -> pl.DataFrame:
    """So many objects of a listing, stratified by format (as named) and size (by doublings), the same ones each time; None is all of them.

    Every stratum gives one, the large ones first where there are more strata than objects wanted, and then as many as its share.
    """
    if size is None or size >= left.height:
        return left
    extension = pl.col("key").str.to_lowercase().str.extract(r"\.([^./]+)$").fill_null("")
    doublings = (pl.col("size_bytes") + 1).log(2).floor()
    strata = left.select("position", "object_id", extension.alias("extension"), doublings.alias("doublings")).sort("object_id")
    stratum = ["extension", "doublings"]
    of_stratum = pl.len().over(stratum)
    turn = pl.int_range(pl.len()).over(stratum) / of_stratum
    ordered = strata.with_columns(turn.alias("turn"), of_stratum.alias("stratum_size"))
    ordered = ordered.sort("turn", "stratum_size", "object_id", descending=[False, True, False])
    return left.join(ordered.head(size), on="position", how="semi", maintain_order="left")
