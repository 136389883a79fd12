"""When a session's first result is told: at once where others wait for it, else late, or with the session's end."""

import asyncio
import logging

import pytest

from moderation.errors import UnreachableError
from tasks.first_result import HELD_BACK_S, FirstResult


class Telling:
    """A ledger that notes what it is told, and a clock that stands still until it is let go."""

    def __init__(self, error=None):
        self.error = error
        self.begun, self.noted, self.waits = 0, 0, []
        self.time, self.ledger = asyncio.Event(), asyncio.Event()
        self.ledger.set()
        self.held_back = {"another"}
        self.first = FirstResult("session-1", self.note, self.sleep, self.held_back)

    async def note(self):
        self.begun += 1
        await self.ledger.wait()
        self.noted += 1
        if self.error:
            raise self.error

    async def sleep(self, seconds):
        self.waits.append(seconds)
        await self.time.wait()


async def turns():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_never_came_is_not_told():
    telling = Telling()
    await telling.first.told()
    await telling.first.settled()
    assert (telling.noted, telling.waits) == (0, [])


@pytest.mark.parametrize(("awaited", "told_at_once", "waits"), [(True, 1, []), (False, 0, [HELD_BACK_S])])
async def test_it_is_told_once_and_at_once_where_others_wait_for_it(awaited, told_at_once, waits):
    telling = Telling()
    telling.first.came(awaited=awaited)
    await turns()
    assert (telling.noted, telling.waits) == (told_at_once, waits)
    assert telling.held_back == ({"another"} if awaited else {"another", "session-1"})
    telling.time.set()
    await turns()
    await telling.first.told()
    await telling.first.settled()
    assert (telling.noted, telling.held_back) == (1, {"another"})


async def test_a_session_that_ends_before_that_leaves_it_to_its_booking():
    telling = Telling()
    telling.first.came(awaited=False)
    await turns()
    await telling.first.settled()
    telling.time.set()
    await turns()
    assert (telling.noted, telling.held_back) == (0, {"another"})
    await telling.first.told()
    assert telling.noted == 0, "what is settled is over"


@pytest.mark.parametrize("turned", [False, True])
async def test_one_that_fails_tells_it_first(turned):
    telling = Telling()
    telling.first.came(awaited=False)
    if turned:
        await turns()
    await telling.first.told()
    assert telling.noted == 1
    telling.time.set()
    await turns()
    assert telling.noted == 1


async def test_who_ends_waits_for_what_is_being_told():
    telling = Telling()
    telling.ledger.clear()
    telling.first.came(awaited=True)
    await turns()
    ended = asyncio.create_task(telling.first.settled())
    await turns()
    assert (telling.begun, telling.noted, ended.done()) == (1, 0, False)
    telling.ledger.set()
    await ended
    assert telling.noted == 1


async def test_a_ledger_that_cannot_note_it_breaks_nothing(caplog):
    telling = Telling(UnreachableError("the ledger is away"))
    telling.first.came(awaited=True)
    with caplog.at_level(logging.WARNING):
        await telling.first.settled()
    assert "session session-1: its first result is not noted yet: the ledger is away" in caplog.text
