"""A simulator of admission: seeded worlds of processes, mishaps and a service around the rules, over any ledger.

`simulate` lives a plan through on the model, `simulate_on` on the ledger itself, with the adapters of real_ledger.
`python -m admission_simulator SEED ...`, with tests/support on the path, tells the story of seeds.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager

from admission_simulator.clock import Clock
from admission_simulator.ledger import ModelLedger, SimulatedLedger
from admission_simulator.plan import Plan
from admission_simulator.world import World, drive

STORY_LINES = 25


def simulate(plan: Plan, ledger_at: Callable[[Clock], SimulatedLedger] = ModelLedger) -> World:
    """Live a plan through on a model. An AssertionError names the seed and tells how the story ended."""
    clock = Clock(random.Random(plan.seed), plan.started)
    world = World(plan, clock, ledger_at(clock))
    with _named(world):
        drive(world.live_on())
    return world


async def simulate_on(plan: Plan, opened: Callable[[Clock], AbstractAsyncContextManager[SimulatedLedger]]) -> World:
    """The same on a ledger that suspends."""
    clock = Clock(random.Random(plan.seed), plan.started)
    async with opened(clock) as ledger:
        world = World(plan, clock, ledger)
        with _named(world):
            await world.live_on()
    return world


@contextmanager
def _named(world: World) -> Iterator[None]:
    try:
        yield
    except AssertionError as broken:
        story = "\n".join(world.story[-STORY_LINES:])
        raise AssertionError(f"seed {world.plan.seed}, {world.clock.ms / 1000} s: {broken}\n{story}") from broken
