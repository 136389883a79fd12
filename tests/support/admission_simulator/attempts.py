"""The lives of sessions from their start to their booking, and the leases that keep them."""

from typing import TYPE_CHECKING

from admission_simulator.ledger import LEASE_MS
from admission_simulator.mishaps import SILENCE_MS, crash
from admission_simulator.objects import Process, Session
from admission_simulator.service import Seat, cause_of
from moderation.errors import LeaseLost, Phase, SessionError
from moderation.judgement import Failure
from moderation.outcomes import QUARANTINED
from moderation.refusals import Action
from moderation.retry import GiveUp, RetryRules

if TYPE_CHECKING:
    from admission_simulator.world import Handler, World

RENEWAL_MS = LEASE_MS // 4
RESTART_MS = 5_000
HELD_BACK_MS = 250
BOOKING_MS = 2_000
"""The longest from the end of a connection until its session is booked."""
RETRIES = RetryRules(patience=200)
"""Runs end by their gates: no object is tried so often for others' faults that it ends one by itself."""


class Attempts:
    """Handlers of the events of sessions: True where something changed for admission."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self._ticking = False
        self._exhaustion = 0

    def begin(self, session: Session) -> None:
        world = self.world
        process = session.process
        process.sessions[session.session_id] = session
        if len(process.sessions) == 1:
            process.renewed_ms = world.clock.ms
        if not self._ticking:
            self._ticking = True
            world.after(RENEWAL_MS, self._renew)
        world.after(world.random.randint(20, 500), self._connect, session)

    def _put_off(self, session: Session, handler: "Handler", argument: object) -> bool:
        """Whether a session's process does not take part now: it acts later, or never."""
        if session.over:
            return True
        if self.world.takes_part(session.process):
            return False
        self.world.at(session.process.blocked_ms, handler, argument)
        return True

    async def _connect(self, session: Session) -> bool:
        if self._put_off(session, self._connect, session):
            return False
        world, service, item, random = self.world, self.world.service, session.item, self.world.random
        why = service.enter(session.session_id, Seat(item.endpoint, session.key, world.plan.speed))
        if why is not None:
            error = service.refusal(why)
            session.phase = error.phase
            world.watch.refused(session, why)
            world.after(random.randint(50, 400), self._hear, (session, why, error))
            return False
        session.phase, session.connected_ms = Phase.ADMITTED, world.clock.ms
        lasts = int(item.audio_ms / world.plan.speed)
        first = min(random.randint(100, service.longest_first_ms), lasts)
        if item.undecodable:
            world.after(random.randint(50, first), self._end, (session, "decode"))
        elif random.random() < world.plan.incomplete:
            world.after(random.randint(50, lasts), self._end, (session, "ended"))
        elif random.random() < service.drop_rate:
            world.after(random.randint(50, lasts), self._end, (session, "drop"))
        if world.doomed:
            world.doomed -= 1
            world.after(random.randint(10, first), self._perish, session)
        world.after(first, self._first_result, session)
        world.after(lasts, self._done, session)
        self.foresee_exhaustion()
        world.watch.count_seats()
        return False

    async def _perish(self, session: Session) -> bool:
        if session.over or not self.world.takes_part(session.process):
            return False
        if self.world.random.random() < 1 / 2:
            await crash(self.world, (session.process.number, RESTART_MS))
        else:
            self.abort(session)
            await self.own_up(session.process)
        return True

    async def _first_result(self, session: Session) -> bool:
        if self._put_off(session, self._first_result, session):
            return False
        session.phase = Phase.STREAMING
        if self.world.run is not None:
            self.world.run.unproven.discard(session.item.endpoint)
        if not session.awaited:
            session.untold = True
            self.world.after(HELD_BACK_MS, self._tell_late, session)
            return False
        beside = tuple(other.session_id for other in session.process.sessions.values() if other.untold)
        await self.world.ledger.first_result(session.session_id, beside, tuple(session.process.closed))
        self.world.watch.admitted(session)
        return True

    async def _tell_late(self, session: Session) -> bool:
        if self._put_off(session, self._tell_late, session) or session.session_id in session.process.closed:
            return False
        await self._tell_first(session)
        return True

    async def _tell_first(self, session: Session) -> None:
        """What fails tells of its first result before."""
        if session.untold:
            session.untold = False
            await self.world.ledger.first_result(session.session_id, closed=tuple(session.process.closed))

    async def _done(self, session: Session) -> bool:
        if self._put_off(session, self._done, session):
            return False
        world = self.world
        world.service.leave(session.session_id)
        session.spooled = True
        if world.random.random() < world.plan.deadly:
            await crash(world, (session.process.number, RESTART_MS))
            return True
        if session.awaited:  # others wait for what the ledger is yet to be told
            return await self._book(session)
        session.process.closed.add(session.session_id)
        world.after(world.random.randint(0, BOOKING_MS), self._book, session)
        return True

    async def _book(self, session: Session) -> bool:
        if self._put_off(session, self._book, session):
            return False
        world = self.world
        self.close(session)
        try:
            await world.ledger.finish(session.session_id, session.item.audio_ms)
        except LeaseLost:
            return True  # the sweeper finds it in the spool
        self._finished(session)
        self.foresee_exhaustion()
        return True

    def _finished(self, session: Session) -> None:
        del self.world.live[session.session_id]
        session.item.state = "done"
        self.world.watch.finished(session)

    async def _end(self, what: tuple[Session, str]) -> bool:
        """Something ends a session at the service, or on the way; its client hears of it."""
        session, why = what
        if not session.over and session.session_id in self.world.service.seats:
            self.world.service.leave(session.session_id)
            self.world.after(self.world.random.randint(0, 300), self._hear, (session, why, None))
        return False

    async def _hear(self, what: tuple[Session, str, SessionError | None]) -> bool:
        session, why, error = what
        if self._put_off(session, self._hear, what):
            return False
        world = self.world
        error = error or world.service.words(why, session.phase)
        self.close(session)
        failure = Failure(session.session_id, error.phase, cause_of(error), int(1000 * (error.retry_after or 0)))
        sent_ms = self._sent_ms(session)
        await self._tell_first(session)
        try:
            cause = await world.ledger.fail(failure, sent_ms)
        except LeaseLost:
            return True  # swept: its object is pending already
        world.tell(f"{session.session_id}, {session.kind} of {session.item.endpoint}: {why}, heard as {failure.cause.name}: {cause.action}")
        del world.live[session.session_id]
        world.watch.failed(session, why, failure.cause, cause, sent_ms)
        self.foresee_exhaustion()
        item = session.item
        item.state = "pending"
        if cause.action is Action.STOP:
            assert cause.stop is not None
            world.stop(cause.stop)
            world.put_back(item)
            return True
        item.tries[cause.counted_as] += 1
        verdict = RETRIES.verdict(cause, item.tries[cause.counted_as], world.clock.chance(), retry_after=error.retry_after)
        if isinstance(verdict, GiveUp) and verdict.reason not in QUARANTINED:
            world.tell(f"{item.name} is left to the next run")
        elif isinstance(verdict, GiveUp):
            item.state = "quarantined"
            world.watch.quarantined(item, why)
        else:
            item.ready_ms = world.clock.ms + int(verdict.seconds * 1000)
            world.put_back(item)
        return True

    def _sent_ms(self, session: Session) -> int:
        if session.connected_ms is None:
            return 0
        return min(session.item.audio_ms, int((self.world.clock.ms - session.connected_ms) * self.world.plan.speed))

    def close(self, session: Session) -> None:
        """It is over for its process."""
        self.world.service.leave(session.session_id)
        session.over = True
        session.process.sessions.pop(session.session_id, None)
        session.process.closed.discard(session.session_id)

    # what the service ends

    def end_at_the_service(self, why: str, session_ids: list[str] | None = None) -> None:
        """The service ends sessions that it holds, all or these."""
        for session_id in self.world.service.seats if session_ids is None else session_ids:
            self.world.after(self.world.random.randint(0, 500), self._end, (self.world.sessions[session_id], why))

    def foresee_exhaustion(self) -> None:
        """Credits or hours come to an end while sessions stream."""
        self.world.service.count()
        soon = self.world.service.exhausted_in_ms()
        if soon is not None:
            self._exhaustion += 1
            self.world.after(soon, self._exhaust, self._exhaustion)

    async def _exhaust(self, number: int) -> bool:
        if number == self._exhaustion:
            self.world.service.count()
            what = self.world.service.exhausted()
            if what is not None:
                self.end_at_the_service(what)
        return False

    # leases

    async def _renew(self, _: None) -> bool:
        """Processes renew their leases, every 15 s; what has expired is swept."""
        world, now_ms = self.world, self.world.clock.ms
        renewed = 0
        for process in world.processes:
            if process.sessions and process.blocked_ms <= now_ms:
                held = await world.ledger.renew(process.worker)
                process.renewed_ms = now_ms
                renewed += len(held)
                if len(held) < len(process.sessions):
                    for session in [session for session in process.sessions.values() if session.session_id not in held]:
                        self.abort(session)
        swept = renewed < len(world.live) and await self._sweep_all()
        self._ticking = bool(world.live)
        if self._ticking:
            world.after(RENEWAL_MS, self._renew)
        return swept

    async def _sweep_all(self) -> bool:
        expired = await self.world.ledger.expired() if any(map(self.world.takes_part, self.world.processes)) else ()
        for session_id in expired:
            await self._sweep(self.world.sessions[session_id])
        return bool(expired)

    async def _sweep(self, session: Session) -> None:
        world = self.world
        state = await world.ledger.recover(session.session_id, session.item.audio_ms if session.spooled else None)
        if state is None:
            return
        world.tell(f"{session.session_id} is swept: {state}")
        if session.spooled:
            self._finished(session)
            return
        world.watch.swept(session)
        self._is_free(session)

    def abort(self, session: Session) -> None:
        """Give a session up on this side."""
        self.close(session)
        if not session.spooled:
            session.process.aborted.append(session)

    async def own_up(self, process: Process) -> None:
        """Tell the ledger what was given up."""
        aborted, process.aborted = process.aborted, []
        for session in aborted:
            sent_ms = self._sent_ms(session)
            await self._tell_first(session)
            try:
                await self.world.ledger.cancel(session.session_id, sent_ms)
            except LeaseLost:
                continue
            self.world.watch.cancelled(session, sent_ms)
            self._is_free(session)

    def _is_free(self, session: Session) -> None:
        del self.world.live[session.session_id]
        session.item.state = "pending"
        self.world.put_back(session.item)

    async def cut_off(self, what: tuple[Process, int]) -> bool:
        """Half a lease without a renewal, and still no ledger."""
        process, life = what
        if process.life == life and process.blocked_ms > self.world.clock.ms:
            for session in list(process.sessions.values()):
                self.abort(session)
        return False

    async def awake(self, process: Process) -> bool:
        """The process hears again. After half a lease its sessions may be another's."""
        if self.world.clock.ms - process.renewed_ms >= SILENCE_MS:
            for session in list(process.sessions.values()):
                self.abort(session)
        if not process.dead:
            await self.own_up(process)
        return True
