"""A probe whose process was killed: the runs that live go on by themselves."""

import asyncio

import pytest

from flows.places import open_ledger
from ledger_facts import MONTH, claim_of, write_gate
from moderation.admission import Grant, SessionState
from moderation.breaker import Breaker, BreakerState, OpenedBy
from scanning import PATIENCE_S, scanning

pytestmark = pytest.mark.torture

OBJECTS = 8
DEAD = "01890000-0000-7000-8000-000000000099"


async def test_a_dead_process_s_probe_does_not_hold_the_others_for_ever(put, tmp_path):
    for number in range(OBJECTS):
        put(f"{number}.ulaw", 2.0)
    async with scanning(tmp_path, speed=4, connections=2, lease_seconds=1.0) as world, open_ledger(world.settings) as ledger:
        scan = asyncio.create_task(world.scan())
        await world.until_done(2)
        probe = claim_of(99, session_id=DEAD, org="default", worker="dead", month=MONTH, priority=9, estimate_ms=1)
        async with asyncio.timeout(PATIENCE_S):
            while not isinstance(await ledger.admit(probe), Grant):
                await asyncio.sleep(0.01)
            now_ms = await ledger.now_ms()
            out = Breaker(state=BreakerState.HALF_OPEN, opened_by=OpenedBy.SERVICE, opened_ms=now_ms, until_ms=now_ms, probe=DEAD)
            await write_gate(ledger, "default", "music", breaker=out)
            report = await scan
        assert (report.state, report.counts()["done"]) == ("Completed", OBJECTS)
        assert (await ledger.session(DEAD)).state == SessionState.AT_RISK
