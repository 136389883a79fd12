"""The errors of soundcheck, each with a scope: what it is a fault *of* decides what happens next (rules.md).

Those of one connector or task stand beside what raises them; this is the whole tree.

    SoundcheckError
    |- BadParameters            object         these stream parameters would be refused with 1003
    |- SourceError              object         the object could not be read as it was listed
    |  |- SourceArchived        object         it lies in an archive
    |  |- SourceChanged         object         it was overwritten since
    |  |- SourceCorrupt         object         its bytes are not those that were put there
    |  |- NoAudio               object         it is nothing that a browser could play
    |  `- SourceGone            object         it was deleted since
    |- DecodeFailed             object         its bytes are no audio of the declared format
    |  `- BeyondCaps            object         there is more audio than there may be
    |- LocalDecodingFailed      object         it gives no audio here, or not all of it
    |  `- DecoderDied           object         its decoder crashed, hung, or was ended by its limits
    |- ConfigurationError       config         a setting, URL, bucket or folder is wrong: nothing was streamed
    |  |- AccessDeniedError     key            a key or credential was refused
    |  |  `- CredentialsRefused key            credentials are not taken at all (any more), whatever they are used for
    |  |- QueryError            config         a query cannot be answered
    |  |- PolicyError           config         a policy cannot be used
    |  |- AnswersRefused        config         answers of reviewers cannot be taken
    |  |- ResultsMissing        config         paid results are not in the spool
    |  |  `- NotSpooledAnyMore  config         one was a moment ago
    |  |- NotErased             config         what is to be erased cannot be read
    |  |- NoSuchRun             config         there is no run of that name
    |  |- WrongReport           config         what is asked of a report cannot be had
    |  `- NotCompacted          config         files of the lake cannot be merged
    |- UnreachableError         network        S3, Velma or Prefect did not answer
    |  `- LedgerDamaged         network        the ledger's file or rows cannot be read back
    |- ResultsNotWritable       config         the result store does not take what is written
    |- SpoolDamaged             config         a spooled session cannot be read back
    |- MediaHostDown            config         no media can be decoded on this host any more
    |- SessionError             (its own)      a session ended without a valid done
    `- LeaseLost                config         this worker may no longer finish a session

A message says what happened and what to do. None ever carries the API key.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from moderation.outcomes import ExitCode, Reason


class Scope(StrEnum):
    """What an error is a fault of. Only an object's own faults spend its attempts or quarantine it."""

    OBJECT = "object"
    CONFIG = "config"
    KEY = "key"
    ORGANISATION = "org"
    SERVICE = "service"
    NETWORK = "network"


class Phase(StrEnum):
    """How far a session had come when something happened."""

    PREFLIGHT = "preflight"
    CONNECTING = "connecting"
    ADMITTED = "admitted"
    """Connected, no result yet, whatever was sent."""
    STREAMING = "streaming"
    DRAINING = "draining"
    """Results came and the end of stream was sent; done is awaited."""


class SoundcheckError(Exception):
    """Root of every error that soundcheck raises on purpose."""

    scope: Scope = Scope.CONFIG
    exit_code: ExitCode = ExitCode.CONFIGURATION
    is_resumable: bool = False
    """Whether a run that it ends can go on where it broke off, once somebody has removed the cause."""


class BadParameters(SoundcheckError):
    """Stream parameters that the service would refuse with 1003 (seed pages, 'Connection parameters')."""

    scope = Scope.OBJECT

    def __init__(self, text: str, reason: Reason = Reason.BAD_PARAMETERS) -> None:
        super().__init__(text)
        self.reason = reason


class SourceError(SoundcheckError):
    """The object could not be read as it was listed."""

    scope = Scope.OBJECT


class SourceArchived(SourceError):
    """The object lies in an archive, which its listing did not say: nothing is read of it before it is restored."""


class SourceChanged(SourceError):
    """The object was overwritten between listing and reading (S3 answers 412 to If-Match)."""


class SourceCorrupt(SourceError):
    """The bytes that came are not those that were put there: changed on the way, or where they lie."""


class SourceGone(SourceError):
    """The object was deleted between listing and reading."""


class ConfigurationError(SoundcheckError):
    """A setting, URL, bucket or folder is wrong; nothing was streamed."""


class AccessDeniedError(ConfigurationError):
    """A key or credential was refused."""

    scope = Scope.KEY
    exit_code = ExitCode.ACCESS_DENIED
    is_resumable = True


class CredentialsRefused(AccessDeniedError):
    """Credentials that are not taken at all: unknown, wrong or expired. It is never the fault of what they were used for."""


class UnreachableError(SoundcheckError):
    """S3, Velma or Prefect did not answer."""

    scope = Scope.NETWORK
    exit_code = ExitCode.UNREACHABLE
    is_resumable = True


class ResultsNotWritable(SoundcheckError):
    """The result store or the state directory does not take what is written."""

    exit_code = ExitCode.CANNOT_WRITE


class LeaseLost(SoundcheckError):
    """The session's lease has expired or another process has swept it: its result may not be booked by this worker."""


class SessionError(SoundcheckError):
    """A session that ended without a valid done: the facts, classified later by moderation.refusals.

    Attributes: phase; http_status of a refused upgrade; close_code of the WebSocket (1006 where there was none, None where this side
    closed) and its close_reason; text of the service's error message; both are redacted; retry_after in seconds; protocol is the
    named violation, if the service broke the protocol; detail says in our words what happened. scope is that of its cause.
    """

    scope = Scope.SERVICE

    def __init__(
        self,
        detail: str,
        *,
        phase: Phase,
        http_status: int | None = None,
        close_code: int | None = None,
        close_reason: str | None = None,
        text: str | None = None,
        retry_after: float | None = None,
        protocol: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.phase = phase
        self.http_status = http_status
        self.close_code = close_code
        self.close_reason = close_reason
        self.text = text
        self.retry_after = retry_after
        self.protocol = protocol

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the facts, so that they survive a process boundary."""
        return _rebuild, (type(self), self.args, self.__dict__.copy())

    def __str__(self) -> str:
        facts = [
            f"HTTP {self.http_status}" if self.http_status is not None else "",
            f"close code {self.close_code}" if self.close_code is not None else "",
            f"close reason: {self.close_reason}" if self.close_reason else "",
            f"service says: {self.text}" if self.text else "",
        ]
        said = "; ".join(fact for fact in facts if fact)
        return f"{self.detail} while {self.phase} ({said})" if said else f"{self.detail} while {self.phase}"


def _rebuild(kind: type[SessionError], args: tuple[object, ...], facts: dict[str, object]) -> SessionError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(facts)
    return error


@contextmanager
def first_of_group() -> Iterator[None]:
    """Raise the first of a group of errors by itself, so that a person reads one sentence; SoundcheckErrors go before others."""
    first: BaseException | None = None
    try:
        yield
    except BaseExceptionGroup as group:
        errors = list(_leaves(group))
        first = next((error for error in errors if isinstance(error, SoundcheckError)), errors[0])
    if first is not None:
        raise first


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
