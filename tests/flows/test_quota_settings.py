"""What the settings change about a run that the service refuses: texts of one's own, and waiting instead of ending."""

import asyncio
import json
import logging

import pytest

from flows.setting_types import OnQuota, RefusalText
from moderation.breaker import BreakerRules
from moderation.outcomes import ExitCode
from moderation.refusals import Meaning

AT_ONCE = BreakerRules(pause_factor=0)
SOON = BreakerRules(pause_factor=0.001)
PATIENCE_SECONDS = 120


def refusals(world):
    return [line for line in map(json.loads, world.journal.read_text().splitlines()) if line["event"] == "refused"]


async def test_a_text_of_ones_own_decides_how_a_run_ends(world, make_wav):
    world.put("one.wav", make_wav(1.0))
    world.velma.organisation.api_keys = frozenset({"another"})
    own = [RefusalText(pattern="^this request is NOT permitted", means=Meaning.QUOTA)]
    report = await world.scan(endpoints=["music"], breaker=AT_ONCE, refusal_texts=own)
    assert (report.state, report.exit_code) == ("CreditsExhausted", ExitCode.EXHAUSTED)


@pytest.mark.torture
async def test_a_suspended_run_goes_on_when_there_are_credits_again(world, make_wav, caplog):
    for number in range(3):
        world.put(f"{number}.wav", make_wav(2.0, 300.0 + number))
    world.velma.organisation.credit_hours = 0.0
    caplog.set_level(logging.WARNING)
    waiting = asyncio.create_task(world.scan(endpoints=["music"], breaker=SOON, on_quota=OnQuota.SUSPEND))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(refusals(world)) < 3:  # the second one ends a run that is not to wait
            assert not waiting.done()
            await asyncio.sleep(0.02)
        world.velma.organisation.credit_hours = None
        report = await waiting
    assert (report.state, report.exit_code) == ("Completed", ExitCode.OK)
    assert report.counts()["done"] == 3
    assert len([record for record in caplog.records if "CreditsExhausted" in record.getMessage()]) == 1, "people know why it waits"
