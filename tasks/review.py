"""What people review, and what they say of it: the queue of decisions, answers that are checked and kept, how often rules are right.

Answers are a log: none is ever changed, and the last that decides counts, in the view decisions_now, more than any policy.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
from duckdb import DuckDBPyConnection

from connectors.lake.packages import partition_name, write_rows
from connectors.lake.predicates import Predicate
from connectors.lake.schemas import datasets
from connectors.lake.store import ResultStore
from connectors.lake.untold import Untold, note
from moderation.policy import Answer
from tasks.decide import part_name
from tasks.frames import frame_of
from tasks.records import Run
from tasks.review_sheets import AnswersRefused

DATASET = "review_answers"
TO_REVIEW = "decision = 'review' AND NOT superseded"
"""The predicate over decisions_now of what waits for a person: nobody can listen to a version that was overwritten."""
ASKED = ("answer", "reviewer", "answered_at", "note")
"""The columns of a sheet that people fill in."""
NEEDED = ("object_id", "answer")
AHEAD = timedelta(minutes=5)
"""How far ahead of ours the clock of a reviewer may be: an answer from next year would count until then."""
NAMED_PROBLEMS = 20
_SHOWN = (
    "object_id",
    "bucket",
    "key",
    "version_id",
    "etag",
    "decision",
    "priority",
    "rule_id",
    "held_back",
    "reason",
    "evidence_start_ms",
    "evidence_end_ms",
    "policy",
    "policy_hash",
    "decided_at",
    "evidence_sessions",
)
_DECIDED = ("rule_id", "policy_hash", "held_back")


@dataclass(frozen=True, slots=True)
class Given:
    """An answer as somebody gave it, number being its row in a sheet. answered_at None is the time at which it is taken."""

    number: int
    object_id: str
    answer: Answer
    reviewer: str
    answered_at: datetime | None = None
    note: str | None = None

    @property
    def words(self) -> tuple[Answer, str | None]:
        """What it says."""
        return self.answer, self.note


@dataclass(slots=True)
class Checked:
    """Answers that may be kept: rows of the dataset. repeated counts those that are on record already."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    repeated: int = 0


def queue(lake: DuckDBPyConnection, org: str, where: str = TO_REVIEW, limit: int | None = None) -> pl.DataFrame:
    """What an organisation's people are to look at, the most urgent first, of the rows of decisions_now that a predicate is true of.

    It has the columns of a sheet; those of ASKED are as they were answered. Raises QueryError that says what is wrong with the predicate.
    """
    answered = pl.col("reviewer").is_not_null()
    rows = frame_of(Predicate("decisions_now", where).rows(lake, [*_SHOWN, "org", "reviewer", "answered_at", "note"]))
    own = rows.filter(pl.col("org") == org).with_columns(pl.when(answered).then("decision").alias("answer"))
    ranked = own.sort("priority", "decided_at", "bucket", "key", "object_id", descending=[True, False, False, False, False])
    return ranked.select(*_SHOWN, *ASKED).head(ranked.height if limit is None else limit)


def given_answers(rows: Iterable[tuple[int, Mapping[str, Any]]], reviewer: str, now: datetime) -> list[Given]:
    """The answers in the rows of a sheet; rows without one are passed over. reviewer is whose they are where the row does not say.

    Raises AnswersRefused that names the rows in which something is wrong.
    """
    answers: list[Given] = []
    problems: list[tuple[int, str]] = []
    for number, row in rows:
        if missing := [name for name in NEEDED if name not in row]:
            raise AnswersRefused(f"the sheet has no column {', '.join(missing)}: those of soundcheck review export are needed")
        if not _text(row["answer"]):
            continue
        try:
            answers.append(_given(number, row, reviewer, now))
        except ValueError as error:
            problems.append((number, str(error)))
    _refuse(problems)
    return answers


def check_answers(lake: DuckDBPyConnection, org: str, answers: Iterable[Given], now: datetime) -> Checked:
    """Hold answers against what is on record: each gets the decision that it is about, and what was said already is left out.

    Raises AnswersRefused that names the rows whose object has no decision of the organisation's, or that contradict another answer.
    """
    answers, checked = list(answers), Checked()
    decided, known = _decided(lake, org, answers, now), _known(lake, answers)
    newest: dict[tuple[str, str], tuple[Answer, str | None]] = {(object_id, who): words for (object_id, who, _), words in known.items()}
    problems = []
    for given in answers:
        about = decided.get(given.number)
        at = given.answered_at or now
        said = newest.get((given.object_id, given.reviewer)) if given.answered_at is None else None
        earlier = known.get((given.object_id, given.reviewer, at))
        if about is None:
            problems.append((given.number, f"there is no decision on object_id {given.object_id!r} that could be answered"))
        elif given.words in (said, earlier):
            checked.repeated += 1
        elif earlier is not None:
            problems.append((given.number, f"{given.reviewer} has said {earlier[0]} of this object at the same instant"))
        else:
            known[given.object_id, given.reviewer, at] = newest[given.object_id, given.reviewer] = given.words
            checked.rows.append(_row(given, at, about))
    _refuse(problems)
    return checked


