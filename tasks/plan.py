"""Plans a run: drops what is done or quarantined, finds out what the rest is, estimates hours, and cuts shards.

What is done is known by identity and by everything that changes a result, all of which the listing itself shows: so an unchanged
catalogue costs nothing but its listing.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import polars as pl
from duckdb import DuckDBPyConnection
from duckdb import Error as DuckDBError
from pyarrow import ArrowException

from connectors.audio_store import AudioStore
from connectors.lake.packages import RUNS_FOLDER, write_rows
from connectors.lake.query import done_objects, quarantined_now
from connectors.lake.store import ResultStore
from moderation.budget import hours_to_ms, ms_to_hours
from moderation.catalogue import (
    SIDECAR_SUFFIX,
    AudioObject,
    NotStreamable,
    ParameterRule,
    ShardRules,
    estimate_ms,
    plan_shards,
    skip_reason,
)
from moderation.endpoints import ENDPOINTS, Endpoint
from moderation.errors import ConfigurationError
from moderation.formats import StreamParameters
from moderation.identity import params_hash
from moderation.outcomes import QUARANTINED, Reason
from tasks.examine import Examiner
from tasks.progress import Outcome, Progress
from tasks.records import PlannedObject, Run, quarantine_row

DENIED_SHARE = 0.05
"""More objects than this share that may not be read are no matter of the objects: the credentials lack a permission."""


@dataclass(frozen=True, slots=True)
class PlanRules:
    """What shapes a plan: ordered rules for raw audio, the longest session in hours, and the bounds of a shard."""

    parameter_rules: Sequence[ParameterRule] = ()
    max_session_hours: float = 6.0
    shards: ShardRules = field(default_factory=ShardRules)


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of a plan that one task streams: its number within the run, its endpoint, how much it is. first goes before all others."""

    number: int
    endpoint: str
    objects: int
    estimate_ms: int
    first: bool = False


@dataclass(frozen=True, slots=True)
class Listed:
    """A listed object and what would make its results others: its sidecar's etag and the rule for its key."""

    item: AudioObject
    sidecar: AudioObject | None
    rule: ParameterRule | None
    skip: Reason | None

    @property
    def params_hash(self) -> str:
        """Identity of what changes a result of this object."""
        rule = self.rule and f"{self.rule.audio_format}:{self.rule.sample_rate}:{self.rule.num_channels}"
        return params_hash(sidecar=self.sidecar.etag if self.sidecar else None, rule=rule, transcode="never")


async def plan_catalogue(
    audio: AudioStore,
    results: ResultStore,
    open_lake: Callable[[], DuckDBPyConnection],
    run: Run,
    endpoints: Sequence[Endpoint],
    rules: PlanRules,
    progress: Progress,
) -> list[Shard]:
    """Write the plan beside the manifest, quarantine what cannot be streamed, and return the shards, the first ones first.

    open_lake opens what earlier runs published. Raises AccessDeniedError or UnreachableError where objects cannot be looked at for a
    reason that is not theirs.
    """
    progress.step = "planning"
    listed = await asyncio.to_thread(_read_manifest, results, run.run_id, rules.parameter_rules)
    history = await asyncio.to_thread(_History.read, open_lake, endpoints)
    planner = _Planner(audio, run, rules, history, progress)
    rows, planned = await planner.decide(listed, endpoints)
    shards = _cut(planned, rows, rules.shards)
    for shard in shards:
        counts = progress.of(shard.endpoint)
        counts.planned += shard.objects
        counts.planned_ms += shard.estimate_ms
    await asyncio.to_thread(write_rows, results, "plan", run.run_id, run.scan_date, "plan", rows)
    if quarantines := planner.quarantines():
        await asyncio.to_thread(write_rows, results, "quarantine", run.run_id, run.scan_date, "plan", quarantines)
    return shards


def load_shard(results: ResultStore, run_id: str, shard: int) -> list[PlannedObject]:
    """The objects of one shard, from the plan and the manifest in the lake: whoever streams it needs no more than these two numbers."""
    plan = _read(results, run_id, "plan").filter(pl.col("shard") == shard)
    rows = plan.join(_read(results, run_id, "manifest"), on="object_id").unique("object_id").sort("estimate_ms", descending=True)
    return [_planned(row) for row in rows.iter_rows(named=True)]


