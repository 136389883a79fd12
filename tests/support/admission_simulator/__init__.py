"""A simulator of admission: seeded worlds of processes, mishaps and a service around the rules, over any ledger.

`simulate` lives a plan through on the model; a real ledger needs an adapter of SimulatedLedger with the world's clock.
`python -m admission_simulator SEED ...`, with tests/support on the path, tells the story of seeds.
"""

import random
from collections.abc import Callable

from admission_simulator.clock import Clock
from admission_simulator.ledger import ModelLedger, SimulatedLedger
from admission_simulator.plan import Plan
from admission_simulator.world import World, drive

STORY_LINES = 25


def simulate(plan: Plan, ledger_at: Callable[[Clock], SimulatedLedger] = ModelLedger) -> World:
    """Live a plan through on a model. An AssertionError names the seed and tells how the story ended."""
    clock = Clock(random.Random(plan.seed), plan.started)
    world = World(plan, clock, ledger_at(clock))
    try:
        drive(world.live_on())
    except AssertionError as broken:
        story = "\n".join(world.story[-STORY_LINES:])
        raise AssertionError(f"seed {plan.seed}, {clock.ms / 1000} s: {broken}\n{story}") from broken
    return world
