"""What Prefect shows of a run: its steps as task runs, its progress and report as artifacts. The run itself never waits for Prefect.

Once it has reached a server, Prefect's client retries one that is gone for 71 s (measured with 3.8.8; PREFECT_CLIENT_MAX_RETRIES), and its
engine then raises what came of that out of the task. So a step runs beside its task run, not inside it: that only waits for the step.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import PrefectSignal

from flows.console import stderr

PATIENCE_SECONDS = 5.0
"""How long anything waits for Prefect; idle, it takes 12 to 60 ms (measurements.md)."""
LOST_SECONDS = 1.0
"""The same once it has not answered: enough to see that it is back."""
NO_ANSWER = "Prefect is not reachable: the run goes on, and only what Prefect shows of it is incomplete"
T = TypeVar("T")
logger = logging.getLogger("soundcheck.prefect")


class Mirror:
    """Shows a run in Prefect for as long as that answers; says once, on the terminal and in the log, when it does not."""

    def __init__(self) -> None:
        self._task_runs: set[asyncio.Task[None]] = set()
        self._lost = self._said = False

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator["Mirror"]:
        """A mirror for the block, at whose end the task runs that Prefect still has not taken are given up."""
        mirror = cls()
        try:
            yield mirror
        finally:
            for task_run in mirror._task_runs:
                task_run.cancel()
            await asyncio.gather(*mirror._task_runs, return_exceptions=True)

    async def run_step(self, name: str, step: Callable[[], Awaitable[T]]) -> T:
        """An executor (flows.run): runs the step at once, as a Prefect task to whoever looks, and ends as the step does."""
        running = asyncio.ensure_future(step())
        task_run = asyncio.create_task(self._show(name, running))
        self._task_runs.add(task_run)
        task_run.add_done_callback(self._task_runs.discard)
        try:
            return await running
        finally:
            _, waiting = await asyncio.wait({task_run}, timeout=0 if self._lost else PATIENCE_SECONDS)
            if waiting:
                self._lose(TimeoutError())

    async def tell(self, telling: Awaitable[T]) -> T | None:
        """Await something that tells Prefect, within bounds; None where that failed."""
        try:
            async with asyncio.timeout(LOST_SECONDS if self._lost else PATIENCE_SECONDS):
                told = await telling
        except Exception as error:  # noqa: BLE001 - whatever Prefect's client raises, no run ends for it
            self._lose(error)
            return None
        self._lost = False
        return told

    async def _show(self, name: str, running: "asyncio.Future[T]") -> None:
        """A task run that waits for the step: without parameters, so that nothing of ours is looked into or stored."""

        async def wait_for_step() -> None:
            await asyncio.shield(running)

        shown = task(name=name.partition(" shard")[0], task_run_name=name, cache_policy=NO_CACHE, persist_result=False)(wait_for_step)
        try:
            await shown()
        except PrefectSignal as called_off:  # the run itself hears of it from its state
            logger.info("Prefect did not show step %s (%r)", name, called_off)
        except Exception as error:  # noqa: BLE001 - as above
            if not running.done() or running.cancelled() or running.exception() is None:
                self._lose(error)

    def _lose(self, error: Exception) -> None:
        self._lost = True
        if self._said:
            return
        self._said = True
        logger.warning("%s (%r)", NO_ANSWER, error, exc_info=error)
        stderr.print(NO_ANSWER, style="yellow", highlight=False, soft_wrap=True)
