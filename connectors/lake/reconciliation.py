"""Reconciling: a row for each object and endpoint with what catalogue, ledger and lake say of it together, by joins in DuckDB."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from string import Template

import duckdb
import pyarrow as pa

from connectors.lake.schemas import ENDPOINT_DATASETS
from moderation.endpoints import ENDPOINTS
from moderation.errors import ConfigurationError
from moderation.reconciliation import Why

_STEPS = Template(Path(__file__).with_name("reconciliation.sql").read_text(encoding="utf-8"))
_RESULT = Template(
    "SELECT endpoint, session_id, object_id, object_key_id, params_hash, run_id, bucket, key, started_at, items_received, "
    "greatest(coalesce(duration_ms, 0), covered_ms) AS booked_ms FROM $summaries"
)
_COUNT = Template("SELECT '$endpoint' AS endpoint, session_id, count(*) AS items FROM $items GROUP BY session_id")
_FETCHED_ROWS = 10_000
_WORDS = ("session_id", "endpoint", "object_id", "params_hash", "run_id", "state")
BOOKED = pa.schema([*(pa.field(name, pa.string()) for name in _WORDS)]).append(pa.field("booked_ms", pa.int64()))
"""What is asked of the ledger's sessions."""


@contextmanager
def read_errors() -> Iterator[None]:
    """Raises ConfigurationError where a file of the lake cannot be read, from its opening on."""
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        said = str(error).partition("\n")[0]
        raise ConfigurationError(f"the results cannot be read: {said}. See soundcheck verify") from error


@dataclass(frozen=True, slots=True)
class Reconciled:
    """An object at an endpoint. reason is a word of rules.md, or the state in which its run ended; bucket and key None where unknown."""

    endpoint: str
    object_id: str
    bucket: str | None
    key: str | None
    why: Why
    reason: str


class Reconciliation:
    """A reconciliation over a lake: `book` what the ledger has, then `run`, then ask."""

    def __init__(self, lake: duckdb.DuckDBPyConnection) -> None:
        self._lake = lake
        self._add("booked", BOOKED.empty_table(), new=True)

    def book(self, sessions: pa.Table) -> None:
        """Add sessions of the ledger, with the columns of BOOKED."""
        self._add("booked", sessions)

    def run(self, since: datetime, buried: Iterable[str], sources: Sequence[str]) -> None:
        """Hold them against each other: results that began since an instant may be unknown to the ledger; buried are the ids of tombstones.

        With sources only their newest listings count, else that of every source, and what no listing has.
        """
        ours = ENDPOINT_DATASETS.items()
        results = " UNION ALL ".join(_RESULT.substitute(summaries=kind.summaries.name) for _, kind in ours)
        counts = " UNION ALL ".join(_COUNT.substitute(endpoint=name, items=kind.items.name) for name, kind in ours)
        known = self._lake.execute("SELECT run_id, source, parameters FROM runs_latest").fetchall()
        if unknown := set(sources) - {source for _, source, _ in known}:
            raise ConfigurationError(f"no run has listed {', '.join(sorted(unknown))}: name sources as the runs do")
        parameters = [(run_id, json.loads(said)) for run_id, _, said in known]
        self._fill("wanted", source=list(sources))
        self._fill("buried", id=sorted(buried))
        self._fill("forced", run_id=[run_id for run_id, said in parameters if (said.get("request") or {}).get("force")])
        asked = [(run_id, endpoint) for run_id, said in parameters for endpoint in said.get("endpoints", ENDPOINTS)]
        self._fill("asked", run_id=[run_id for run_id, _ in asked], endpoint=[endpoint for _, endpoint in asked])
        whys = [(why.name, why.symbol.rank, why.symbol.is_explained) for why in Why]
        self._lake.execute("CREATE TEMP TABLE whys (why VARCHAR, rank INTEGER, is_explained BOOLEAN)")
        self._lake.executemany("INSERT INTO whys VALUES (?, ?, ?)", whys)
        self._lake.execute(_STEPS.substitute(every_result=results, every_count=counts, since=since.isoformat()))

    def counts(self) -> list[tuple[str, Why, str, int]]:
        """How many objects each endpoint has of each kind: (endpoint, why, reason, objects)."""
        query = "SELECT endpoint, why, reason, count(*) FROM reconciled GROUP BY ALL ORDER BY ALL"
        return [(endpoint, Why[why], reason, objects) for endpoint, why, reason, objects in self._lake.execute(query).fetchall()]

    def rows(self, *, unexplained: bool) -> Iterator[Reconciled]:
        """Every object, or those that are not explained, by endpoint and place."""
        query = (
            "SELECT endpoint, object_id, bucket, key, reconciled.why, reason FROM reconciled JOIN whys ON whys.why = reconciled.why "
            "WHERE NOT (is_explained AND ?) ORDER BY endpoint, bucket, key, object_id"
        )
        found = self._lake.execute(query, [unexplained])
        while rows := found.fetchmany(_FETCHED_ROWS):
            yield from (
                Reconciled(endpoint, object_id, bucket, key, Why[why], reason) for endpoint, object_id, bucket, key, why, reason in rows
            )

    def _fill(self, name: str, **columns: list[str]) -> None:
        """Make a small table of words."""
        self._add(name, pa.table({column: pa.array(values, pa.string()) for column, values in columns.items()}), new=True)

    def _add(self, name: str, rows: pa.Table, *, new: bool = False) -> None:
        self._lake.register("added", rows)
        into = f"CREATE TEMP TABLE {name} AS" if new else f"INSERT INTO {name}"
        self._lake.execute(f"{into} SELECT * FROM added")  # noqa: S608 - names of ours
        self._lake.unregister("added")
