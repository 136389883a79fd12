"""Four processes and one limit: the server never sees a connection too many, and its slots do not idle."""

import asyncio
from dataclasses import dataclass
from datetime import datetime

import pytest

from scan_processes import ScanProcesses
from scanning import BUCKET, scanning

LIMIT = 5
PROCESSES = 4
SPEED = 20.0
"""Times real time at which the server takes audio."""


@dataclass(frozen=True)
class Busy:
    """How busy the slots were from when the limit was first reached until nothing waited any more."""

    wall_s: float
    audio_s: float
    share: float
    refusals: int


def test_the_share_is_of_the_time_in_which_something_waited():
    def line(event, second, session, **facts):
        return {"event": event, "session": session, "at": f"2026-11-21T12:00:{second:02}+00:00", **facts}

    events = [line("connect", 0, 1, live=1), line("connect", 2, 2, live=2), line("done", 4, 1), line("connect", 6, 3, live=2)]
    events += [line("done", second, session) for session, second in ((2, 8), (3, 10))]
    events += [line("close", 11, session, audio_ms=8_000) for session in (1, 2, 3)]
    found = busy(events, 2, 2.0)
    assert (found.wall_s, found.audio_s) == (4.0, 4.0 + 16 / 3)
    assert found.share == found.audio_s / 16


async def test_four_processes_never_have_a_connection_too_many(put, tmp_path):
    await share(put, tmp_path, sessions=10, seconds=4.0, ceiling=LIMIT)


@pytest.mark.torture
async def test_four_processes_with_500_sessions_each_keep_the_slots_busy(put, tmp_path, database, say):
    found = await share(put, tmp_path, sessions=500, seconds=45.0, ceiling=LIMIT, **database)
    say(found)
    assert found.share >= 0.95, found


@pytest.mark.torture
async def test_under_a_higher_ceiling_four_processes_find_the_limit_with_few_refusals(put, tmp_path, database, say):
    say(await share(put, tmp_path, sessions=100, seconds=20.0, ceiling=8, refusals=40, **database))


async def share(put, tmp_path, *, sessions, seconds, ceiling, refusals=0, **settings):
    """So many sessions of each process; the server's journal says how it went."""
    for process in range(PROCESSES):
        for number in range(sessions):
            put(f"{process}/{number:04}.ulaw", seconds)
    async with scanning(tmp_path, speed=SPEED, connections=ceiling, **settings) as world, ScanProcesses.ready(tmp_path) as scans:
        world.velma.organisation.max_connections = LIMIT
        running = [await scans.scan(f"s3://{BUCKET}/{process}/", world.said) for process in range(PROCESSES)]
        ends = await asyncio.gather(*(process.ended() for process in running))
        assert [end["exit_code"] for end in ends] == [0] * PROCESSES, ends
        assert [end["done"] for end in ends] == [sessions] * PROCESSES
        assert max(line["connections"] for line in world.seen.events("peak")) <= LIMIT
        assert len(world.seen.events("refused")) <= refusals
        assert len(world.seen.events("done")) == PROCESSES * sessions
        return busy(world.seen.events(), LIMIT, SPEED)


def busy(events, limit, speed):
    """Audio in that time, where each session's comes in evenly between its connect and its done, as a share of what the limit takes."""

    def at(line):
        return datetime.fromisoformat(line["at"]).timestamp()

    connects = {line["session"]: line for line in events if line["event"] == "connect"}
    done = {line["session"]: at(line) for line in events if line["event"] == "done"}
    audio_s = {line["session"]: line["audio_ms"] / 1000 for line in events if line["event"] == "close"}
    begin = min(at(line) for line in connects.values() if line["live"] >= limit)
    end = max(map(at, connects.values()))
    total = 0.0
    for session, line in connects.items():
        inside = min(end, done[session]) - max(begin, at(line))
        total += audio_s[session] * max(0.0, inside) / (done[session] - at(line))
    refusals = sum(line["event"] == "refused" for line in events)
    return Busy(end - begin, total, total / (limit * speed * (end - begin)), refusals)
