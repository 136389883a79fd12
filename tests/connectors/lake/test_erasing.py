"""Erasure from a lake, with the ledger and the spool: all of one object goes, nothing of any other, whatever breaks off."""

import shutil
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from connectors.lake.compaction import COMPACTED, compact, days_before
from connectors.lake.erasing import NotErased
from connectors.lake.manifest_parts import Listing, ManifestParts, PartProgress
from connectors.lake.packages import write_package, write_rows
from connectors.lake.receipts import Scope, find_receipt, receipt_name
from connectors.lake.schemas import datasets
from connectors.lake.store import FolderStore
from connectors.ledger import Ledger
from connectors.spool import Spool
from ledger_facts import execute, set_gate
from moderation.admission import Claim, Denial, Grant, Refusal
from moderation.errors import ConfigurationError
from moderation.identity import object_id, object_key_id
from tasks.erase import Erasure, Wish
from tasks.frames import keep_frame
from tasks.publish import Publisher
from tasks.rebuild import Lake
from tasks.verify import verify

RUN = "20260301T080000Z-0a1b2c"
PACKAGE = f"{RUN}-p0001"
DAY = date(2026, 3, 1)
NOW = datetime(2026, 3, 9, tzinfo=UTC)


def publish(store, sessions, package: str = PACKAGE) -> None:
    """A run's manifest, plan and chosen keys, and a package of these sessions."""
    write_package(store, package, RUN, DAY, sessions)
    places = {(each.summary["bucket"], each.summary["key"], each.summary["etag"]) for each in sessions if each.summary}
    listed = [
        {
            **dict(zip(("bucket", "key", "etag"), place, strict=True)),
            "size_bytes": 1,
            "last_modified": NOW,
            "object_id": object_id(*place),
            "object_key_id": object_key_id(*place[:2]),
        }
        for place in sorted(places)
    ]
    planned = [
        {
            "object_id": row["object_id"],
            "endpoint": "music",
            "params_hash": "p",
            "decision": "done",
            "estimate_ms": 0,
            "estimate_source": "none",
        }
        for row in listed
    ]
    write_rows(store, "manifests", RUN, DAY, "manifest", listed)
    write_rows(store, "plan", RUN, DAY, "plan", planned)
    frame = pl.DataFrame(listed)
    keep_frame(store, RUN, "chosen", frame.drop("object_id", "object_key_id"))
    keep_frame(store, RUN, "held", frame.drop("object_key_id"))


def every_row(store) -> dict[str, list[dict]]:
    """Every row of every file with objects in it, by dataset or, of a run's own files, by stem."""
    found: dict[str, list[dict]] = {}
    for name in store.list(""):
        if name.endswith(".parquet"):
            rows = pl.read_parquet(BytesIO(store.get(name))).to_dicts()
            stem = name.rpartition("/")[2].removesuffix(".parquet")
            found.setdefault(stem if name.startswith("_runs/") else name.partition("/")[0], []).extend(rows)
    return {kind: sorted(rows, key=str) for kind, rows in found.items() if rows}


def without(rows: dict[str, list[dict]], ids: set[str]) -> dict[str, list[dict]]:
    def is_other(row: dict) -> bool:
        own = row["object_id"] if "object_id" in row else object_id(row["bucket"], row["key"], row["etag"])
        return own not in ids

    left = {kind: [row for row in of_kind if is_other(row)] for kind, of_kind in rows.items()}
    return {kind: of_kind for kind, of_kind in left.items() if of_kind}


def clean(store) -> bool:
    return verify(store, NOW, lambda done, of: None).findings == []


class House:
    """A lake, a ledger and a spool."""

    def __init__(self, store: FolderStore, ledger: Ledger, spool: Spool) -> None:
        self.store, self.ledger, self.spool = store, ledger, spool

    async def erase(self, erased_id: str, scope: Scope | None = Scope.KEY, *, dry: bool = False, at: datetime = NOW):
        lakes = [Lake(self.store, "lake")]
        erasure = Erasure(lakes, self.ledger, [self.spool], Wish(erased_id, scope, "me", "4711"), at, lambda done, of: None)
        [done] = await erasure.run(dry=dry)
        return done

    async def admit(self, session) -> Grant | Refusal:
        key = session.summary["object_key_id"] if session.summary else "k"
        claim = Claim(session.session_id, "lake", "org", "music", session.object_id, key, "p1", RUN, 0, "w", 1, "2026-03", 5_000)
        return await self.ledger.admit(claim)


