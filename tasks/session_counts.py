"""Holds the items, segments, attempts and summaries of one day's packages against each other: what is missing, twice, or another number.

Works on tables of `connectors.lake.session_facts`, with the name of the file and its package. No I/O.
"""

from collections.abc import Collection, Iterator, Mapping

import polars as pl

from connectors.lake.findings import Finding, Problem
from connectors.lake.schemas import ENDPOINT_DATASETS
from connectors.lake.session_facts import Kind
from moderation.endpoints import ENDPOINTS

Facts = Mapping[Kind, pl.DataFrame]
_SESSION = ["endpoint", "session_id"]
_TEXT = dict.fromkeys(("name", "package", *_SESSION, "object_id"), pl.String())
_STRETCHES = _TEXT | {"first": pl.Int64(), "rows": pl.Int64(), "whole": pl.Boolean(), "backward": pl.Boolean(), "span_ms": pl.Int64()}
_SUMMARIES = _TEXT | {"items_received": pl.Int64(), "covered_ms": pl.Int64(), "quality_flags": pl.String(), "items_counted": pl.Int64()}
NO_FACTS: Facts = {
    Kind.ITEMS: pl.DataFrame(schema=_STRETCHES),
    Kind.SEGMENTS: pl.DataFrame(schema=_STRETCHES),
    Kind.ATTEMPTS: pl.DataFrame(schema=_TEXT | {"outcome": pl.String()}),
    Kind.SUMMARIES: pl.DataFrame(schema=_SUMMARIES),
}
"""The tables of a day without sessions."""


def disagreements(facts: Facts, names: Collection[str]) -> Iterator[Finding]:
    """What does not fit between the files of a day; names are those of all of its files, also of those that could not be read."""
    items, segments, attempts, summaries = (facts[kind] for kind in (Kind.ITEMS, Kind.SEGMENTS, Kind.ATTEMPTS, Kind.SUMMARIES))
    for frame in facts.values():
        yield from _found(_unsorted(frame), Problem.COUNTS, "are not in the order of the dataset")
    for frame in (attempts, summaries):
        yield from _found(frame.filter(pl.struct(_SESSION).is_duplicated()), Problem.TWICE, "are there twice")
    for frame, what in ((items, "items"), (segments, "segments")):
        yield from _found(_in_several(frame), Problem.TWICE, f"have {what} in several files")
        yield from _found(_holes(frame), Problem.COUNTS, f"have {what} that are not numbered from 0 without a hole")
    yield from _found(segments.filter("backward"), Problem.COUNTS, "have segments that overlap")
    yield from _without_summary(facts, names)
    yield from _wrong_counts(_of_sessions(items), _of_sessions(segments), summaries)
    others = summaries.join(attempts, on=_SESSION, how="anti")
    yield from _found(others, Problem.ORPHANS, "have no attempt")
    for frame in (items, segments, attempts):
        other = frame.join(summaries.select(*_SESSION, object="object_id"), on=_SESSION).filter(pl.col("object_id") != pl.col("object"))
        yield from _found(other, Problem.COUNTS, "are of another object than their summaries say")


def _wrong_counts(items: pl.DataFrame, segments: pl.DataFrame, summaries: pl.DataFrame) -> Iterator[Finding]:
    """Summaries that count other items, or more audio, than there is."""
    held = summaries.join(items, on=_SESSION, how="left").with_columns(pl.col("rows").fill_null(0))
    missing = (pl.col("rows") == 0) & (pl.col("items_received") > 0)
    yield from _found(held.filter(missing), Problem.ORPHANS, "have no items, though their summaries count some")
    yield from _found(held.filter(~missing & (pl.col("rows") != pl.col("items_received"))), Problem.COUNTS, "have other numbers of items")
    miscounted = (pl.col("quality_flags") == "") & (pl.col("items_counted") != pl.col("items_received"))
    yield from _found(held.filter(miscounted), Problem.COUNTS, "count other items than they have, and are not flagged for it")
    tiled = summaries.join(segments, on=_SESSION, how="left").with_columns(pl.col("span_ms").fill_null(0))
    everywhere = pl.col("endpoint").is_in([name for name, endpoint in ENDPOINTS.items() if endpoint.rest is not None])
    wrong = pl.when(everywhere).then(pl.col("span_ms") != pl.col("covered_ms")).otherwise(pl.col("span_ms") > pl.col("covered_ms"))
    yield from _found(tiled.filter(wrong), Problem.COUNTS, "have segments of other audio than their items cover")


def _without_summary(facts: Facts, names: Collection[str]) -> Iterator[Finding]:
    """What says that there is a result that is not there: its package is unfinished where it has no file of such summaries yet."""
    summaries, seen = facts[Kind.SUMMARIES], set()
    for kind, words in ((Kind.ITEMS, "items"), (Kind.SEGMENTS, "segments"), (Kind.ATTEMPTS, "a good attempt")):
        frame = facts[kind]
        lonely = frame.filter(pl.col("outcome") == "done") if kind is Kind.ATTEMPTS else frame
        lonely = lonely.join(summaries, on=_SESSION, how="anti")
        for (name, endpoint, package), sessions in lonely.group_by("name", "endpoint", "package", maintain_order=True):
            summary = _summary_name(str(name), str(endpoint), str(package))
            if summary is None or summary in names:
                yield from _found(sessions, Problem.ORPHANS, f"have {words}, and no summary")
            elif summary not in seen:
                seen.add(summary)
                yield Finding(summary, Problem.UNFINISHED, f"it is not there, and {package} has {words} of its sessions")


def _summary_name(name: str, endpoint: str, package: str) -> str | None:
    """Where the summaries belong that a file's rows have."""
    if not package or endpoint not in ENDPOINT_DATASETS:
        return None
    folder = name.split("/")[1]
    return f"{ENDPOINT_DATASETS[endpoint].summaries.name}/{folder}/{package}.parquet"


def _unsorted(frame: pl.DataFrame) -> pl.DataFrame:
    """The first rows that come before those in front of them in their files."""
    place = pl.concat_str("object_id", "session_id", separator=" ")
    return frame.filter((place < place.shift(1)).over("name"))


def _in_several(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(pl.col("name").n_unique().over(_SESSION) > 1)


def _holes(frame: pl.DataFrame) -> pl.DataFrame:
    """Stretches of sessions whose ordinals do not go from 0 on: each begins where the ones before it end."""
    begins = (pl.col("rows").cum_sum() - pl.col("rows")).over(["name", *_SESSION])
    return frame.sort("name", *_SESSION, "first").filter(~pl.col("whole") | (pl.col("first") != begins))


def _of_sessions(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows and time of each session, of the file that has most where there are several."""
    of_files = frame.group_by("name", *_SESSION).agg(pl.col("rows", "span_ms").sum())
    return of_files.group_by(_SESSION).agg(pl.col("rows", "span_ms").max())


def _found(frame: pl.DataFrame, problem: Problem, words: str) -> Iterator[Finding]:
    """One finding a file: how many of its sessions it is about, and one of them."""
    per_file = frame.group_by("name").agg(sessions=pl.col("session_id").n_unique(), such=pl.col("session_id").min()).sort("name")
    for name, sessions, such in per_file.iter_rows():
        yield Finding(name, problem, f"{sessions} of its sessions {words}, such as {such}")
