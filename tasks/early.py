"""What a run publishes while it still streams: analysts see its first hours after an hour, and the spool holds no more than it must."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from connectors.ledger import host_boot_ms
from moderation.errors import SoundcheckError
from moderation.packaging import PackageRules
from tasks.publish import Publisher, run_date

LOOK_S = 5.0
"""How often is looked at what waits."""
logger = logging.getLogger("soundcheck.publish")


@dataclass(frozen=True, slots=True)
class EarlyPackages:
    """The packages of a run before its end. clock_ms never stops; it and sleep are arguments for tests."""

    publisher: Publisher
    run_id: str
    rules: PackageRules
    clock_ms: Callable[[], int] = host_boot_ms
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    at_work: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while it publishes."""

    async def keep(self) -> None:
        """Publish what is due, until cancelled. What cannot be published waits for the end of the run, which raises what is wrong."""
        spool = self.publisher.spool
        seen_bytes, since_ms = spool.put_bytes, self.clock_ms()
        while True:
            await self.sleep(LOOK_S)
            async with self.at_work:
                put_bytes, now_ms = spool.put_bytes, self.clock_ms()
                if put_bytes == seen_bytes:
                    since_ms = now_ms
                elif self.rules.is_due(put_bytes - seen_bytes, now_ms - since_ms) and await self._publish():
                    seen_bytes, since_ms = put_bytes, now_ms

    async def _publish(self) -> bool:
        """Whether there was something: what is spooled is booked a moment later."""
        try:
            sessions = await self.publisher.publish_run(self.run_id, run_date(self.run_id))
        except SoundcheckError as error:
            logger.warning("%s: what has ended waits in the spool, and is published later: %s", self.run_id, error)
            return True
        logger.info("%s: %d sessions published while it streams", self.run_id, sessions)
        return sessions > 0
