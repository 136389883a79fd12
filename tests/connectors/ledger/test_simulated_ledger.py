"""Admission in simulation on the ledger itself: weeks of mishaps on both databases, answer by answer beside the model."""

import tempfile
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from admission_simulator import mishaps, simulate_on
from admission_simulator.clock import DAY, HOUR, MINUTE
from admission_simulator.plan import MUSIC, Change, Plan, week
from admission_simulator.real_ledger import Compared, FixedModel, compared, real
from moderation.admission import EVERY_ENDPOINT
from moderation.outcomes import StopCause

MEMORY = Path("/dev/shm")
"""Where a commit waits for no disk: a simulated week has thousands."""
EVE = Plan(started=datetime(2026, 11, 30, 23, 45, tzinfo=UTC), ceilings={MUSIC: 4}, limits={MUSIC: 3}, objects=14, speed=4.0, again_ms=None)
"""A run over the end of a month."""


@pytest.fixture
def path():
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield Path(folder) / "ledger.sqlite"


def short(seed):
    """A week with fewer objects, of which each takes less time: a real ledger takes some 10 s of CPU for one as the model has it."""
    return replace(week(seed), speed=8.0, objects=2)


async def lived(plan, place, opened=compared):
    return await simulate_on(plan, partial(opened, place, plan.seed))


@pytest.mark.parametrize("seed", [6, 12])
async def test_in_a_short_week_of_mishaps_no_invariant_breaks_and_every_answer_is_the_models(place, seed):
    assert (await lived(short(seed), place)).clock.ms >= 7 * DAY


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(20))
async def test_in_a_week_of_mishaps_no_invariant_breaks_and_every_answer_is_the_models(place, seed):
    assert (await lived(week(seed), place)).clock.ms >= 7 * DAY


class Sloppy(FixedModel):
    """Books failed sessions as if nothing had been sent."""

    def _risk(self, row, _sent_ms):
        super()._risk(row, 0)


@asynccontextmanager
async def beside_a_sloppy_one(place, seed, clock):
    async with real(place, seed, clock) as ledger:
        yield Compared(Sloppy(clock, seed=seed), ledger)


async def test_another_answer_than_the_models_is_told_with_its_seed(path):
    with pytest.raises(AssertionError, match=r"^seed 6, [\d.]+ s: usage.*: the model says"):
        await lived(short(6), path, beside_a_sloppy_one)


# acceptance 6: months and clocks


@pytest.mark.fault(54, 55)
@pytest.mark.parametrize("steps", [(-26 * HOUR, 26 * HOUR)], ids=str)
async def test_over_a_month_and_steps_of_the_wall_clock_every_millisecond_is_booked_and_no_session_dropped(place, steps):
    await over_a_month(place, EVE, steps)


@pytest.mark.fault(54, 55)
@pytest.mark.torture
@pytest.mark.parametrize("steps", [(), (-HOUR,), (HOUR,), (2 * HOUR, -2 * HOUR, 3 * HOUR)], ids=str)
async def test_the_same_with_more_objects_and_other_steps(place, steps):
    await over_a_month(place, replace(EVE, objects=300), steps)


async def over_a_month(place, plan, steps):
    schedule = tuple(Change((number + 1) * 5 * MINUTE, mishaps.step_wall, step_ms) for number, step_ms in enumerate(steps))
    world = await lived(replace(plan, schedule=schedule, heals_ms=2 * DAY), place)
    assert {failed.why for failed in world.watch.failures} <= {"full"}
    assert len([session for session in world.watch.starts if not session.spooled]) == len(world.watch.failures)
    assert {item.state for item in world.objects} == {"done"}
    booked = {month: books.settled_ms for (endpoint, month), books in world.watch.books.items() if endpoint == EVERY_ENDPOINT}
    assert all(booked[month] for month in ("2026-11", "2026-12"))
    assert sum(booked.values()) == sum(item.audio_ms for item in world.objects)


async def test_a_cap_that_is_reached_is_never_exceeded_by_a_reserved_millisecond(place):
    """The watch compares books and cap after every step."""
    world = await lived(replace(EVE, started=datetime(2026, 11, 2, tzinfo=UTC), cap_ms=2 * HOUR), place)
    assert [run.stop for run in world.runs] == [StopCause.CREDITS_EXHAUSTED]
    (books,) = [books for (endpoint, _), books in world.watch.books.items() if endpoint == EVERY_ENDPOINT]
    assert HOUR < books.settled_ms + books.at_risk_ms <= 2 * HOUR
