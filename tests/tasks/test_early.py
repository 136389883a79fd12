"""What a run publishes while it streams: at so many bytes, at an age, and whatever is wrong with the store meanwhile."""

import asyncio
from dataclasses import replace

import pytest

from bare_globs import seen
from connectors.lake.store import open_store
from ended_sessions import RUN, a_session
from ledger_facts import Clock
from moderation.errors import UnreachableError
from moderation.packaging import PackageRules
from publishing import BEGUN_MS, Place, admit, open_gates
from tasks.early import LOOK_S, EarlyPackages
from ticking import Ticking

HOUR_MS = 3_600_000
MANY = 20


class Streamed:
    """A run that streams, whose sessions end when the test says."""

    def __init__(self, place, publisher):
        self.place, self.publisher, self.clock, self.number = place, publisher, Clock(0), 0
        self.ticking = Ticking(self.clock, 1)

    async def ends(self, *, booked=True):
        """One more session: it is spooled, then booked."""
        self.number += 1
        session = a_session(self.number)
        await admit(self.publisher.ledger, session)
        await self.publisher.spool.put_async(session)
        if booked:
            await self.books(session)
        return session

    async def books(self, session):
        await self.publisher.ledger.finish(session.session_id, session.booked_ms)

    def visible(self):
        return len(seen(self.place.store, self.place.folder / "mirror"))

    async def watched(self, rules):
        early = EarlyPackages(self.publisher, RUN, rules, self.clock, self.ticking.sleep)
        task = asyncio.create_task(early.keep())
        await self.ticking.settle()
        return task


@pytest.fixture
async def streamed(tmp_path):
    place = Place(tmp_path, open_store(str(tmp_path / "results")), shared=False)
    async with place.publisher(clock_ms=BEGUN_MS) as publisher:
        await open_gates(publisher.ledger)
        yield Streamed(place, publisher)


async def test_what_has_ended_is_published_once_enough_waits(streamed):
    session = await streamed.ends()
    enough = streamed.publisher.spool.put_bytes * 3 // 2
    task = await streamed.watched(PackageRules(max_bytes=enough))
    await streamed.ends()
    await streamed.ticking.advance(100 * round(LOOK_S * 1000))
    assert streamed.visible() == 0, f"{session.session_id} was spooled before"
    await streamed.ends()
    await streamed.ticking.advance(round(LOOK_S * 1000))
    assert streamed.visible() == 3
    assert streamed.publisher.spool.ids() == []
    task.cancel()


async def test_what_has_waited_for_so_long_is_published(streamed):
    task = await streamed.watched(PackageRules(max_age_ms=HOUR_MS))
    await streamed.ticking.advance(2 * HOUR_MS)  # nothing waits yet
    await streamed.ends()
    await streamed.ticking.advance(HOUR_MS - round(LOOK_S * 1000))
    assert streamed.visible() == 0
    await streamed.ticking.advance(2 * round(LOOK_S * 1000))
    assert streamed.visible() == 1
    await streamed.ends()
    await streamed.ticking.advance(HOUR_MS // 2)
    assert streamed.visible() == 1
    task.cancel()


async def test_a_session_that_is_spooled_and_not_booked_yet_goes_with_the_next_look(streamed):
    task = await streamed.watched(PackageRules(max_bytes=1))
    session = await streamed.ends(booked=False)
    await streamed.ticking.advance(round(LOOK_S * 1000))
    assert streamed.visible() == 0
    await streamed.books(session)
    await streamed.ticking.advance(round(LOOK_S * 1000))
    assert streamed.visible() == 1
    task.cancel()


class Away:
    """A store that takes nothing."""

    def __init__(self, store):
        self._store = store

    def __getattr__(self, name):
        return getattr(self._store, name)

    def put(self, name, data):
        raise UnreachableError(f"{name} of {len(data)} bytes")


async def test_a_store_that_is_away_ends_nothing_and_what_waits_is_published_later(streamed, caplog):
    publisher = streamed.publisher
    streamed.publisher = replace(publisher, results=Away(publisher.results))
    task = await streamed.watched(PackageRules(max_bytes=1))
    await streamed.ends()
    await streamed.ticking.advance(2 * round(LOOK_S * 1000))
    assert "published later" in caplog.text
    assert not task.done()
    assert streamed.visible() == 0
    assert await publisher.recover() == 1
    assert streamed.visible() == 1
    task.cancel()


class WhileItStreams:
    """A store in which each package takes so long that the run ends another session."""

    def __init__(self, store, streamed):
        self._store, self._streamed, self._loop = store, streamed, asyncio.get_running_loop()
        self.packages = 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    def put(self, name, data):
        if name.startswith("attempts/"):
            self.packages += 1
            if self.packages < MANY:
                asyncio.run_coroutine_threadsafe(self._streamed.ends(), self._loop).result()
        self._store.put(name, data)


async def test_what_ends_while_a_package_is_published_waits_for_the_next_one(streamed):
    store = WhileItStreams(streamed.publisher.results, streamed)
    streamed.publisher = replace(streamed.publisher, results=store)
    task = await streamed.watched(PackageRules(max_bytes=1))
    for _ in range(2):
        await streamed.ends()
    await streamed.ticking.advance(round(LOOK_S * 1000))
    assert (store.packages, streamed.visible(), len(streamed.publisher.spool.ids())) == (1, 2, 1)
    task.cancel()
