"""What it means that a session failed on this side: its object could not be read or decoded, or the budget is used up."""

from dataclasses import replace
from typing import TypeAlias

from connectors.media.local_decoder import DecoderDied, LocalDecodingFailed
from moderation.errors import (
    AccessDeniedError,
    CredentialsRefused,
    Scope,
    SoundcheckError,
    SourceArchived,
    SourceChanged,
    SourceCorrupt,
    SourceError,
    SourceGone,
    UnreachableError,
)
from moderation.outcomes import Reason, StopCause
from moderation.refusals import Action, Cause
from moderation.repeats import FORBIDDEN


class BudgetReached(Exception):
    """A session outlived its estimate and the month's cap does not hold more."""


class Poisonous(Exception):
    """The workers that streamed an object have died over it, again and again: it is not streamed once more."""


class LedgerFailed(Exception):
    """The ledger failed while a session reserved more: not to be taken for S3, which the same errors can come from."""

    def __init__(self, error: SoundcheckError) -> None:
        super().__init__(str(error))
        self.error = error


OwnError: TypeAlias = SourceError | UnreachableError | AccessDeniedError | BudgetReached | Poisonous | LocalDecodingFailed
_CAUSES: tuple[tuple[type[OwnError], Cause], ...] = (
    (
        BudgetReached,
        Cause("budget", Scope.ORGANISATION, Action.STOP, Reason.DEFERRED_QUOTA),
    ),
    (
        UnreachableError,
        Cause(
            "source_unreachable",
            Scope.NETWORK,
            Action.RETRY,
            Reason.DEFERRED_SERVICE,
            StopCause.SERVICE_UNREACHABLE,
            advice="check S3's endpoint and the network, then run again",
        ),
    ),
    (Poisonous, Cause("poison", Scope.OBJECT, Action.QUARANTINE, Reason.POISON)),
    (
        CredentialsRefused,
        Cause(
            "credentials_refused",
            Scope.KEY,
            Action.RETRY,
            Reason.NOT_REACHED,
            StopCause.ACCESS_DENIED,
            attempts=2,
            advice="renew the AWS credentials, then run again",
        ),
    ),
    (AccessDeniedError, FORBIDDEN),
    (SourceArchived, Cause("archived", Scope.OBJECT, Action.QUARANTINE, Reason.ARCHIVED)),
    (SourceChanged, Cause("changed", Scope.OBJECT, Action.QUARANTINE, Reason.CHANGED)),
    (SourceGone, Cause("gone", Scope.OBJECT, Action.QUARANTINE, Reason.GONE)),
    (SourceCorrupt, Cause("source_corrupt", Scope.OBJECT, Action.RETRY_THEN_QUARANTINE, Reason.SOURCE_ERROR, attempts=2)),
    (SourceError, Cause("source_error", Scope.OBJECT, Action.RETRY_THEN_QUARANTINE, Reason.SOURCE_ERROR)),
    (DecoderDied, Cause("decoder_died", Scope.OBJECT, Action.RETRY_THEN_QUARANTINE, Reason.HOSTILE, attempts=2)),
    (LocalDecodingFailed, Cause("not_decoded", Scope.OBJECT, Action.QUARANTINE, Reason.UNDECODABLE)),
)
"""The first that fits counts."""
LEASE_LOST = Cause("lease_lost", Scope.NETWORK, Action.RETRY, Reason.DEFERRED_SERVICE)
"""The ledger has given the session away: its worker could not reach it for too long."""
OWN_ERRORS = tuple(kind for kind, _ in _CAUSES)


def own_cause(error: OwnError) -> Cause:
    """The cause of such a failure."""
    cause = next(cause for kind, cause in _CAUSES if isinstance(error, kind))
    return replace(cause, reason=error.reason) if isinstance(error, LocalDecodingFailed) else cause
