"""One state of affairs as often as it is needed, and what must hold of it once it is published."""

import asyncio
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import select

from bare_globs import seen
from connectors.lake.reconciliation import Reconciled
from connectors.lake.store import open_store
from connectors.ledger.schema import packages, sessions
from crashing import Calls
from moderation.admission import SessionState
from publishing import EVERY_DONE, LAKE, NOW, Place, leave_all
from tasks.query import open_results
from tasks.reconcile import reconciled
from tasks.verify import verify

BUCKET = "published"


class Copies:
    """What `leave_all` leaves, again and again: in a bucket where there is a client, else in folders below `results`."""

    def __init__(self, folder: Path, *, shared: bool, s3: Any = None, results: Path | None = None) -> None:
        self.folder, self.shared, self.s3 = folder, shared, s3
        self.results = results or folder
        self.number = 0
        self.first = self._place("first")
        self.first.folder.mkdir()
        asyncio.run(leave_all(self.first))
        self.left = {name: self.first.store.get(name) or b"" for name in self.first.store.list("")}

    def _place(self, name: str) -> Place:
        folder = self.folder / name
        results = str(self.results / name / "results") if self.s3 is None else f"s3://{BUCKET}/{self.folder.name}/{name}"
        return Place(folder, open_store(results, self.s3), self.shared)

    def another(self) -> Place:
        """One more."""
        self.number += 1
        place = self._place(str(self.number))
        shutil.copytree(self.first.folder, place.folder)
        for name, data in self.left.items():
            place.store.put(name, data)
        return place

    def forget(self, place: Place) -> None:
        """Make room."""
        shutil.rmtree(place.folder)
        if self.s3 is None:
            shutil.rmtree(self.results / place.folder.name, ignore_errors=True)


def content(place: Place) -> dict[str, bytes]:
    """Every file of a lake."""
    return {name: place.store.get(name) or b"" for name in place.store.list("")}


async def ledger_of(place: Place) -> tuple[dict[str, str], int]:
    """The state of each session, and how many packages there are; every one is confirmed."""
    async with place.publisher() as publisher:

        async def read(connection):
            states = (await connection.execute(select(sessions.c.session_id, sessions.c.state))).all()
            return states, (await connection.scalars(select(packages.c.published_at))).all()

        states, times = await publisher.ledger._database.transact(read)
    assert None not in times
    return dict(map(tuple, states)), len(times)


async def unexplained(place: Place, s3: Any) -> list[Reconciled]:
    """What a reconciliation of catalogue, ledger and lake does not find explained."""
    opened = partial(open_results, place.store.url, s3)
    async with place.publisher() as publisher, reconciled(publisher.ledger, LAKE, opened, NOW, (), lambda _: None) as found:
        assert sum(objects for _, _, _, objects in found.counts())
        return list(found.rows(unexplained=True))


class Sound:
    """What one undisturbed publisher leaves, and how many calls it makes."""

    def __init__(self, copies: Copies) -> None:
        self.s3, place = copies.s3, copies.another()
        calls = Calls()
        place.recover(calls)
        self.calls, self.content, self.ledger = len(calls.made), content(place), asyncio.run(ledger_of(place))
        assert verify(place.store, NOW, lambda *_: None).findings == []
        assert set(seen(place.store, place.folder / "mirror")) == EVERY_DONE
        states, _ = self.ledger
        assert {session for session, state in states.items() if state == SessionState.PUBLISHED} == EVERY_DONE

    def check(self, place: Place) -> None:
        """Nothing is lost, twice, or left over."""
        assert content(place) == self.content
        assert asyncio.run(ledger_of(place)) == self.ledger
        assert place.spool(place.store).ids() == []
        assert asyncio.run(unexplained(place, self.s3)) == []


def recover_after(place: Place) -> None:
    """The next run, under the eyes of the same reader."""
    place.recover(Calls(watch=lambda: seen(place.store, place.folder / "mirror")))
