"""A manifest as a table to plan with: what the listing alone says of each object, and what would make its results others."""

import re
from collections.abc import Collection, Iterator, Sequence
from fnmatch import translate

import polars as pl

from connectors.lake.store import ResultStore
from moderation.catalogue import ARCHIVED_CLASSES, SIDECAR_SUFFIX, AudioObject, ParameterRule
from moderation.identity import params_hash
from moderation.outcomes import Reason
from moderation.selection import EVERYTHING, Selection
from moderation.transcoding import Transcode
from tasks.frames import read_frame
from tasks.history import REASONS

ITEM_COLUMNS = ("bucket", "key", "etag", "size_bytes", "last_modified", "version_id", "storage_class")
"""What makes an AudioObject, in its order."""
_PLACE = ["bucket", "key"]
_SIDECAR = "sidecar_"


def read_listing(
    results: ResultStore,
    run_id: str,
    rules: Sequence[ParameterRule],
    transcode: Transcode = Transcode.AUTO,
    selection: Selection = EVERYTHING,
) -> pl.DataFrame:
    """A run's manifest, each object once and in its order, with more columns.

    position; sidecar_etag, of the object that describes it; skip, the reason why an object is no audio at all by its listing, or not asked
    for; params_hash, the identity of what changes a result of it. selection is what the manifest was listed with.
    """
    return listing_of(read_frame(results, run_id, "manifest"), rules, transcode, selection)


def listing_of(
    manifest: pl.DataFrame, rules: Sequence[ParameterRule], transcode: Transcode = Transcode.AUTO, selection: Selection = EVERYTHING
) -> pl.DataFrame:
    """The same of a table of `manifests`."""
    listed = manifest.unique("object_id", keep="first", maintain_order=True).with_row_index("position")
    described = _described(listed)
    joined = listed.join(described.select(*_PLACE, f"{_SIDECAR}etag"), on=_PLACE, how="left", maintain_order="left")
    return _with_identity(_filtered(joined.with_columns(_skip_reason(joined).alias("skip")), selection), rules, transcode)


def item_of(row: dict[str, object], prefix: str = "") -> AudioObject:
    """The object of a row."""
    return AudioObject(*(row[prefix + name] for name in ITEM_COLUMNS))  # type: ignore[arg-type]


def with_sidecars(rows: pl.DataFrame, listing: pl.DataFrame) -> Iterator[tuple[AudioObject, AudioObject | None]]:
    """The objects of some rows of a listing, each with the one that describes it, if one does."""
    keys = rows.filter(pl.col(f"{_SIDECAR}etag").is_not_null()).select("bucket", pl.col("key") + SIDECAR_SUFFIX)
    described = _described(listing.join(keys, on=_PLACE, how="semi")) if keys.height else _described(listing.clear())
    joined = rows.drop(f"{_SIDECAR}etag").join(described, on=_PLACE, how="left", maintain_order="left")
    for row in joined.iter_rows(named=True):
        yield item_of(row), item_of(row, _SIDECAR) if row[f"{_SIDECAR}etag"] is not None else None


def without_erased(listing: pl.DataFrame, erased: Collection[str]) -> pl.DataFrame:
    """The listing with a reason to skip what was erased by request: keys, or single versions, by their ids."""
    if not erased:
        return listing
    ids = pl.Series(sorted(erased), dtype=pl.String).implode()
    is_erased = pl.any_horizontal(pl.col("object_key_id", "object_id").is_in(ids))
    return listing.with_columns(pl.when(is_erased).then(pl.lit(Reason.FILTERED.value, REASONS)).otherwise("skip").alias("skip"))


def _described(listed: pl.DataFrame) -> pl.DataFrame:
    """(bucket, key) and the newest object named `KEY.json` there, as sidecar_*."""
    named = listed.filter(pl.col("key").str.ends_with(SIDECAR_SUFFIX)).sort("last_modified", "etag").unique(_PLACE, keep="last")
    sidecars = named.select(pl.col(name).alias(_SIDECAR + name) for name in ITEM_COLUMNS)
    return sidecars.with_columns(
        pl.col(f"{_SIDECAR}bucket").alias("bucket"), pl.col(f"{_SIDECAR}key").str.strip_suffix(SIDECAR_SUFFIX).alias("key")
    )


def _skip_reason(listed: pl.DataFrame) -> pl.Series:
    """Why an object is no audio by its listing; null where its bytes have to be asked."""
    describing = listed.filter(pl.col("sidecar_etag").is_not_null()).select("bucket", pl.col("key") + SIDECAR_SUFFIX).unique()
    sidecars = listed.join(describing, on=_PLACE, how="semi")["position"]
    reason = (
        pl.when(pl.col("key").str.ends_with("/"))
        .then(pl.lit(Reason.FOLDER_MARKER.value))
        .when(pl.col("position").is_in(sidecars.implode()))
        .then(pl.lit(Reason.SIDECAR.value))
        .when(pl.col("size_bytes") == 0)
        .then(pl.lit(Reason.EMPTY.value))
        .when(pl.col("storage_class").is_in(list(ARCHIVED_CLASSES)))
        .then(pl.lit(Reason.ARCHIVED.value))
    )
    return listed.select(reason.cast(REASONS)).to_series()


def _filtered(listed: pl.DataFrame, selection: Selection) -> pl.DataFrame:
    """The same with a reason also for what was listed only because it might have been the sidecar of an object that was asked for."""
    if selection is EVERYTHING:
        return listed
    unclaimed = listed.filter(pl.col("skip").is_null() & pl.col("key").str.ends_with(SIDECAR_SUFFIX))
    left_out = [row["position"] for row in unclaimed.iter_rows(named=True) if selection.leaves_out(item_of(row)) is not None]
    is_left_out = pl.col("position").is_in(pl.Series(left_out, dtype=pl.UInt32).implode())
    return listed.with_columns(pl.when(is_left_out).then(pl.lit(Reason.FILTERED.value, REASONS)).otherwise("skip").alias("skip"))


def _first_rules(keys: pl.Series, rules: Sequence[ParameterRule]) -> list[int | None]:
    """The place of the first rule that matches each key, case and all."""
    if not rules:
        return [None] * len(keys)
    matchers = [(place, re.compile(translate(rule.glob)).match) for place, rule in enumerate(rules)]
    return [next((place for place, matches in matchers if matches(key)), None) for key in keys]


def _with_identity(listed: pl.DataFrame, rules: Sequence[ParameterRule], transcode: Transcode) -> pl.DataFrame:
    """The hash of what changes a result: one for almost all, so each combination is hashed once."""
    parts = [f"{_SIDECAR}etag", "rule"]
    ruled = listed.with_columns(pl.Series("rule", _first_rules(listed["key"], rules), pl.Int32))
    distinct = ruled.select(parts).unique(maintain_order=True)
    hashes = [_params_hash(etag, None if rule is None else rules[rule], transcode) for etag, rule in distinct.iter_rows()]
    hashed = distinct.with_columns(pl.Series("params_hash", hashes, pl.String))
    return ruled.join(hashed, on=parts, how="left", nulls_equal=True, maintain_order="left").drop("rule")


def _params_hash(sidecar_etag: str | None, rule: ParameterRule | None, transcode: Transcode) -> str:
    words = rule and f"{rule.audio_format}:{rule.sample_rate}:{rule.num_channels}"
    return params_hash(sidecar=sidecar_etag, rule=words, transcode=transcode.identity)
