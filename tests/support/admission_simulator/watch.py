"""The watch: what must hold after every step, by books of its own, and the figures of how it went."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from admission_simulator.clock import HOUR, MINUTE
from admission_simulator.ledger import LEASE_MS
from admission_simulator.objects import Object, Session
from admission_simulator.service import OF_THE_OBJECT
from moderation.admission import EVERY_ENDPOINT, SessionKind
from moderation.breaker import BreakerState
from moderation.gate import Gates
from moderation.limits import Stage
from moderation.outcomes import StopCause
from moderation.refusals import Cause, Tells

if TYPE_CHECKING:
    from admission_simulator.world import World

SETTLING_MS = HOUR
"""A limit that rose is found within an hour: 15 minutes until the first raise, then half as long each."""

FLOOD = 40
FLOOD_MS = 10 * MINUTE
"""So many refusals in so long a time are taken for a door that is hammered at."""


@dataclass(slots=True)
class Books:
    """What the sessions of a month and endpoint add up to: milliseconds of audio."""

    settled_ms: int = 0
    at_risk_ms: int = 0
    reserved_ms: int = 0


@dataclass(slots=True)
class Slots:
    """An endpoint's slots over time, in milliseconds: those that could be used and were, and the time in which they could be.

    idle_ms is the part of it with more than one slot unused, settled_ms and settled_idle_ms the same once a limit had time to be found.
    """

    usable_ms: int = 0
    used_ms: int = 0
    eligible_ms: int = 0
    idle_ms: int = 0
    settled_ms: int = 0
    settled_idle_ms: int = 0
    unchanged_ms: int = 0
    """Eligible time since more became usable, or a breaker closed."""
    usable: int = 0
    now: tuple[int, int] | None = None
    """Live and usable sessions now, while objects wait, the breaker is closed, budget is left and a limit is known."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A start that the service refused, and for what."""

    at_ms: int
    session: Session
    why: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A session that failed: why, what its process heard of it, and what the ledger made of that."""

    at_ms: int
    session: Session
    why: str
    heard: Cause
    cause: Cause


@dataclass(slots=True)
class Watch:
    """Raises AssertionError as soon as an invariant of faults.toml or a rule of rules.md is broken."""

    world: "World"
    books: dict[tuple[str, str], Books] = field(default_factory=lambda: defaultdict(Books))
    slots: dict[str, Slots] = field(default_factory=lambda: defaultdict(Slots))
    most: Counter[str] = field(default_factory=Counter)
    """The most sessions of ours at once that may have had a connection, by endpoint."""
    refusals: list[Refused] = field(default_factory=list)
    failures: list[Failed] = field(default_factory=list)
    starts: list[Session] = field(default_factory=list)
    paid: set[str] = field(default_factory=set)
    steps: int = 0
    quota_named: bool = False
    asking: str | None = None
    """The session that has started since the quota was named."""

    # time

    def passes(self, until_ms: int) -> None:
        """Time goes by as things stand."""
        passed_ms = until_ms - self.world.clock.ms
        if not passed_ms:
            return
        for slots in self.slots.values():
            if slots.now is not None:
                live, usable = slots.now
                idle_ms = passed_ms * (live < usable - 1)
                slots.used_ms += passed_ms * min(live, usable)
                slots.usable_ms += passed_ms * usable
                slots.eligible_ms += passed_ms
                slots.idle_ms += idle_ms
                slots.unchanged_ms += passed_ms
                if slots.unchanged_ms > SETTLING_MS:
                    slots.settled_ms += passed_ms
                    slots.settled_idle_ms += idle_ms

    # what happens

    def run_begins(self) -> None:
        self.quota_named, self.asking = False, None

    async def started(self, session: Session) -> None:
        item = session.item
        assert item.name not in self.paid, f"{item.name} is paid for"
        assert not any(other.item is item for other in self.world.live.values() if other is not session), f"two sessions of {item.name}"
        for gate in await self.world.ledger.gates(item.endpoint):
            if gate.breaker.state is not BreakerState.CLOSED:
                assert gate.breaker.is_probe(session.session_id), "while a breaker is open no session starts but its probe"
                assert session.kind is SessionKind.PROBE
        if self.quota_named:
            assert self.asking is None, "after a quota refusal no session starts but one probe"
            self.asking = session.session_id
        self.starts.append(session)
        for books in self._books(session):
            books.reserved_ms += item.audio_ms

    def refused(self, session: Session, why: str) -> None:
        now_ms = self.world.clock.ms
        self.refusals.append(Refused(now_ms, session, why))
        before = self.refusals[-FLOOD:]
        assert len(before) < FLOOD or before[0].at_ms < now_ms - FLOOD_MS, f"{FLOOD} refusals within ten minutes"

    def admitted(self, session: Session) -> None:
        if session.session_id == self.asking:
            self.run_begins()

    def finished(self, session: Session) -> None:
        assert session.item.name not in self.paid, f"{session.item.name} is paid twice"
        self.admitted(session)
        self.paid.add(session.item.name)
        for books in self._free(session):
            books.settled_ms += session.item.audio_ms

    def failed(self, session: Session, why: str, heard: Cause, cause: Cause, sent_ms: int) -> None:
        assert not cause.spends_attempt or why in OF_THE_OBJECT, f"{session.item.name} loses an attempt for {why}"
        self.failures.append(Failed(self.world.clock.ms, session, why, heard, cause))
        if heard.tells is Tells.QUOTA:
            asked = session.session_id == self.asking
            assert not asked or cause.stop is StopCause.CREDITS_EXHAUSTED, "a probe that hears of the quota again ends the run"
            self.quota_named = True
        self.cancelled(session, sent_ms)

    def quarantined(self, item: Object, why: str) -> None:
        assert why in OF_THE_OBJECT, f"{item.name} is quarantined for {why}"

    def swept(self, session: Session) -> None:
        self.cancelled(session, session.item.audio_ms)

    def cancelled(self, session: Session, sent_ms: int) -> None:
        if session.session_id == self.asking:
            self.asking = None
        for books in self._free(session):
            books.at_risk_ms += sent_ms

    def _free(self, session: Session) -> tuple[Books, Books]:
        found = self._books(session)
        for books in found:
            books.reserved_ms -= session.item.audio_ms
        return found

    def _books(self, session: Session) -> tuple[Books, Books]:
        return self.books[session.item.endpoint, session.month], self.books[EVERY_ENDPOINT, session.month]

    # what must hold

    async def check(self) -> None:
        """After every step."""
        self.steps += 1
        world = self.world
        for usage in await world.ledger.usage(world.month()):
            books = self.books[usage.endpoint, usage.month]
            booked = (usage.settled_ms, usage.at_risk_ms, usage.reserved_ms)
            assert usage.gate.ceiling is None or usage.live <= usage.gate.ceiling, f"{usage.live} live sessions at {usage.endpoint}"
            assert booked == (books.settled_ms, books.at_risk_ms, books.reserved_ms), f"{usage} but {books}"
            assert usage.gate.cap_ms is None or sum(booked) <= usage.gate.cap_ms, f"more than the cap: {usage}"
        self.count_seats()
        for endpoint in world.plan.ceilings:
            gates = await world.ledger.gates(endpoint)
            self.most[endpoint] = max(self.most[endpoint], self._open_at(endpoint))
            limit = gates.endpoint.limit
            assert limit.stage is not Stage.HOLDING or limit.allowed <= max(1, self.most[endpoint]), f"{limit}: so many never were"
            self._look_at(gates)
            self._count_slots(endpoint, gates)

    def _open_at(self, endpoint: str | None = None) -> int:
        """Sessions of ours, at an endpoint or in all, whose connections are not known to have closed."""
        live = (session for session in self.world.live.values() if session.session_id not in session.process.closed)
        return sum(endpoint in {None, session.item.endpoint} for session in live)

    def count_seats(self) -> None:
        """The service's journal of ours. A process that sleeps beyond its leases keeps connections that are not its own any more."""
        world = self.world
        seats: Counter[str] = Counter()
        for session_id, seat in world.service.seats.items():
            process = world.sessions[session_id].process
            seats[seat.endpoint] += process.renewed_ms > world.clock.ms - LEASE_MS
        for endpoint, ceiling in world.plan.ceilings.items():
            assert seats[endpoint] <= ceiling, f"{seats[endpoint]} connections of ours at {endpoint}"
        whole = world.plan.whole_ceiling
        assert whole is None or seats.total() <= whole, f"{seats.total()} connections of ours"

    def _look_at(self, gates: Gates) -> None:
        assert gates.endpoint.limit.allowed >= 1
        assert gates.endpoint.limit.raising in {None, *self.world.live}, "a raise is waited for that is gone"
        for gate in gates:
            if gate.breaker.state is BreakerState.HALF_OPEN:
                assert gate.breaker.probe in self.world.live, "a probe is waited for that is gone"

    def _count_slots(self, endpoint: str, gates: Gates) -> None:
        world, run, slots = self.world, self.world.run, self.slots[endpoint]
        slots.now = None
        if run is None or not self._is_open(endpoint, gates):
            slots.unchanged_ms = 0
            return
        live = self._open_at(endpoint)
        others = self._open_at() - live
        ceiling, whole = world.plan.ceilings[endpoint], world.plan.whole_ceiling
        places = [ceiling, world.plan.processes * world.plan.places - others, world.service.usable(endpoint)]
        usable = max(0, min(places if whole is None else [*places, whole - others]))
        if usable > slots.usable:
            slots.unchanged_ms = 0
        slots.usable = usable
        if any(item.ready_ms <= world.clock.ms for item in run.pending[endpoint]):
            slots.now = (live, usable)

    def _is_open(self, endpoint: str, gates: Gates) -> bool:
        """Whether nothing is in the way of more sessions but the limit, which is known."""
        world, limit = self.world, gates.endpoint.limit
        stopped = world.run is None or world.run.stop is not None or world.short_of_budget
        shut = any(gate.paused or gate.breaker.state is not BreakerState.CLOSED for gate in gates)
        if stopped or shut or world.service.shut_for(world.key) is not None or not all(map(world.takes_part, world.processes)):
            return False
        return limit.stage is Stage.HOLDING or limit.allowed >= world.plan.ceilings[endpoint]

    def ends(self) -> None:
        """When nothing happens any more."""
        world = self.world
        assert not world.live, "sessions are left"
        assert world.run is None, "a run has not ended"
        done = [item for item in world.objects if item.state == "done"]
        assert {item.name for item in done} == self.paid
        if world.plan.again_ms is not None:
            left = [item.name for item in world.objects if item.state not in {"done", "quarantined"}]
            assert not left, f"{left} are pending after everything was mended"
        settled_ms = sum(books.settled_ms for (endpoint, _), books in self.books.items() if endpoint == EVERY_ENDPOINT)
        assert settled_ms == sum(item.audio_ms for item in done)
        for endpoint, slots in self.slots.items():
            assert slots.settled_idle_ms <= max(5 * MINUTE, slots.settled_ms // 100), f"slots of {endpoint} idle: {slots}"
