"""The world around the rules: time, which jumps from event to event, runs, and the processes that ask the ledger for sessions.

Only the ledger's methods are awaited: `drive` runs a world over one that never suspends, asyncio one over a real ledger.
"""

import heapq
from collections.abc import Coroutine
from itertools import count
from typing import Any, Protocol

from admission_simulator import mishaps
from admission_simulator.attempts import Attempts
from admission_simulator.clock import MINUTE, SECOND, Clock
from admission_simulator.ledger import ORG, SimulatedLedger
from admission_simulator.objects import Object, Process, Run, Session
from admission_simulator.plan import Change, Plan
from admission_simulator.service import Service
from admission_simulator.watch import Watch
from moderation.admission import EVERY_ENDPOINT, Claim, Denial, SessionKind
from moderation.breaker import BreakerState
from moderation.budget import month_of
from moderation.gate import Entry, awaited
from moderation.limits import Place, Stage
from moderation.outcomes import StopCause

ASKING_MS = 1_000
"""How often a process asks for what the passing of time gives: the most that it comes too late."""


class Handler(Protocol):
    """What happens at an event. True where admission has something new to look at, and the watch something to check."""

    def __call__(self, argument: Any, /) -> Coroutine[Any, Any, bool]: ...


class World:
    """Clock, events, processes, service and ledger, and the watch that checks after every step."""

    def __init__(self, plan: Plan, clock: Clock, ledger: SimulatedLedger) -> None:
        self.plan = plan
        self.clock = clock
        self.ledger = ledger
        self.random = clock.random
        self.key = "key"
        self.service = Service(clock, {self.key}, dict(plan.limits), dict.fromkeys(plan.limits, 0), **plan.service)
        self.processes = [Process(number, f"p{number}") for number in range(plan.processes)]
        self.objects: list[Object] = []
        self.sessions: dict[str, Session] = {}
        self.live: dict[str, Session] = {}
        """Sessions that have not ended for the ledger."""
        self.runs: list[Run] = []
        self.run: Run | None = None
        self.doomed = 0
        """How many of the next sessions do not live to see their first result."""
        self.short_of_budget = False
        self.story: list[str] = []
        self.attempts = Attempts(self)
        self.watch = Watch(self)
        self._events: list[tuple[int, int, Handler, Any]] = []
        self._numbers = count()
        self._wake_ms: int | None = None
        self._months: dict[int, str] = {}

    def at(self, at_ms: int, handler: Handler, argument: Any = None) -> None:
        heapq.heappush(self._events, (max(at_ms, self.clock.ms), next(self._numbers), handler, argument))

    def after(self, delay_ms: int, handler: Handler, argument: Any = None) -> None:
        self.at(self.clock.ms + delay_ms, handler, argument)

    def tell(self, text: str) -> None:
        self.story.append(f"{self.clock.ms / 1000:12.3f} {text}")

    def takes_part(self, process: Process) -> bool:
        """Whether a process hears and can be heard."""
        return not process.dead and process.blocked_ms <= self.clock.ms

    def month(self) -> str:
        """The budget month by the wall clock."""
        minute = (self.clock.ms + self.clock.step_ms) // MINUTE
        if minute not in self._months:
            self._months[minute] = month_of(self.clock.now())
        return self._months[minute]

    async def live_on(self) -> None:
        """Until nothing happens any more. AssertionError as soon as something is wrong, or where it does not end."""
        await self._begin()
        while self._events:
            at_ms, _, handler, argument = heapq.heappop(self._events)
            assert at_ms < self.plan.ends_ms, "the mishaps have ended, but the runs do not"
            self.watch.passes(at_ms)
            self.clock.ms = at_ms
            if await handler(argument):
                await self._start_what_may()
                await self.watch.check()
        self.watch.ends()

    async def _begin(self) -> None:
        for endpoint, ceiling in {EVERY_ENDPOINT: self.plan.whole_ceiling, **self.plan.ceilings}.items():
            await self.ledger.set_ceiling(endpoint, ceiling)
        if self.plan.cap_ms is not None:
            await self.set_caps(self.plan.cap_ms)
        for begins_ms in self.plan.runs_ms:
            self.at(begins_ms, self._begin_run, self.plan.objects)
        for change in (*self.plan.schedule, Change(self.plan.heals_ms, mishaps.heal)) if self.plan.schedule else ():
            self.at(change.at_ms, self._happen, change)

    async def _happen(self, change: Change) -> bool:
        self.tell(f"{change.what.__name__} {change.how}")
        await change.what(self, change.how)
        return True

    async def set_caps(self, cap_ms: int | None) -> None:
        """The organisation's cap."""
        self.short_of_budget = False
        await self.ledger.set_cap(EVERY_ENDPOINT, cap_ms)

    # runs

    async def _begin_run(self, new: int) -> bool:
        self.objects += [self._new_object(endpoint) for endpoint in self.plan.ceilings for _ in range(new)]
        pending = [item for item in self.objects if item.state == "pending"]
        if self.run is not None or not pending:
            return False  # what is new waits for the next run
        self.short_of_budget = False
        self.run = Run(len(self.runs), {endpoint: [] for endpoint in self.plan.ceilings}, set(self.plan.ceilings))
        self.runs.append(self.run)
        for item in pending:
            item.ready_ms = 0
            item.tries.clear()
            self.run.put_back(item)
        await self.ledger.open_run()
        self.watch.run_begins()
        self.tell(f"run {self.run.number} begins with {len(pending)} objects")
        return True

    def _new_object(self, endpoint: str) -> Object:
        audio_ms = max(SECOND, int(self.plan.median_ms * self.random.lognormvariate(0, self.plan.spread)))
        return Object(f"o{next(self._numbers)}", endpoint, audio_ms, self.random.random() < self.plan.undecodable)

    def stop(self, cause: StopCause) -> None:
        """Nothing more starts in this run."""
        if self.run is not None and self.run.stop is None:
            self.run.stop = cause
            self.tell(f"run {self.run.number} stops: {cause}")

    def put_back(self, item: Object) -> None:
        """An object waits for its next try, in this run or a later one."""
        if self.run is not None:
            self.run.put_back(item)

    def _end_run(self, run: Run) -> None:
        self.tell(f"run {run.number} ends with {sum(map(len, run.pending.values()))} objects left")
        self.run = None
        self._wake_ms = None
        if self.plan.again_ms is not None and any(item.state == "pending" for item in self.objects):
            self.after(self.plan.again_ms, self._begin_run, 0)

    # starts

    async def _start_what_may(self) -> None:
        run = self.run
        if run is None:
            return
        for endpoint, pending in run.pending.items():
            while pending and run.stop is None and await self._start(run, endpoint, pending):
                pass
        if not self.live and (run.stop is not None or not any(run.pending.values())):
            self._end_run(run)

    async def _start(self, run: Run, endpoint: str, pending: list[Object]) -> bool:
        """One session more, by whichever process asks first. False when there is none."""
        item = self._next(pending, shortest=endpoint in run.unproven)
        free = [process for process in self.processes if self.takes_part(process) and len(process.sessions) < self.plan.places]
        if item is None or not free:
            return False
        process = self.random.choice(free)
        answer = await self.ask(item, process, SessionKind.OBJECT)
        if answer is Denial.BREAKER:
            item = self._next(pending, shortest=True) or item
            answer = await self.ask(item, process, SessionKind.PROBE)
        if not isinstance(answer, SessionKind):
            await self._denied(endpoint, answer)
            return False
        assert item.claim is not None
        session = Session(item.claim.session_id, item, process, self.key, answer, item.claim.month, self.clock.ms)
        item.claim, item.state = None, "live"
        pending.remove(item)
        gates = await self.ledger.gates(endpoint)
        place = Place.RAISE if gates.endpoint.limit.raising == session.session_id else Place.SLOT
        session.awaited = awaited(gates, Entry(answer, place))
        self.sessions[session.session_id] = self.live[session.session_id] = session
        await self.watch.started(session)
        self.attempts.begin(session)
        return True

    def _next(self, pending: list[Object], *, shortest: bool) -> Object | None:
        for item in reversed(pending) if shortest else pending:
            if item.ready_ms <= self.clock.ms:
                return item
        self._wake(min(item.ready_ms for item in pending))
        return None

    async def ask(self, item: Object, process: Process, kind: SessionKind) -> SessionKind | Denial | StopCause:
        """A process asks the ledger for a session."""
        month, worker = self.month(), process.worker
        claim = item.claim
        if claim is None or (claim.worker, claim.kind, claim.month) != (worker, kind, month):
            session_id = f"s{next(self._numbers)}"
            ids = (session_id, "lake", ORG, item.endpoint, item.name, item.name, "params", "run", 0, worker, 1, month)
            item.claim = claim = Claim(*ids, item.audio_ms, kind)
        return await self.ledger.admit(claim, tuple(process.closed))

    async def _denied(self, endpoint: str, answer: Denial | StopCause) -> None:
        if isinstance(answer, StopCause):
            self.stop(answer)
        elif answer is Denial.BUDGET:
            self.short_of_budget = True
            if not self.live:
                self.stop(StopCause.CREDITS_EXHAUSTED)
        else:
            assert answer in {Denial.FULL, Denial.BREAKER, Denial.PAUSED}, answer
            await self._wake_by_gates(endpoint)

    async def _wake_by_gates(self, endpoint: str) -> None:
        """Ask again when time alone gives another answer: a process finds out by asking every second."""
        gates = await self.ledger.gates(endpoint)
        limit = gates.endpoint.limit
        times = [gate.breaker.until_ms for gate in gates if gate.breaker.state is BreakerState.OPEN]
        times.append(limit.rest_until_ms)
        if limit.stage is Stage.HOLDING:
            times.append(limit.raise_at_ms)
        coming = [at_ms for at_ms in times if at_ms > self.clock.ms]
        if coming:
            self._wake(min(coming) + self.random.randint(0, ASKING_MS))

    def _wake(self, at_ms: int) -> None:
        if self._wake_ms is None or at_ms < self._wake_ms:
            self._wake_ms = at_ms
            self.at(at_ms, self._woken, at_ms)

    async def _woken(self, at_ms: int) -> bool:
        if at_ms != self._wake_ms:
            return False
        self._wake_ms = None
        return True


def drive(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise AssertionError("the model suspended")