def _planned(row: dict[str, Any]) -> PlannedObject:
    parameters = StreamParameters.of(row["audio_format"], row["sample_rate"], row["num_channels"])
    exact = row["estimate_ms"] if row["estimate_source"] == "bytes" else None
    return PlannedObject(_item(row), ENDPOINTS[row["endpoint"]], parameters, row["params_hash"], row["estimate_ms"], exact)


def _item(row: dict[str, Any]) -> AudioObject:
    names = ("bucket", "key", "etag", "size_bytes", "last_modified", "version_id", "storage_class")
    return AudioObject(**{name: row[name] for name in names})


def _read(results: ResultStore, run_id: str, stem: str) -> pl.DataFrame:
    data = results.get(f"{RUNS_FOLDER}/{run_id}/{stem}.parquet")
    assert data is not None, f"run {run_id} has no {stem}"
    return pl.read_parquet(BytesIO(data))


def _read_manifest(results: ResultStore, run_id: str, rules: Sequence[ParameterRule]) -> list[Listed]:
    items = {row["key"]: _item(row) for row in _read(results, run_id, "manifest").iter_rows(named=True)}
    keys = set(items)
    return [
        Listed(item, items.get(item.key + SIDECAR_SUFFIX), next((r for r in rules if r.matches(item.key)), None), skip_reason(item, keys))
        for item in items.values()
    ]


@dataclass(frozen=True, slots=True)
class _History:
    """What earlier runs left in the lake: (object_id, params_hash) done per endpoint, and what is quarantined with its reason."""

    done: dict[str, set[tuple[str, ...]]]
    quarantined: dict[tuple[str, str, str], str]

    @classmethod
    def read(cls, open_lake: Callable[[], DuckDBPyConnection], endpoints: Sequence[Endpoint]) -> "_History":
        try:
            with open_lake() as lake:
                done = {endpoint.name: set(_tuples(done_objects(lake, endpoint.name))) for endpoint in endpoints}
                rows = _tuples(quarantined_now(lake))
        except (DuckDBError, ArrowException, OSError) as error:
            said = str(error).partition("\n")[0]
            raise ConfigurationError(f"the results of earlier runs cannot be read: {said}. Remove or repair that file") from error
        return cls(done, {(object_id, endpoint, hashed): reason for object_id, endpoint, hashed, reason in rows})


def _tuples(table: Any) -> Iterable[tuple[str, ...]]:
    return zip(*(column.to_pylist() for column in table.columns), strict=True)


