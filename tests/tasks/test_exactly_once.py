"""Publishing exactly once: whatever dies, and whoever comes in between, at any call of the store, the spool or the ledger."""

import asyncio
import shutil

import pytest
from sqlalchemy import select

from bare_globs import seen
from connectors.lake.store import open_store
from connectors.ledger.schema import packages, sessions
from connectors.local_s3 import LocalS3
from connectors.s3 import S3Settings, s3_client
from crashing import Calls, Crash
from moderation.admission import SessionState
from publishing import EVERY_DONE, NOW, Place, leave_all
from tasks.verify import verify

BUCKET = "published"
PLACES = {"folder": ("folder", False), "shared": ("folder", True), "s3": ("s3", True), "s3-state": ("s3", False)}


@pytest.fixture(scope="module")
def s3():
    with LocalS3() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        settings = S3Settings(endpoint_url=server.endpoint_url, region=server.region, max_attempts=1)
        client = s3_client(settings)
        client.create_bucket(Bucket=BUCKET)
        yield client
        client.close()


class Copies:
    """One state of affairs, as often as it is needed."""

    def __init__(self, folder, shared, s3) -> None:
        self.folder, self.shared, self.s3 = folder, shared, s3
        self.number = 0
        self.first = self._place("first")
        self.first.folder.mkdir()
        asyncio.run(leave_all(self.first))
        self.left = {name: self.first.store.get(name) for name in self.first.store.list("")}

    def _place(self, name: str) -> Place:
        folder = self.folder / name
        results = str(folder / "results") if self.s3 is None else f"s3://{BUCKET}/{self.folder.name}/{name}"
        return Place(folder, open_store(results, self.s3), self.shared)

    def another(self) -> Place:
        self.number += 1
        place = self._place(str(self.number))
        shutil.copytree(self.first.folder, place.folder)
        if self.s3 is not None:
            for name, data in self.left.items():
                place.store.put(name, data)
        return place

    def forget(self, place: Place) -> None:
        shutil.rmtree(place.folder)


@pytest.fixture
def copies(request, tmp_path):
    store, shared = PLACES[request.param]
    return Copies(tmp_path, shared, request.getfixturevalue("s3") if store == "s3" else None)


def content(place: Place) -> dict[str, bytes]:
    return {name: place.store.get(name) for name in place.store.list("")}


async def ledger_of(place: Place) -> tuple[dict[str, str], int]:
    """The state of each session, and how many packages there are; every one is confirmed."""
    async with place.publisher() as publisher:
        transact = publisher.ledger._database.transact
        states = (await transact(lambda c: c.execute(select(sessions.c.session_id, sessions.c.state)))).all()
        times = list(await transact(lambda c: c.scalars(select(packages.c.published_at))))
    assert None not in times
    return dict(map(tuple, states)), len(times)


class Sound:
    """What one undisturbed publisher leaves, and how many calls it makes."""

    def __init__(self, copies: Copies) -> None:
        place = copies.another()
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


def disturbed(copies: Copies, sound: Sound, step: int, offset: int = 1):
    """Publishers that something happens to, at every stepth call, before it and after its effect."""
    for at in range(offset, sound.calls + 1, step):
        for after in (False, True):
            place = copies.another()
            calls = Calls(at, after, watch=lambda place=place: seen(place.store, place.folder / "mirror"))
            yield place, calls
            copies.forget(place)


def recover_after(place: Place) -> None:
    """The next run, under the eyes of the same reader."""
    place.recover(Calls(watch=lambda: seen(place.store, place.folder / "mirror")))


EVERY = [pytest.param(place, 1, id=f"{place}-every", marks=pytest.mark.torture) for place in PLACES]
"""Every call, wherever ledger, spool and lake lie."""


@pytest.mark.fault(68)
@pytest.mark.parametrize(("copies", "step"), [("folder", 31), *EVERY], indirect=["copies"])
def test_a_crash_at_any_call_is_repaired_by_the_next_run(copies, step):
    sound = Sound(copies)
    for place, calls in disturbed(copies, sound, step, offset=min(step, 20)):
        with pytest.raises(Crash):
            place.recover(calls)
        recover_after(place)
        sound.check(place)


@pytest.mark.fault(70)
@pytest.mark.parametrize(("copies", "step"), [("shared", 47), *EVERY], indirect=["copies"])
def test_another_publisher_at_any_call_changes_nothing(copies, step):
    """The second comes in between two calls of the first, and does all of it; then the first goes on."""
    sound = Sound(copies)
    for place, calls in disturbed(copies, sound, step, offset=min(step, 30)):
        calls.happens = lambda place=place: recover_after(place)
        place.recover(calls)
        sound.check(place)
