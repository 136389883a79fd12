"""The streaming of a run: what its sessions share, and its shards, of which the first proves the way (rules.md, 'Preflight')."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Protocol, TypeVar

from flows.notifying import Notifier
from flows.request import Request
from flows.setting_types import OnQuota, text_patterns
from flows.watch import Watch
from flows.wiring import Wired
from moderation.retry import RetryBudget
from tasks.admission import Admission
from tasks.early import EarlyPackages
from tasks.leases import Leases
from tasks.outgoing import Outlet
from tasks.progress import Outcome
from tasks.records import Run
from tasks.room import Room
from tasks.shards import PlannedShards, Shard
from tasks.stream import Streaming, stream_claimed, stream_shard

SHARDS_AT_ONCE = 4
"""Shards of one endpoint side by side: the long tail of one is filled by the next."""
T = TypeVar("T")
Wanted = Callable[[str, str], bool]
"""Whether an object (endpoint, object_id) of a plan is to be streamed."""


class Executor(Protocol):
    """Who runs a step: plainly in this process, or as a Prefect task."""

    async def __call__(self, name: str, step: Callable[[], Awaitable[T]]) -> T:
        """Run the step under a name and return what it returns."""


def notifier_of(wired: Wired, run: Run) -> Notifier:
    """Who tells the people of its organisation about a run."""
    settings = wired.settings
    suspends = settings.on_quota is OnQuota.SUSPEND
    return Notifier(wired.ledger, wired.notices, run.org, run.run_id, settings.warn_share, suspends=suspends)


def streaming_of(
    wired: Wired, request: Request, run: Run, watch: Watch, notifier: Notifier, on_outcome: Callable[[Outcome], object] = lambda _: None
) -> Streaming:
    """What the sessions of a run share."""
    settings = wired.settings
    return Streaming(
        run_id=run.run_id,
        org=run.org,
        lake=wired.lake,
        worker=wired.worker,
        client=wired.client,
        outlet=Outlet(wired.audio, wired.decoder, settings.transcode, settings.max_session_hours),
        ledger=wired.ledger,
        spool=wired.spool,
        admission=Admission(
            wired.ledger,
            Leases(wired.ledger, wired.worker, wired.spool),
            watch.stop,
            lambda: settings.month(wired.now()),
            wired.chance,
            on_grant=notifier.granted,
            on_refusal=notifier.refused,
            room=Room(wired.spool, settings.min_free_bytes()),
            refusals=watch.progress.refusals,
        ),
        stop=watch.stop,
        progress=watch.progress,
        now=wired.now,
        chance=wired.chance,
        entropy=wired.entropy,
        places=1 + max({settings.connections, *settings.endpoint_connections.values()}),
        renewed_client=wired.renewed_client,
        priority=settings.priority + request.flow.urgency,
        force=request.force,
        texts=text_patterns(settings.refusal_texts),
        segments=settings.segments,
        retries=settings.retries,
        retried=RetryBudget(watch.progress.planned_ms),
        on_outcome=on_outcome,
    )


async def directly(name: str, step: Callable[[], Awaitable[T]]) -> T:
    """An executor that just runs the step."""
    del name
    return await step()


async def stream_shards(
    streaming: Streaming, wired: Wired, planned: PlannedShards, shards: Sequence[Shard], wanted: Wanted, execute: Executor = directly
) -> None:
    """Stream the objects of some planned shards that are wanted, then what other sessions have claimed of them."""
    await streaming.find_suspects()
    early = EarlyPackages(wired.publisher, streaming.run_id, wired.settings.packages)
    async with asyncio.TaskGroup() as group:  # nothing streams on when its leases are no longer kept
        kept = [group.create_task(streaming.admission.leases.keep()), group.create_task(early.keep())]
        await _Shards(streaming, wired, planned, wanted, execute).stream(shards)
        if streaming.claimed:
            await execute("wait for what others stream", lambda: stream_claimed(streaming))
        async with early.at_work:
            for task in kept:
                task.cancel()


class _Shards:
    def __init__(self, streaming: Streaming, wired: Wired, planned: PlannedShards, wanted: Wanted, execute: Executor) -> None:
        self._streaming = streaming
        self._planned = planned
        self._wanted = wanted
        self._execute = execute
        self._places = {endpoint.name: asyncio.Semaphore(SHARDS_AT_ONCE) for endpoint in wired.endpoints}

    async def stream(self, shards: Collection[Shard]) -> None:
        """The first shards one after the other, each until its endpoint is heard to take the key; of each the others wait for a result."""
        firsts: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            for shard in sorted(shards, key=lambda shard: not shard.first):
                stream = group.create_task(self._stream(shard, firsts.get(shard.endpoint)))
                if shard.first:
                    firsts[shard.endpoint] = stream
                    await _until_either(stream, self._streaming.takes_key[shard.endpoint])

    async def _stream(self, shard: Shard, first: asyncio.Task[None] | None) -> None:
        if first is not None:
            await _until_either(first, self._streaming.has_result[shard.endpoint])
        async with self._places[shard.endpoint]:
            await self._execute(f"stream {shard.endpoint} shard {shard.number}", partial(self._step, shard))

    async def _step(self, shard: Shard) -> None:
        objects = await asyncio.to_thread(self._planned.objects, shard.number)
        wanted = [planned for planned in objects if self._wanted(planned.endpoint.name, planned.item.object_id)]
        await stream_shard(self._streaming, shard.number, wanted)


async def _until_either(task: asyncio.Task[T], event: asyncio.Event) -> None:
    happens = asyncio.create_task(event.wait())
    await asyncio.wait({task, happens}, return_when=asyncio.FIRST_COMPLETED)
    happens.cancel()