class _Planner:
    """The decisions of one plan, object by object."""

    def __init__(self, audio: AudioStore, run: Run, rules: PlanRules, history: _History, progress: Progress) -> None:
        self._examiner = Examiner(audio, rules.parameter_rules)
        self._run = run
        self._rules = rules
        self._history = history
        self._progress = progress
        self._refused: list[tuple[Listed, str, NotStreamable]] = []

    async def decide(self, listed: Sequence[Listed], endpoints: Sequence[Endpoint]) -> tuple[list[dict[str, Any]], list[int]]:
        """Rows of `plan`, and the positions of those to stream."""
        async with asyncio.TaskGroup() as group:
            findings = [
                (entry, wanted, group.create_task(self._examiner.examine(entry.item, entry.sidecar)) if wanted else None)
                for entry in listed
                for wanted in [self._wanted(entry, endpoints)]
            ]
        looked, denied = sum(bool(found) for *_, found in findings), self._examiner.denied
        if len(denied) > max(1, DENIED_SHARE * looked):
            raise denied[0]
        rows = [
            self._row(entry, endpoint, found.result() if found and endpoint in wanted else None)
            for entry, wanted, found in findings
            for endpoint in endpoints
        ]
        return rows, [position for position, row in enumerate(rows) if row["decision"] == "stream"]

    def _wanted(self, entry: Listed, endpoints: Sequence[Endpoint]) -> list[Endpoint]:
        """The endpoints that have neither a result of this object nor given it up."""
        if entry.skip is not None:
            return []
        known, done = (entry.item.object_id, entry.params_hash), self._history.done
        given_up = self._history.quarantined
        return [e for e in endpoints if known not in done[e.name] and (known[0], e.name, known[1]) not in given_up]

    def _row(self, entry: Listed, endpoint: Endpoint, found: StreamParameters | NotStreamable | None) -> dict[str, Any]:
        row = self._decision(entry, endpoint, found)
        return {"object_id": entry.item.object_id, "endpoint": endpoint.name, "params_hash": entry.params_hash, **row}

    def _decision(self, entry: Listed, endpoint: Endpoint, found: StreamParameters | NotStreamable | None) -> dict[str, Any]:
        if found is None:
            return self._known(entry, endpoint)
        if isinstance(found, StreamParameters):
            ms, source = estimate_ms(entry.item.size_bytes, found)
            if source != "bytes" or ms <= hours_to_ms(self._rules.max_session_hours):
                return {
                    "decision": "stream",
                    "audio_format": found.audio_format.value,
                    "sample_rate": found.sample_rate,
                    "num_channels": found.num_channels,
                    "estimate_ms": ms,
                    "estimate_source": source,
                }
            detail = f"{ms_to_hours(ms):.1f} hours are more than max_session_hours = {self._rules.max_session_hours}"
            found = NotStreamable(Reason.TOO_LONG, detail)
        return self._refuse(entry, endpoint, found)

    def _known(self, entry: Listed, endpoint: Endpoint) -> dict[str, Any]:
        """The row of an object that nothing had to be found out about: skipped by its listing, quarantined earlier, or done."""
        given_up = self._history.quarantined.get((entry.item.object_id, endpoint.name, entry.params_hash))
        reason = entry.skip or (Reason(given_up) if given_up else None)
        self._progress.add(Outcome(entry.item.key, endpoint.name, reason, "known from an earlier run" if given_up else ""))
        decision = "skip" if entry.skip else "quarantined" if given_up else "done"
        return {"decision": decision, "reason": reason.value if reason else None, "estimate_ms": 0, "estimate_source": "none"}

    def _refuse(self, entry: Listed, endpoint: Endpoint, refusal: NotStreamable) -> dict[str, Any]:
        self._progress.add(Outcome(entry.item.key, endpoint.name, refusal.reason, refusal.detail, new=True))
        decision = "skip"
        if refusal.reason in QUARANTINED:
            decision = "quarantined"
            self._refused.append((entry, endpoint.name, refusal))
        return {"decision": decision, "reason": refusal.reason.value, "estimate_ms": 0, "estimate_source": "none"}

    def quarantines(self) -> list[dict[str, Any]]:
        """Rows of `quarantine` for what cannot be streamed, dated by the run so that planning again writes the same."""
        run = {"run_id": self._run.run_id, "org": self._run.org, "happened_at": self._run.started_at}
        return [
            quarantine_row(entry.item, endpoint, entry.params_hash, refusal.reason, detail=refusal.detail, **run)
            for entry, endpoint, refusal in self._refused
        ]


def _cut(planned: Sequence[int], rows: list[dict[str, Any]], rules: ShardRules) -> list[Shard]:
    """Number the shards into the rows: of every endpoint the shortest object goes alone and first (rules.md, 'Preflight')."""
    shards: list[Shard] = []
    positions: dict[str, list[int]] = {}
    for position in planned:
        positions.setdefault(rows[position]["endpoint"], []).append(position)
    for endpoint, places in positions.items():
        shortest = min(places, key=lambda place: (rows[place]["estimate_ms"], rows[place]["object_id"]))
        rest = [place for place in places if place != shortest]
        parts = [[rest[i] for i in part] for part in plan_shards((rows[place]["estimate_ms"] for place in rest), rules)]
        for part in ([shortest], *parts):
            number = len(shards)
            for place in part:
                rows[place]["shard"] = number
            total = sum(rows[place]["estimate_ms"] for place in part)
            shards.append(Shard(number, endpoint, len(part), total, first=part == [shortest]))
    return sorted(shards, key=lambda shard: (not shard.first, shard.number))
