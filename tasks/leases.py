"""The leases of this process: its sessions are renewed for as long as it lives, and dropped as soon as it may not hold them any more.

Those of dead processes are swept meanwhile: a probe, or a session that asks for a higher limit, holds up every other until it has ended.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from connectors.ledger import Ledger, host_boot_ms
from connectors.spool import Spool
from moderation.errors import LeaseLost, SoundcheckError
from tasks.publish import settle_expired

logger = logging.getLogger("soundcheck.leases")
RENEWALS_PER_LEASE = 4
LOOKS_PER_LEASE = 8
"""How often the watch looks whether the last renewal is half a lease old."""


@dataclass(slots=True)
class _Held:
    """A session of ours: the task that streams it, when it was renewed last by this host's clock, and whether it was taken away."""

    task: asyncio.Task[object]
    renewed_ms: int
    lost: bool = False


@dataclass(slots=True)
class Leases:
    """What this process holds in the ledger. clock_ms never stops, not even while the host sleeps; it and sleep are arguments for tests."""

    ledger: Ledger
    worker: str
    spool: Spool
    clock_ms: Callable[[], int] = host_boot_ms
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _held: dict[str, _Held] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self._held)

    @contextmanager
    def hold(self, session_id: str, granted_ms: int) -> Iterator[None]:
        """Hold a session, asked for at granted_ms, while the block runs in this task. Raises LeaseLost out of it when it was lost."""
        task = asyncio.current_task()
        assert task is not None, "sessions are held by tasks"
        held = self._held[session_id] = _Held(task, granted_ms)
        try:
            yield
        except asyncio.CancelledError:
            if not held.lost:
                raise
            task.uncancel()
            raise LeaseLost(f"session {session_id} was not renewed in time: its object is tried again") from None
        finally:
            del self._held[session_id]

    async def keep(self) -> None:
        """Renew for ever, drop what the ledger no longer knows or what could not be renewed for half a lease, and sweep after the dead."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renew_for_ever())
            group.create_task(self._watch_for_ever())
            group.create_task(self._sweep_for_ever())

    def cancel_all(self) -> None:
        """Cancel what this process streams."""
        for held in self._held.values():
            held.task.cancel()

    async def _renew_for_ever(self) -> None:
        while True:
            await self.sleep(self.ledger.lease_ms / RENEWALS_PER_LEASE / 1000)
            asked_for, asked_ms = set(self._held), self.clock_ms()
            try:
                renewed = await self.ledger.renew(self.worker)
            except SoundcheckError:
                continue  # the watch counts the time
            for session_id in renewed & self._held.keys():
                self._held[session_id].renewed_ms = asked_ms
            self._drop(asked_for - renewed)

    async def _watch_for_ever(self) -> None:
        while True:
            await self.sleep(self.ledger.lease_ms / LOOKS_PER_LEASE / 1000)
            late_ms = self.clock_ms() - self.ledger.lease_ms // 2
            self._drop([session_id for session_id, held in self._held.items() if held.renewed_ms < late_ms])

    async def _sweep_for_ever(self) -> None:
        """Beside the renewals, which must not wait for it. What is held here is left to its own task, which knows best what was sent."""
        while True:
            await self.sleep(self.ledger.lease_ms / RENEWALS_PER_LEASE / 1000)
            try:
                await settle_expired(self.ledger, self.spool, held=self._held)
            except SoundcheckError as error:
                logger.warning("the sessions of dead workers are not swept yet: %s", error)

    def _drop(self, sessions: Iterable[str]) -> None:
        for session_id in sessions:
            held = self._held.get(session_id)
            if held is not None and not held.lost:
                held.lost = True
                held.task.cancel()
