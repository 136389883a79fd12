"""A policy over the lake: a decision of what is known about each object version of an organisation, all of them at once.

First the rule that fires for each object, over the view evidence_latest, then what follows from it. What comes of it has the columns of the
dataset `decisions`, less those that only writing them tells (NOT_JUDGED).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from connectors.lake.evidence import figure_names
from connectors.lake.predicates import CHECK_SECONDS, Predicate, at_most
from connectors.lake.query import QueryError, connect_to_nothing, one_line
from connectors.lake.schemas import ENDPOINT_DATASETS
from connectors.lake.tables import quoted
from moderation.endpoints import ENDPOINTS
from moderation.policy import NO_RULE, Decision, HeldBack, Policy
from moderation.policy_file import PolicyError, PolicyText

NOT_JUDGED = ("decided_at", "run_id")
_EVIDENCE = "evidence_latest"
_OF_OBJECT = ("object_key_id", "org", "bucket", "key", "version_id", "etag")
_JUDGED_FACTS = ("session_id", "covered_ms", "evidence", "quality_flags", "quarantine_reason")
_VOLATILE = "its condition has a function such as random(): it would decide otherwise each time, and tell that each time"
_FIRED = "rule_number"
"""The number of the rule that fired; null where none did."""
JUDGING_SECONDS = 3600.0
"""How long all conditions may take over all objects: a million took 20 s of CPU. Who waits for it at a scan's end is no person."""
_HASH_DIGITS = 8
"""Hex digits of an object_id, itself a hash, that choose the sample: the same objects whatever the policy."""


@dataclass(frozen=True, slots=True)
class Judging:
    """A policy over a connection to the lake, for one organisation. name tells its views from those of another policy there."""

    told: PolicyText
    org: str
    name: str = "judged"

    def check(self) -> None:
        """Find out what is wrong with the policy before there is anything to judge. Raises PolicyError that names the line."""
        with connect_to_nothing() as lake:
            self.judge(lake)

    def judge(self, lake: duckdb.DuckDBPyConnection) -> str:
        """Make a table of decisions in the connection, and return its name. Raises PolicyError that names the line."""
        self._make_subjects(lake)
        lake.register(f"{self.name}_rules", _rules(self.told.policy))
        number = self._fired(lake, [rule.when for rule in self.told.policy.rules]).alias(_FIRED)
        try:
            with at_most(lake, JUDGING_SECONDS):
                lake.view(self._subjects).select(*map(duckdb.ColumnExpression, _judged_columns()), number).create(f"{self.name}_fired")
                lake.execute(f"CREATE TABLE {self.name} AS {_decided(self.name, self.told.policy)}")
        except duckdb.InterruptException as error:
            raise PolicyError(f"{self.told.origin}: its conditions have not come to an end within {JUDGING_SECONDS:.0f} s") from error
        except duckdb.Error as error:
            raise self._blamed(lake, error, self._subjects) from error
        lake.execute(f"DROP TABLE {self.name}_fired")
        return self.name

    def _blamed(self, lake: duckdb.DuckDBPyConnection, error: duckdb.Error, rows: str) -> PolicyError:
        """What rows have shown to be wrong: the rule whose condition breaks off over them, where it is one's."""
        seconds = CHECK_SECONDS if rows == self._evidence else JUDGING_SECONDS
        for number, rule in enumerate(self.told.policy.rules):
            try:
                with at_most(lake, seconds):
                    Predicate(rows, rule.when).object_ids(lake)
            except QueryError as its_own:
                return self._of_rule(number, its_own)
        return PolicyError(f"{self.told.origin}: the results cannot be asked: {one_line(error)}")

    @property
    def _subjects(self) -> str:
        return f"{self.name}_subjects"

    @property
    def _evidence(self) -> str:
        return f"{self.name}_evidence"

    def _make_subjects(self, lake: duckdb.DuckDBPyConnection) -> None:
        """The evidence of the organisation's objects, with the columns that the policy takes from keys; and a row of nulls like it."""
        policy = self.told.policy
        pattern = quoted(policy.key_pattern or "")
        if taken := [name for name in policy.key_columns if name in lake.view(_EVIDENCE).columns]:
            raise self.told.error(f"key_pattern: there is a column {', '.join(taken)} already: name the group otherwise", ("key_pattern",))
        of_key = [f", nullif(regexp_extract(key, '{pattern}', {group}), '') AS {name}" for name, group in policy.key_columns.items()]
        query = f"SELECT *{''.join(of_key)} FROM {_EVIDENCE} WHERE org = '{quoted(self.org)}'"  # noqa: S608 - quoted, and names that are words
        try:
            lake.execute(f"CREATE VIEW {self._subjects} AS {query}")
            lake.sql(f"SELECT regexp_matches('', '{pattern}')").fetchall()
        except duckdb.Error as error:
            if not policy.key_columns:
                raise
            raise self.told.error(f"key_pattern: {one_line(error)}", ("key_pattern",)) from error
        lake.execute(f"CREATE TABLE {self._evidence} AS SELECT * FROM {self._subjects} LIMIT 0")  # noqa: S608 - a name of ours
        lake.execute(f"INSERT INTO {self._evidence} (object_id) VALUES (NULL)")  # noqa: S608 - as above

    def _fired(self, lake: duckdb.DuckDBPyConnection, conditions: list[str]) -> duckdb.Expression:
        """The number of the first rule whose condition is true.

        All are tried on the row of nulls first: what breaks off there does so whatever the results are.
        """
        holds = []
        for number, condition in enumerate(conditions):
            try:
                holds.append(Predicate(self._evidence, condition).expression(lake))
            except QueryError as error:
                raise self._of_rule(number, error) from error
            if self._changes_by_itself(lake, condition):
                path = ("rules", number, "when")
                raise self.told.error(f"rule {self.told.policy.rules[number].id!r}: {_VOLATILE}", path)
        try:
            with at_most(lake, CHECK_SECONDS):
                lake.view(self._evidence).select(*(each.alias(f"rule_{number}") for number, each in enumerate(holds))).fetchall()
        except duckdb.Error as error:
            raise self._blamed(lake, error, self._evidence) from error
        case = duckdb.CaseExpression(holds[0], duckdb.ConstantExpression(0))
        for number, each in enumerate(holds[1:], 1):
            case = case.when(each, duckdb.ConstantExpression(number))
        return case

    def _changes_by_itself(self, lake: duckdb.DuckDBPyConnection, condition: str) -> bool:
        """Whether an expression, as it was found to be, has a function such as random(): DuckDB says so where it is to try one."""
        try:
            lake.view(self._evidence).select(duckdb.SQLExpression(f"TRY(({condition}\n))"))
        except duckdb.BinderException as error:
            return "volatile function" in str(error)
        except duckdb.Error:
            return False
        return False

    def _of_rule(self, number: int, error: QueryError) -> PolicyError:
        return self.told.error(f"rule {self.told.policy.rules[number].id!r}: {error}", ("rules", number, "when"))


