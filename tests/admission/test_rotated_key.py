"""A key that is changed while a scan runs: read again where it is kept, tried by a probe, and gone on with."""

import asyncio

import pytest

from moderation.breaker import BreakerRules
from moderation.limits import LimitRules
from moderation.outcomes import ExitCode
from scanning import KEY, scanning

pytestmark = pytest.mark.torture

SOON = BreakerRules(pause_factor=0.01)
NEW = "canary-after-4c5d6e"


@pytest.mark.fault(75)
async def test_a_key_rotated_in_mid_run_is_read_again_and_every_object_is_done(put, tmp_path):
    put("first.ulaw", 1.0)
    for number in range(8):
        put(f"{number}.ulaw", 30.0)
    secret = tmp_path / "key"
    secret.write_text(KEY)
    given = {"api_key": None, "api_key_file": secret, "connections": 3, "breaker": SOON, "limit": LimitRules(start=3)}
    async with scanning(tmp_path, speed=10, **given) as world:
        scan = asyncio.create_task(world.scan())
        await world.seen.until(lambda seen: len(seen.events("first_audio")) == 4)
        world.velma.organisation.add_key(NEW)
        secret.write_text(f"{NEW}\n")
        world.velma.organisation.revoke_key(KEY)
        report = await scan
        assert report.exit_code is ExitCode.OK, report.message
        assert report.counts()["done"] == 9
        refused = world.seen.events("refused")
        assert len(refused) == 3, "the sessions that were live, and no more"


async def test_a_key_that_is_refused_though_nobody_changed_it_ends_the_run(put, tmp_path):
    put("0.ulaw", 2.0)
    secret = tmp_path / "key"
    secret.write_text("canary-of-somebody-else")
    async with scanning(tmp_path, api_key=None, api_key_file=secret, breaker=SOON) as world:
        assert (await world.scan()).exit_code is ExitCode.ACCESS_DENIED
