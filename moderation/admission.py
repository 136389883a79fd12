"""What the ledger is asked and what it answers: claims, grants, denials, and the rule between them (design.md section 5)."""

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from moderation.breaker import OpenedBy
from moderation.outcomes import StopCause

EVERY_ENDPOINT = "*"
"""The endpoint of the gate and the budget that hold for an organisation as a whole."""


class SessionKind(StrEnum):
    """What a session is for."""

    OBJECT = "object"
    PROBE = "probe"
    """One that also asks whether the service takes sessions again (rules.md)."""


class SessionState(StrEnum):
    """How far the ledger knows a session to be."""

    STREAMING = "streaming"
    """Admitted: audio, and so money, may be under way."""
    FINISHED = "finished"
    """Ended with a valid done, booked, not yet published."""
    PUBLISHED = "published"
    AT_RISK = "at_risk"
    """Failed after audio was sent: possibly billed."""
    RELEASED = "released"
    """Ended before any audio was sent: nothing was spent."""
    LOST = "lost"
    """Booked, but its result is gone for good: its object is free again."""
    ERASED = "erased"
    """Ended and booked; what it had left was erased by request, or will never be published."""


DEATHS = 3
"""So many workers in a row may die over an object (faults.toml, 82): it is quarantined before a fourth."""
ENDED = frozenset({SessionState.FINISHED, SessionState.AT_RISK, SessionState.RELEASED})
"""States of a session that awaits its package; failed attempts are published too."""
DONE = frozenset({SessionState.FINISHED, SessionState.PUBLISHED})
"""States in which an object's result is paid for."""


class Denial(StrEnum):
    """Why a session was not admitted. The first three are about its object and last; the others pass."""

    TOMBSTONE = "tombstone"
    """The object was erased by request and must not be streamed again."""
    CLAIMED = "claimed"
    """The same object is being streamed with the same parameters, or its expired session has not been swept yet."""
    DONE = "done"
    """The result is paid for, published or about to be."""
    PAUSED = "paused"
    BREAKER = "breaker"
    FULL = "full"
    """Every slot of the endpoint or of the organisation is taken."""
    BUDGET = "budget"
    """The month's cap of the endpoint or of the organisation does not hold the estimate, counting the reservations of live sessions."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A wish to stream one object to one endpoint.

    session_id is new for every attempt; lake is the id of the result lake (identity.lake_id); month is the budget month of its start;
    estimate_ms the milliseconds of audio to reserve; the run of the higher priority gets a slot first. force streams an object again whose
    result was paid for by another run, never one that streams.
    """

    session_id: str
    lake: str
    org: str
    endpoint: str
    object_id: str
    object_key_id: str
    params_hash: str
    run_id: str
    shard: int
    worker: str
    attempt: int
    month: str
    estimate_ms: int
    kind: SessionKind = SessionKind.OBJECT
    force: bool = False
    priority: int = 0

    def __post_init__(self) -> None:
        if self.estimate_ms < 0:
            raise ValueError(f"a session cannot reserve {self.estimate_ms} ms")


class CapUnit(StrEnum):
    """What a cap is in."""

    HOURS = "hours"
    MONEY = "money"


@dataclass(frozen=True, slots=True)
class CapShare:
    """How much of a month's cap is taken, settled, at risk or reserved; endpoint "*" is the organisation."""

    endpoint: str
    unit: CapUnit
    share: float


@dataclass(frozen=True, slots=True)
class Suspect:
    """An object over which the last workers that streamed it have died, but not yet as many as make it poison."""

    endpoint: str
    object_id: str
    params_hash: str


@dataclass(frozen=True, slots=True)
class Grant:
    """A slot and a reservation, held as long as the lease is renewed. lease_until_ms is by the ledger's clock.

    spent has every cap, in hours or money, of endpoint or organisation, as it is taken with this session. deaths counts the sessions of
    its object before this one, since the last that came to an end, whose workers died. awaited is whether others may start, or a breaker
    close, for its first result.
    """

    session_id: str
    lease_until_ms: int
    kind: SessionKind = SessionKind.OBJECT
    spent: tuple[CapShare, ...] = ()
    deaths: int = 0
    awaited: bool = True


