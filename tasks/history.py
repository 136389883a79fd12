"""A listing against what earlier runs left in the lake: what is done, what was given up, what has changed. No object is asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import polars as pl
from duckdb import DuckDBPyConnection
from duckdb import Error as DuckDBError
from pyarrow import ArrowException

from connectors.lake.query import done_objects, places_done, quarantined_now
from connectors.s3 import S3Uri
from moderation.endpoints import Endpoint
from moderation.errors import ConfigurationError
from moderation.outcomes import Reason
from moderation.transcoding import FOR_WANT_OF_DECODING, Transcode
from tasks.frames import frame_of

LOOK = "look"
"""The decision about an object that has to be looked at first: no row of a plan has it."""
DECISIONS = pl.Enum([LOOK, "stream", "done", "quarantined", "skip"])
REASONS = pl.Enum([reason.value for reason in Reason])
IDENTITY = ["object_id", "params_hash"]
"""What a result is known by, beside its endpoint: never a date."""


class Change(StrEnum):
    """A listed object against what is settled at an endpoint, by whatever run: by identity and parameters, never by date."""

    NEW = "new"
    """Nothing is settled of its key."""
    CHANGED = "changed"
    """There are only results of another version or of other parameters."""
    UNCHANGED = "unchanged"
    """It is done or given up."""


CHANGES = pl.Enum([change.value for change in Change])


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of every listed object at one endpoint: ends has (position, decision, reason, change) in the order of the listing.

    deleted counts keys with results that are listed no more, as far as the sources tell. decodable has the (position, freed_from) of what
    earlier runs gave up only because they decoded nothing, where this run may; freed_from is their reason.
    """

    ends: pl.DataFrame
    deleted: int | None
    decodable: pl.DataFrame

    @property
    def left(self) -> pl.DataFrame:
        """The (position) of what has to be looked at."""
        return self.ends.filter(pl.col("decision") == LOOK).select("position")


def read_known(
    open_lake: Callable[[], DuckDBPyConnection],
    listing: pl.DataFrame,
    endpoints: Sequence[Endpoint],
    sources: Sequence[S3Uri],
    transcode: Transcode = Transcode.AUTO,
    only_of: str | None = None,
    no_audio: Callable[[DuckDBPyConnection], pl.DataFrame] | None = None,
    let_go: pl.DataFrame | None = None,
) -> dict[str, Known]:
    """By the name of each endpoint.

    sources are the prefixes that are listed completely; only_of is the run whose results alone are done. no_audio gives the (object_id,
    params_hash) of what need not be looked at to know that it is none; let_go are rows of the quarantine that count no more. Raises
    ConfigurationError where files of the lake cannot be read.
    """
    below = [(source.bucket, source.prefix) for source in sources]
    try:
        with open_lake() as lake:
            held = frame_of(quarantined_now(lake))
            listing = _without(listing, no_audio(lake)) if no_audio else listing
            if let_go is not None:
                held = held.join(let_go, on=["endpoint", *IDENTITY], how="anti")
            # one endpoint after the other: no more than the results of one are held
            return {endpoint.name: _known(lake, listing, held, endpoint.name, below, transcode, only_of) for endpoint in endpoints}
    except (DuckDBError, ArrowException, OSError) as error:
        said = str(error).partition("\n")[0]
        raise ConfigurationError(f"the results of earlier runs cannot be read: {said}. Remove or repair that file") from error


def _without(listing: pl.DataFrame, no_audio: pl.DataFrame) -> pl.DataFrame:
    """The listing with a reason to skip what is known to be no audio."""
    places = listing.select("position", *IDENTITY).join(no_audio, on=IDENTITY, how="semi")["position"]
    is_none = pl.col("skip").is_null() & pl.col("position").is_in(places.implode())
    return listing.with_columns(pl.when(is_none).then(pl.lit(Reason.NOT_AUDIO.value, REASONS)).otherwise("skip").alias("skip"))


def _known(
    lake: DuckDBPyConnection,
    listing: pl.DataFrame,
    held: pl.DataFrame,
    endpoint: str,
    below: Sequence[tuple[str, str]],
    transcode: Transcode,
    only_of: str | None,
) -> Known:
    results = frame_of(done_objects(lake, endpoint))
    done = results if only_of is None else frame_of(done_objects(lake, endpoint, only_of))
    gone = frame_of(places_done(lake, endpoint, below)).join(listing, on="object_key_id", how="anti").height if below else None
    given_up = held.filter(pl.col("endpoint") == endpoint).select(*IDENTITY, pl.col("reason").cast(REASONS)).unique(IDENTITY)
    reasons = [] if transcode is Transcode.NEVER else [reason.value for reason in FOR_WANT_OF_DECODING]
    is_decodable = pl.col("reason").is_in(pl.Series(reasons, dtype=REASONS).implode())
    freed = listing.select("position", *IDENTITY).join(given_up.filter(is_decodable), on=IDENTITY)
    ends = _ends(listing, results, done, given_up.filter(~is_decodable))
    return Known(ends, gone, freed.select("position", pl.col("reason").alias("freed_from")))


def _ends(listing: pl.DataFrame, results: pl.DataFrame, done: pl.DataFrame, given_up: pl.DataFrame) -> pl.DataFrame:
    objects = listing.select("position", *IDENTITY, "object_key_id", "skip")
    # a key may have results of several versions and parameters: positions are told apart, never multiplied
    has_result = objects.join(results, on="object_key_id", how="semi").select("position", pl.lit(value=True).alias("changed"))
    has_own = objects.join(results, on=IDENTITY, how="semi").select("position", pl.lit(value=True).alias("unchanged"))
    is_done = objects.join(done, on=IDENTITY, how="semi").select("position", pl.lit(value=True).alias("done"))
    joined = objects.join(given_up, on=IDENTITY, how="left").select("position", "skip", "reason")
    for facts in (is_done, has_own, has_result):
        joined = joined.join(facts, on="position", how="left")
    decision = (
        pl.when(pl.col("skip").is_not_null())
        .then(pl.lit("skip"))
        .when(pl.col("reason").is_not_null())
        .then(pl.lit("quarantined"))
        .when(pl.col("done"))
        .then(pl.lit("done"))
        .otherwise(pl.lit(LOOK))
    )
    change = (
        pl.when(pl.col("unchanged") | pl.col("reason").is_not_null())
        .then(pl.lit(Change.UNCHANGED.value))
        .when(pl.col("changed"))
        .then(pl.lit(Change.CHANGED.value))
        .otherwise(pl.lit(Change.NEW.value))
    )
    ends = joined.select(
        "position",
        decision.cast(DECISIONS).alias("decision"),
        pl.coalesce("skip", "reason").alias("reason"),
        change.cast(CHANGES).alias("change"),
    )
    return ends.sort("position")
