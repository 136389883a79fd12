"""What bounds the audio that a run streams again: its budget of retries, and the tries of an object that keeps losing its lease."""

import asyncio
from dataclasses import replace

import pytest
from websockets.asyncio.server import ServerConnection

from connectors.ledger import Ledger
from estimates import estimate_all
from moderation.errors import UnreachableError
from moderation.outcomes import ExitCode
from moderation.retry import RetryRules
from velma_services import done, service

pytestmark = pytest.mark.torture

AT_ONCE = RetryRules(step_s=0)
PATIENCE_SECONDS = 60


async def test_beyond_an_hour_of_audio_retries_are_left_to_the_next_run(world, make_wav, monkeypatch):
    for name in ("a", "b"):
        world.put(f"{name}.wav", make_wav(5.0))
    estimate_all(monkeypatch, 40 * 60_000)
    sessions = 0

    async def fails_every_object_once(connection: ServerConnection) -> None:
        nonlocal sessions
        sessions += 1
        fails = sessions in {1, 3}
        while await connection.recv():
            if fails:
                await connection.close(1011)
                return
        await connection.send(done())

    async with service(fails_every_object_once) as host:
        report = await world.scan(velma_url=host, endpoints=["music"], connections=1, retries=AT_ONCE)
    assert (report.state, report.exit_code) == ("Incomplete", ExitCode.EXHAUSTED)
    counts = report.counts()["endpoints"]["music"]
    assert (counts["done"], counts["pending"], counts["sessions"]) == (1, 1, 3)
    assert counts["reasons"] == {"deferred_retry": 1}


@pytest.mark.fault(62)
@pytest.mark.parametrize(("minutes", "sessions", "reason"), [(1, 3, "deferred_service"), (40, 2, "deferred_retry")])
async def test_an_object_that_keeps_losing_its_lease_is_left_to_the_next_run(world, make_wav, monkeypatch, minutes, sessions, reason):
    async def late(*_: object) -> frozenset[str]:
        raise UnreachableError("the ledger does not answer")

    monkeypatch.setattr(Ledger, "renew", late)
    estimate_all(monkeypatch, minutes * 60_000)
    world.put("one.wav", make_wav(5.0))

    async def never_ends(connection: ServerConnection) -> None:
        async for _ in connection:
            pass

    async with service(never_ends) as host, asyncio.timeout(PATIENCE_SECONDS):
        rules = replace(AT_ONCE, patience=3)
        report = await world.scan(velma_url=host, endpoints=["music"], connections=1, retries=rules, lease_seconds=1.0)
    assert (report.state, report.exit_code) == ("Incomplete", ExitCode.EXHAUSTED)
    counts = report.counts()["endpoints"]["music"]
    assert (counts["sessions"], counts["reasons"]) == (sessions, {reason: 1})