@pytest.fixture
async def house(lake, tmp_path):
    async with Ledger.open(tmp_path / "ledger.db", now=lambda: NOW) as ledger:
        await set_gate(ledger, "org", "music", 50)
        await ledger.set_gate("org", "*", None)
        yield House(lake, ledger, Spool(tmp_path / "spool"))


@pytest.mark.parametrize("merged", [False, pytest.param(True, marks=pytest.mark.torture)])
async def test_all_of_a_key_goes_and_nothing_of_any_other(house, package, session, merged):
    publish(house.store, [*package, session(40, etag="e2", key=session(0).summary["key"])])
    write_package(house.store, f"{RUN}-p0002", RUN, DAY, [session(50, items=3), session(51, key=session(1).summary["key"], etag="e3")])
    if merged:
        for dataset in COMPACTED:
            compact(house.store, days_before(house.store, DAY + timedelta(days=1))[0], dataset)
    before = every_row(house.store)
    erased = session(0).summary
    ids = {object_id("audio", erased["key"], etag) for etag in ("e1", "e2")}
    done = await house.erase(erased["object_key_id"])
    assert set(done.receipt.object_ids) == ids
    assert every_row(house.store) == without(before, ids)
    assert clean(house.store)
    counted = {kind: len(rows) - len(without(before, ids).get(kind, [])) for kind, rows in before.items()}
    words = {"manifest": "manifests"}
    assert done.receipt.datasets == {words.get(kind, kind): rows for kind, rows in counted.items() if rows}
    assert done.receipt.finished_at == NOW
    assert erased["key"] not in house.store.get(receipt_name(erased["object_key_id"])).decode()


@pytest.mark.torture
async def test_it_is_the_same_on_s3(store, house, package, session):
    there = House(store, house.ledger, house.spool)
    publish(store, package)
    left = without(every_row(store), {session(0).object_id})
    await there.erase(session(0).summary["object_key_id"])
    assert every_row(store) == left
    assert clean(store)


async def test_of_one_version_nothing_of_the_others_goes(house, session):
    sessions = [session(0, items=3), session(1, etag="e2", key=session(0).summary["key"], items=4), session(2)]
    publish(house.store, sessions)
    before = every_row(house.store)
    done = await house.erase(sessions[1].object_id, None)
    assert (done.receipt.scope, every_row(house.store)) == (Scope.VERSION, without(before, {sessions[1].object_id}))
    assert clean(house.store)
    assert await house.admit(session(60, key=session(0).summary["key"])) != Refusal(Denial.TOMBSTONE)
    assert await house.admit(session(61, etag="e2", key=session(0).summary["key"])) == Refusal(Denial.TOMBSTONE)


@pytest.mark.torture
async def test_whichever_object_it_is_every_other_row_stays(house, package, tmp_path):
    publish(house.store, package)
    before = every_row(house.store)
    for number, erased in enumerate(sorted({each.object_id for each in package})):
        store = FolderStore(Path(shutil.copytree(house.store.root.parent, tmp_path / f"copy-{number}")))
        await House(store, house.ledger, house.spool).erase(erased, Scope.VERSION)
        assert every_row(store) == without(before, {erased})
        assert clean(store)


async def test_dry_changes_nothing(house, package, session):
    publish(house.store, package)
    before = {name: house.store.get(name) for name in house.store.list("")}
    key = session(0).summary["object_key_id"]
    done = await house.erase(key, dry=True)
    assert done.receipt.datasets["music_summaries"] == 2
    assert {name: house.store.get(name) for name in house.store.list("")} == before
    assert await house.ledger.buried() == frozenset()
    assert (await house.erase(key)).receipt.files == done.receipt.files


