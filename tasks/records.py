"""The rows that a session leaves (datasets.md), from what is known at its end. No I/O."""

import json
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from moderation.admission import SessionRecord
from moderation.catalogue import AudioObject
from moderation.endpoints import Endpoint
from moderation.errors import Phase, SessionError
from moderation.formats import StreamParameters
from moderation.outcomes import Reason
from moderation.refusals import Cause
from moderation.results import Columns, SessionResult
from moderation.segments import SegmentRules, segments
from moderation.session import ClientSession
from moderation.transcoding import SourceFormat

THRESHOLD = 0.5
"""Probability from which an item counts in the recomputed percentages: the service does not publish its own (service.md, decision 23)."""
WORKER_DIED = "the worker died before the session ended: its whole reservation counts as possibly billed"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a flow: its name, whose hours it uses, and when it started (UTC)."""

    run_id: str
    org: str
    started_at: datetime

    @property
    def scan_date(self) -> date:
        """The partition of everything that it writes."""
        return self.started_at.date()


@dataclass(frozen=True, slots=True)
class PlannedObject:
    """One object that a plan streams to one endpoint. estimate_ms is what a session of it reserves; expected_ms a trusted duration.

    transcoded_from is what it is where it is decoded here first; parameters, which are those of the session, are None where only its
    decoding tells them.
    """

    item: AudioObject
    endpoint: Endpoint
    parameters: StreamParameters | None
    params_hash: str
    estimate_ms: int
    expected_ms: int | None = None
    transcoded_from: SourceFormat | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of one object: who, when, and for which run. number counts from 1 within the run."""

    session_id: str
    planned: PlannedObject
    run_id: str
    org: str
    worker: str
    host: str
    number: int
    started_at: datetime
    finished_at: datetime


def attempt_row(
    attempt: Attempt, session: ClientSession | None, outcome: str, error: SessionError | None = None, cause: Cause | None = None
) -> dict[str, Any]:
    """A row of `attempts`. outcome is done, refused, failed or cancelled; session is None when there never was a connection."""
    phase = error.phase if error else session.phase if session else Phase.CONNECTING
    return {
        "session_id": attempt.session_id,
        "run_id": attempt.run_id,
        "org": attempt.org,
        "endpoint": attempt.planned.endpoint.name,
        "object_id": attempt.planned.item.object_id,
        "attempt": attempt.number,
        "worker": attempt.worker,
        "started_at": attempt.started_at,
        "finished_at": attempt.finished_at,
        "phase": phase.value,
        "outcome": outcome,
        "scope": cause.scope.value if cause else None,
        "cause": cause.name if cause else None,
        "http_status": error.http_status if error else None,
        "close_code": error.close_code if error else session.close_code if session else None,
        "error_text": (error.text or error.detail) if error else None,
        "bytes_sent": session.bytes_sent if session else 0,
        "audio_sent_ms": session.audio_sent_ms if session else 0,
        "items_received": len(session.columns) if session else 0,
    }


def lost_attempt_row(record: SessionRecord) -> dict[str, Any]:
    """A row of `attempts` for a session that left nothing but what the ledger booked for it: when it ended is not known.

    Without an outcome its worker died; with one it was taken back before it began.
    """
    died = record.outcome is None
    return {
        "session_id": record.session_id,
        "run_id": record.run_id,
        "org": record.org,
        "endpoint": record.endpoint,
        "object_id": record.object_id,
        "attempt": record.attempt,
        "worker": record.worker,
        "started_at": record.started_at,
        "finished_at": record.started_at,
        "phase": (Phase.STREAMING if died else Phase.PREFLIGHT).value,
        "outcome": record.outcome or "failed",
        "scope": record.scope,
        "cause": "worker_died" if died else None,
        "http_status": None,
        "close_code": record.close_code,
        "error_text": WORKER_DIED if died else record.error_text,
        "bytes_sent": 0,
        "audio_sent_ms": record.booked_ms or 0,
        "items_received": 0,
    }


def summary_row(attempt: Attempt, result: SessionResult) -> dict[str, Any]:
    """A row of the endpoint's summaries, all but its package."""
    planned, item, parameters = attempt.planned, attempt.planned.item, attempt.planned.parameters
    assert parameters is not None, "a session has them"
    return {
        "object_id": item.object_id,
        "object_key_id": item.object_key_id,
        "session_id": attempt.session_id,
        "run_id": attempt.run_id,
        "org": attempt.org,
        "endpoint": planned.endpoint.name,
        "params_hash": planned.params_hash,
        "bucket": item.bucket,
        "key": item.key,
        "version_id": item.version_id,
        "etag": item.etag,
        "size_bytes": item.size_bytes,
        "last_modified": item.last_modified,
        "audio_format": parameters.audio_format.value,
        "sample_rate": parameters.sample_rate,
        "num_channels": parameters.num_channels,
        "transcoded_from": planned.transcoded_from and str(planned.transcoded_from),
        "host": attempt.host,
        "attempt": attempt.number,
        "started_at": attempt.started_at,
        "finished_at": attempt.finished_at,
        "covered_ms": result.covered_ms,
        "expected_ms": planned.expected_ms,
        "items_received": len(result.columns),
        "evidence": "sufficient" if result.sufficient else "insufficient",
        "quality_flags": ",".join(sorted(result.flags)),
        "close_code": result.close_code,
        "wire_shape": result.wire_shape,
        "extra": json.dumps(result.extra, sort_keys=True) if result.extra else None,
        **_measured(result),
    }


def _measured(result: SessionResult) -> dict[str, Any]:
    """What the done message says, as received, and what we make of the items ourselves."""
    done = {name: getattr(result.done, name) for name in result.done.__struct_fields__}
    shares = {f"{figure}_recomputed": result.share_over(measure, THRESHOLD) for figure, measure in result.endpoint.shares}
    return done | shares | ({"threshold": THRESHOLD} if shares else {})


def segment_rows(object_id: str, session_id: str, endpoint: Endpoint, columns: Columns, rules: SegmentRules) -> list[dict[str, Any]]:
    """The rows of `segments` that a session leaves."""
    return [
        {
            "object_id": object_id,
            "session_id": session_id,
            "endpoint": endpoint.name,
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
        for number, segment in enumerate(segments(endpoint, columns, rules))
    ]


def quarantine_row(planned_item: AudioObject, endpoint: str, params_hash: str, reason: Reason, **more: Any) -> dict[str, Any]:
    """A row of `quarantine`; `more` names detail, run_id, org and happened_at, and event where it is a release."""
    return {
        "object_id": planned_item.object_id,
        "bucket": planned_item.bucket,
        "key": planned_item.key,
        "version_id": planned_item.version_id,
        "etag": planned_item.etag,
        "endpoint": endpoint,
        "params_hash": params_hash,
        "event": "quarantined",
        "reason": reason.value,
        **more,
    }
