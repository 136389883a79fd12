"""How a run ended: its state by name, its exit code, and its figures."""

from dataclasses import dataclass, fields
from typing import Any

from moderation.budget import ms_to_hours
from moderation.errors import SoundcheckError
from moderation.outcomes import ExitCode, StopCause
from tasks.progress import Changes, Progress, Standing

COMPLETED = "Completed"
INCOMPLETE = "Incomplete"
RUNNING = "Running"


CHANGE_COUNTS = tuple(each.name for each in fields(Changes))
"""What a listing is against earlier results, as reports have it; null where nothing is known of it."""


@dataclass(frozen=True, slots=True)
class Report:
    """How a run ended. state is the flow state's name, message why it stopped if it did, recovered the sessions of earlier runs.

    page is the address of its report for people, None where there is none. skew_s is by how many seconds this host's clock was off at most,
    positive where it was ahead.
    """

    run_id: str
    source: str
    results: str
    state: str
    exit_code: ExitCode
    message: str
    progress: Progress
    recovered: int = 0
    page: str | None = None
    skew_s: int = 0

    def counts(self) -> dict[str, Any]:
        """The figures as JSON has them: every object counts once, its endpoints apart. at_risk_hours are possibly billed.

        saved_hours are what the cascade did not stream of objects with a music result: as long as those were. decisions are those of the
        policy on all objects of the organisation that anything is known of; none without a policy.
        """
        progress = self.progress
        return {
            "run_id": self.run_id,
            "state": self.state,
            "source": self.source,
            "objects": progress.listed,
            "left_out": {why.value: count for why, count in sorted(progress.left_out.items())},
            **{standing.value: count for standing, count in progress.objects().items()},
            "sessions": progress.sessions,
            "audio_hours": hours(progress.audio_ms),
            "at_risk_hours": hours(progress.at_risk_ms),
            "saved_hours": hours(progress.saved_ms),
            "recovered_sessions": self.recovered,
            "clock_skew_s": self.skew_s,
            "decisions": dict(progress.decisions),
            "endpoints": {
                name: {
                    "planned": counts.planned,
                    **{name: getattr(counts.changes, name, None) for name in CHANGE_COUNTS},
                    **{standing.value: counts.standings[standing] for standing in Standing},
                    "sessions": counts.sessions,
                    "refusals": counts.refusals,
                    "audio_hours": hours(counts.audio_ms),
                    "reasons": {reason.value: count for reason, count in sorted(counts.reasons.items())},
                }
                for name, counts in progress.endpoints.items()
            },
            "results": self.results,
            "report": self.page,
            "message": self.message,
            "exit_code": int(self.exit_code),
        }


def hours(ms: int) -> float:
    """Audio-hours of milliseconds, to a third of a second."""
    return round(ms_to_hours(ms), 4)


def state_name(error: SoundcheckError) -> str:
    """The flow state's name for an error that ended a run."""
    by_code = {cause.exit_code: cause for cause in StopCause}
    return by_code.get(error.exit_code, StopCause.CONFIGURATION).value
