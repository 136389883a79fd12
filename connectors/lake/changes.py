"""What files of decisions and of answers have changed: each object's decision before and after them, worked out from what is stored."""

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from connectors.lake.store import ResultStore

_DECISIONS = """
    WITH history AS (
        SELECT *, lag(decision) OVER (PARTITION BY object_id ORDER BY decided_at, run_id) AS before
        FROM decisions SEMI JOIN told_rows USING (object_id)
    )
    SELECT object_id, bucket, key, version_id, etag, before, decision AS after, rule_id, held_back, reason, priority,
        evidence_start_ms, evidence_end_ms
    FROM history SEMI JOIN told_rows USING (object_id, decided_at, run_id)
    WHERE decision IS DISTINCT FROM before
"""
_ANSWERS = """
    WITH others AS (
        SELECT object_id, answer
        FROM (SELECT * FROM review_answers SEMI JOIN told_rows USING (object_id)) AS every
        ANTI JOIN told_rows USING (object_id, reviewer, answered_at)
        WHERE answer <> 'unsure'
        QUALIFY row_number() OVER (PARTITION BY object_id ORDER BY answered_at DESC, reviewer, answer DESC) = 1
    )
    SELECT now.object_id, bucket, key, version_id, etag, coalesce(others.answer, now.policy_decision) AS before, now.decision AS after,
        rule_id, reviewer, note, priority
    FROM decisions_now AS now
    SEMI JOIN told_rows USING (object_id)
    LEFT JOIN others USING (object_id)
    WHERE now.decision <> coalesce(others.answer, now.policy_decision)
"""


def changed_by_decisions(lake: duckdb.DuckDBPyConnection, store: ResultStore, file: str) -> str:
    """A table of what a file of decisions has made another decision of, or a first one, with `before` and `after`: its name.

    What somebody else had decided alike a moment before is not changed by it.
    """
    return _changed(lake, store, file, ["object_id", "decided_at", "run_id"], _DECISIONS)


def changed_by_answers(lake: duckdb.DuckDBPyConnection, store: ResultStore, file: str) -> str:
    """The same of what would count otherwise by now without a file of answers."""
    return _changed(lake, store, file, ["object_id", "reviewer", "answered_at"], _ANSWERS)


def change_counts(lake: duckdb.DuckDBPyConnection, changed: str) -> pa.Table:
    """What they add up to: (before, after, objects); before is null for what had no decision."""
    table: pa.Table = lake.sql(f"SELECT before, after, count(*) AS objects FROM {changed} GROUP BY ALL ORDER BY ALL").to_arrow_table()  # noqa: S608 - a name of ours
    return table


def first_changes(lake: duckdb.DuckDBPyConnection, changed: str, limit: int) -> pa.Table:
    """The first of them, the highest priority first."""
    table: pa.Table = lake.sql(f"FROM {changed} ORDER BY priority DESC, object_id LIMIT {limit}").to_arrow_table()
    return table


def _changed(lake: duckdb.DuckDBPyConnection, store: ResultStore, file: str, columns: list[str], query: str) -> str:
    with store.reading(file) as opened:
        rows = pa.table({name: [] for name in columns}) if opened is None else pq.read_table(opened, columns=columns)
    lake.register("told_rows", rows)
    lake.execute(f"CREATE OR REPLACE TEMP TABLE changed_objects AS {query}")
    lake.unregister("told_rows")
    return "changed_objects"
