"""What a process holds: renewed while it lives, dropped when it may no longer be its own."""

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from connectors.ledger import Ledger
from connectors.spool import Spool
from ledger_facts import Clock, admit, claim_of, set_gate
from moderation.admission import SessionState
from moderation.errors import LeaseLost, UnreachableError
from tasks.leases import Leases
from ticking import Ticking

LEASE_MS = 8_000
SPOOL = Spool(Path("no-spool"))
"""What the dead of these tests have left: nothing."""


@pytest.fixture
async def ledger(tmp_path):
    clock = Clock()
    async with Ledger.open(tmp_path / "ledger.db", clock_ms=clock, lease_ms=LEASE_MS, chance=lambda: 0.5) as opened:
        await set_gate(opened, "acme", "music", 5)
        opened.clock = clock
        yield opened


class Unanswering:
    """A ledger that cannot be reached, or never answers."""

    lease_ms = LEASE_MS

    def __init__(self, *, silent: bool = False) -> None:
        self.silent = silent

    async def renew(self, _worker: str) -> frozenset[str]:
        if self.silent:
            await asyncio.Event().wait()
        raise UnreachableError("the ledger does not answer")

    async def expired(self, lake: str | None = None) -> tuple[str, ...]:
        return tuple(await self.renew(""))


@asynccontextmanager
async def keeping(ledger, clock):
    ticking = Ticking(clock, sleepers=3)
    leases = Leases(ledger, "worker", SPOOL, clock_ms=clock, sleep=ticking.sleep)
    keeper = asyncio.create_task(leases.keep())
    try:
        yield leases, ticking
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)


def held(leases, session_id, granted_ms):
    """A task that holds a session until it is dropped or cancelled."""

    async def hold() -> None:
        with leases.hold(session_id, granted_ms):
            await asyncio.Event().wait()

    return asyncio.create_task(hold())


async def test_a_session_is_held_for_longer_than_a_lease_while_it_is_renewed(ledger):
    claim = await admit(ledger, 1)
    async with keeping(ledger, ledger.clock) as (leases, ticking):
        task = held(leases, claim.session_id, ledger.clock())
        await ticking.advance(3 * LEASE_MS)
        assert not task.done()
        assert await ledger.expired() == ()
        task.cancel()


async def test_a_session_that_the_ledger_no_longer_knows_is_lost(ledger):
    claim = await admit(ledger, 1)
    async with keeping(ledger, ledger.clock) as (leases, ticking):
        task = held(leases, claim.session_id, ledger.clock())
        await ticking.advance(0)
        ledger.clock.ms += LEASE_MS + 1
        await ledger.recover(claim.session_id, None)
        await ticking.advance(LEASE_MS // 4)
        with pytest.raises(LeaseLost, match="not renewed in time"):
            await task
        assert not leases


@pytest.mark.fault(62)
@pytest.mark.parametrize("silent", [False, True], ids=["refused", "hanging"])
async def test_without_a_renewal_for_half_a_lease_every_session_is_dropped_and_not_before(silent):
    clock = Clock()
    async with keeping(Unanswering(silent=silent), clock) as (leases, ticking):
        task = held(leases, "s1", clock())
        await ticking.advance(LEASE_MS // 8)
        ticking.expected = 1 if silent else 3
        await ticking.advance(3 * LEASE_MS // 8)
        assert not task.done()
        later = held(leases, "s2", clock())
        await ticking.advance(LEASE_MS // 8)
        with pytest.raises(LeaseLost):
            await task
        assert not later.done(), "it was granted later"
        later.cancel()


@pytest.mark.fault(57)
async def test_a_host_that_slept_drops_what_it_held_though_its_timers_stood_still(ledger):
    claim = await admit(ledger, 1)
    async with keeping(Unanswering(), ledger.clock) as (leases, ticking):
        task = held(leases, claim.session_id, ledger.clock())
        await ticking.advance(0)
        ledger.clock.ms += LEASE_MS
        await ticking.advance(LEASE_MS // 8)
        with pytest.raises(LeaseLost):
            await task


async def test_sessions_of_the_dead_are_swept_while_others_live(ledger):
    dead = await admit(ledger, 1, worker="dead", session_id="01890000-0000-7000-8000-000000000001")
    mine = await admit(ledger, 2)
    async with keeping(ledger, ledger.clock) as (leases, ticking):
        task = held(leases, mine.session_id, ledger.clock())
        await ticking.advance(LEASE_MS - 1)
        assert (await ledger.session(dead.session_id)).state == SessionState.STREAMING
        await ticking.advance(LEASE_MS // 4)
        assert (await ledger.session(dead.session_id)).state == SessionState.AT_RISK
        assert not task.done()
        task.cancel()


async def test_what_is_held_is_left_to_its_own_task_though_its_lease_is_over(ledger):
    """It books what it has sent, where a sweep would book all that was reserved."""
    claim = await admit(ledger, 1)

    async def slow_to_end() -> None:
        with leases.hold(claim.session_id, ledger.clock()):
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.shield(ended.wait())

    ended = asyncio.Event()
    async with keeping(ledger, ledger.clock) as (leases, ticking):
        task = asyncio.create_task(slow_to_end())
        await ticking.advance(0)
        ledger.clock.ms += LEASE_MS + 1
        await ticking.advance(LEASE_MS)
        assert (await ledger.session(claim.session_id)).state == SessionState.STREAMING
        ended.set()
        with pytest.raises(LeaseLost):
            await task


async def test_a_session_granted_during_a_renewal_is_not_taken_for_a_lost_one(ledger):
    class Late:
        """A ledger where a session is granted between a renewal and its answer."""

        lease_ms = LEASE_MS

        async def renew(self, worker: str) -> frozenset[str]:
            renewed = await ledger.renew(worker)
            claims.append(await admit(ledger, 2 + len(claims)))
            tasks.append(held(leases, claims[-1].session_id, ledger.clock()))
            await asyncio.sleep(0)
            return renewed

        async def expired(self, lake: str | None = None) -> tuple[str, ...]:
            return ()

    claims, tasks = [], []
    async with keeping(Late(), ledger.clock) as (leases, ticking):
        await ticking.advance(LEASE_MS // 2)
        assert len(tasks) == 2
        assert not any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()


async def test_a_task_that_is_cancelled_from_outside_is_cancelled():
    async with keeping(Unanswering(), Clock()) as (leases, ticking):
        task = held(leases, "s1", ticking.clock())
        await ticking.advance(0)
        leases.cancel_all()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not leases


async def test_a_claim_counts_from_when_it_was_asked_for(ledger):
    """Its lease may be as old as that."""
    async with keeping(Unanswering(), ledger.clock) as (leases, ticking):
        task = held(leases, claim_of(1).session_id, ledger.clock() - LEASE_MS)
        await ticking.advance(LEASE_MS // 8)
        with pytest.raises(LeaseLost):
            await task