async def test_an_id_that_nothing_has_is_refused_and_a_key_is_not(house, package):
    publish(house.store, package)
    with pytest.raises(ConfigurationError, match="nothing in the results has the id"):
        await house.erase("0" * 32, None)
    done = await house.erase("0" * 32)
    assert (done.receipt.files, await house.ledger.buried()) == ({}, {"0" * 32})


async def test_it_is_never_streamed_again_and_its_cost_stays(house, session):
    one = session(0)
    publish(house.store, [one])
    assert isinstance(await house.admit(one), Grant)
    with pytest.raises(ConfigurationError, match=f"session {one.session_id} of run {RUN} streams it"):
        await house.erase(one.summary["object_key_id"])
    assert await house.ledger.buried() == frozenset()
    await house.ledger.finish(one.session_id, 960)
    done = await house.erase(one.summary["object_key_id"])
    assert done.receipt.sessions == 1
    assert await execute(house.ledger, "SELECT state, booked_ms FROM sessions") == [("erased", 960)]
    assert {usage.settled_ms for usage in await house.ledger.usage("org", "2026-03")} == {960}
    for again in (session(1, key=one.summary["key"]), session(2, key=one.summary["key"], etag="another")):
        assert await house.admit(again) == Refusal(Denial.TOMBSTONE)


async def spooled(house, *sessions) -> Publisher:
    for each in sessions:
        assert isinstance(await house.admit(each), Grant)
        house.spool.put(each)
        await house.ledger.finish(each.session_id, each.booked_ms)
    return Publisher(house.ledger, house.spool, house.store, "lake")


async def test_what_waits_in_the_spool_is_never_published(house, session):
    publisher = await spooled(house, session(0), session(1))
    await house.ledger.assign_package("lake", RUN, DAY, max_sessions=10)
    done = await house.erase(session(0).summary["object_key_id"])
    assert (done.receipt.spooled, house.spool.ids()) == ((session(0).session_id,), [session(1).session_id])
    await publisher.recover()
    assert {row["object_id"] for rows in every_row(house.store).values() for row in rows} == {session(1).object_id}
    assert house.spool.ids() == []
    assert clean(house.store)


async def test_another_hosts_spool_forgets_it_with_the_next_run_there(house, session, tmp_path):
    publisher = await spooled(house, session(0))
    here = House(house.store, house.ledger, Spool(tmp_path / "elsewhere"))
    columns = ("bucket", "key", "etag", "object_id", "object_key_id", "size_bytes", "last_modified")
    write_rows(house.store, "manifests", RUN, DAY, "manifest", [{name: session(0).summary[name] for name in columns}])
    await here.erase(session(0).summary["object_key_id"])
    assert await publisher.recover() == 0
    assert house.spool.ids() == []
    assert [name for name in house.store.list("") if not name.startswith("_")] == []


async def test_what_is_being_published_meanwhile_goes_too(house, session, monkeypatch):
    """The publisher has read its members and the spool, and writes only when the erasure has come to its end."""
    publisher = await spooled(house, session(0), session(1))
    package = await house.ledger.assign_package("lake", RUN, DAY, max_sessions=10)
    in_hand = {each.session_id: each for each in (session(0), session(1))}
    await house.erase(session(0).summary["object_key_id"])
    monkeypatch.setattr(Publisher, "_spooled", lambda self, members: in_hand)
    await publisher._publish(package)
    assert {row["object_id"] for rows in every_row(house.store).values() for row in rows} == {session(1).object_id}
    assert clean(house.store)


async def test_a_package_of_which_nothing_is_left_has_no_files(house, session, monkeypatch):
    publisher = await spooled(house, session(0))
    package = await house.ledger.assign_package("lake", RUN, DAY, max_sessions=10)
    await house.erase(session(0).summary["object_key_id"])
    monkeypatch.setattr(Publisher, "_spooled", lambda self, members: {session(0).session_id: session(0)})
    await publisher._publish(package)
    assert every_row(house.store) == {}
    assert await house.ledger.unpublished("lake") == []


