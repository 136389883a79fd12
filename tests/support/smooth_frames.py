"""Music sessions of smooth probabilities with four decimals, from a seed: what real audio gives, made at millions of rows a second."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count

import numpy as np

from moderation.identity import object_id, object_key_id, session_id
from moderation.results import SpooledSession

FRAME_MS = 192
FRAMES_PER_HOUR = 18_750
RUN = "20260301T080000Z-0a1b2c"
START = datetime(2026, 3, 1, 8, tzinfo=UTC)
STEP = 0.03
"""The deviation of a step from one frame to the next, in radians of the wave that both probabilities are."""


def smooth(generator: np.random.Generator, frames: int) -> np.ndarray:
    """Probabilities that wander: most frames are like those beside them, and all values come up."""
    return np.round(0.5 + 0.5 * np.sin(generator.uniform(0, 6.3) + np.cumsum(generator.normal(0, STEP, frames))), 4)


def smooth_session(seed: int, frames: int = FRAMES_PER_HOUR) -> SpooledSession:
    """One session, the same for the same seed."""
    generator = np.random.default_rng(seed)
    key, at = f"library/{seed:06}.flac", START + timedelta(seconds=seed)
    starts = np.arange(frames, dtype="<i8") * FRAME_MS
    columns = {"start_time_ms": starts, "end_time_ms": starts + FRAME_MS}
    columns |= {name: smooth(generator, frames).astype("<f8") for name in ("music_prob", "speech_prob")}
    identity = {"session_id": session_id(at, seed.to_bytes(10, "big")), "run_id": RUN, "endpoint": "music"}
    common = {**identity, "object_id": object_id("audio", key, "e"), "org": "acme", "attempt": 1}
    times = {"started_at": at, "finished_at": at + timedelta(seconds=60), "items_received": frames, "close_code": 1000}
    place = {"bucket": "audio", "key": key, "etag": "e", "object_key_id": object_key_id("audio", key), "last_modified": START}
    words = {"params_hash": "p", "audio_format": "flac", "host": "h", "quality_flags": "", "wire_shape": "1", "evidence": "sufficient"}
    audio = {"size_bytes": 1, "duration_ms": frames * FRAME_MS, "covered_ms": frames * FRAME_MS, "frame_count": frames}
    shares = {"primary_label": "music", "music_pct": 50.0, "speech_pct": 50.0, "threshold": 0.5}
    attempt = {"worker": "w", "phase": "draining", "outcome": "done", "bytes_sent": 1, "audio_sent_ms": frames * FRAME_MS}
    return SpooledSession(
        **identity,
        object_id=common["object_id"],
        attempt={**common, **times, **attempt},
        booked_ms=frames * FRAME_MS,
        sent_ms=frames * FRAME_MS,
        summary={**common, **times, **place, **words, **audio, **shares},
        items={name: column.tobytes() for name, column in columns.items()},
    )


def packages_of(rows: int, sessions: int, frames: int = FRAMES_PER_HOUR) -> Iterator[list[SpooledSession]]:
    """Packages of so many sessions, until there are so many rows."""
    for first in count(0, sessions):
        left = -(-rows // frames) - first
        if left <= 0:
            return
        yield [smooth_session(seed, frames) for seed in range(first, first + min(sessions, left))]
