"""A service that takes no messages as large as ours (1009): half the size once more, for the rest of the run, and then no further."""

from collections.abc import Callable

import pytest
from websockets.asyncio.server import ServerConnection

from moderation.outcomes import ExitCode
from velma_services import done, service


def taking(limit: int, seen: list[int]) -> Callable[[ServerConnection], object]:
    """A service that takes messages up to this size; the largest of each session is noted."""

    async def handler(connection: ServerConnection) -> None:
        largest = 0
        seen.append(largest)
        place = len(seen) - 1
        while message := await connection.recv():
            seen[place] = max(seen[place], len(message))
            if len(message) > limit:
                await connection.close(1009, "too big")
                return
        await connection.send(done())

    return handler


@pytest.mark.fault(27)
async def test_messages_that_are_too_big_are_halved_for_the_rest_of_the_run(world, make_wav):
    for name in ("a", "b", "c"):
        world.put(f"{name}.wav", make_wav(5.0))
    seen: list[int] = []
    async with service(taking(40_000, seen)) as host:
        report = await world.scan(velma_url=host, endpoints=["music"], connections=1)
    assert (report.counts()["done"], report.counts()["sessions"], report.exit_code) == (3, 4, ExitCode.OK)
    assert seen == [65_536, 32_768, 32_768, 32_768]
    assert world.ask("SELECT attempt, outcome, close_code, cause FROM attempts WHERE outcome = 'failed'") == [
        (1, "failed", 1009, "message_too_big")
    ]


@pytest.mark.fault(27)
async def test_messages_that_are_still_too_big_stop_the_run(world, make_wav):
    for name in ("a", "b", "c"):
        world.put(f"{name}.wav", make_wav(5.0))
    seen: list[int] = []
    async with service(taking(10_000, seen)) as host:
        report = await world.scan(velma_url=host, endpoints=["music"], connections=1)
    assert (report.counts()["done"], report.counts()["pending"], report.exit_code) == (0, 3, ExitCode.CONFIGURATION)
    assert seen == [65_536, 32_768]
