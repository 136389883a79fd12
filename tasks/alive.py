"""A run's sign of life, a file in its folder: who would take the run up learns from it whether somebody is still at it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta

from connectors.lake.packages import run_file
from connectors.lake.store import ResultStore
from moderation.errors import SoundcheckError

BEAT_S = 15.0
"""How often the sign is renewed."""
LIFE = timedelta(minutes=1)
"""How long a sign holds, by the wall clocks of two hosts: as long as a lease."""
logger = logging.getLogger("soundcheck.alive")


@asynccontextmanager
async def alive(results: ResultStore, run_id: str, now: Callable[[], datetime]) -> AsyncIterator[None]:
    """Renew the sign of a run while the block runs, and take it away at its end. A store that does not take it ends no run."""
    ended = asyncio.Event()

    def write() -> None:
        results.put(_name(run_id), now().isoformat().encode())

    async def keep() -> None:
        while not ended.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), BEAT_S)
            if not ended.is_set():
                await _try(write)

    await _try(write)
    keeping = asyncio.create_task(keep())
    try:
        yield
    finally:
        ended.set()
        await keeping
        await _try(lambda: results.delete(_name(run_id)))


def is_alive(results: ResultStore, run_id: str, at: datetime) -> bool:
    """Whether a run has a sign that holds at this instant: its process lives, or was killed less than LIFE ago."""
    sign = results.get(_name(run_id))
    return sign is not None and abs(at - datetime.fromisoformat(sign.decode())) < LIFE


async def _try(step: Callable[[], None]) -> None:
    try:
        await asyncio.to_thread(step)
    except SoundcheckError as error:
        logger.warning("the run's sign of life is not kept, so a second process may take it up: %s", error)


def _name(run_id: str) -> str:
    return run_file(run_id, "alive")