@dataclass(frozen=True, slots=True)
class Refusal:
    """No slot, and why. Of a breaker: stop is what ends the run, where it has given up, and opened_by what it was opened by.

    probe_in_ms is how long until it is probed, None while its probe is out; 0 where that waits only until nothing of ours is in flight.
    Of a budget: cap is the endpoint whose cap does not hold the session, "*" where the organisation's does not. Of what is full: live is
    how many sessions the organisation has, None where time alone may make room: the free slot is another worker's turn, or none is given
    for a moment.
    """

    denial: Denial
    stop: StopCause | None = None
    opened_by: OpenedBy | None = None
    probe_in_ms: int | None = None
    cap: str | None = None
    live: int | None = None


@dataclass(frozen=True, slots=True)
class History:
    """What became of an object before.

    Whether a session of it (same lake, endpoint and parameters) streams, whether one is paid for, whether that is one of the run that
    asks, and whether it was erased by request, alone or with its key. deaths counts the workers that died over it since one came to the
    end of a session, good or bad.
    """

    streaming: bool
    done: bool
    done_by_run: bool
    erased: bool
    deaths: int = 0


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session as the ledger has it, for status and for the sweeper.

    reserved_ms is what it reserved, booked_ms what it counts against the cap since its end (settled or at risk), sent_ms what was sent
    where that is known: milliseconds of audio. lease_until (milliseconds of the ledger's clock) is None once it ended; admitted
    whether it has a result, closed whether its connection is known to have closed before it ended. outcome, scope, close_code
    and error_text are the facts of the attempt (datasets.md, attempts).
    """

    session_id: str
    lake: str
    org: str
    endpoint: str
    object_id: str
    params_hash: str
    run_id: str
    shard: int
    worker: str
    kind: str
    attempt: int
    month: str
    reserved_ms: int
    sent_ms: int | None
    booked_ms: int | None
    state: str
    package: str | None
    started_at: datetime
    lease_until: int | None
    admitted: bool
    closed: bool
    outcome: str | None
    scope: str | None
    close_code: int | None
    error_text: str | None

    def has_expired(self, now_ms: int, lease_ms: int) -> bool:
        """Whether its lease has run out, or is of before a reboot of the host by whose clock it runs (the ledger's leases)."""
        return self.lease_until is not None and not now_ms < self.lease_until <= now_ms + lease_ms


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A correction of what a month has cost, in milliseconds of audio (negative for less): who made it, and why.

    One of an endpoint changes the organisation's budget, too; one of endpoint "*" that alone.
    """

    org: str
    endpoint: str
    month: str
    settled_ms: int
    at_risk_ms: int
    who: str
    reason: str


@dataclass(frozen=True, slots=True)
class Member:
    """A session of a package. Without an outcome its worker died before it said anything: whatever it says later does not count."""

    session_id: str
    endpoint: str
    state: str
    outcome: str | None


@dataclass(frozen=True, slots=True)
class Package:
    """A fixed set of ended sessions that is published as one (design.md section 7). package is its name: `<run_id>-p0001`."""

    package: str
    lake: str
    run_id: str
    org: str
    scan_date: date
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Remains:
    """What is known of some ended sessions of a run without the ledger: those of a package, or ones that no package holds (None).

    published is whether every file of the package lies in the lake.
    """

    run_id: str
    lake: str
    org: str
    scan_date: date
    sessions: tuple[SessionRecord, ...]
    package: str | None = None
    published: bool = False


@dataclass(frozen=True, slots=True)
class UnpackagedRun:
    """A run with ended sessions that no package holds yet, and how many."""

    run_id: str
    org: str
    sessions: int
