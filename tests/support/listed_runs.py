"""Runs that have listed and planned what they streamed, as the lake has them once they have ended."""

from collections.abc import Collection, Iterable
from datetime import timedelta
from itertools import groupby
from operator import attrgetter
from typing import Any

from connectors.lake.packages import write_rows
from connectors.lake.store import ResultStore
from ended_sessions import BUCKET, PARAMS, START
from moderation.identity import object_key_id
from moderation.results import SpooledSession
from tasks.publish import run_date


def write_runs(store: ResultStore, sessions: Iterable[SpooledSession]) -> None:
    """The manifest, the plan and the end of every run that these sessions are of; it has left for a later one what it has not done."""
    for run_id, of_run in groupby(sorted(sessions, key=attrgetter("run_id")), attrgetter("run_id")):
        own = list(of_run)
        rows = {
            "manifests": ("manifest", list({session.object_id: _listed(session) for session in own}.values())),
            "plan": ("plan", [_planned(session) for session in own]),
            "runs": ("end", [_end(run_id, own)]),
        }
        for dataset, (name, values) in rows.items():
            write_rows(store, dataset, run_id, run_date(run_id), name, values)


def _listed(session: SpooledSession) -> dict[str, Any]:
    key = session.summary["key"] if session.summary else f"without a result/{session.object_id}"
    place = {"bucket": BUCKET, "key": key, "version_id": None, "etag": "e1", "object_key_id": object_key_id(BUCKET, key)}
    return {**place, "object_id": session.object_id, "size_bytes": 1000, "last_modified": START, "storage_class": "STANDARD"}


def _planned(session: SpooledSession) -> dict[str, Any]:
    identity = {"object_id": session.object_id, "endpoint": session.endpoint, "params_hash": PARAMS}
    estimate = {"estimate_ms": session.booked_ms, "estimate_source": "probe"}
    return {**identity, "decision": "stream", "audio_format": "mp3", **estimate, "shard": 0}


def _end(run_id: str, sessions: Collection[SpooledSession]) -> dict[str, Any]:
    times = {"started_at": START, "finished_at": START + timedelta(hours=1)}
    asked = {"flow": "scan", "org": "acme", "source": f"s3://{BUCKET}/{run_id}/", "parameters": "{}"}
    by = {"fingerprint": "f1", "code_version": "1"}
    done = sum(session.summary is not None for session in sessions)
    counts = {"objects_listed": len(sessions), "planned": len(sessions), "done": done, "pending": len(sessions) - done}
    spent = {"quarantined": 0, "skipped": 0, "audio_ms_settled": 0, "audio_ms_at_risk": 0, "audio_ms_saved": 0}
    return {"run_id": run_id, **asked, **by, **times, "state": "Crashed", "exit_code": 1, **counts, **spent}
