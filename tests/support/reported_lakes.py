"""Lakes of one run with a report to make of it: flagged objects with items and segments, keys that are anybody's."""

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import numpy as np

from connectors.lake.packages import write_rows
from connectors.lake.query import connect
from connectors.lake.store import FolderStore
from judged_lakes import BUCKET, RUN, START, fill, identity_of, result, segment, session_of
from moderation.identity import object_key_id
from moderation.policy_file import parse_policy
from tasks.decide import decide
from tasks.records import Run

HOSTILE = (
    "<script>alert(1)</script>.mp3",
    '"><img src=x onerror=alert(2)>.mp3',
    "'><svg onload=alert(3)>.mp3",
    "=cmd()|' /C calc'!A0.mp3",
    "bidi \u202egpj.3pm\u202c end.mp3",
    "pipe | and\nnewline.mp3",
    "{{ 7 * 7 }}{% raw %}.mp3",
    "</style></title></svg><script src=//192.0.2.1/x.js></script>.mp3",
    "[link](javascript:alert(4)) ![img](http://192.0.2.1/x.png).mp3",
    "javascript:alert(5)//.mp3",
)
"""Keys that mean something to HTML, SVG, templates, spreadsheets, Markdown, or the direction of writing."""
POLICY = parse_policy(
    """
name = "ours"
[[rules]]
id = "ai-voices"
when = "vocal_ai_percentage >= 50"
decide = "block"
reason = "AI-made vocals <b>for sure</b>"
priority = 90
evidence = "ai_vocal"
[[rules]]
id = "music"
when = "primary_label = 'music'"
decide = "review"
reason = "there is music in it"
priority = 50
evidence = "music"
[[rules]]
id = "rest"
when = "true"
decide = "allow"
reason = "nothing in it"
""",
    "ours.toml",
)
HOST = "wss://example.test"


def run_row(**facts: Any) -> dict[str, Any]:
    """The row of the run's end."""
    counts = dict.fromkeys(("objects_listed", "planned", "done", "quarantined", "skipped", "pending"), 0)
    spent = dict.fromkeys(("audio_ms_settled", "audio_ms_at_risk", "audio_ms_saved"), 0)
    return {
        "run_id": RUN,
        "flow": "scan",
        "org": "default",
        "source": f"s3://{BUCKET}/<i>all</i>/",
        "parameters": '{"endpoints": ["music", "ai_music"], "connections": 4, "endpoint_connections": {"ai_music": 2}}',
        "fingerprint": "f",
        "code_version": "0",
        "started_at": START,
        "finished_at": START + timedelta(hours=1),
        "state": "Completed",
        "exit_code": 0,
        **counts,
        **spent,
        **facts,
    }


def attempt(key: str, endpoint: str, second: int, outcome: str = "done", **facts: Any) -> dict[str, Any]:
    """A row of `attempts` that begins so many seconds into the run."""
    at = START + timedelta(seconds=second)
    return {
        "session_id": session_of(key, endpoint),
        "run_id": RUN,
        "org": "default",
        "endpoint": endpoint,
        "object_id": identity_of(key),
        "attempt": 1,
        "worker": "w",
        "started_at": at,
        "finished_at": at + timedelta(seconds=10),
        "phase": "streaming",
        "outcome": outcome,
        "bytes_sent": 1,
        "audio_sent_ms": 20_000,
        "items_received": 1,
        **facts,
    }


def reported_lake(store: FolderStore, keys: Sequence[str], *, host: str = HOST, ai_every: int = 5, refusals: int = 2) -> None:
    """Write a run over these keys, every one with music and every so-manieth with AI-made vocals, and decide about it."""
    ai = [key for number, key in enumerate(keys) if number % ai_every == 0]
    scanned = [result(key, host=host) for key in keys]
    scanned += [
        result(key, "ai_music", host=host, primary_verdict="ai-vocal-music", vocal_ai_percentage=88.0, vocal_ai_confidence=0.9)
        for key in ai
    ]
    segments = [segment(key, kind, start, end) for key in keys for kind, start, end in SEGMENTS]
    segments += [segment(key, "ai_vocal", 4000, 12_000, "ai_music") for key in ai]
    fill(store, *scanned, segments=segments)
    write_rows(store, "music_frames", RUN, START.date(), "p0001", [row for key in keys for row in frames(key)])
    write_rows(store, "ai_music_windows", RUN, START.date(), "p0001", [row for key in ai for row in windows(key)])
    tries = [attempt(key, "music", number) for number, key in enumerate(keys)] + [
        attempt(key, "ai_music", 5 * n) for n, key in enumerate(ai)
    ]
    refused = {"outcome": "refused", "cause": "concurrency", "close_code": 4003, "error_text": "<em>too many</em> | connections"}
    tries += [attempt(keys[0], "music", number, **refused) | {"session_id": f"refused-{number}"} for number in range(refusals)]
    write_rows(store, "attempts", RUN, START.date(), "p0001", tries)
    plan = {"params_hash": "p1", "decision": "stream", "estimate_ms": 20_000, "estimate_source": "header"}
    planned = [{"object_id": identity_of(key), "endpoint": "music", **plan} for key in keys]
    planned += [{"object_id": identity_of(key), "endpoint": "ai_music", **plan} for key in ai]
    write_rows(store, "plan", RUN, START.date(), "plan", planned)
    listed = {"bucket": BUCKET, "etag": "e1", "size_bytes": 1000, "last_modified": START}
    objects = [{"object_id": identity_of(key), "object_key_id": object_key_id(BUCKET, key), "key": key, **listed} for key in keys]
    write_rows(store, "manifests", RUN, START.date(), "manifest", objects)
    write_rows(store, "runs", RUN, START.date(), "end", [run_row(objects_listed=len(keys), done=len(keys))])
    decide(store, partial(connect, store.url), Run(RUN, "default", START), POLICY, START + timedelta(hours=1))


SEGMENTS = (("speech", 0, 3000), ("music+speech", 3000, 5000), ("music", 5000, 18_000), ("neither", 18_000, 20_000))


def frames(key: str) -> list[dict[str, Any]]:
    """Music that fades in over speech."""
    shape = np.linspace(0, 6, 100)
    return [
        {
            "object_id": identity_of(key),
            "session_id": session_of(key, "music"),
            "frame_index": number,
            "start_time_ms": number * 192,
            "end_time_ms": number * 192 + 192,
            "music_prob": float(np.clip(shape[number] / 2, 0, 0.97)),
            "speech_prob": float(np.clip(1 - shape[number] / 2, 0.02, 0.95)),
        }
        for number in range(100)
    ]


def windows(key: str) -> list[dict[str, Any]]:
    """AI-made vocals in the middle."""
    return [
        {
            "object_id": identity_of(key),
            "session_id": session_of(key, "ai_music"),
            "window_index": number,
            "start_time_ms": number * 4000,
            "end_time_ms": number * 4000 + 4000,
            "vocal_ai_percentage": share,
            "vocal_ai_confidence": 0.9,
        }
        for number, share in enumerate((5.0, 80.0, 90.0, 20.0, 0.0))
    ]