def _judged_columns() -> list[str]:
    """What of the evidence a decision goes back to, besides what its conditions ask."""
    of_endpoints = [f"{endpoint}_{fact}" for endpoint in ENDPOINT_DATASETS for fact in _JUDGED_FACTS]
    labels = [figure_names(name)[label] for name in ENDPOINT_DATASETS if (label := ENDPOINTS[name].label_field) is not None]
    return ["object_id", *_OF_OBJECT, *of_endpoints, *labels]


def _rules(policy: Policy) -> pa.Table:
    """The rules as rows, the last for what none of them is for."""
    rows = [
        {
            "number": number,
            "rule_id": rule.id,
            "decide": rule.decide.value,
            "reason": rule.reason,
            "priority": rule.priority,
            "min_evidence_ms": rule.min_evidence_ms,
            "held_out": round(policy.held_out(rule) * 16**_HASH_DIGITS),
            "sound": rule.evidence,
        }
        for number, rule in enumerate(policy.rules)
    ]
    none = {"number": len(rows), "rule_id": NO_RULE, "decide": Decision.REVIEW.value, "reason": "no rule holds", "priority": 0}
    types = {"number": pa.int32(), "priority": pa.int64(), "min_evidence_ms": pa.int64(), "held_out": pa.int64()}
    names = [*rows[0]]
    schema = pa.schema([pa.field(name, types.get(name, pa.string())) for name in names])
    return pa.Table.from_pylist([*rows, {**none, "min_evidence_ms": 0, "held_out": 0, "sound": None}], schema)


