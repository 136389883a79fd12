"""One attempt at one object: a slot, a session, its record in the spool (durable), then its booking in the ledger."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from moderation.admission import DEATHS, Claim, Grant, SessionKind
from moderation.errors import (
    ConfigurationError,
    LeaseLost,
    Phase,
    SessionError,
)
from moderation.identity import session_id
from moderation.judgement import Failure
from moderation.outcomes import QUARANTINED, Reason
from moderation.refusals import CANCELLED, TOO_BIG, Cause, Tells, classify
from moderation.repeats import OBJECTS
from moderation.results import SessionResult, SpooledSession
from moderation.retry import GiveUp, RetryAfter, Verdict
from moderation.session import ClientSession
from tasks.first_result import FirstResult
from tasks.own_causes import LEASE_LOST, OWN_ERRORS, LedgerFailed, Poisonous, own_cause
from tasks.records import Attempt, PlannedObject, attempt_row, quarantine_row, segment_rows, summary_row
from tasks.reservation import Reservation
from tasks.room import keep
from tasks.spans import span

if TYPE_CHECKING:
    from tasks.stream import Streaming

T = TypeVar("T")
logger = logging.getLogger("soundcheck.stream")
POISON = "the last {deaths} workers that streamed it have died over it: it is not sent again before `soundcheck quarantine release`"
REPEATED = f"so it was with {OBJECTS} distinct objects: it is not the objects, so nothing more was streamed"


class Trial:
    """One attempt at one object: from its slot to its booking.

    number counts the object's attempts in this run from 1; tries its failures by what they count as, which is what bounds them: a
    refusal must not use up what the object has for its own faults.
    """

    def __init__(self, streaming: "Streaming", shard: int, planned: PlannedObject, number: int, tries: Counter[str]) -> None:
        self.tries = tries
        self.streaming = streaming
        self.planned = planned
        self.planned_again = planned
        self.number = number
        self.started_at = streaming.now()
        self.session_id = session_id(self.started_at, streaming.entropy(10))
        self.reservation = Reservation(streaming.ledger, streaming.admission.outages, self.session_id, planned.estimate_ms)
        self.chunk_bytes = streaming.chunk_bytes or streaming.client.chunk_bytes
        self.session: ClientSession | None = None
        self.story = self.advice = ""
        self.sent_ms = 0
        self._paid = self._gave_back = False
        self.claim = Claim(
            session_id=self.session_id,
            lake=streaming.lake,
            org=streaming.org,
            endpoint=planned.endpoint.name,
            object_id=planned.item.object_id,
            object_key_id=planned.item.object_key_id,
            params_hash=planned.params_hash,
            run_id=streaming.run_id,
            shard=shard,
            worker=streaming.worker,
            attempt=number,
            month=streaming.admission.month(),
            estimate_ms=planned.estimate_ms,
            priority=streaming.priority,
            force=streaming.force,
        )
        admission = streaming.admission
        self.first_result = FirstResult(self.session_id, partial(admission.note_result, self.claim), streaming.sleep, admission.held_back)

    async def run(self) -> GiveUp | RetryAfter | None:
        """None when it is done, else what follows. Raises NotAdmitted or LeaseLost."""
        counts = self.streaming.progress.of(self.planned.endpoint.name)
        first = asyncio.create_task(self.streaming.outlet.beginning(self.planned))  # no slot idles until S3 answers
        try:
            async with self.streaming.admission.slot(self.claim) as grant:
                self.started_at = self.streaming.now()
                counts.live += 1
                try:
                    return await self._analyse(grant, first)
                finally:
                    if not self._gave_back:
                        counts.live -= 1
                    await self.first_result.settled()  # its lease may be lost: nothing is told behind its end
        finally:
            first.cancel()

    async def _analyse(self, grant: Grant, first: Awaitable[bytes]) -> GiveUp | RetryAfter | None:
        try:
            if grant.deaths >= DEATHS:
                raise Poisonous(POISON.format(deaths=grant.deaths))
            async with self.streaming.outlet.audio(self.planned, first) as (self.planned, pieces):
                result = await self._session(grant, pieces)
        except SessionError as error:
            return await self._failed(error, classify(error, self.streaming.texts))
        except OWN_ERRORS as error:
            return await self._failed(self._as_session_error(str(error)), own_cause(error))
        except LedgerFailed as failed:
            await asyncio.shield(self._failed(self._as_session_error(str(failed)), CANCELLED))
            raise failed.error from None
        except (asyncio.CancelledError, ConfigurationError) as error:
            told = SessionError("cancelled" if isinstance(error, asyncio.CancelledError) else str(error), phase=self._phase())
            await asyncio.shield(self._failed(told, CANCELLED))
            raise
        if not grant.awaited:  # else others may wait for what the ledger is yet to be told
            self._give_back()
        await asyncio.shield(self._done(result))
        return None

    def _give_back(self) -> None:
        """Let the next object have the slot, whose connection has closed, while this one is kept and booked."""
        self._gave_back = True
        self.streaming.progress.of(self.planned.endpoint.name).live -= 1
        self.streaming.admission.give_back(self.claim)

    async def _session(self, grant: Grant, pieces: AsyncGenerator[bytes, None]) -> SessionResult:
        assert self.planned.parameters is not None, "they are known where there is audio"
        self.streaming.progress.of(self.planned.endpoint.name).sessions += 1
        with span("session", endpoint=self.planned.endpoint.name, attempt=self.number):
            return await self.streaming.client.analyse(
                self.planned.endpoint,
                self.planned.parameters,
                self._audio(pieces),
                expected_ms=self.planned.expected_ms,
                chunk_bytes=self.chunk_bytes,
                session_id=self.session_id,
                cautious=grant.kind is SessionKind.PROBE,
                on_session=self._note_session,
                on_result=partial(self._note_result, grant),
            )

    def _note_result(self, grant: Grant) -> None:
        self.streaming.has_result[self.planned.endpoint.name].set()
        self.streaming.takes_key[self.planned.endpoint.name].set()
        self.first_result.came(awaited=grant.awaited)

    def _note_session(self, session: ClientSession) -> None:
        self.session = session

    def _phase(self) -> Phase:
        return self.session.phase if self.session else Phase.CONNECTING

    def _as_session_error(self, detail: str) -> SessionError:
        return SessionError(detail, phase=self._phase())

    async def _audio(self, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """What goes out; a session that outlives its estimate reserves more before it sends on."""
        async with aclosing(pieces):
            async for piece in pieces:
                if self.session is not None:
                    await self.reservation.cover(self.session.audio_sent_ms)
                yield piece

    def lost_its_lease(self, error: LeaseLost) -> Verdict:
        """What follows where the ledger has given the session away; its audio counts as streamed for nothing, unless it has a result."""
        self.tries[LEASE_LOST.counted_as] += 1
        self.story = str(error)
        self.sent_ms = 0 if self._paid else self._sent_ms()
        return self.streaming.retries.verdict(LEASE_LOST, self.tries[LEASE_LOST.counted_as], self.streaming.chance())

    async def _done(self, result: SessionResult) -> None:
        self._paid = True
        await self.first_result.settled()
        attempt = self._attempt()
        await self._keep(
            attempt_row(attempt, self.session, "done"),
            booked_ms=result.booked_ms,
            summary=summary_row(attempt, result),
            items=result.columns.packed(),
            segments=await asyncio.to_thread(
                segment_rows, attempt.planned.item.object_id, self.session_id, result.endpoint, result.columns, self.streaming.segments
            ),
        )
        await self._outlast(lambda: self.streaming.ledger.finish(self.session_id, result.booked_ms, result.close_code))
        self.streaming.progress.of(self.planned.endpoint.name).audio_ms += result.booked_ms

    async def _failed(self, error: SessionError, said: Cause) -> GiveUp | RetryAfter:
        """Keep the attempt's record, book what may have been spent, and say what follows from what was said and what the ledger knows."""
        await self.first_result.told()
        streaming, attempt, sent_ms = self.streaming, self._attempt(), self._sent_ms()
        refused = error.http_status is not None or error.text is not None
        outcome = "cancelled" if said is CANCELLED else "refused" if refused else "failed"
        own: Verdict | None = self._decoded_here(said)
        if own is None and said.spends_attempt:
            self.tries[said.counted_as] += 1
            own = streaming.retries.verdict(said, self.tries[said.counted_as], streaming.chance())
        self.story = str(error)
        if said.tells is Tells.KEY:
            await streaming.renew_key()
        else:
            streaming.takes_key[self.planned.endpoint.name].set()
        row, quarantine = attempt_row(attempt, self.session, outcome, error, said), self._quarantine(own, attempt.finished_at)
        await self._keep(row, quarantine=quarantine, patient=said is not CANCELLED)
        failure = Failure(self.session_id, error.phase, said, retry_after_ms=round(1000 * (error.retry_after or 0.0)))
        facts: dict[str, Any] = {"outcome": outcome, "close_code": error.close_code, "error_text": error.text}
        cause = await self._outlast(lambda: streaming.ledger.fail(failure, sent_ms=sent_ms, **facts))
        self.advice, self.sent_ms = cause.advice, sent_ms
        self._report(cause, outcome)
        if (stop := streaming.repeats.failed(self.planned.item.object_id, said, error.close_code)) is not None:
            streaming.stop.request(stop, Reason.NOT_REACHED, f"{self.story}: {REPEATED}")
        if own is not None:
            return own
        self.tries[cause.counted_as] += 1  # by what the ledger makes of it: the same words stop a run, or are waited out
        return self._halved(said) or streaming.retries.verdict(
            cause, self.tries[cause.counted_as], streaming.chance(), retry_after=error.retry_after
        )

    def _report(self, cause: Cause, outcome: str) -> None:
        """Count and log a failure: with the live sessions, the code and the text it is the operator's evidence (rules.md)."""
        streaming, endpoint = self.streaming, self.planned.endpoint.name
        counts = streaming.progress.of(endpoint)
        counts.at_risk_ms += self.sent_ms
        counts.refusals += outcome == "refused"
        logger.warning(
            "%s %s: session %s %s (%s, %s; %d live): %s",
            streaming.org,
            endpoint,
            self.session_id,
            outcome,
            cause.name,
            cause.action,
            counts.live,
            self.story,
        )

    async def _outlast(self, step: Callable[[], Awaitable[T]]) -> T:
        return await self.streaming.admission.outages.outlast(step)

    def _decoded_here(self, cause: Cause) -> RetryAfter | None:
        """Once more, decoded on this side, where the service could not decode it (rules.md, 4002)."""
        again = self.streaming.outlet.decoded_here(self.planned, cause)
        if again is None:
            return None
        self.planned_again = again
        return RetryAfter(0.0)

    def _halved(self, cause: Cause) -> RetryAfter | None:
        """Once more, with half the chunk, where the service takes no larger messages (rules.md, 1009): and so for the rest of the run."""
        whole = self.streaming.client.chunk_bytes
        if cause is not TOO_BIG or self.chunk_bytes < whole:
            return None
        self.streaming.chunk_bytes = whole // 2
        return RetryAfter(0.0)

    async def _keep(self, attempt: dict[str, Any], *, booked_ms: int = 0, patient: bool = True, **found: Any) -> None:
        """Make what is known of this session durable, before anything is booked."""
        spooled = SpooledSession(
            session_id=self.session_id,
            run_id=self.streaming.run_id,
            endpoint=self.planned.endpoint.name,
            object_id=self.planned.item.object_id,
            attempt=attempt,
            booked_ms=booked_ms,
            sent_ms=self._sent_ms(),
            **found,
        )
        await keep(self.streaming.spool, spooled, self.streaming.stop, self.streaming.sleep, patient=patient)

    def _attempt(self) -> Attempt:
        streaming, endpoint = self.streaming, self.planned.endpoint
        return Attempt(
            session_id=self.session_id,
            planned=self.planned,
            run_id=streaming.run_id,
            org=streaming.org,
            worker=streaming.worker,
            host=streaming.client.host(endpoint),
            number=self.number,
            started_at=self.started_at,
            finished_at=streaming.now(),
        )

    def _sent_ms(self) -> int:
        """Milliseconds of audio sent: of containers the share of the estimate that went out, or what the items prove if that is more."""
        if self.session is None:
            return 0
        share = self.session.bytes_sent / self.planned.item.size_bytes
        guess = 0 if self.session.parameters.bytes_per_second else round(share * self.planned.estimate_ms)
        return max(self.session.audio_sent_ms, guess)

    def _quarantine(self, verdict: GiveUp | RetryAfter | None, happened_at: datetime) -> dict[str, Any] | None:
        if not isinstance(verdict, GiveUp) or verdict.reason not in QUARANTINED:
            return None
        planned, streaming = self.planned, self.streaming
        names = {"detail": self.story, "run_id": streaming.run_id, "org": streaming.org, "happened_at": happened_at}
        return quarantine_row(planned.item, planned.endpoint.name, planned.params_hash, verdict.reason, **names)
