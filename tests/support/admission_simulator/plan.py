"""What one simulation is about: the organisation, its objects and runs, the service, and a schedule of mishaps that ends."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from admission_simulator import mishaps
from admission_simulator.clock import DAY, HOUR, MINUTE, SECOND

MUSIC, AI_MUSIC = "music", "ai_music"


@dataclass(frozen=True, slots=True)
class Change:
    """Something that happens at a time: a function of mishaps and its argument."""

    at_ms: int
    what: Callable[..., None] | Callable[..., Any]
    how: Any = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The figures of a simulation; a schedule may break anything, and heals_ms mends it.

    By run and endpoint there are `objects` new ones, log-normal around median_ms of audio, of which a part is undecodable; a part of all
    sessions ends without a done. speed is milliseconds of audio in a millisecond; a run that left objects pending is followed by another.
    """

    seed: int = 0
    started: datetime = datetime(2026, 11, 2, tzinfo=UTC)
    ceilings: dict[str, int] = field(default_factory=lambda: {MUSIC: 4})
    whole_ceiling: int | None = None
    limits: dict[str, int] = field(default_factory=lambda: {MUSIC: 8})
    service: dict[str, Any] = field(default_factory=dict)
    cap_ms: int | None = None
    processes: int = 3
    places: int = 16
    runs_ms: tuple[int, ...] = (0,)
    again_ms: int | None = 2 * HOUR
    objects: int = 30
    median_ms: int = 20 * MINUTE
    spread: float = 0.8
    speed: float = 1.0
    undecodable: float = 0.0
    incomplete: float = 0.0
    deadly: float = 0.0
    """The chance that a process dies after a result is safe in the spool and before it is booked."""
    schedule: tuple[Change, ...] = ()
    heals_ms: int = 0
    ends_ms: int = 14 * DAY
    """By then everything has ended, or the simulation fails."""


def week(seed: int) -> Plan:
    """Seven runs in a good week, mishaps in the first five, all of it from the seed."""
    draw = random.Random(seed)
    endpoints = [MUSIC, AI_MUSIC] if draw.random() < 0.4 else [MUSIC]
    ceilings = {endpoint: draw.randint(2, 12) for endpoint in endpoints}
    limits = {endpoint: draw.randint(1, 12) for endpoint in endpoints}
    runs = tuple(28 * HOUR * number + draw.randint(0, 4 * HOUR) for number in range(7))
    plan = Plan(
        seed=seed,
        started=datetime(2026, 11, draw.choice([2, 26, 27, 28]), draw.randint(0, 23), tzinfo=UTC),
        ceilings=ceilings,
        whole_ceiling=draw.choice([None, None, max(ceilings.values())]),
        limits=limits,
        cap_ms=draw.choice([None, None, draw.randint(10, 30) * HOUR]),
        processes=draw.randint(1, 4),
        places=draw.randint(3, 12),
        runs_ms=runs,
        objects=draw.randint(8, 20) // len(endpoints),
        median_ms=draw.randint(8, 40) * MINUTE,
        speed=draw.choice([1.0, 1.0, 4.0]),
        undecodable=draw.choice([0.0, 0.03]),
        incomplete=draw.choice([0.0, 0.02]),
        deadly=0.01,
        again_ms=draw.randint(2, 6) * HOUR,
        heals_ms=160 * HOUR,
        service={
            "total": draw.choice([None, None, max(2, *limits.values())]),
            "telling": draw.random() < 0.6,
            "full_as": draw.choice([4029, 4029, 4003, 429]),
            "hidden": draw.choice([0.0, 0.0, 0.46]),
            "early": draw.choice([0.0, 0.3]),
            "longest_first_ms": draw.choice([1, 5, 20]) * SECOND,
            "drop_rate": draw.choice([0.0, 0.02]),
            "flaky_rate": draw.choice([0.0, 0.03]),
        },
    )
    changes: list[Change] = []
    for begins in runs[:5]:
        for _ in range(draw.randint(1, 3)):
            at_ms = begins + draw.choice([0, draw.randint(0, 20 * MINUTE), draw.randint(0, 3 * HOUR)])
            changes += draw.choice(_MISHAPS)(plan, draw, at_ms, draw.choice(endpoints))
    return replace(plan, schedule=tuple(change for change in changes if change.at_ms < plan.heals_ms))


