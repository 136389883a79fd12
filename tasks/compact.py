"""Compacts every closed day of a lake: what `soundcheck compact` does."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from connectors.lake.compaction import ANSWERS, COMPACTED, compact, days_before
from connectors.lake.store import ResultStore
from tasks.refresh import keep_current


@dataclass(frozen=True, slots=True)
class Compacted:
    """What a compaction did: days looked at, files merged into files made, originals deleted, those that an earlier one left too."""

    days: int
    merged: int
    made: int
    deleted: int


def compact_days(store: ResultStore, before: date, tell: Callable[[int, int], None]) -> Compacted:
    """Compact the days before one, the oldest first; tell hears how many datasets of how many are done.

    A day at a time is read and its originals deleted, so that what breaks off leaves no more than one day half done. At the end the
    materialised `current` is made. Raises NotCompacted, and what the store raises.
    """
    days = days_before(store, before)
    done: Counter[str] = Counter()
    for number, files in enumerate(days):
        every = (*COMPACTED, ANSWERS)
        for place, dataset in enumerate(every, 1):
            done += compact(store, files, dataset)
            tell(number * len(every) + place, len(days) * len(every))
    keep_current(store)
    return Compacted(len(days), done["merged"], done["made"], done["deleted"])
