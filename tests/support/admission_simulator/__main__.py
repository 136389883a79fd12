"""Tells the story of seeds: `PYTHONPATH=tests/support python -m admission_simulator 17 18`."""

import sys
from collections import Counter

from admission_simulator import World, simulate
from admission_simulator.clock import DAY
from admission_simulator.plan import week


def told(world: World) -> list[str]:
    """The story of a simulation and its figures."""
    watch = world.watch
    return [
        *world.story,
        f"seed {world.plan.seed}: {world.clock.ms / DAY:.1f} days, {watch.steps} steps, {len(world.objects)} objects",
        f"runs by their stop: {Counter(str(run.stop) for run in world.runs)}",
        f"{len(watch.starts)} sessions, refused: {Counter(refused.why for refused in watch.refusals)}",
        *(f"slots of {endpoint}: {slots}" for endpoint, slots in watch.slots.items()),
    ]


for seed in sys.argv[1:]:
    sys.stdout.write("\n".join([*told(simulate(week(int(seed)))), ""]))
