"""Lakes with results to be judged: a few objects in a few words, or very many at once."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from connectors.lake.packages import write_rows
from connectors.lake.schemas import ENDPOINT_DATASETS
from connectors.lake.store import FolderStore
from moderation.identity import object_id, object_key_id
from moderation.outcomes import Reason

RUN = "20261120T080000Z-0a1b2c"
START = datetime(2026, 11, 20, 8, 0, 0, tzinfo=UTC)
BUCKET = "audio"
FIGURES: dict[str, dict[str, Any]] = {
    "music": {"frame_count": 100, "music_pct": 80.0, "speech_pct": 5.0, "primary_label": "music", "threshold": 0.5},
    "ai_music": {"window_count": 5, "primary_verdict": "not-ai-music", "vocal_ai_percentage": 0.0, "vocal_ai_confidence": 0.1},
}


def identity_of(key: str, etag: str = "e1") -> str:
    """The object_id of a key in these lakes."""
    return object_id(BUCKET, key, etag)


def session_of(key: str, endpoint: str, number: int = 0) -> str:
    """The session of a result."""
    return f"session-{number}-{endpoint}-{key}"


def result(key: str, endpoint: str = "music", number: int = 0, **facts: Any) -> dict[str, Any]:
    """A row of an endpoint's summaries; number tells several of one key apart, the highest is the newest."""
    etag = facts.pop("etag", "e1")
    at = START + timedelta(minutes=number)
    return {
        "object_id": identity_of(key, etag),
        "object_key_id": object_key_id(BUCKET, key),
        "session_id": session_of(key, endpoint, number),
        "run_id": RUN,
        "package": f"{RUN}-p0001",
        "org": "default",
        "endpoint": endpoint,
        "params_hash": "p1",
        "bucket": BUCKET,
        "key": key,
        "etag": etag,
        "size_bytes": 1000,
        "last_modified": START,
        "audio_format": "mp3",
        "host": "wss://example.test",
        "attempt": 1,
        "started_at": at,
        "finished_at": at + timedelta(seconds=5),
        "duration_ms": 20_000,
        "covered_ms": 20_000,
        "items_received": 100,
        "evidence": "sufficient",
        "quality_flags": "",
        "wire_shape": "1",
        **FIGURES[endpoint],
        **facts,
    }


def segment(key: str, kind: str, start_ms: int, end_ms: int, endpoint: str = "music", number: int = 0) -> dict[str, Any]:
    """A row of `segments` for a result."""
    measured = {"item_count": 5, "mean_prob": 0.9, "max_prob": 0.95, "threshold": 0.5, "rule_version": "1"}
    identity = {"object_id": identity_of(key), "session_id": session_of(key, endpoint, number), "endpoint": endpoint}
    return {**identity, "segment_index": start_ms, "kind": kind, "start_time_ms": start_ms, "end_time_ms": end_ms, **measured}


def held(key: str, endpoint: str = "music", reason: Reason = Reason.UNDECODABLE, **facts: Any) -> dict[str, Any]:
    """A row of `quarantine`."""
    place = {"object_id": identity_of(key), "bucket": BUCKET, "key": key, "etag": "e1", "org": "default", "endpoint": endpoint}
    event = {"params_hash": "p1", "event": "quarantined", "reason": reason.value, "run_id": RUN, "happened_at": START}
    return {**place, **event, **facts}


def fill(store: FolderStore, *results: Mapping[str, Any], segments: Sequence[Mapping[str, Any]] = (), name: str = "p0001") -> None:
    """Write results, and segments of theirs, as a package would."""
    for endpoint, kind in ENDPOINT_DATASETS.items():
        if rows := [row for row in results if row["endpoint"] == endpoint]:
            write_rows(store, kind.summaries.name, RUN, START.date(), name, rows)
    if segments:
        write_rows(store, "segments", RUN, START.date(), name, segments)


def fill_with_many(store: FolderStore, objects: int, seed: int = 7) -> None:
    """Write a music result for so many objects, an AI-music result for every second one, and segments of them all.

    Half of the AI-music results say ai-vocal-music, of every confidence; a hundredth of the music results is flagged.
    """
    rng = np.random.default_rng(seed)
    numbers = pl.DataFrame({"number": np.arange(objects)})
    ids = [row.tobytes().hex() for row in rng.integers(0, 256, (objects, 16), dtype=np.uint8)]
    keys = (
        pl.lit("label-") + (pl.col("number") % 50).cast(pl.String) + pl.lit("/album/") + pl.col("number").cast(pl.String) + ".mp3"
    ).alias("key")
    every = numbers.with_columns(keys, object_id=pl.Series(ids), object_key_id=pl.Series(ids).str.reverse())
    shared = {
        name: value for name, value in result("x").items() if name not in {*every.columns, *FIGURES["music"], "endpoint", "session_id"}
    }
    every = every.with_columns(pl.lit(value).alias(name) for name, value in shared.items())
    of_music = every.with_columns(
        pl.lit("music").alias("endpoint"),
        (pl.lit("m-") + pl.col("object_id")).alias("session_id"),
        pl.when(pl.col("number") % 100 == 0).then(pl.lit("gap")).otherwise(pl.lit("")).alias("quality_flags"),
        pl.Series("music_pct", rng.uniform(0, 100, objects).round(1)),
        pl.Series("speech_pct", rng.uniform(0, 100, objects).round(1)),
        pl.Series("primary_label", rng.choice(["music", "speech", "neither"], objects)),
        threshold=pl.lit(0.5),
    )
    half = every.filter(pl.col("number") % 2 == 0)
    of_ai_music = half.with_columns(
        pl.lit("ai_music").alias("endpoint"),
        (pl.lit("a-") + pl.col("object_id")).alias("session_id"),
        pl.Series("primary_verdict", rng.choice(["ai-vocal-music", "not-ai-music"], half.height)),
        pl.Series("vocal_ai_confidence", rng.uniform(0, 1, half.height).round(4)),
        pl.Series("vocal_ai_percentage", rng.uniform(0, 100, half.height).round(1)),
    )
    for endpoint, frame in (("music", of_music), ("ai_music", of_ai_music)):
        kind = ENDPOINT_DATASETS[endpoint].summaries
        write_rows(store, kind.name, RUN, START.date(), "p0001", frame.drop("number").to_arrow())
    _fill_with_segments(store, of_music, of_ai_music)


def _fill_with_segments(store: FolderStore, *results: pl.DataFrame) -> None:
    one = {
        name: value for name, value in segment("x", "music", 0, 1).items() if name not in {"object_id", "session_id", "endpoint", "kind"}
    }
    for number, frame in enumerate(results):
        kinds = ["music", "speech"] if not number else ["ai_vocal"]
        of_kinds = [
            frame.select("object_id", "session_id", "endpoint").with_columns(
                pl.lit(value).alias(name)
                for name, value in (one | {"kind": kind, "segment_index": place, "end_time_ms": 8000 + place}).items()
            )
            for place, kind in enumerate(kinds)
        ]
        write_rows(store, "segments", RUN, START.date(), f"p000{number + 1}", pl.concat(of_kinds).to_arrow())
