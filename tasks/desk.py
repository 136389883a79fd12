"""A reviewer's desk: what a person may look through and answer, read from the lake once and kept in step with the answers given here."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import polars as pl
from duckdb import DuckDBPyConnection
from duckdb import Error as DuckDBError

from connectors.lake.query import one_line
from connectors.lake.schemas import ENDPOINT_DATASETS
from connectors.lake.store import ResultStore
from moderation.endpoints import ENDPOINTS
from moderation.errors import ConfigurationError
from moderation.hosts import is_local
from moderation.policy import Answer, Decision
from moderation.timeline import Timeline
from tasks.records import Run
from tasks.review import check_answers, given_answers, queue, record_answers
from tasks.timelines import Subject, timelines

_ANSWERED = ("decisions", "review_answers")
_MEASURED = ("segments", *(dataset.name for kind in ENDPOINT_DATASETS.values() for dataset in (kind.items, kind.summaries)))
"""The tables that are needed for an answer, and for a timeline: of a lake in S3 no others are listed for each of them."""
LOOKED_AT = f"(decision <> '{Decision.ALLOW}' AND NOT superseded) OR reviewer IS NOT NULL"
"""The predicate over decisions_now of what lies on a desk: what is flagged, and what a person has answered."""


_SAID = {
    name: f"SELECT {ENDPOINTS[name].label_field or 'NULL'}, host FROM {kind.summaries.name} WHERE session_id IN (SELECT unnest(?))"  # noqa: S608 - names of ours
    for name, kind in ENDPOINT_DATASETS.items()
}


class Show(StrEnum):
    """Which part of a desk is looked through."""

    WAITING = "waiting"
    """For a person: decided as review."""
    BLOCKED = "blocked"
    """By a policy, and nobody has said anything of it."""
    ANSWERED = "answered"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Filters:
    """What is looked through: a part, one rule or all, and keys and reasons with these words in them, in any case."""

    show: Show = Show.WAITING
    rule: str = ""
    words: str = ""

    def apply(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows of a desk that pass, in their order."""
        parts = {
            Show.WAITING: pl.col("decision") == Decision.REVIEW.value,
            Show.BLOCKED: (pl.col("decision") == Decision.BLOCK.value) & pl.col("reviewer").is_null(),
            Show.ANSWERED: pl.col("reviewer").is_not_null(),
            Show.ALL: pl.lit(value=True),
        }
        passing = parts[self.show]
        if self.rule:
            passing &= pl.col("rule_id") == self.rule
        if self.words:
            text = pl.concat_str("key", pl.lit("\n"), "reason").str.to_lowercase()
            passing &= text.str.contains(self.words.lower(), literal=True)
        return rows.filter(passing)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a decision goes back to: a timeline, labels by endpoint, and whether a server on the scanning machine has said any of it."""

    timeline: Timeline
    labels: Mapping[str, str | None]
    local: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object lies among what is looked through: its number from 1 (None where it does not pass), of how many, its neighbours."""

    number: int | None
    of: int
    before: str | None
    after: str | None


class Desk:
    """The objects of an organisation that a predicate over decisions_now is true of, the most urgent first.

    open_lake is `connectors.lake.query.connect` over its results, which takes `only`, the tables that are needed.
    Methods that read the lake raise ConfigurationError, and what the store raises; they block.
    """

    def __init__(self, store: ResultStore, open_lake: Callable[..., DuckDBPyConnection], org: str, where: str = LOOKED_AT) -> None:
        self._store = store
        self._open_lake = open_lake
        self._org = org
        self._where = where
        self.rows = pl.DataFrame()

    def read(self) -> None:
        """Read the objects anew. Raises QueryError that says what is wrong with the predicate."""
        with self._reading() as lake:
            self.rows = queue(lake, self._org, self._where)

    def find(self, object_id: str) -> Mapping[str, Any] | None:
        """A row of `rows`; None for what does not lie here."""
        found = self.rows.filter(pl.col("object_id") == object_id)
        return found.row(0, named=True) if found.height else None

    def place(self, object_id: str, filters: Filters) -> Place:
        """Where an object lies among what passes, what was before and after it where it has just ceased to pass."""
        ranked = self.rows.with_row_index("rank")
        found = ranked.filter(pl.col("object_id") == object_id)["rank"]
        own = found.item() if found.len() else ranked.height
        passing = filters.apply(ranked)
        before, after = passing.filter(pl.col("rank") < own), passing.filter(pl.col("rank") > own)
        passes = before.height + after.height < passing.height
        return Place(
            before.height + 1 if passes else None,
            passing.height,
            before["object_id"][-1] if before.height else None,
            after["object_id"][0] if after.height else None,
        )

    def evidence(self, row: Mapping[str, Any]) -> Evidence:
        """What the sessions that a decision goes back to have said and measured."""
        start, end = row["evidence_start_ms"], row["evidence_end_ms"]
        evidence = None if start is None or end is None else (start, end)
        sessions = [session for session in row["evidence_sessions"].split(",") if session]
        with self._reading(_MEASURED) as lake:
            drawn = timelines(lake, [Subject(row["object_id"], sessions, evidence)])[row["object_id"]]
            said = {endpoint: told for endpoint, query in _SAID.items() for told in lake.execute(query, [sessions]).fetchall()}
        return Evidence(drawn, {endpoint: label for endpoint, (label, _) in said.items()}, any(is_local(host) for _, host in said.values()))

    def answer(self, run: Run, object_id: str, said: Mapping[str, str], reviewer: str, now: datetime) -> str | None:
        """Put on record what a person says of an object, `answer` and `note`: the file. None where it was said already, and adds nothing.

        Raises AnswersRefused for what is no answer, or about what cannot be answered.
        """
        [given] = given_answers([(1, {"object_id": object_id, "answer": said["answer"], "note": said["note"]})], reviewer, now)
        with self._reading(_ANSWERED) as lake:
            checked = check_answers(lake, self._org, [given], now)
        file = record_answers(self._store, run, checked)
        if given.answer is not Answer.UNSURE:
            self._answered(object_id, {"decision": given.answer.value, "answer": given.answer.value, "note": given.note}, reviewer, now)
        return file

    def _answered(self, object_id: str, said: Mapping[str, str | None], reviewer: str, now: datetime) -> None:
        own = pl.col("object_id") == object_id
        told: dict[str, Any] = {**said, "reviewer": reviewer, "answered_at": now}
        self.rows = self.rows.with_columns(
            pl.when(own).then(pl.lit(value, self.rows.schema[name])).otherwise(pl.col(name)).alias(name) for name, value in told.items()
        )

    @contextmanager
    def _reading(self, only: Sequence[str] | None = None) -> Iterator[DuckDBPyConnection]:
        try:
            with self._open_lake(only=only) as lake:
                yield lake
        except DuckDBError as error:
            raise ConfigurationError(f"the results cannot be read: {one_line(error)}; soundcheck verify says more") from error
