"""One run of the pipeline, whoever executes its steps: list, plan, stream, publish, and the run's own record (design.md section 3)."""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial

from connectors.lake.packages import write_rows
from connectors.lake.query import spent_by
from flows.choosing import letting_go, plan_rules, release_retried, source_of
from flows.fan_out import FanOut
from flows.report import COMPLETED, INCOMPLETE, RUNNING, Report, state_name
from flows.reporting import leave_report
from flows.request import Request
from flows.resuming import check_begun
from flows.run_record import Ended, alike, run_row
from flows.setting_types import hours_ms, micros
from flows.sources import listed_whole
from flows.streaming import Executor, directly, notifier_of, stream_shards, streaming_of
from flows.submitted import ShardRuns
from flows.telling import tell_changes
from flows.watch import Watch
from flows.wiring import Wired
from moderation.admission import EVERY_ENDPOINT
from moderation.errors import SoundcheckError, first_of_group
from moderation.identity import run_id
from moderation.outcomes import ExitCode, Reason, StopCause
from moderation.policy_file import PolicyText
from tasks.about import about
from tasks.alive import alive
from tasks.cascade import plan_second_stage
from tasks.decide import decide
from tasks.list_catalogue import list_catalogue
from tasks.plan import PlanRules, plan_catalogue
from tasks.progress import Standing
from tasks.records import Run
from tasks.refresh import try_to_keep_current
from tasks.resume import NO_REST, has_manifest, has_plan, rest_of_plan
from tasks.shards import PlannedShards, Shard
from tasks.spans import span

ALARM_OBJECTS = 20
"""Of fewer objects no share says that something general is wrong (rules.md)."""
logger = logging.getLogger("soundcheck.run")


async def run_scan(
    wired: Wired,
    request: Request,
    watch: Watch,
    execute: Executor = directly,
    flow_run_id: str | None = None,
    workers: ShardRuns | None = None,
) -> Report:
    """Scan what a request asks for, its shards in this process or on workers.

    Errors that concern the whole run are raised once its end is on record.
    """
    begun, now = request.begun, wired.now()
    run = Run(begun.run_id, wired.settings.org, begun.started_at) if begun else Run(run_id(now, wired.entropy(3)), wired.settings.org, now)
    scan = _Scan(wired, request, run, watch, execute, flow_run_id)
    if workers is not None:
        scan.fan_out = FanOut(wired, run, watch, workers, wired.settings.shards_in_flight)
    with about(run=run.run_id), span("run"):
        return await _run(scan)


async def _run(scan: "_Scan") -> Report:
    wired, request, run, watch = scan.wired, scan.request, scan.run, scan.watch
    logger.info("%s: scanning %s into %s", run.run_id, request, wired.results.url)
    await check_begun(wired, request)
    async with scan.notifier.until_told(), alive(wired.results, run.run_id, wired.now):
        try:
            await scan.record(RUNNING)
            recovered = await scan.steps_or_stop()
            state, code = scan.verdict()
            await scan.record(state, code, watch.stop.message)
        except SoundcheckError as error:
            await scan.failed(error)
            raise
        page = await leave_report(wired, run, watch)
        skew_s = round(wired.now.skew.total_seconds()) if wired.now.is_off else 0
        watch.report = Report(
            run.run_id,
            str(request),
            wired.results.url,
            state,
            code,
            message=watch.stop.message,
            progress=watch.progress,
            recovered=recovered,
            page=page,
            skew_s=skew_s,
        )
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
        self.fan_out: FanOut | None = None
        self.notifier = notifier_of(wired, run)

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
        except SoundcheckError as error:
            if error.is_resumable:
                error.args = (f"{error}; then `soundcheck scan --resume {self.run.run_id}` goes on where this run broke off",)
            raise
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
        rules = plan_rules(wired.settings, self.request, wired.selection, await wired.ledger.buried())
        await self._stream_and_publish(await self.execute("plan", lambda: self._plan(rules)))
        if rules.cascade is not None and not self.watch.stop and not self.rest.has_second_stage:
            await self._stream_and_publish(await self._second_stage(rules.cascade, rules))
        if self.fan_out is not None and self.fan_out.lost:  # what a lost worker had not reported is published by now
            settled_ms, at_risk_ms = await asyncio.to_thread(self._spent)
            progress.spent_before_ms = settled_ms - progress.audio_ms, at_risk_ms - progress.at_risk_ms
        if await asyncio.to_thread(wired.spool.ids):  # a worker has died since, right before it booked
            recovered += await self.execute("recover", wired.publisher.recover)
        await asyncio.to_thread(try_to_keep_current, wired.results)
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
        await tell_changes(wired.notices, wired.results, wired.open_lake, self.run.org, wired.now())

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
        if self.fan_out is not None:
            self.watch.streams = self.fan_out
            await self.fan_out.stream(shards, self.rest.has)
            return
        streaming = streaming_of(self.wired, self.request, self.run, self.watch, self.notifier)
        self.watch.streams = streaming.admission
        planned = PlannedShards(self.wired.results, self.run.run_id)
        await stream_shards(streaming, self.wired, planned, shards, self.rest.has, self.execute)

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
        share = self.wired.settings.alarm_share
        many = progress.listed >= ALARM_OBJECTS and progress.newly_quarantined > share * progress.listed
        return COMPLETED, ExitCode.MANY_QUARANTINED if many else ExitCode.QUARANTINED

    async def tell(self, report: Report) -> None:
        """Tell people how the run ended, where that is for them to know."""
        if report.state == COMPLETED:
            progress = report.progress
            await self.notifier.completed(report.exit_code, progress.newly_quarantined, streamed=progress.sessions > 0)
        else:
            await self.notifier.ended(report.state, report.exit_code, report.message)

    async def failed(self, error: SoundcheckError) -> None:
        """Put the end of a run that an error has ended on record, where records can be written, and tell it."""
        try:
            await self.record(state_name(error), error.exit_code, str(error))
        except SoundcheckError as unwritten:
            logger.warning("%s: its end is not on record: %s", self.run.run_id, unwritten)
        else:
            await leave_report(self.wired, self.run, self.watch)
        await self.notifier.ended(state_name(error), error.exit_code, str(error))

    async def record(self, state: str, exit_code: ExitCode | None = None, message: str = "") -> None:
        """Write the run's row of its start, or of its end."""
        wired, run = self.wired, self.run
        ended = None if exit_code is None else Ended(wired.now(), exit_code)
        row = run_row(run, self.request, wired.settings, self.watch.progress, state, ended, message)
        row["prefect_flow_run_id"] = self.flow_run_id
        await asyncio.to_thread(write_rows, wired.results, "runs", run.run_id, run.scan_date, "start" if ended is None else "end", [row])
