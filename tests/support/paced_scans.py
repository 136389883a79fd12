"""Scans that last as long as their pace says, and what server and ledger have of them meanwhile."""

import asyncio

from connectors.ledger import Ledger
from moderation.admission import SessionRecord

PATIENCE_S = 120


def put_raw(world, make_wav, count: int, seconds: float) -> None:
    """Objects that are streamed at the pace that is set."""
    for number in range(count):
        world.put(f"{number:02}.s16le", make_wav(seconds, 200.0 + number)[44:])
        world.put(f"{number:02}.s16le.json", b'{"audio_format": "s16le", "sample_rate": 16000, "num_channels": 1}')


async def seen(world, event: str, count: int) -> None:
    """Return when the server has seen so many."""
    async with asyncio.timeout(PATIENCE_S):
        while world.velma.journal.counts[event] < count:
            await asyncio.sleep(0.02)


async def live_sessions(world) -> list[SessionRecord]:
    """What streams, as the ledger has it."""
    async with Ledger.open(world.results / "_state" / "ledger.db") as ledger:
        return await ledger.streaming("default")
