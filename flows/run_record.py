"""A run's own row in the lake: what it was asked for, how it began, how it ended (datasets.md, runs)."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Any

from flows.request import Request
from flows.settings import Settings
from moderation.outcomes import ExitCode
from tasks.no_audio import Alike
from tasks.progress import Progress, Standing
from tasks.records import Run

PACKAGE = "soundcheck"
SHAPING = ("endpoints", "raw_rules", "max_session_hours", "cascade", "transcode")
"""Settings by which a plan would be another one."""
KEPT = ("endpoints", "cascade")
"""Those of them that a run keeps when it is taken up again, whatever the settings are by then."""


@dataclass(frozen=True, slots=True)
class Ended:
    """When a run ended, and with which exit code."""

    at: datetime
    exit_code: ExitCode


def fingerprint(settings: Settings, request: Request) -> str:
    """What shapes a run, hashed: what it was asked for, and the settings by which its plan would be another one."""
    told = json.dumps({"request": request.as_json(), **settings.model_dump(mode="json", include=set(SHAPING))}, sort_keys=True)
    return hashlib.blake2b(told.encode(), digest_size=8).hexdigest()


def alike(org: str, request: Request) -> Alike:
    """The runs whose plans say of the same objects what this one would."""
    return Alike(org, str(request), version(PACKAGE))


def run_row(
    run: Run, request: Request, settings: Settings, progress: Progress, state: str, ended: Ended | None, message: str
) -> dict[str, Any]:
    """A row of `runs`, all but its Prefect flow run; ended is None in the row of its start."""
    parameters = settings.model_dump(mode="json", exclude={"api_key", "proxy"}) | {"request": request.as_json()}
    objects = progress.objects()
    settled_before_ms, at_risk_before_ms = progress.spent_before_ms
    return {
        "run_id": run.run_id,
        "flow": request.flow.value,
        "org": run.org,
        "source": str(request),
        "parameters": json.dumps(parameters, sort_keys=True),
        "fingerprint": fingerprint(settings, request),
        "code_version": version(PACKAGE),
        "started_at": run.started_at,
        "finished_at": ended and ended.at,
        "state": state,
        "exit_code": ended and int(ended.exit_code),
        "stop_cause": f"{state}: {message}" if message else None,
        "objects_listed": progress.listed,
        "planned": sum(counts.planned for counts in progress.endpoints.values()),
        **{standing.value: objects[standing] for standing in Standing},
        "audio_ms_settled": settled_before_ms + progress.audio_ms,
        "audio_ms_at_risk": at_risk_before_ms + progress.at_risk_ms,
        "audio_ms_saved": progress.saved_ms,
    }
