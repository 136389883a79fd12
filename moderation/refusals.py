"""What a session's failure means: phase, codes and text in, a Cause out. Data, not if-chains: the first match wins.

Source: rules.md, 'The table'.
"""

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

from moderation.errors import ConfigurationError, Phase, Scope, SessionError
from moderation.outcomes import Reason, StopCause


class Action(StrEnum):
    """What follows from a cause."""

    QUARANTINE = "quarantine"
    """The object's own fault: it will not get better."""
    RETRY_THEN_QUARANTINE = "retry_then_quarantine"
    """A fault of this session: the object has three attempts."""
    RETRY = "retry"
    """Not the object's fault: again after a pause, no attempt spent."""
    WAIT = "wait"
    """Capacity: again when a slot is free, no attempt spent."""
    STOP = "stop"
    """No new start: the run ends in a named state."""


class Tells(StrEnum):
    """What a failure says about admission; judgement.py weighs it against what else is known."""

    NOTHING = "nothing"
    ADMITTED = "admitted"
    """The service had taken the session: key and organisation are fine."""
    KEY = "key"
    QUOTA = "quota"
    UNDECIDED = "undecided"
    """4029 without a text: too many connections, or too little credit."""
    CAPACITY = "capacity"
    SERVICE = "service"
    NETWORK = "network"
    LOST = "lost"
    """The connection broke in mid-stream: a refusal can be hidden by the reset (measurements.md: 43 of 80)."""


@dataclass(frozen=True, slots=True)
class Cause:
    """The meaning of a failure.

    reason is what becomes of the object where the action gives it up; stop what ends the run; attempts how many tries an object has
    where that is fewer than for other faults.
    """

    name: str
    scope: Scope
    action: Action
    reason: Reason
    stop: StopCause | None = None
    attempts: int | None = None
    advice: str = ""
    """What a person should do, where the run stops for it."""
    tells: Tells = Tells.NOTHING

    @property
    def spends_attempt(self) -> bool:
        """Whether the object's attempts are spent: only by its own faults and by faults of its session."""
        return self.action in {Action.QUARANTINE, Action.RETRY_THEN_QUARANTINE}

    @property
    def counted_as(self) -> str:
        """By what an object's tries are counted: faults of others that allow fewer of them than patience has count by themselves."""
        return self.name if self.action is Action.RETRY and self.attempts is not None else self.action


NOT_PERMITTED = Cause(
    "not_permitted",
    Scope.KEY,
    Action.STOP,
    Reason.DEFERRED_KEY,
    StopCause.ACCESS_DENIED,
    advice="the key is wrong, revoked or not for this endpoint, or others use the whole limit: check both, then run again",
    tells=Tells.KEY,
)
NOT_VALIDATED = Cause("not_validated", Scope.SERVICE, Action.RETRY, Reason.DEFERRED_SERVICE, tells=Tells.SERVICE)
QUOTA = Cause(
    "quota",
    Scope.ORGANISATION,
    Action.STOP,
    Reason.DEFERRED_QUOTA,
    StopCause.CREDITS_EXHAUSTED,
    advice="credits or monthly hours are used up: add some or wait for the next month, then run again: it does exactly the rest",
    tells=Tells.QUOTA,
)
INSUFFICIENT = replace(QUOTA, name="insufficient", tells=Tells.UNDECIDED)
"""4029 that says no more: credits by the seed pages, the number of connections by other documents."""
CAPACITY = Cause("capacity", Scope.ORGANISATION, Action.WAIT, Reason.DEFERRED_SERVICE, tells=Tells.CAPACITY)
UNDECODABLE = Cause("undecodable", Scope.OBJECT, Action.QUARANTINE, Reason.UNDECODABLE, tells=Tells.ADMITTED)
BAD_PARAMETERS = Cause("bad_parameters", Scope.CONFIG, Action.QUARANTINE, Reason.BAD_PARAMETERS)
WRONG_URL = Cause(
    "wrong_url",
    Scope.CONFIG,
    Action.STOP,
    Reason.NOT_REACHED,
    StopCause.CONFIGURATION,
    advice="this host is not the streaming service (redirects are never followed): check velma_url and hosts",
)
SERVICE_FAULT = Cause(
    "service_fault",
    Scope.SERVICE,
    Action.RETRY,
    Reason.DEFERRED_SERVICE,
    advice="the service is failing: run again later",
    tells=Tells.SERVICE,
)
TOO_BIG = Cause(
    "message_too_big",
    Scope.CONFIG,
    Action.STOP,
    Reason.NOT_REACHED,
    StopCause.CONFIGURATION,
    advice="the service takes no messages of this size",
)
UNREACHABLE = Cause(
    "unreachable",
    Scope.NETWORK,
    Action.RETRY,
    Reason.DEFERRED_SERVICE,
    advice="check network, proxy and host, then run again",
    tells=Tells.NETWORK,
)
UNREACHABLE_FOR_LONG = replace(
    UNREACHABLE,
    name="unreachable_for_long",
    action=Action.STOP,
    stop=StopCause.SERVICE_UNREACHABLE,
    advice="the service has refused or lost every probe of the last minutes: check its status, network, proxy and host, then run again",
)
LOST = replace(UNREACHABLE, name="lost", tells=Tells.LOST)
"""The connection broke while audio was on its way: the network, or a refusal whose words the reset took away."""
CANCELLED = Cause("cancelled", Scope.CONFIG, Action.STOP, Reason.NOT_REACHED)
"""We ended the session ourselves."""
INCOMPLETE = Cause("incomplete", Scope.SERVICE, Action.RETRY_THEN_QUARANTINE, Reason.INCOMPLETE)
UNKNOWN_CODE = Cause("unknown_code", Scope.SERVICE, Action.RETRY_THEN_QUARANTINE, Reason.INCOMPLETE, attempts=2)

