"""What a plan will cost and why: objects by what becomes of them, changes since the last results, hours by how they are known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from moderation.estimates import EstimateSource
from moderation.outcomes import Reason
from moderation.transcoding import FOR_WANT_OF_DECODING
from tasks.cascade import FIRST
from tasks.history import LOOK, Change, Known
from tasks.plan_rows import found_at
from tasks.progress import Changes
from tasks.shards import Shard

NAMED_PLACES = 100
"""Objects of a kind that a forecast names; the rest are counted."""
STREAM, DONE = "stream", "done"
"""What becomes of an object that has no reason against it."""


@dataclass(frozen=True, slots=True)
class Hours:
    """Audio that is known in one way: how many objects, their milliseconds, and by how many those may be wrong either way."""

    objects: int
    ms: int
    error_ms: int


@dataclass(frozen=True, slots=True)
class Place:
    """An object that a person should know about, and why."""

    key: str
    detail: str


@dataclass(frozen=True, slots=True)
class EndpointForecast:
    """The same for one endpoint.

    objects counts them by what becomes of them: stream, done, or the reason why neither; hours has what is to be streamed, size_bytes what
    is read of S3 for it, longest_ms its longest object. decodable_ms is the audio of objects that the service takes only
    decoded where that is not allowed, decoded_ms of those that are decoded here before they are streamed. undecided is what of it a
    cascade may still leave out: it is streamed only where the result of another endpoint, not there yet, says so.
    """

    endpoint: str
    objects: dict[str, int]
    changes: Changes
    hours: dict[EstimateSource, Hours]
    size_bytes: int
    longest_ms: int
    decodable_ms: int
    decoded_ms: int
    shards: int
    undecided: Hours

    @property
    def ms(self) -> int:
        """Milliseconds of audio to stream."""
        return sum(hours.ms for hours in self.hours.values())

    @property
    def error_ms(self) -> int:
        """By how many milliseconds that may be wrong either way: objects of one kind err alike, so errors add up."""
        return sum(hours.error_ms for hours in self.hours.values())

    @property
    def sessions(self) -> int:
        """Sessions to open."""
        return self.objects.get(STREAM, 0)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a plan will cost. truncated counts objects whose bytes fall short of what their headers declare; named ones are the first few.

    misnamed counts objects that are not what their names, or words about them, say: their bytes win.
    """

    listed: int
    endpoints: tuple[EndpointForecast, ...]
    truncated: int
    truncated_places: tuple[Place, ...]
    misnamed: int
    disagreements: tuple[Place, ...]


def forecast(
    listing: pl.DataFrame,
    known: Mapping[str, Known],
    findings: pl.DataFrame,
    streamed: pl.DataFrame,
    shards: Sequence[Shard],
    second_stage: str | None = None,
) -> Forecast:
    """Of what is known, what was found about the objects that were looked at, and what is streamed of it.

    second_stage is the endpoint at which the results of another one decide, in a cascade.
    """
    cut_off = findings.filter(pl.col("truncated"))
    named = findings.filter(pl.col("disagreement").is_not_null())
    return Forecast(
        listing.height,
        tuple(_of_endpoint(name, each, findings, streamed, shards, is_second=name == second_stage) for name, each in known.items()),
        cut_off.height,
        _places(listing, cut_off.with_columns(pl.lit("its bytes fall short of what its header declares").alias("why")), "why"),
        named.height,
        _places(listing, named, "disagreement"),
    )


def _of_endpoint(
    endpoint: str, known: Known, findings: pl.DataFrame, streamed: pl.DataFrame, shards: Sequence[Shard], *, is_second: bool
) -> EndpointForecast:
    found, rows = found_at(known, findings), streamed.filter(pl.col("endpoint") == endpoint)
    ends = pl.concat([frame.select("decision", "reason") for frame in (known.ends.filter(pl.col("decision") != LOOK), found)])
    objects = ends.group_by(pl.coalesce(pl.col("reason", "decision").cast(pl.String)).alias("end")).len().sort("end")
    by_source = rows.group_by("estimate_source").agg(pl.len(), pl.col("estimate_ms").sum(), pl.col("error_ms").sum())
    hours = {EstimateSource(source): Hours(*figures) for source, *figures in by_source.iter_rows()}
    return EndpointForecast(
        endpoint,
        dict(objects.iter_rows()),
        _changes(known, found),
        {source: hours[source] for source in EstimateSource if source in hours},
        int(rows["size_bytes"].sum()),
        max(rows["estimate_ms"].to_list(), default=0),
        int(found.filter(pl.col("reason").is_in([reason.value for reason in FOR_WANT_OF_DECODING]))["estimate_ms"].sum()),
        int(found.filter((pl.col("decision") == STREAM) & pl.col("transcoded_from").is_not_null())["estimate_ms"].sum()),
        sum(shard.endpoint == endpoint for shard in shards),
        _undecided(rows, streamed) if is_second else Hours(0, 0, 0),
    )


def _undecided(rows: pl.DataFrame, streamed: pl.DataFrame) -> Hours:
    """Those rows of the second stage whose objects the first one streams as well: it has no result of them."""
    first = streamed.filter(pl.col("endpoint").cast(pl.String) == FIRST)
    waiting = rows.join(first, on="position", how="semi")
    return Hours(waiting.height, int(waiting["estimate_ms"].sum()), int(waiting["error_ms"].sum()))


def _changes(known: Known, found: pl.DataFrame) -> Changes:
    no_audio = found.filter((pl.col("decision") == "skip") & (pl.col("reason") != Reason.NOT_REACHED.value))
    audio = known.ends.filter(pl.col("decision").is_in([LOOK, DONE, "quarantined"])).join(no_audio, on="position", how="anti")
    counts = {change: audio.filter(pl.col("change") == change.value).height for change in Change}
    return Changes(counts[Change.NEW], counts[Change.CHANGED], counts[Change.UNCHANGED], known.deleted)


def _places(listing: pl.DataFrame, rows: pl.DataFrame, detail: str) -> tuple[Place, ...]:
    named = rows.head(NAMED_PLACES).join(listing.select("position", "key"), on="position", maintain_order="left")
    return tuple(Place(key, words) for key, words in named.select("key", detail).iter_rows())