async def test_parts_of_a_listing_that_broke_off_go_from_the_object_on(house, listed):
    parts = ManifestParts(house.store, RUN)
    parts.begin(Listing("s3://audio/", ("", "m"), NOW))
    schema = datasets()["manifests"].arrow_schema()
    for piece in (0, 1):
        for part in range(3):
            rows = pa.Table.from_pylist([listed(100 * piece + 10 * part + number) for number in range(2)], schema)
            parts.write(piece, part, [rows], PartProgress(f"k{100 * piece + 10 * part + 1}", {}))
    house.store.put(f"_runs/{RUN}/alive", NOW.isoformat().encode())
    erased = listed(11)
    with pytest.raises(ConfigurationError, match=f"run {RUN} is listing it"):
        await house.erase(erased["object_key_id"])
    done = await house.erase(erased["object_key_id"], at=NOW + timedelta(hours=1))
    assert done.receipt.datasets == {"listing": 1}
    assert [(piece.parts, piece.cursor) for piece in parts.progress(2)] == [(1, "k1"), (3, "k121")]


async def test_a_file_that_cannot_be_read_is_named_once_all_else_is_erased(house, package, session):
    publish(house.store, package)
    broken = f"music_frames/scan_date={DAY}/{PACKAGE}.parquet"
    whole = house.store.get(broken)
    house.store.put(broken, b"PAR1 nothing")
    key = session(0).summary["object_key_id"]
    with pytest.raises(NotErased, match=broken):
        await house.erase(key)
    assert find_receipt(house.store, key).finished_at is None
    assert key not in {row.get("object_key_id") for row in every_row(Except(house.store, broken)).get("music_summaries", [])}
    house.store.put(broken, whole)
    done = await house.erase(key)
    assert done.receipt.finished_at == NOW
    assert done.receipt.datasets["music_frames"] > 0
    assert clean(house.store)


class Except(FolderStore):
    """A folder without one of its files."""

    def __init__(self, store: FolderStore, name: str) -> None:
        super().__init__(store.root.parent)
        self.hidden = name

    def list(self, prefix):
        return (name for name in super().list(prefix) if name != self.hidden)


class Crash(Exception):
    """A process that dies."""


class Crashing(FolderStore):
    """A folder whose process dies before its nth call."""

    def __init__(self, folder: Path, at: int) -> None:
        super().__init__(folder)
        self.calls, self.at = 0, at

    def _called(self) -> None:
        self.calls += 1
        if self.calls == self.at:
            raise Crash

    def list(self, prefix):
        self._called()
        return iter(list(super().list(prefix)))

    def put(self, name, data):
        self._called()
        super().put(name, data)

    @contextmanager
    def writing(self, name):
        with super().writing(name) as file:
            yield file
            if name.endswith(".parquet"):
                self._called()

    @contextmanager
    def reading(self, name):
        self._called()
        with super().reading(name) as file:
            yield file

    def delete(self, name):
        self._called()
        super().delete(name)


@pytest.mark.torture
async def test_a_crash_before_any_call_is_repaired_by_running_it_again(house, session, tmp_path):
    key = session(0).summary["key"]
    publish(house.store, [session(0, items=3), session(1, items=2), session(2, key=key, etag="e2", items=1)])
    write_package(house.store, f"{RUN}-p0002", RUN, DAY, [session(3, key=key, items=2)])
    left = without(every_row(house.store), {object_id("audio", key, etag) for etag in ("e1", "e2")})
    erased = session(0).summary["object_key_id"]
    sound = Crashing(Path(shutil.copytree(house.store.root.parent, tmp_path / "sound")), 0)
    await House(sound, house.ledger, house.spool).erase(erased)
    for at in range(1, sound.calls + 1):
        broken = Crashing(Path(shutil.copytree(house.store.root.parent, tmp_path / str(at))), at)
        async with Ledger.open(tmp_path / f"ledger-{at}.db", now=lambda: NOW) as ledger:
            there = House(broken, ledger, house.spool)
            with pytest.raises(Crash):
                await there.erase(erased)
            if every_row(FolderStore(broken.root.parent)) != every_row(house.store):
                assert await ledger.buried() == {erased}, "the tombstone comes first"
            await there.erase(erased)
        assert every_row(FolderStore(broken.root.parent)) == left
        assert {name: broken.get(name) for name in FolderStore(broken.root.parent).list("")} == {
            name: sound.get(name) for name in FolderStore(sound.root.parent).list("")
        }
    assert clean(sound)
