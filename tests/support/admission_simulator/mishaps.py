"""What can go wrong: at the service, with keys and credits, on the network, to processes and to clocks. A schedule names them."""

from typing import TYPE_CHECKING, Any

from admission_simulator.ledger import LEASE_MS
from moderation.admission import Denial, SessionKind

if TYPE_CHECKING:
    from admission_simulator.objects import Process
    from admission_simulator.world import World

SILENCE_MS = LEASE_MS // 2
"""A process without a successful renewal for so long aborts its sessions."""
Processes = tuple[int, int]
"""Which process, and for how many milliseconds."""


async def limit(world: "World", how: tuple[str, int, bool]) -> None:
    """Another limit of an endpoint; where it is `hard`, what is live beyond it is ended."""
    endpoint, most, hard = how
    world.service.limits[endpoint] = most
    if hard:
        here = [session_id for session_id, seat in world.service.seats.items() if seat.endpoint == endpoint]
        world.attempts.end_at_the_service("full", here[most:])


async def others(world: "World", how: tuple[str, int]) -> None:
    """So many of an endpoint's places are somebody else's."""
    endpoint, live = how
    world.service.others[endpoint] = live


async def outage(world: "World", how: tuple[str | None, bool]) -> None:
    """The service refuses everybody with this, and perhaps ends what is live; None ends it."""
    what, kills = how
    world.service.outage = what
    if what is not None and kills:
        world.attempts.end_at_the_service("drop" if what == "unreachable" else "service")


async def revoke(world: "World", kills: bool) -> None:  # noqa: FBT001 - schedules have one argument
    """The key is good no more; perhaps what is live ends with it."""
    world.service.keys.clear()
    if kills:
        world.attempts.end_at_the_service("key")


async def restore(world: "World", _how: None = None) -> None:
    """The key is good again."""
    world.service.keys.add(world.key)


async def rotate(world: "World", _how: None = None) -> None:
    """Another key, which the processes have from now on."""
    world.key += "'"
    world.service.keys = {world.key}


async def credit(world: "World", more_ms: int | None) -> None:
    """So much audio is still paid for; None is no end."""
    service = world.service
    service.count()
    service.credits_ms = None if more_ms is None else int(service.used_ms) + more_ms
    world.attempts.foresee_exhaustion()


async def hours(world: "World", more_ms: int | None) -> None:
    """So much audio is left of the month's hours; None is no end."""
    service = world.service
    service.count()
    service.hours_ms = None if more_ms is None else int(service.used_ms) + more_ms
    world.attempts.foresee_exhaustion()


async def drops(world: "World", rate: float) -> None:
    """This share of the sessions breaks without a word."""
    world.service.drop_rate = rate


async def step_wall(world: "World", step_ms: int) -> None:
    """Somebody sets the wall clock."""
    world.clock.step_ms += step_ms


async def pause(world: "World", paused: bool) -> None:  # noqa: FBT001 - schedules have one argument
    """Somebody pauses the organisation, or resumes it."""
    await world.ledger.set_paused(paused=paused)


async def overlap(world: "World", _how: None = None) -> None:
    """Another run over the same catalogue asks for objects that are live or paid for."""
    taken = [item for item in world.objects if item.state in {"live", "done"}]
    for item in world.random.sample(taken, min(5, len(taken))):
        answer = await world.ask(item, world.processes[0], SessionKind.OBJECT)
        assert answer in {Denial.CLAIMED, Denial.DONE}, f"{item.name}, which is {item.state}, is to be streamed again: {answer}"
        item.claim = None


async def cancel(world: "World", _how: None = None) -> None:
    """One session is given up on this side, whichever."""
    running = [session for session in world.live.values() if not session.over and world.takes_part(session.process)]
    if running:
        session = world.random.choice(running)
        world.attempts.abort(session)
        await world.attempts.own_up(session.process)


async def doom(world: "World", times: int) -> None:
    """The next sessions are given up, or die with their processes, before their first result: probes and raises, too."""
    world.doomed = times


async def crash(world: "World", how: Processes) -> None:
    """A process dies with its sessions and is started anew."""
    number, for_ms = how
    process = world.processes[number]
    if not process.dead:
        process.dead = True
        process.blocked_ms = 0
        process.aborted.clear()
        for session in list(process.sessions.values()):
            world.attempts.close(session)
        world.after(for_ms, _restart, process)


async def _restart(process: "Process") -> bool:
    process.restart()
    return True


async def sleep(world: "World", how: Processes) -> None:
    """A process stands still: it hears and says nothing, and its connections stay."""
    process = _blocked(world, how)
    if process is not None:
        world.at(process.blocked_ms, world.attempts.awake, process)


async def cut(world: "World", how: Processes) -> None:
    """A process does not reach the ledger; its sessions go on until half a lease has passed."""
    process = _blocked(world, how)
    if process is not None:
        world.at(process.renewed_ms + SILENCE_MS, world.attempts.cut_off, (process, process.life))
        world.at(process.blocked_ms, world.attempts.awake, process)


def _blocked(world: "World", how: Processes) -> "Process | None":
    number, for_ms = how
    process = world.processes[number]
    if process.dead or not world.takes_part(process):
        return None
    process.blocked_ms = world.clock.ms + for_ms
    return process


async def heal(world: "World", _how: Any = None) -> None:
    """Everything is as it was planned, with enough credit for all."""
    service = world.service
    service.keys = {world.key}
    service.limits.update(world.plan.limits)
    service.others.update(dict.fromkeys(service.others, 0))
    service.outage = service.credits_ms = service.hours_ms = None
    service.drop_rate = service.flaky_rate = 0.0
    await pause(world, paused=False)
    await world.set_caps(None)