TextPatterns: TypeAlias = tuple[tuple[re.Pattern[str], Cause], ...]
"""Patterns over the text in lower case, each with what it means; the first that is found counts."""

_TEXTS: TextPatterns = tuple(
    (re.compile(pattern), cause)
    for pattern, cause in (
        (r"not permitted|invalid (api.?)?key|access denied", NOT_PERMITTED),
        (r"unable to validate|could not be validated|try again", NOT_VALIDATED),
        (r"credit|monthly|quota|usage limit", QUOTA),
        (r"concurren|too many|connection limit", CAPACITY),
        (r"could not be processed|does not match the declared|invalid input audio|could not be decoded", UNDECODABLE),
        (r"audio_format|sample_rate|num_channels", BAD_PARAMETERS),
        (r"internal server error|unable to complete", SERVICE_FAULT),
    )
)
"""service.md lists the texts that have been published or seen."""


class Meaning(StrEnum):
    """What a text that this table does not know can be said to mean, in the settings."""

    KEY = "key"
    CAPACITY = "capacity"
    QUOTA = "quota"
    SERVICE = "service"
    OBJECT = "object"


_MEANT = {
    Meaning.KEY: NOT_PERMITTED,
    Meaning.CAPACITY: CAPACITY,
    Meaning.QUOTA: QUOTA,
    Meaning.SERVICE: SERVICE_FAULT,
    Meaning.OBJECT: UNDECODABLE,
}


def text_pattern(pattern: str, means: Meaning) -> tuple[re.Pattern[str], Cause]:
    """One more text and its meaning; upper and lower case are the same. Raises ConfigurationError for a pattern that can mean nothing."""
    try:
        compiled = re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise ConfigurationError(f"{pattern!r} is no regular expression: {error}") from None
    if compiled.search(""):
        raise ConfigurationError(f"{pattern!r} is found in every text")
    return compiled, _MEANT[means]


_STATUSES: dict[int, Cause] = {401: NOT_PERMITTED, 403: NOT_PERMITTED, 429: CAPACITY}
NO_CLOSE_FRAME = 1006
_CODES: dict[int, Cause] = {
    4001: NOT_PERMITTED,
    4003: NOT_PERMITTED,
    4029: INSUFFICIENT,
    4002: UNDECODABLE,
    1003: BAD_PARAMETERS,
    1011: SERVICE_FAULT,
    1012: SERVICE_FAULT,
    1013: SERVICE_FAULT,
    1001: SERVICE_FAULT,
    1009: TOO_BIG,
    1000: INCOMPLETE,
    1002: INCOMPLETE,
    1005: INCOMPLETE,
    NO_CLOSE_FRAME: UNREACHABLE,
    1007: INCOMPLETE,
}
_SERVER_ERRORS = range(500, 600)
_CLIENT_ERRORS = range(300, 500)
_NOT_CONNECTED = frozenset({Phase.PREFLIGHT, Phase.CONNECTING})


def why(stop: StopCause) -> Cause:
    """The cause that stands for a stop whose own one another process has seen."""
    return next(cause for cause in (NOT_PERMITTED, QUOTA, WRONG_URL, UNREACHABLE_FOR_LONG) if cause.stop is stop)


def classify(error: SessionError, own: TextPatterns = ()) -> Cause:
    """The cause of a failed session: text (of the close, where no message came) before HTTP status before protocol faults before code.

    Without any of them nothing moved any more: before the connection stood that is the network's fault, then the session's. `own` are
    an installation's patterns, which are asked before those of the table.
    """
    if (cause := _of_text(error.text or error.close_reason, own)) is not None:
        return cause
    if error.http_status is not None:
        return _of_status(error.http_status)
    if error.protocol is None and error.close_code is not None:
        if error.close_code == NO_CLOSE_FRAME and error.phase not in _NOT_CONNECTED:
            return LOST
        return _CODES.get(error.close_code, UNKNOWN_CODE)
    return UNREACHABLE if error.phase in _NOT_CONNECTED else INCOMPLETE


def _of_text(text: str | None, own: TextPatterns) -> Cause | None:
    said = (text or "").lower().rstrip(". ")
    if not said:
        return None
    return next((cause for pattern, cause in (*own, *_TEXTS) if pattern.search(said)), None)


def _of_status(status: int) -> Cause:
    if status in _STATUSES:
        return _STATUSES[status]
    if status in _SERVER_ERRORS:
        return SERVICE_FAULT
    return WRONG_URL if status in _CLIENT_ERRORS else UNKNOWN_CODE
