"""Realistic ended sessions, as the streaming task would spool them."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from moderation.endpoints import ENDPOINTS
from moderation.identity import object_id, object_key_id, session_id
from moderation.messages import AiMusicDone, Frame, MusicDone, Window
from moderation.results import Columns, SpooledSession
from moderation.segments import SegmentRules
from tasks.records import segment_rows

RUN = "20260301T080000Z-0a1b2c"
BUCKET, PARAMS = "audio", "p1"
DAY = date(2026, 3, 1)
START = datetime(2026, 3, 1, 8, 0, 0, 123456, tzinfo=UTC)


def a_session(
    number: int = 0,
    *,
    endpoint: str = "music",
    items: int = 5,
    etag: str = "e1",
    key: str | None = None,
    outcome: str = "done",
    at: datetime | None = None,
    quarantined: bool = False,
    **summary: Any,
) -> SpooledSession:
    key = key or f"songs/{number:03d} - Ä 'quoted'.mp3"
    at = at or START + timedelta(seconds=number)
    identity = object_id(BUCKET, key, etag)
    session = session_id(at, number.to_bytes(10, "big"))
    common = {"session_id": session, "run_id": RUN, "org": "acme", "endpoint": endpoint, "object_id": identity, "attempt": 1}
    times = {"started_at": at, "finished_at": at + timedelta(seconds=3)}
    item_ms = ENDPOINTS[endpoint].item_ms
    columns = _columns(endpoint, number, items)
    attempt = {
        **common,
        **times,
        "worker": "w1",
        "phase": "draining",
        "outcome": outcome,
        "close_code": 1000,
        "bytes_sent": 1000 * items,
        "audio_sent_ms": items * item_ms,
        "items_received": items,
    }
    done = outcome == "done"
    place = {"bucket": BUCKET, "key": key, "version_id": None, "etag": etag}
    held = {"event": "quarantined", "reason": "undecodable", "detail": None, "run_id": RUN, "happened_at": at, "org": "acme"}
    return SpooledSession(
        session_id=session,
        run_id=RUN,
        endpoint=endpoint,
        object_id=identity,
        attempt=attempt,
        booked_ms=items * item_ms,
        sent_ms=items * item_ms,
        summary={**common, **times, **place, **_summary(endpoint, key, items), **summary} if done else None,
        items=columns.packed() if done else {},
        segments=segment_rows(identity, session, ENDPOINTS[endpoint], columns, SegmentRules(min_ms=0)) if done else [],
        quarantine={"object_id": identity, **place, "endpoint": endpoint, "params_hash": PARAMS, **held} if quarantined else None,
    )


def _columns(endpoint: str, number: int, items: int) -> Columns:
    columns = Columns(ENDPOINTS[endpoint])
    for index in range(items):
        share = (number * 37 + index * 11) % 101
        if endpoint == "music":
            span = {"start_time_ms": index * 192, "end_time_ms": (index + 1) * 192}
            columns.append(Frame(**span, music_prob=None if index == 1 else share / 100, speech_prob=round(1 - share / 100, 4)))
        else:
            span = {"start_time_ms": index * 4000, "end_time_ms": (index + 1) * 4000}
            columns.append(Window(**span, vocal_percentage=float(share), vocal_ai_percentage=0.0, silence_percentage=0.5))
    return columns


def _summary(endpoint: str, key: str, items: int) -> dict[str, Any]:
    duration = items * ENDPOINTS[endpoint].item_ms
    if endpoint == "music":
        done: Any = MusicDone(duration_ms=duration, frame_count=items, music_pct=60.0, speech_pct=40.0, primary_label="music")
        own = {"music_pct_recomputed": 61.5, "speech_pct_recomputed": float("nan"), "threshold": 0.5}
    else:
        done = AiMusicDone(duration_ms=duration, window_count=items, primary_verdict="not-ai-music", vocal_percentage=12.5)
        own = {}
    return {
        "object_key_id": object_key_id(BUCKET, key),
        "params_hash": PARAMS,
        "size_bytes": 1000 * items,
        "last_modified": START - timedelta(days=1),
        "audio_format": "mp3",
        "host": "wss://example.test",
        "covered_ms": duration,
        "items_received": items,
        "evidence": "sufficient" if items else "insufficient",
        "quality_flags": "",
        "close_code": 1000,
        "wire_shape": "1",
        **{name: getattr(done, name) for name in done.__struct_fields__},
        **own,
    }


def a_package() -> list[SpooledSession]:
    """Both endpoints, a failed attempt, a quarantined one, a session without items, and a second scan of the first object."""
    return [
        *(a_session(number, items=3 + number) for number in range(4)),
        *(a_session(10 + number, key=a_session(number).summary["key"], endpoint="ai_music", items=2) for number in range(2)),
        a_session(20, outcome="failed", items=7),
        a_session(21, outcome="refused", items=0, quarantined=True),
        a_session(22, items=0),
        a_session(30, key=a_session(0).summary["key"], items=9),
    ]
