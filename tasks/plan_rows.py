"""The rows of a plan, made by joins: what was found about the objects that were looked at, beside what is known of the rest."""

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from moderation.estimates import EstimateSource
from moderation.formats import AudioFormat
from moderation.outcomes import QUARANTINED
from tasks.examine import Finding
from tasks.history import DECISIONS, LOOK, REASONS, Known

ROWS_AT_A_TIME = 100_000
"""Objects whose rows are held at once: a plan is written as it is made."""
_SOURCES = pl.Enum([source.value for source in EstimateSource])
FINDINGS: dict[str, Any] = {
    "position": pl.UInt32,
    "decision": DECISIONS,
    "reason": REASONS,
    "detail": pl.String,
    "audio_format": pl.Enum([kind.value for kind in AudioFormat]),
    "sample_rate": pl.Int64,
    "num_channels": pl.Int64,
    "transcoded_from": pl.String,
    "estimate_ms": pl.Int64,
    "estimate_source": _SOURCES,
    "error_ms": pl.Int64,
    "truncated": pl.Boolean,
    "disagreement": pl.String,
}
_OF_PLAN = ("audio_format", "sample_rate", "num_channels", "transcoded_from", "estimate_ms", "estimate_source")


def finding_row(position: int, finding: Finding) -> dict[str, Any]:
    """A finding as a row: decision is stream, quarantined or skip."""
    refusal, estimate = finding.refusal, finding.estimate
    parameters, source = (finding.delivery.parameters, finding.delivery.transcoded_from) if finding.delivery else (None, None)
    streamed_as = AudioFormat.S16LE if source else parameters and parameters.audio_format
    decision = "stream" if refusal is None else "quarantined" if refusal.reason in QUARANTINED else "skip"
    return {
        "position": position,
        "decision": decision,
        "reason": refusal and refusal.reason.value,
        "detail": refusal and refusal.detail,
        "audio_format": streamed_as and streamed_as.value,
        "sample_rate": parameters and parameters.sample_rate,
        "num_channels": parameters and parameters.num_channels,
        "transcoded_from": source and str(source),
        "estimate_ms": estimate.ms if estimate else 0,
        "estimate_source": (estimate.source if estimate else EstimateSource.NONE).value,
        "error_ms": estimate.error_ms if estimate else 0,
        "truncated": estimate is not None and estimate.truncated,
        "disagreement": finding.disagreement,
    }


def found_at(known: Known, findings: pl.DataFrame) -> pl.DataFrame:
    """The findings that count at an endpoint: an object may have been looked at for another one."""
    return findings.join(known.left, on="position", how="semi", maintain_order="left")


def streamed_rows(listing: pl.DataFrame, known: Mapping[str, Known], findings: pl.DataFrame) -> pl.DataFrame:
    """(position, endpoint, object_id, size_bytes, estimate_ms, estimate_source, error_ms) of what is streamed, by object and endpoint."""
    streamed = findings.filter(pl.col("decision") == "stream").select("position", "estimate_ms", "estimate_source", "error_ms")
    rows = streamed.join(listing.select("position", "object_id", "size_bytes"), on="position", how="left", maintain_order="left")
    parts = [found_at(each, rows).with_columns(_endpoint(name, known)) for name, each in known.items()]
    return pl.concat(parts).sort("position", "endpoint")


def plan_rows(listing: pl.DataFrame, known: Mapping[str, Known], findings: pl.DataFrame, shards: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Rows of `plan`, some at a time, by object as listed and by endpoint as given; shards has (position, endpoint, shard)."""
    for start in range(0, listing.height, ROWS_AT_A_TIME):
        objects = listing.slice(start, ROWS_AT_A_TIME).select("position", "object_id", "params_hash")
        found = findings.join(objects, on="position", how="semi").select(
            "position", pl.col("decision").alias("found"), pl.col("reason").alias("why"), *_OF_PLAN
        )
        parts = [_at_endpoint(each.ends.slice(start, ROWS_AT_A_TIME), found, _endpoint(name, known)) for name, each in known.items()]
        rows = pl.concat(parts).join(objects, on="position", how="left").join(shards, on=["position", "endpoint"], how="left")
        yield rows.sort("position", "endpoint").drop("position").with_columns(pl.col(pl.Enum).cast(pl.String))


def _at_endpoint(ends: pl.DataFrame, found: pl.DataFrame, endpoint: pl.Expr) -> pl.DataFrame:
    """What is known, and for the rest what was found."""
    is_looked_at = pl.col("decision") == LOOK
    joined = ends.join(found, on="position", how="left")
    of_finding: dict[str, pl.Expr] = {name: pl.when(is_looked_at).then(pl.col(name)) for name in _OF_PLAN}
    of_finding["estimate_ms"] = of_finding["estimate_ms"].fill_null(0)
    of_finding["estimate_source"] = of_finding["estimate_source"].fill_null(pl.lit(EstimateSource.NONE.value, _SOURCES))
    return joined.select(
        "position",
        endpoint,
        pl.when(is_looked_at).then("found").otherwise("decision").alias("decision"),
        pl.when(is_looked_at).then("why").otherwise("reason").alias("reason"),
        **of_finding,
    )


def _endpoint(name: str, known: Mapping[str, Known]) -> pl.Expr:
    """The endpoint as a word that sorts as endpoints were given."""
    return pl.lit(name, pl.Enum(list(known))).alias("endpoint")