def _decided(name: str, policy: Policy) -> str:
    """The decisions of the rules that fired: every word of it is ours, or quoted."""
    endpoints = list(ENDPOINT_DATASETS)
    held_back = "\n".join(f"            WHEN {when} THEN '{why}'" for why, when in _guards(endpoints))
    words = " ".join(f"WHEN '{why}' THEN '{why.words}'" for why in HeldBack)
    sessions = ", ".join(f"fired.{endpoint}_session_id" for endpoint in endpoints)
    is_needed = any(rule.evidence for rule in policy.rules)
    spans = f"LEFT JOIN ({_spans(name)}) AS spans ON spans.object_id = held.object_id" if is_needed else ""
    start = "-spans.longest.minus_start_ms" if is_needed else "NULL"
    end = "spans.longest.length_ms - spans.longest.minus_start_ms" if is_needed else "NULL"
    return f"""
        WITH held AS (
            SELECT fired.object_id, {", ".join(f"fired.{name}" for name in _OF_OBJECT)},
                rule.rule_id, rule.decide, rule.reason, rule.priority,
                concat_ws(',', {sessions}) AS evidence_sessions,
                CASE
{held_back}
                END AS held_back
            FROM {name}_fired AS fired
            JOIN {name}_rules AS rule ON rule.number = coalesce(fired.{_FIRED}, {len(policy.rules)})
        )
        SELECT held.object_id, {", ".join(_OF_OBJECT)},
            '{quoted(policy.name)}' AS policy, '{policy.policy_hash}' AS policy_hash,
            CASE WHEN held_back IS NULL THEN decide ELSE '{Decision.REVIEW}' END AS decision,
            rule_id, held_back,
            reason || coalesce('; left to a person: ' || CASE held_back {words} END, '') AS reason,
            priority, evidence_sessions,
            CAST({start} AS BIGINT) AS evidence_start_ms, CAST({end} AS BIGINT) AS evidence_end_ms
        FROM held
        {spans}
    """  # noqa: S608 - as above


def _guards(endpoints: list[str]) -> Iterator[tuple[HeldBack, str]]:
    """Why an object is left to a person, with the condition for it, in the order in which they count."""
    has_result = {endpoint: f"fired.{endpoint}_session_id IS NOT NULL" for endpoint in endpoints}
    absent = [f"fired.{endpoint}_session_id IS NULL AND fired.{endpoint}_quarantine_reason IS NOT NULL" for endpoint in endpoints]
    yield HeldBack.QUARANTINED, " OR ".join(absent)
    yield HeldBack.INSUFFICIENT_EVIDENCE, " OR ".join(f"fired.{endpoint}_evidence <> 'sufficient'" for endpoint in endpoints)
    yield HeldBack.QUALITY_FLAGS, " OR ".join(f"fired.{endpoint}_quality_flags <> ''" for endpoint in endpoints)
    unknown = [
        f"{has_result[name]} AND coalesce(fired.{figure_names(name)[label]}, '') NOT IN ({_texts(ENDPOINTS[name].labels)})"
        for name in endpoints
        if (label := ENDPOINTS[name].label_field) is not None
    ]
    yield HeldBack.UNKNOWN_LABEL, " OR ".join(unknown) or "false"
    covered = ", ".join(f"fired.{endpoint}_covered_ms" for endpoint in endpoints)
    yield HeldBack.TOO_LITTLE_AUDIO, f"least({covered}, 9223372036854775807) < rule.min_evidence_ms"
    chosen = f"TRY_CAST('0x' || substr(fired.object_id, 1, {_HASH_DIGITS}) AS BIGINT)"
    yield HeldBack.HOLD_OUT, f"CASE WHEN rule.held_out > 0 THEN {chosen} < rule.held_out END"


def _spans(name: str) -> str:
    """The longest segment, of equal ones the first, with the sound that the rule of an object is about."""
    of_sound = " UNION ALL ".join(
        f"""
            SELECT fired.object_id, part.start_time_ms, part.end_time_ms
            FROM {name}_fired AS fired
            JOIN {name}_rules AS rule ON rule.number = fired.{_FIRED} AND rule.sound = '{sound}'
            JOIN segments AS part ON part.session_id = fired.{endpoint}_session_id
                AND part.endpoint = '{endpoint}' AND part.kind IN ({_texts(ENDPOINTS[endpoint].kinds_with(sound))})
        """  # noqa: S608 - names of ours
        for endpoint in ENDPOINT_DATASETS
        for sound in ENDPOINTS[endpoint].sounds
    )
    return f"""
        SELECT object_id, max({{'length_ms': end_time_ms - start_time_ms, 'minus_start_ms': -start_time_ms}}) AS longest
        FROM ({of_sound}) AS parts
        GROUP BY object_id
    """  # noqa: S608 - as above


def _texts(words: tuple[str, ...]) -> str:
    return ", ".join(f"'{quoted(word)}'" for word in words)
