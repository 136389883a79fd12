"""What a plan has decided, in the progress of its run: counts of what is known, details of what is new."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from moderation.outcomes import Reason
from tasks.history import LOOK, Known
from tasks.plan_rows import found_at
from tasks.progress import RANK, Outcome, Progress, Standing, standing_of
from tasks.shards import Shard

EXAMPLES = 1000
"""Objects known from the listing or from earlier runs that a report can name; the rest are counts."""


def count_plan(
    progress: Progress, listing: pl.DataFrame, known: Mapping[str, Known], findings: pl.DataFrame, shards: Sequence[Shard]
) -> None:
    """Count every listed object at every endpoint, but for those that will be streamed: their ends are still to come."""
    count_shards(progress, shards)
    is_cut = pl.col("reason").eq_missing(pl.lit(Reason.NOT_REACHED.value))
    cut, looked = findings.filter(is_cut).select("position"), findings.filter(~is_cut).select("position", "reason", "detail")
    names = listing.select("position", "object_id", "key")
    for endpoint, each in known.items():
        progress.of(endpoint)  # an endpoint of which nothing is known yet has reached nothing
        _Counts(progress, names, endpoint).count(each, cut, looked)
    standings = _standings(known, cut, looked)
    progress.cut = standings.filter(pl.col("position").is_in(cut["position"].implode()) & (pl.col("rank") == RANK[Standing.PENDING])).height
    by_rank = {rank: standing for standing, rank in RANK.items()}
    progress.known.update({by_rank[rank]: count for rank, count in standings.group_by("rank").len().iter_rows()})


def count_shards(progress: Progress, shards: Sequence[Shard]) -> None:
    """Count what will be streamed."""
    for shard in shards:
        counts = progress.of(shard.endpoint)
        counts.planned += shard.objects
        counts.planned_ms += shard.estimate_ms


@dataclass(frozen=True, slots=True)
class _Counts:
    """The counts of one endpoint."""

    progress: Progress
    names: pl.DataFrame
    endpoint: str

    def count(self, known: Known, cut: pl.DataFrame, looked: pl.DataFrame) -> None:
        """What is known of each listed object, which of the others are cut, and what was found about those that were looked at."""
        ends = known.ends.filter(pl.col("decision") != LOOK)
        for reason, count in ends.group_by("reason").len().iter_rows():
            self.progress.know(self.endpoint, Reason(reason) if reason else None, count)
        if beyond := found_at(known, cut).height:
            self.progress.know(self.endpoint, Reason.NOT_REACHED, beyond)
        refused = found_at(known, looked.filter(pl.col("reason").is_not_null()))
        for object_id, key, reason, detail in self._named(refused).select("object_id", "key", "reason", "detail").iter_rows():
            self.progress.add(Outcome(object_id, key, self.endpoint, Reason(reason), detail, new=True))
        not_done = ends.filter(pl.col("reason").is_not_null())
        # what was looked at for another endpoint is no known object: it has ends of both kinds
        self._name(not_done.join(looked, on="position", how="semi", maintain_order="left"), example=False)
        elsewhere = not_done.join(looked, on="position", how="anti", maintain_order="left")
        # what the cascade leaves out is as it should be: nobody needs its names
        self._name(elsewhere.filter(pl.col("reason") != Reason.SECOND_STAGE.value).head(EXAMPLES), example=True)

    def _name(self, ends: pl.DataFrame, *, example: bool) -> None:
        """Add outcomes that are in the counts already."""
        for object_id, key, reason, decision in self._named(ends).select("object_id", "key", "reason", "decision").iter_rows():
            detail = "known from an earlier run" if decision == "quarantined" else ""
            self.progress.outcomes.append(Outcome(object_id, key, self.endpoint, Reason(reason), detail, example=example))

    def _named(self, rows: pl.DataFrame) -> pl.DataFrame:
        return rows.join(self.names, on="position", how="left", maintain_order="left")


def _standings(known: Mapping[str, Known], cut: pl.DataFrame, looked: pl.DataFrame) -> pl.DataFrame:
    """(position, rank) of every object that was not looked at: as the one of its endpoints has it that asks most of a person."""
    ranks = {reason.value: RANK[standing_of(reason)] for reason in Reason}
    first = next(iter(known.values())).ends.select("position")
    parts = [each.ends["reason"].replace_strict(ranks, default=0, return_dtype=pl.Int8).alias(name) for name, each in known.items()]
    worst = first.with_columns(pl.DataFrame(parts).max_horizontal().alias("rank")).join(looked, on="position", how="anti")
    is_cut = pl.col("position").is_in(cut["position"].implode())
    at_least_pending = pl.max_horizontal("rank", pl.lit(RANK[Standing.PENDING], pl.Int8))
    return worst.with_columns(pl.when(is_cut).then(at_least_pending).otherwise("rank").alias("rank"))
