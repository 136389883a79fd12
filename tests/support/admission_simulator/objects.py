"""What is in the world: audio objects, the processes that stream them, their sessions and runs."""

from collections import Counter
from dataclasses import dataclass, field

from moderation.admission import Claim, SessionKind
from moderation.errors import Phase
from moderation.outcomes import StopCause


@dataclass(slots=True, eq=False)
class Object:
    """An audio object on its way: pending, live, done or quarantined. ready_ms is when it may be tried again."""

    name: str
    endpoint: str
    audio_ms: int
    undecodable: bool
    state: str = "pending"
    ready_ms: int = 0
    tries: Counter[str] = field(default_factory=Counter)
    claim: Claim | None = None
    """What it asks the ledger for, until that is granted."""


@dataclass(slots=True, eq=False)
class Process:
    """A worker process. blocked_ms: until when it sleeps, or cannot reach the ledger; life counts its starts."""

    number: int
    worker: str
    life: int = 0
    dead: bool = False
    blocked_ms: int = 0
    renewed_ms: int = 0
    sessions: dict[str, "Session"] = field(default_factory=dict)
    aborted: list["Session"] = field(default_factory=list)
    """Sessions that it gave up and has not told the ledger of."""
    closed: set[str] = field(default_factory=set)
    """Sessions whose connections have closed, and which are not booked yet."""

    def restart(self) -> None:
        """Another process in its place."""
        self.life += 1
        self.worker = f"p{self.number}.{self.life}"
        self.dead = False
        self.closed.clear()


@dataclass(slots=True, eq=False)
class Session:
    """One attempt. over: it has ended here, whatever the ledger still thinks; spooled: its result is safe.

    awaited: others may start for its first result; untold: it has had one, of which the ledger hears with its end.
    """

    session_id: str
    item: Object
    process: Process
    key: str
    kind: SessionKind
    month: str
    started_ms: int
    phase: Phase = Phase.CONNECTING
    connected_ms: int | None = None
    over: bool = False
    spooled: bool = False
    awaited: bool = True
    untold: bool = False


@dataclass(slots=True, eq=False)
class Run:
    """A run: what it has still to start, longest first, endpoints without a result so far, and why it starts nothing more."""

    number: int
    pending: dict[str, list[Object]]
    unproven: set[str]
    stop: StopCause | None = None

    def put_back(self, item: Object) -> None:
        """An object waits for its next try."""
        waiting = self.pending[item.endpoint]
        waiting.append(item)
        waiting.sort(key=lambda other: -other.audio_ms)