def _limit(plan: Plan, draw: random.Random, at_ms: int, endpoint: str) -> list[Change]:
    return [Change(at_ms, mishaps.limit, (endpoint, draw.randint(1, plan.ceilings[endpoint] + 2), draw.random() < 0.2))]


def _others(plan: Plan, draw: random.Random, at_ms: int, endpoint: str) -> list[Change]:
    until_ms = at_ms + draw.randint(5 * MINUTE, 2 * HOUR)
    return [
        Change(at_ms, mishaps.others, (endpoint, draw.randint(1, plan.limits[endpoint]))),
        Change(until_ms, mishaps.others, (endpoint, 0)),
    ]


def _outage(_plan: Plan, draw: random.Random, at_ms: int, _endpoint: str) -> list[Change]:
    until_ms = at_ms + draw.choice([draw.randint(10 * SECOND, 3 * MINUTE), draw.randint(3 * MINUTE, 40 * MINUTE)])
    what = draw.choice(["service", "503", "unreachable"])
    return [Change(at_ms, mishaps.outage, (what, draw.random() < 0.5)), Change(until_ms, mishaps.outage, (None, False))]


def _key(_plan: Plan, draw: random.Random, at_ms: int, _endpoint: str) -> list[Change]:
    until_ms = at_ms + draw.randint(MINUTE, 20 * HOUR)
    return [Change(at_ms, mishaps.revoke, draw.random() < 0.7), Change(until_ms, draw.choice([mishaps.rotate, mishaps.restore]))]


def _quota(_plan: Plan, draw: random.Random, at_ms: int, _endpoint: str) -> list[Change]:
    until_ms = at_ms + draw.randint(5 * MINUTE, 20 * HOUR)
    what = draw.choice([mishaps.credit, mishaps.hours])
    return [Change(at_ms, what, draw.randint(0, 5 * HOUR)), Change(until_ms, what, None)]


def _crashes(plan: Plan, draw: random.Random, at_ms: int, _endpoint: str) -> list[Change]:
    times = [at_ms + draw.randint(0, HOUR) for _ in range(3)]
    return [Change(time_ms, mishaps.crash, (draw.randrange(plan.processes), draw.randint(SECOND, 3 * MINUTE))) for time_ms in times]


def _silence(plan: Plan, draw: random.Random, at_ms: int, _endpoint: str) -> list[Change]:
    what = draw.choice([mishaps.sleep, mishaps.cut])
    return [Change(at_ms, what, (draw.randrange(plan.processes), draw.choice([10, 25, 45, 90, 300]) * SECOND))]


def _cancels(_plan: Plan, draw: random.Random, at_ms: int, _endpoint: str) -> list[Change]:
    return [Change(at_ms + number * MINUTE, mishaps.cancel) for number in range(draw.randint(1, 4))]


def _overlap(_plan: Plan, draw: random.Random, at_ms: int, _endpoint: str) -> list[Change]:
    return [Change(at_ms + draw.randint(0, 3 * HOUR), mishaps.overlap) for _ in range(3)]


def _doom(_plan: Plan, draw: random.Random, at_ms: int, _endpoint: str) -> list[Change]:
    return [Change(at_ms, mishaps.doom, draw.randint(1, 5))]


def _drops(_plan: Plan, draw: random.Random, at_ms: int, _endpoint: str) -> list[Change]:
    return [Change(at_ms, mishaps.drops, 0.5), Change(at_ms + draw.randint(MINUTE, HOUR), mishaps.drops, 0.0)]


def _wall(_plan: Plan, draw: random.Random, at_ms: int, _endpoint: str) -> list[Change]:
    return [Change(at_ms, mishaps.step_wall, draw.choice([-1, 1]) * draw.choice([HOUR, 26 * HOUR, 70 * SECOND]))]


def _pause(_plan: Plan, draw: random.Random, at_ms: int, _endpoint: str) -> list[Change]:
    return [Change(at_ms, mishaps.pause, True), Change(at_ms + draw.randint(MINUTE, 3 * HOUR), mishaps.pause, False)]


_MISHAPS = (
    _limit,
    _limit,
    _others,
    _outage,
    _key,
    _quota,
    _crashes,
    _silence,
    _silence,
    _cancels,
    _doom,
    _doom,
    _overlap,
    _drops,
    _wall,
    _pause,
)
