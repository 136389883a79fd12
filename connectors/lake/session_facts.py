"""What the rows of a package say of its sessions: enough to hold items, segments, attempts and summaries against each other.

A table for each kind of row. Every one has endpoint, session_id and object_id; those of items and segments have a row for each stretch of
rows of one session: `first`, its first ordinal; `rows`; `whole`, whether ordinals follow each other and the object is one; `backward`,
whether a row begins before the one before it ends; `span_ms`, what its rows last together. items_counted is what the service counted.
"""

from enum import Enum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectors.lake.columns import Dataset
from connectors.lake.schemas import ENDPOINT_DATASETS, SEGMENTS
from moderation.endpoints import ENDPOINTS

_KEY = ("endpoint", "session_id", "object_id")


class Kind(Enum):
    """The kinds of rows that a session has in the lake."""

    ITEMS = "items"
    SEGMENTS = "segments"
    ATTEMPTS = "attempts"
    SUMMARIES = "summaries"


def kind_of(dataset: Dataset) -> Kind | None:
    """What a dataset's rows are of a session, None where they are of none."""
    if dataset in {ours.items for ours in ENDPOINT_DATASETS.values()}:
        return Kind.ITEMS
    if dataset in {ours.summaries for ours in ENDPOINT_DATASETS.values()}:
        return Kind.SUMMARIES
    return {SEGMENTS.name: Kind.SEGMENTS, "attempts": Kind.ATTEMPTS}.get(dataset.name)


def facts_of(dataset: Dataset, rows: pa.Table) -> pa.Table | None:
    """What rows of a dataset say of their sessions, None where they say nothing or there are none."""
    kind = kind_of(dataset)
    if kind is None or not rows.num_rows:
        return None
    if kind is Kind.ATTEMPTS:
        return rows.select([*_KEY, "outcome"])
    if kind is Kind.SUMMARIES:
        endpoint = next(name for name, ours in ENDPOINT_DATASETS.items() if ours.summaries is dataset)
        counted = rows[ENDPOINTS[endpoint].count_field]
        return rows.select([*_KEY, "items_received", "covered_ms", "quality_flags"]).append_column("items_counted", counted)
    if kind is Kind.ITEMS:
        endpoint = next(name for name, ours in ENDPOINT_DATASETS.items() if ours.items is dataset)
        rows = rows.append_column("endpoint", pa.repeat(pa.scalar(endpoint, pa.string()), rows.num_rows))
    return _stretches(rows, dataset.sorted_by[-1])


def _stretches(rows: pa.Table, ordinal: str) -> pa.Table:
    """The stretches of rows of one session that follow each other."""
    new_session, new_object = _changes(rows["session_id"]), _changes(rows["object_id"])
    begins = np.flatnonzero(new_session)
    ordinals, starts, ends = (rows[name].to_numpy() for name in (ordinal, "start_time_ms", "end_time_ms"))
    broken = new_object | (np.diff(ordinals, prepend=ordinals[0]) != 1)
    backward = starts < np.roll(ends, 1)
    for of_rows in (broken, backward):
        of_rows[begins] = False  # where a stretch begins nothing goes before
    counts = np.diff(np.append(begins, rows.num_rows))
    facts = {
        "first": pa.array(ordinals[begins]),
        "rows": pa.array(counts),
        "whole": pa.array(~np.logical_or.reduceat(broken, begins)),
        "backward": pa.array(np.logical_or.reduceat(backward, begins)),
        "span_ms": pa.array(np.add.reduceat(ends - starts, begins)),
    }
    table = rows.select(_KEY).take(begins)
    for name, values in facts.items():
        table = table.append_column(name, values)
    return table


def _changes(values: "pa.ChunkedArray[Any]") -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Where a value is another than the one before it; the first is."""
    array = values.combine_chunks()
    return np.append(True, pc.not_equal(array[1:], array[:-1]).to_numpy(zero_copy_only=False))
