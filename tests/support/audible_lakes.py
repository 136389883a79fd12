"""Lakes whose objects can be heard: files of a folder with results, segments and decisions about them."""

import wave
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from connectors.files import etag_of
from connectors.lake.packages import write_rows
from connectors.lake.query import connect
from connectors.lake.store import FolderStore
from judged_lakes import RUN, START, fill, result, segment
from moderation.identity import object_id, object_key_id
from reported_lakes import POLICY, SEGMENTS, frames
from tasks.decide import decide
from tasks.records import Run

RATE = 32_000
LOCAL = "ws://127.0.0.1:8765"
"""The host of AI-music results."""
_NOISE = np.random.default_rng(7).normal(0, 300, 20 * RATE).astype("<i2").tobytes()
"""20 seconds: more than one piece of what is read at once."""


def audible_lake(folder: Path, keys: Sequence[str], ai: Sequence[str] = ()) -> dict[str, str]:
    """Write files into folder/audio and results over them into folder/results: the object_id of each key.

    All have music, which is to be reviewed; those of ai have AI-made vocals, which are blocked.
    """
    ids, rows, parts, items = {}, [], [], []
    for key in keys:
        facts = _file(folder / "audio", key)
        ids[key] = facts["object_id"]
        rows.append(result(key, **facts))
        if key in ai:
            rows.append(result(key, "ai_music", primary_verdict="ai-vocal-music", vocal_ai_percentage=88.0, host=LOCAL, **facts))
        parts += [segment(key, *spans) | {"object_id": ids[key]} for spans in SEGMENTS]
        items += [row | {"object_id": ids[key]} for row in frames(key)]
    store = FolderStore(folder / "results")
    fill(store, *rows, segments=parts)
    write_rows(store, "music_frames", RUN, START.date(), "p0001", items)
    decide(store, partial(connect, store.url), Run(RUN, "default", START), POLICY, START + timedelta(hours=1))
    return ids


def _file(root: Path, key: str) -> dict[str, Any]:
    path = root / key
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(_NOISE)
    bucket, facts = str(root.resolve()), path.stat()
    etag = etag_of(facts)
    identity = {"object_id": object_id(bucket, key, etag), "object_key_id": object_key_id(bucket, key)}
    return {**identity, "bucket": bucket, "etag": etag, "size_bytes": facts.st_size}
