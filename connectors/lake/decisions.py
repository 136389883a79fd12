"""Decisions as they come from judging the lake: what of them is new, what they add up to, and how two policies differ."""

from collections.abc import Iterator
from datetime import datetime

import duckdb
import pyarrow as pa

from connectors.lake.judging import NOT_JUDGED
from connectors.lake.schemas import datasets

EXAMPLES = 5
"""Keys that each kind of flip names."""
_BATCH_ROWS = 64 * 1024
_COLUMNS = [column.name for column in datasets()["decisions"].columns]
_SAME = [name for name in _COLUMNS if name not in {*NOT_JUDGED, "policy", "policy_hash", "object_key_id"}]
"""What is compared: another policy that says the same of an object changes nothing."""


def make_changed(lake: duckdb.DuckDBPyConnection, rows: str) -> str:
    """A table of the decisions that are not what the last of their objects are, with `before` and `decided_before` of those: its name.

    It takes the place of the rows, of which it has as many where everything is new: both together would be most of what deciding holds.
    What they say is compared by its 64-bit hash: to carry all columns of every decision along would take half as long again.
    """
    said = ", ".join(_SAME)
    query = f"""
        CREATE TABLE {rows}_changed AS
        WITH said AS (
            SELECT object_id, decision, decided_at, run_id, hash({said}) AS said FROM decisions
        ),
        before AS (
            SELECT object_id, decision, decided_at, said FROM said
            QUALIFY row_number() OVER (PARTITION BY object_id ORDER BY decided_at DESC, run_id DESC) = 1
        )
        SELECT rows.*, before.decision AS before, before.decided_at AS decided_before
        FROM {rows} AS rows
        LEFT JOIN before ON before.object_id = rows.object_id
        WHERE before.said IS DISTINCT FROM hash({", ".join(f"rows.{name}" for name in _SAME)})
    """  # noqa: S608 - names of ours
    lake.execute(query)
    lake.execute(f"DROP TABLE {rows}")
    return f"{rows}_changed"


def changed_rows(lake: duckdb.DuckDBPyConnection, changed: str, run_id: str, now: datetime) -> Iterator[pa.Table]:
    """The same as rows of the dataset in its order, some at a time.

    A decision comes after the one before it, whatever the clocks of two hosts say. Ids are hashes: those of one first character after the
    other are sorted, since all at once took more memory than the rest of deciding.
    """
    columns = ", ".join(name for name in _COLUMNS if name not in NOT_JUDGED)
    query = f"""
        SELECT {columns}, greatest(?, decided_before + INTERVAL 1 MICROSECOND) AS decided_at, ? AS run_id
        FROM {changed} WHERE left(object_id, 1) = ? ORDER BY object_id
    """  # noqa: S608 - as above
    firsts = lake.execute(f"SELECT DISTINCT left(object_id, 1) AS first FROM {changed} ORDER BY first").fetchall()  # noqa: S608 - as above
    for (first,) in firsts:
        for batch in lake.sql(query, params=[now, run_id, first]).to_arrow_reader(_BATCH_ROWS):
            yield pa.Table.from_batches([batch])


def changes(lake: duckdb.DuckDBPyConnection, changed: str) -> pa.Table:
    """What those add up to: (before, after, objects); before is null for what had no decision."""
    query = f"SELECT before, decision AS after, count(*) AS objects FROM {changed} GROUP BY ALL ORDER BY ALL"  # noqa: S608 - as above
    return _table(lake, query)


def counts(lake: duckdb.DuckDBPyConnection, rows: str) -> pa.Table:
    """All decisions: (decision, rule_id, held_back, objects), the most first."""
    query = f"""
        SELECT decision, rule_id, held_back, count(*) AS objects FROM {rows}
        GROUP BY ALL ORDER BY objects DESC, decision, rule_id, held_back
    """  # noqa: S608 - as above
    return _table(lake, query)


def flips(lake: duckdb.DuckDBPyConnection, before: str, after: str) -> pa.Table:
    """What two policies decide differently: (before, after, rule_before, rule_after, objects, examples), the most first."""
    query = f"""
        SELECT
            before.decision AS before, after.decision AS after, before.rule_id AS rule_before, after.rule_id AS rule_after,
            count(*) AS objects, min(after.key, {EXAMPLES}) AS examples
        FROM {after} AS after
        JOIN {before} AS before ON before.object_id = after.object_id
        WHERE before.decision <> after.decision
        GROUP BY ALL ORDER BY objects DESC, before, after, rule_before, rule_after
    """  # noqa: S608 - as above
    return _table(lake, query)


def _table(lake: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
    table: pa.Table = lake.sql(query).to_arrow_table()
    return table
