"""Realistic ended sessions, as the streaming task would spool them."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from connectors.lake.store import FolderStore, ResultStore, S3Store
from connectors.local_s3 import LocalS3
from connectors.s3 import S3Settings, S3Uri, s3_client
from moderation.endpoints import ENDPOINTS
from moderation.identity import object_id, object_key_id, session_id
from moderation.messages import AiMusicDone, Frame, MusicDone, Window
from moderation.results import Columns, SpooledSession
from moderation.segments import SegmentRules, segments

RUN = "20260301T080000Z-0a1b2c"
DAY = date(2026, 3, 1)
START = datetime(2026, 3, 1, 8, 0, 0, 123456, tzinfo=UTC)
BUCKET = "results-bucket"


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
    identity = object_id("audio", key, etag)
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
    place = {"bucket": "audio", "key": key, "version_id": None, "etag": etag}
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
        segments=_segments(session, identity, endpoint, columns) if done else [],
        quarantine={"object_id": identity, **place, "endpoint": endpoint, "params_hash": "p1", **held} if quarantined else None,
    )


def _segments(session: str, identity: str, endpoint: str, columns: Columns) -> list[dict[str, Any]]:
    names = {"object_id": identity, "session_id": session, "endpoint": endpoint}
    rules = SegmentRules(min_ms=0)
    return [
        {
            **names,
            "segment_index": number,
            "kind": segment.kind,
            "start_time_ms": segment.start_ms,
            "end_time_ms": segment.end_ms,
            "item_count": segment.items,
            "mean_prob": segment.mean,
            "max_prob": segment.greatest,
            "threshold": rules.enter,
            "rule_version": rules.version,
        }
        for number, segment in enumerate(segments(ENDPOINTS[endpoint], columns, rules))
    ]


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
        "object_key_id": object_key_id("audio", key),
        "params_hash": "p1",
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


@pytest.fixture(scope="session")
def session() -> Callable[..., SpooledSession]:
    return a_session


@pytest.fixture(scope="session")
def package() -> list[SpooledSession]:
    return a_package()


@pytest.fixture(scope="session")
def run() -> dict[str, Any]:
    """The row of a run's start."""
    counts = (
        "objects_listed",
        "planned",
        "done",
        "quarantined",
        "skipped",
        "pending",
        "audio_ms_settled",
        "audio_ms_at_risk",
        "audio_ms_saved",
    )
    words = {"flow": "scan", "org": "acme", "source": "s3://audio/", "parameters": "{}", "fingerprint": "f", "code_version": "0.1.0"}
    return {"run_id": RUN, **words, "started_at": START, "state": "Running", **dict.fromkeys(counts, 0)}


@pytest.fixture(scope="session")
def listed() -> Callable[..., dict[str, Any]]:
    """A row of a manifest."""

    def a_listed(number: int, **more: Any) -> dict[str, Any]:
        key = f"k{number}"
        place = {"bucket": "audio", "key": key, "etag": "e", "size_bytes": number, "last_modified": START}
        return {**place, "object_id": object_id("audio", key, "e"), "object_key_id": object_key_id("audio", key), **more}

    return a_listed


def a_decision(number: int = 0, **more: Any) -> dict[str, Any]:
    identity = a_session(number).object_id
    words = {"org": "acme", "bucket": "audio", "key": f"k{number}", "etag": "e", "policy": "starter", "policy_hash": "0123456789abcdef"}
    told = {"decided_at": START, "decision": "review", "rule_id": "no_rule", "reason": "no rule holds", "priority": 0}
    return {"object_id": identity, "object_key_id": identity, **words, **told, "evidence_sessions": "", "run_id": RUN, **more}


def an_answer(number: int = 0, **more: Any) -> dict[str, Any]:
    told = {"reviewer": "ada", "answered_at": START + timedelta(hours=1), "answer": "block", "decision_before": "review"}
    return {"object_id": a_session(number).object_id, **told, "rule_id": "no_rule", "policy_hash": "0123456789abcdef", **more}


@pytest.fixture(scope="session")
def decision() -> Callable[..., dict[str, Any]]:
    """A row of decisions."""
    return a_decision


@pytest.fixture(scope="session")
def answer() -> Callable[..., dict[str, Any]]:
    """A row of review_answers."""
    return an_answer


@pytest.fixture(scope="session")
def local_s3() -> Iterator[LocalS3]:
    with LocalS3() as server:
        yield server


@pytest.fixture(scope="session")
def client(local_s3):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in local_s3.environment().items():
            patch.setenv(name, value)
        client = s3_client(S3Settings(endpoint_url=local_s3.endpoint_url, region=local_s3.region))
        yield client
        client.close()


@pytest.fixture
def s3(local_s3, client, monkeypatch):
    """A client of the local S3 with one fresh bucket; the environment leads there, too."""
    for name, value in local_s3.environment().items():
        monkeypatch.setenv(name, value)
    client.create_bucket(Bucket=BUCKET)
    yield client
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        if found := page.get("Contents"):
            client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": entry["Key"]} for entry in found]})
    client.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def own_s3(s3, local_s3):
    """Another client of the same, to be tampered with."""
    client = s3_client(S3Settings(endpoint_url=local_s3.endpoint_url, region=local_s3.region))
    yield client
    client.close()


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path) -> ResultStore:
    """Each test on both stores."""
    if request.param == "folder":
        return FolderStore(tmp_path / "results")
    return S3Store(S3Uri.parse(f"s3://{BUCKET}/some/prefix"), request.getfixturevalue("s3"))


@pytest.fixture
def lake(tmp_path) -> FolderStore:
    return FolderStore(tmp_path / "results")
