"""How things end: the closed lists of reasons, exit codes and flow state names.

Source: rules.md. One word is the same in columns, reports and commands.
"""

from enum import IntEnum, StrEnum


class Reason(StrEnum):
    """Why an object was not streamed to a result."""

    # skipped: nothing to analyse
    SIDECAR = "sidecar"
    FOLDER_MARKER = "folder_marker"
    EMPTY = "empty"
    NOT_AUDIO = "not_audio"
    ARCHIVED = "archived"
    GONE = "gone"
    FILTERED = "filtered"
    SECOND_STAGE = "second_stage"
    # quarantined: the object needs a person
    UNDECODABLE = "undecodable"
    UNSUPPORTED_FORMAT = "unsupported_format"
    UNSUPPORTED_RATE = "unsupported_rate"
    NO_AUDIO_TRACK = "no_audio_track"
    BAD_PARAMETERS = "bad_parameters"
    UNKNOWN_PARAMETERS = "unknown_parameters"
    INCOMPLETE = "incomplete"
    TOO_LONG = "too_long"
    SOURCE_ERROR = "source_error"
    HOSTILE = "hostile"
    POISON = "poison"
    # pending: a later run goes on
    DEFERRED_QUOTA = "deferred_quota"
    DEFERRED_KEY = "deferred_key"
    DEFERRED_SERVICE = "deferred_service"
    DEFERRED_RETRY = "deferred_retry"
    CHANGED = "changed"
    NOT_REACHED = "not_reached"


SKIPPED = frozenset(
    {
        Reason.SIDECAR,
        Reason.FOLDER_MARKER,
        Reason.EMPTY,
        Reason.NOT_AUDIO,
        Reason.ARCHIVED,
        Reason.GONE,
        Reason.FILTERED,
        Reason.SECOND_STAGE,
    }
)
PENDING = frozenset(
    {
        Reason.DEFERRED_QUOTA,
        Reason.DEFERRED_KEY,
        Reason.DEFERRED_SERVICE,
        Reason.DEFERRED_RETRY,
        Reason.CHANGED,
        Reason.NOT_REACHED,
    }
)
QUARANTINED = frozenset(Reason) - SKIPPED - PENDING


class ExitCode(IntEnum):
    """What the process says at its end; the meaning of each is in rules.md and the README."""

    OK = 0
    FOUND = 1
    USAGE = 2
    QUARANTINED = 3
    MANY_QUARANTINED = 65
    UNREACHABLE = 69
    CANNOT_WRITE = 73
    EXHAUSTED = 75
    ACCESS_DENIED = 77
    CONFIGURATION = 78
    DRAINED = 143


class StopCause(StrEnum):
    """Why a run ended before its plan did; the flow state bears the same name."""

    ACCESS_DENIED = "AccessDenied"
    CREDITS_EXHAUSTED = "CreditsExhausted"
    CONFIGURATION = "Configuration"
    SERVICE_UNREACHABLE = "ServiceUnreachable"
    RESULTS_NOT_WRITABLE = "ResultsNotWritable"
    TERMINATED = "Terminated"

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of a run that stopped for this cause."""
        return _EXIT_CODES[self]


_EXIT_CODES = {
    StopCause.ACCESS_DENIED: ExitCode.ACCESS_DENIED,
    StopCause.CREDITS_EXHAUSTED: ExitCode.EXHAUSTED,
    StopCause.CONFIGURATION: ExitCode.CONFIGURATION,
    StopCause.SERVICE_UNREACHABLE: ExitCode.UNREACHABLE,
    StopCause.RESULTS_NOT_WRITABLE: ExitCode.CANNOT_WRITE,
    StopCause.TERMINATED: ExitCode.DRAINED,
}
