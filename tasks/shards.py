"""The shards of a plan: cut from its estimates, and loaded again by whoever streams them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import polars as pl

from connectors.lake.store import ResultStore
from moderation.catalogue import ShardRules, length_class, plan_shards
from moderation.endpoints import ENDPOINTS
from moderation.estimates import Estimate, EstimateSource
from moderation.formats import StreamParameters
from moderation.transcoding import SourceFormat
from tasks.frames import read_frame
from tasks.listed import item_of
from tasks.records import PlannedObject


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of a plan that one task streams: its number within the run, its endpoint, how much it is. first goes before all others."""

    number: int
    endpoint: str
    objects: int
    estimate_ms: int
    first: bool = False


def cut_shards(streamed: pl.DataFrame, rules: ShardRules, first_number: int = 0) -> tuple[pl.DataFrame, list[Shard]]:
    """The (position, endpoint, shard) of what is streamed, and the shards, numbered on from first_number, the first ones first.

    streamed has (position, endpoint, object_id, estimate_ms). Of every endpoint the shortest object goes alone and before all others
    (rules.md, 'Preflight').
    """
    shards: list[Shard] = []
    numbered = [streamed.select("position", "endpoint", pl.lit(None, pl.Int64).alias("shard")).clear()]
    for endpoint in streamed["endpoint"].unique(maintain_order=True):
        rows = streamed.filter(pl.col("endpoint") == endpoint)
        for places in _parts(rows, rules):
            number = first_number + len(shards)
            is_first = all(shard.endpoint != endpoint for shard in shards)
            part = rows[places]
            shards.append(Shard(number, endpoint, part.height, int(part["estimate_ms"].sum()), is_first))
            numbered.append(part.select("position", "endpoint", pl.lit(number, pl.Int64).alias("shard")))
    return pl.concat(numbered), sorted(shards, key=lambda shard: (not shard.first, shard.number))


def _parts(rows: pl.DataFrame, rules: ShardRules) -> Iterator[list[int]]:
    """The places of each shard of one endpoint among its rows."""
    places = rows.select("object_id", "estimate_ms").with_row_index("place")
    shortest = places.filter(pl.col("estimate_ms") == pl.col("estimate_ms").min()).sort("object_id")["place"][0]
    yield [shortest]
    rest = places.filter(pl.col("place") != shortest)["place"].to_list()
    for part in plan_shards(rows["estimate_ms"][rest], rules):
        yield [rest[place] for place in part]


class PlannedShards:
    """What a run streams, by shard, from the plan and the manifest in the lake: whoever streams needs no more than the run and numbers.

    Both are read once for all shards, of which there may be thousands; the second stage of a cascade is planned later, and has its own.
    """

    def __init__(self, results: ResultStore, run_id: str) -> None:
        self._results = results
        self._run_id = run_id
        self._streamed: pl.DataFrame | None = None
        self._reading = Lock()

    def objects(self, shard: int) -> list[PlannedObject]:
        """The objects of a shard, in the order in which the plan was cut."""
        rows = self._rows([shard]).sort("position")
        return sorted(map(_planned, rows.iter_rows(named=True)), key=lambda planned: -length_class(planned.estimate_ms))

    def names(self, shards: Sequence[int]) -> list[tuple[str, str, str]]:
        """The (endpoint, object_id, key) of what some shards hold: for a million objects there is no time for more."""
        return self._rows(shards).select("endpoint", "object_id", "key").rows()

    def _rows(self, shards: Sequence[int]) -> pl.DataFrame:
        with self._reading:
            if self._streamed is None:
                self._streamed = self._read()
        return self._streamed.filter(pl.col("shard").is_in(shards))

    def _read(self) -> pl.DataFrame:
        plan = read_frame(self._results, self._run_id, "plan").filter(pl.col("shard").is_not_null())
        manifest = read_frame(self._results, self._run_id, "manifest").unique("object_id", keep="first", maintain_order=True)
        return plan.join(manifest.with_row_index("position"), on="object_id", how="inner")


def _planned(row: dict[str, Any]) -> PlannedObject:
    source = row["transcoded_from"] and SourceFormat.parse(row["transcoded_from"])
    is_known = source is None or row["sample_rate"] is not None
    parameters = StreamParameters.of(row["audio_format"], row["sample_rate"], row["num_channels"]) if is_known else None
    estimate = Estimate(row["estimate_ms"], EstimateSource(row["estimate_source"]))
    exact = estimate.ms if estimate.is_exact else None
    return PlannedObject(item_of(row), ENDPOINTS[row["endpoint"]], parameters, row["params_hash"], estimate.ms, exact, source)
