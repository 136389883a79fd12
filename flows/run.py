"""One run of the pipeline, whoever executes its steps: list, plan, stream, publish, and the run's own record (design.md section 3)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from connectors.lake.packages import write_rows
from connectors.lake.query import spent_by
from flows.choosing import letting_go, plan_rules, release_retried, source_of
from flows.notifying import Notifier
from flows.report import COMPLETED, INCOMPLETE, RUNNING, Report, state_name
from flows.request import Request
from flows.run_record import KEPT, SHAPING, Ended, alike, fingerprint, run_row
from flows.setting_types import OnQuota, hours_ms, micros, text_patterns
from flows.sources import listed_whole
from flows.watch import Watch
from flows.wiring import Wired
from moderation.admission import EVERY_ENDPOINT
from moderation.budget import month_of
from moderation.errors import AccessDeniedError, ConfigurationError, SoundcheckError, UnreachableError, first_of_group
from moderation.identity import run_id
from moderation.outcomes import ExitCode, Reason, StopCause
from moderation.policy_file import PolicyText
from moderation.retry import RetryBudget
from tasks.admission import Admission
from tasks.alive import LIFE, alive, is_alive
from tasks.cascade import plan_second_stage
from tasks.decide import decide
from tasks.leases import Leases
from tasks.list_catalogue import list_catalogue
from tasks.outgoing import Outlet
from tasks.plan import PlanRules, plan_catalogue
from tasks.progress import Standing
from tasks.records import Run
from tasks.resume import NO_REST, has_manifest, has_plan, rest_of_plan
from tasks.shards import Shard, load_shard
from tasks.stream import Streaming, stream_claimed, stream_shard

SHARDS_AT_ONCE = 4
"""Shards of one endpoint side by side: the long tail of one is filled by the next."""
ALARM_SHARE = 0.2
ALARM_OBJECTS = 20
"""A run of at least so many objects with more than this share newly quarantined ends with 65: something general is wrong (rules.md)."""
T = TypeVar("T")
logger = logging.getLogger("soundcheck.run")


class Executor(Protocol):
    """Who runs a step: plainly in this process, or as a Prefect task."""

    async def __call__(self, name: str, step: Callable[[], Awaitable[T]]) -> T:
        """Run the step under a name and return what it returns."""


async def directly(name: str, step: Callable[[], Awaitable[T]]) -> T:
    """An executor that just runs the step."""
    del name
    return await step()


async def run_scan(wired: Wired, request: Request, watch: Watch, execute: Executor = directly, flow_run_id: str | None = None) -> Report:
    """Scan what a request asks for. Errors that concern the whole run are raised once its end is on record."""
    begun, now = request.begun, wired.now()
    run = Run(begun.run_id, wired.settings.org, begun.started_at) if begun else Run(run_id(now, wired.entropy(3)), wired.settings.org, now)
    scan = _Scan(wired, request, run, watch, execute, flow_run_id)
    logger.info("%s: scanning %s into %s", run.run_id, request, wired.results.url)
    await scan.check_begun()
    async with scan.notifier.until_told(), alive(wired.results, run.run_id, wired.now):
        try:
            await scan.record(RUNNING)
            recovered = await scan.steps_or_stop()
            state, code = scan.verdict()
            await scan.record(state, code, watch.stop.message)
        except SoundcheckError as error:
            await scan.failed(error)
            raise
        watch.report = Report(run.run_id, str(request), wired.results.url, state, code, watch.stop.message, watch.progress, recovered)
        await scan.tell(watch.report)
    return watch.report


class _Scan:
    """The steps of one scan."""

    def __init__(self, wired: Wired, request: Request, run: Run, watch: Watch, execute: Executor, flow_run_id: str | None) -> None:
        self.wired = wired
        self.request = request
        self.run = run
        self.watch = watch
        self.execute = execute
        self.flow_run_id = flow_run_id
        self.rest = NO_REST
        suspends = wired.settings.on_quota is OnQuota.SUSPEND
        self.notifier = Notifier(wired.ledger, wired.notices, run.org, run.run_id, wired.settings.warn_share, suspends=suspends)

    async def check_begun(self) -> None:
        """Refuse to go on with a run under settings that would have made another plan, or while somebody is at it; its record stays."""
        begun, wired = self.request.begun, self.wired
        if begun is None or begun.anyway:
            return
        if begun.fingerprint != fingerprint(wired.settings, self.request):
            shaping = ", ".join(name for name in SHAPING if name not in KEPT)
            raise ConfigurationError(
                f"run {begun.run_id} was planned under other settings ({shaping}): restore them, or go on with --anyway"
            )
        if await asyncio.to_thread(is_alive, wired.results, begun.run_id, wired.now()):
            raise ConfigurationError(
                f"run {begun.run_id} is still running, or was killed less than {LIFE.seconds} s ago: wait for it, or go on with --anyway"
            )

    async def steps_or_stop(self) -> int:
        """The steps, of which listing and planning can be broken off.

        Any error comes by itself, and not in a group; one that passes says how to go on after it.
        """
        self.watch.task = asyncio.current_task()
        try:
            with first_of_group():
                return await self.steps()
        except asyncio.CancelledError:
            if not self.watch.broken_off or self.watch.task is None:
                raise
            self.watch.task.uncancel()
            return 0
        except (UnreachableError, AccessDeniedError) as error:
            if type(error) not in {UnreachableError, AccessDeniedError}:
                raise
            raise type(error)(f"{error}; then `soundcheck backfill --resume {self.run.run_id}` goes on where this run broke off") from error
        finally:
            self.watch.task = None

    async def steps(self) -> int:
        """List, plan, stream and publish; returns the sessions of earlier runs that were published on the way."""
        wired, run, progress = self.wired, self.run, self.watch.progress
        await self._set_limits()
        progress.step = "recovering what earlier runs left"
        recovered = await wired.publisher.recover()
        if self.request.begun:
            progress.spent_before_ms = await asyncio.to_thread(self._spent)
        await self.execute("list", self._list)
        if self.watch.stop:
            return recovered
        rules = plan_rules(wired.settings, self.request, wired.selection)
        await self._stream_and_publish(await self.execute("plan", lambda: self._plan(rules)))
        if rules.cascade is not None and not self.watch.stop and not self.rest.has_second_stage:
            await self._stream_and_publish(await self._second_stage(rules.cascade, rules))
        if await asyncio.to_thread(wired.spool.ids):  # a worker has died since, right before it booked
            recovered += await self.execute("recover", wired.publisher.recover)
        if wired.policy is not None:
            progress.step = "deciding"
            await self.execute("decide", partial(self._decide, wired.policy))
        self._stop_at_caps()
        progress.step = "finished"
        logger.info("%s: %s", run.run_id, progress.line())
        return recovered

    async def _decide(self, policy: PolicyText) -> None:
        """Decide about everything that is known of the organisation's objects by now, whichever run it is of."""
        wired = self.wired
        done = await asyncio.to_thread(decide, wired.results, wired.open_lake, self.run, policy, wired.now())
        self.watch.progress.decisions.update(done.by_decision)

    def _spent(self) -> tuple[int, int]:
        with self.wired.open_lake() as lake:
            return spent_by(lake, self.run.run_id)

    def _stop_at_caps(self) -> None:
        """Name what a cap has left as the reason of the run's end: only now has everything been asked for that it might have held."""
        deferred = (outcome for outcome in self.watch.progress.outcomes if outcome.reason is Reason.DEFERRED_QUOTA)
        if (first := next(deferred, None)) is not None:
            self.watch.stop.request(StopCause.CREDITS_EXHAUSTED, Reason.DEFERRED_QUOTA, first.detail)

    async def _stream_and_publish(self, shards: Sequence[Shard]) -> None:
        """Stream some shards, then publish all that the run has."""
        progress, run = self.watch.progress, self.run
        try:
            if shards:
                progress.step = "streaming"
                await self._stream(shards)
        finally:  # what was paid for is published, however the rest ended
            progress.step = "publishing"
            await self.execute("publish", lambda: self.wired.publisher.publish_run(run.run_id, run.scan_date))

    async def _second_stage(self, condition: str, rules: PlanRules) -> list[Shard]:
        """The shards of what a cascade left to the music results, which other runs at work may have brought, too."""
        wired = self.wired

        async def step() -> list[Shard]:
            await wired.publisher.recover()
            return await plan_second_stage(wired.results, wired.open_lake, self.run, condition, rules.shards, self.watch.progress)

        return await self.execute("plan the second stage", step)

    async def _list(self) -> None:
        """Write the manifest, unless the run that is taken up again has."""
        wired, run, progress = self.wired, self.run, self.watch.progress
        if not (self.request.begun and has_manifest(wired.results, run.run_id)):
            source = await source_of(wired, self.request, run)
            await list_catalogue(source, wired.results, run, progress, wired.selection)

    async def _plan(self, rules: PlanRules) -> list[Shard]:
        """Make the plan, or take up the one that was made. A retry releases what it streams once that is planned for good."""
        wired, run, progress = self.wired, self.run, self.watch.progress
        if self.request.begun and has_plan(wired.results, run.run_id):
            progress.step = "taking up the plan"
            await release_retried(wired, self.request, run)
            rest = partial(rest_of_plan, wired.results, wired.open_lake, run.run_id, wired.endpoints, progress, force=rules.force)
            self.rest = await asyncio.to_thread(rest)
            return self.rest.shards
        rules = await letting_go(rules, wired, self.request, run)
        listed, earlier = listed_whole(self.request), alike(run.org, self.request)
        shards = await plan_catalogue(wired.audio, wired.results, wired.open_lake, run, wired.endpoints, rules, progress, listed, earlier)
        await release_retried(wired, self.request, run)
        return shards

    async def _set_limits(self) -> None:
        """Write the ceilings, caps and prices of the settings into the ledger, where every process keeps them."""
        settings, ledger, org = self.wired.settings, self.wired.ledger, self.run.org
        scanned = [endpoint.name for endpoint in self.wired.endpoints]
        for name in dict.fromkeys((*scanned, *settings.prices)):  # what others have cost counts against a cap in money, too
            await ledger.set_gate(org, name, settings.endpoint_connections.get(name, settings.connections))
            await ledger.set_cap(org, name, hours_ms(settings.endpoint_hours.get(name)), micros(settings.endpoint_costs.get(name)))
            await ledger.set_price(org, name, micros(settings.prices.get(name)))
        await ledger.set_gate(org, EVERY_ENDPOINT, settings.total_connections)
        await ledger.set_cap(org, EVERY_ENDPOINT, hours_ms(settings.monthly_hours), micros(settings.monthly_cost))
        await ledger.reopen(org, scanned)

    async def _stream(self, shards: Sequence[Shard]) -> None:
        streaming = self._streaming()
        self.watch.admission = streaming.admission
        async with asyncio.TaskGroup() as group:  # nothing streams on when its leases are no longer kept
            leases = group.create_task(streaming.admission.leases.keep())
            await self._stream_all(streaming, [shard for shard in shards if shard.first])
            await self._stream_all(streaming, [shard for shard in shards if not shard.first])
            if streaming.claimed:
                await self.execute("wait for what others stream", lambda: stream_claimed(streaming))
            leases.cancel()

    def _streaming(self) -> Streaming:
        wired, run, stop = self.wired, self.run, self.watch.stop
        return Streaming(
            run_id=run.run_id,
            org=run.org,
            lake=wired.lake,
            worker=wired.worker,
            client=wired.client,
            outlet=Outlet(wired.audio, wired.decoder, wired.settings.transcode, wired.settings.max_session_hours),
            ledger=wired.ledger,
            spool=wired.spool,
            admission=self._admission(),
            stop=stop,
            progress=self.watch.progress,
            now=wired.now,
            chance=wired.chance,
            entropy=wired.entropy,
            places=max({wired.settings.connections, *wired.settings.endpoint_connections.values()}),
            renewed_client=wired.renewed_client,
            priority=wired.settings.priority + self.request.flow.urgency,
            force=self.request.force,
            texts=text_patterns(wired.settings.refusal_texts),
            segments=wired.settings.segments,
            retries=wired.settings.retries,
            retried=RetryBudget(self.watch.progress.planned_ms),
        )

    def _admission(self) -> Admission:
        wired = self.wired
        return Admission(
            wired.ledger,
            Leases(wired.ledger, wired.worker, wired.spool),
            self.watch.stop,
            lambda: month_of(wired.now()),
            wired.chance,
            on_grant=self.notifier.granted,
            on_refusal=self.notifier.refused,
            refusals=self.watch.progress.refusals,
        )

    async def _stream_all(self, streaming: Streaming, shards: Sequence[Shard]) -> None:
        places = {endpoint.name: asyncio.Semaphore(SHARDS_AT_ONCE) for endpoint in self.wired.endpoints}

        async def stream(shard: Shard) -> None:
            async def step() -> int:
                objects = await asyncio.to_thread(load_shard, self.wired.results, self.run.run_id, shard.number)
                return len(await stream_shard(streaming, shard.number, [planned for planned in objects if self.rest.has(planned)]))

            async with places[shard.endpoint]:
                await self.execute(f"stream {shard.endpoint} shard {shard.number}", step)

        async with asyncio.TaskGroup() as group:
            for shard in shards:
                group.create_task(stream(shard))

    def verdict(self) -> tuple[str, ExitCode]:
        """The name of the final state and the exit code (rules.md)."""
        stop, progress = self.watch.stop, self.watch.progress
        if stop.cause is not None:
            return stop.cause.value, stop.cause.exit_code
        if left := progress.objects()[Standing.PENDING] - progress.cut:  # what a bound of the plan leaves was never this run's
            reasons = ", ".join(f"{count} {reason}" for reason, count in progress.pending_reasons().most_common())
            stop.message = f"{left} objects stay pending ({reasons}): run again for the rest"
            return INCOMPLETE, ExitCode.EXHAUSTED
        if not progress.newly_quarantined:
            return COMPLETED, ExitCode.OK
        many = progress.listed >= ALARM_OBJECTS and progress.newly_quarantined > ALARM_SHARE * progress.listed
        return COMPLETED, ExitCode.MANY_QUARANTINED if many else ExitCode.QUARANTINED

    async def tell(self, report: Report) -> None:
        """Tell people how the run ended, where that is for them to know."""
        if report.state == COMPLETED:
            await self.notifier.completed(report.exit_code, report.progress.newly_quarantined)
        else:
            await self.notifier.ended(report.state, report.exit_code, report.message)

    async def failed(self, error: SoundcheckError) -> None:
        """Put the end of a run that an error has ended on record, where records can be written, and tell it."""
        try:
            await self.record(state_name(error), error.exit_code, str(error))
        except SoundcheckError as unwritten:
            logger.warning("%s: its end is not on record: %s", self.run.run_id, unwritten)
        await self.notifier.ended(state_name(error), error.exit_code, str(error))

    async def record(self, state: str, exit_code: ExitCode | None = None, message: str = "") -> None:
        """Write the run's row of its start, or of its end."""
        wired, run = self.wired, self.run
        ended = None if exit_code is None else Ended(wired.now(), exit_code)
        row = run_row(run, self.request, wired.settings, self.watch.progress, state, ended, message)
        row["prefect_flow_run_id"] = self.flow_run_id
        await asyncio.to_thread(write_rows, wired.results, "runs", run.run_id, run.scan_date, "start" if ended is None else "end", [row])