def record_answers(results: ResultStore, run: Run, checked: Checked) -> str | None:
    """Put answers on record in the name of a run, and return the file; None where there are none. Raises what the store raises."""
    if not checked.rows:
        return None
    part = part_name(results, DATASET, run, "a")
    file = partition_name(datasets()[DATASET], run.scan_date, f"{run.run_id}-{part}")
    note(results, Untold(file, run.org, run.run_id, run.started_at))
    write_rows(results, DATASET, run.run_id, run.scan_date, part, checked.rows)
    return file


def precision(lake: DuckDBPyConnection, org: str) -> pl.DataFrame:
    """How often people agree with each rule of an organisation, month by month, the newest first: the view rule_precision."""
    query = "FROM rule_precision WHERE org = ? ORDER BY month DESC, rule_id, expected"
    return frame_of(lake.sql(query, params=[org]).to_arrow_table())


def _given(number: int, row: Mapping[str, Any], reviewer: str, now: datetime) -> Given:
    """The answer in a row. Raises ValueError that says what is wrong with it."""
    word = _text(row["answer"]).lower()
    if word not in set(Answer):
        raise ValueError(f"answer {word!r} is none of {', '.join(Answer)}")
    at = _instant(row.get("answered_at"))
    if at is not None and at > now + AHEAD:
        raise ValueError(f"answered_at {at.isoformat()} is in the future")
    object_id, who = _text(row["object_id"]), _text(row.get("reviewer")) or reviewer
    return Given(number, object_id, Answer(word), who, at, _text(row.get("note")) or None)


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def _instant(value: object) -> datetime | None:
    """An instant; one without a time zone is in UTC. Raises ValueError."""
    if not _text(value):
        return None
    try:
        at = value if isinstance(value, datetime) else datetime.fromisoformat(_text(value))
    except ValueError:
        raise ValueError(f"answered_at {value!r} is no instant such as 2026-11-21T08:30:00Z") from None
    return (at.replace(tzinfo=UTC) if at.tzinfo is None else at).astimezone(UTC)


def _decided(lake: DuckDBPyConnection, org: str, answers: list[Given], now: datetime) -> dict[int, dict[str, Any]]:
    """By the number of an answer, the decision that it is about: the last before it, else the first of all."""
    _register(lake, "given_answers", answers, now)
    query = f"""
        SELECT given.number, decided.decision, {", ".join(f"decided.{name}" for name in _DECIDED)}
        FROM given_answers AS given
        JOIN decisions AS decided ON decided.object_id = given.object_id AND decided.org = ?
        QUALIFY row_number() OVER (
            PARTITION BY given.number
            ORDER BY decided.decided_at <= given.answered_at DESC,
                CASE WHEN decided.decided_at <= given.answered_at THEN decided.decided_at END DESC, decided.decided_at
        ) = 1
    """  # noqa: S608 - names of ours
    found = frame_of(lake.sql(query, params=[org]).to_arrow_table())
    return {row.pop("number"): row for row in found.to_dicts()}


def _known(lake: DuckDBPyConnection, answers: list[Given]) -> dict[tuple[str, str, datetime], tuple[Answer, str | None]]:
    """What is on record of the same objects, by object, reviewer and instant, the oldest first."""
    query = """
        SELECT object_id, reviewer, answered_at, answer, note FROM review_answers
        WHERE object_id IN (SELECT object_id FROM given_answers) ORDER BY answered_at
    """
    rows = frame_of(lake.sql(query).to_arrow_table()).iter_rows() if answers else iter(())
    return {(object_id, who, at.astimezone(UTC)): (Answer(answer), note) for object_id, who, at, answer, note in rows}


def _register(lake: DuckDBPyConnection, name: str, answers: list[Given], now: datetime) -> None:
    rows = [(given.number, given.object_id, given.answered_at or now) for given in answers]
    types = pl.Schema({"number": pl.Int64(), "object_id": pl.String(), "answered_at": pl.Datetime("us", "UTC")})
    lake.register(name, pl.DataFrame(rows, types, orient="row").to_arrow())


def _row(given: Given, at: datetime, about: Mapping[str, Any]) -> dict[str, Any]:
    told = {"object_id": given.object_id, "reviewer": given.reviewer, "answered_at": at, "answer": given.answer.value, "note": given.note}
    return {**told, "decision_before": about["decision"], **{name: about[name] for name in _DECIDED}}


def _refuse(problems: list[tuple[int, str]]) -> None:
    """Raise where something is wrong, with as many rows as a person reads."""
    if problems:
        named = "; ".join(f"row {number}: {what}" for number, what in problems[:NAMED_PROBLEMS])
        more = f"; and {len(problems) - NAMED_PROBLEMS} more" if len(problems) > NAMED_PROBLEMS else ""
        raise AnswersRefused(f"nothing was imported: {named}{more}")
