"""Runs of shards in this process, with a worker's own connectors each: they can be lost, or never be taken."""

import asyncio
from collections.abc import Collection, Mapping
from contextlib import suppress

from flows.request import Request
from flows.resuming import request_of
from flows.settings import Settings
from flows.shard_worker import run_shard
from flows.submitted import Seen, ShardState
from flows.watch import Watch
from flows.wiring import wired
from moderation.errors import SoundcheckError


class ShardsHere:
    """Workers in this process. What is submitted is in `submitted`.

    A shard in `doomed` loses its worker so many times once it streams; with `drained` that worker is told to end, instead of being killed.
    The first worker of a shard in `unheard` takes it, and is never heard of.
    """

    def __init__(
        self, settings: Settings, doomed: dict[int, int] | None = None, *, drained: bool = False, unheard: Collection[int] = ()
    ) -> None:
        self.settings = settings
        self.doomed = doomed or {}
        self.drained = drained
        self.unheard = unheard
        self.submitted: list[tuple[int, int]] = []
        self.most = 0
        self._tasks: dict[str, asyncio.Task[object]] = {}
        self._watches: dict[str, Watch] = {}

    async def submit(self, run_id: str, shard: int, number: int) -> str:
        name = f"{shard}-{number}-{id(self):x}"
        self.submitted.append((shard, number))
        watch = self._watches[name] = Watch()
        request = request_of(self.settings, run_id, anyway=True)
        if shard in self.unheard and number == 1:
            self._tasks[name] = asyncio.create_task(asyncio.Event().wait())
            return name
        self._tasks[name] = asyncio.create_task(self._run(request, watch, shard, name, lost=number <= self.doomed.get(shard, 0)))
        self.most = max(self.most, sum(not task.done() for task in self._tasks.values()))
        return name

    async def _run(self, request: Request, watch: Watch, shard: int, name: str, *, lost: bool) -> None:
        async with wired(self.settings, request) as parts:
            working = asyncio.create_task(run_shard(parts, request, watch, shard, name))
            while lost and not any(counts.sessions for counts in watch.progress.endpoints.values()):
                await asyncio.sleep(0.01)
            if lost and self.drained:
                watch.terminate("its worker")
            elif lost:
                working.cancel()
            with suppress(SoundcheckError):
                await working

    def terminate_one(self) -> None:
        """SIGTERM to one of the workers that are at work."""
        name = next(name for name, task in self._tasks.items() if not task.done())
        self._watches[name].terminate("SIGTERM to this worker")

    async def look(self, ids: Collection[str]) -> Mapping[str, Seen]:
        return {name: Seen(ShardState.OVER if self._tasks[name].done() else ShardState.RUNNING) for name in ids}

    async def end(self, ids: Collection[str], *, lost: bool) -> None:
        for name in ids:
            if not lost:
                self._watches[name].terminate("the run")
            elif any(name.startswith(f"{shard}-1-") for shard in self.unheard):
                self._tasks[name].cancel()
