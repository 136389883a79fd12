"""`soundcheck reconcile` over what scans against the local server leave: every object has its symbol, and why."""

import asyncio
import json
import sqlite3
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.lake.packages import write_rows
from connectors.lake.store import FolderStore
from flows.cli import run
from flows.maintain import reconcile_lake, state_of_reconciliation
from flows.reconciliation import reconciled_results
from flows.request import FlowName, Request
from flows.wiring import now
from moderation.packaging import PackageRules
from moderation.reconciliation import Symbol, Why
from tasks.publish import run_date


@pytest.fixture
def reconcile(world, capsys):
    """Runs the command, and gives its exit code and its JSON or, of --list, its lines."""

    async def reconcile(*words: str):
        capsys.readouterr()
        as_json = () if "--list" in words else ("--json",)
        code = await asyncio.to_thread(run, ["reconcile", *words, "--results", str(world.results), *as_json])
        said = capsys.readouterr().out
        return code, json.loads(said) if as_json else said.splitlines()

    return reconcile


@pytest.fixture
async def scanned(world, make_wav):
    """A scan of two objects, a package each."""
    for name in ("one.wav", "two.wav"):
        world.put(name, make_wav(1.0))
    await world.scan(packages=PackageRules(max_sessions=1))
    return world


def symbols(said: dict, endpoint: str = "music") -> dict[str, int]:
    return {symbol: objects for symbol, objects in said["endpoints"][endpoint].items() if objects}


def unexplained(said: dict) -> list[tuple[str, str, str]]:
    return [(each["symbol"], each["key"], each["why"]) for each in said["unexplained"] if each["endpoint"] == "music"]


def in_ledger(world, statement: str) -> None:
    connection = sqlite3.connect(world.results / "_state" / "ledger.db")
    with connection:
        connection.execute(statement)
    connection.close()


def summary_of(world, key: str) -> tuple[FolderStore, str, pa.Table]:
    """The file of the music summary of a key, and its row."""
    store = FolderStore(world.results)
    for name in store.list("music_summaries/"):
        rows = pq.read_table(BytesIO(store.get(name)))
        if rows["key"].to_pylist() == [key]:
            return store, name, rows
    raise AssertionError(key)


def changed(rows: pa.Table, **values) -> bytes:
    out = BytesIO()
    for column, value in values.items():
        place = rows.schema.get_field_index(column)
        rows = rows.set_column(place, rows.schema.field(place), pa.array([value], rows.schema.field(place).type))
    pq.write_table(rows, out)
    return out.getvalue()


async def test_what_a_scan_leaves_is_done_once(scanned, reconcile, capsys):
    code, said = await reconcile()
    assert (code, symbols(said), symbols(said, "ai_music"), said["unexplained"]) == (0, {"=": 2}, {"=": 2}, [])
    assert await reconcile("--list") == (
        0,
        [f"= {endpoint} catalogue/{key}" for endpoint in ("ai_music", "music") for key in ("one.wav", "two.wav")],
    )
    assert (await reconcile("s3://catalogue/"))[0] == 0
    assert (await reconcile("s3://elsewhere/"))[0] == 78
    assert await asyncio.to_thread(run, ["reconcile", "--results", str(scanned.results)]) == 0
    assert "4 objects and endpoints" in (said := capsys.readouterr().out)
    assert "all are explained" in said


@pytest.mark.torture
async def test_a_deleted_summary_is_missing(scanned, reconcile, capsys):
    store, name, _ = summary_of(scanned, "two.wav")
    store.delete(name)
    code, said = await reconcile()
    assert (code, symbols(said), unexplained(said)) == (1, {"=": 1, "-": 1}, [("-", "two.wav", "lost")])
    assert said["unexplained"][0]["remedy"]
    assert await asyncio.to_thread(run, ["reconcile", "--results", str(scanned.results)]) == 1
    assert "catalogue/two.wav" in capsys.readouterr().out
    in_ledger(scanned, "UPDATE sessions SET state = 'lost' WHERE endpoint = 'music'")
    code, said = await reconcile()
    assert unexplained(said) == [("*", "one.wav", "other_state"), ("-", "two.wav", "untold")]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"session_id": "019a0000-0000-7000-8000-000000000001", "object_id": "f" * 32, "key": "mine.wav"}, ("+", "mine.wav", "unbooked")),
        pytest.param({"session_id": "019a0000-0000-7000-8000-000000000001"}, ("+", "one.wav", "unbooked"), marks=pytest.mark.torture),
    ],
)
async def test_a_foreign_summary_is_extra(scanned, reconcile, change, found):
    store, name, rows = summary_of(scanned, "one.wav")
    started_at = rows["started_at"][0].as_py().replace(year=2020)
    store.put(name.replace("-p", "-p9"), changed(rows, started_at=started_at, **change))
    code, said = await reconcile()
    assert (code, unexplained(said)) == (1, [found])


@pytest.mark.torture
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"duration_ms": 7_000_000}, "other_cost"),
        ({"items_received": 17}, "other_items"),
        ({"params_hash": "0" * 16}, "other_object"),
    ],
)
async def test_a_summary_that_says_another_thing_differs(scanned, reconcile, change, why):
    store, name, rows = summary_of(scanned, "one.wav")
    store.put(name, changed(rows, **change))
    code, said = await reconcile()
    assert code == 1
    assert ("*", "one.wav", why) in unexplained(said)


@pytest.mark.torture
async def test_two_results_of_one_identity_differ_unless_somebody_forced_them(scanned, reconcile):
    await scanned.scan_request(Request(("s3://catalogue/",), flow=FlowName.BACKFILL, force=True))
    code, said = await reconcile()
    assert (code, symbols(said)) == (0, {"=": 2})
    store = FolderStore(scanned.results)
    for name in list(store.list("runs/")):
        rows = pq.read_table(BytesIO(store.get(name)))
        told = rows["parameters"][0].as_py().replace('"force": true', '"force": false')
        store.put(name, changed(rows, parameters=told))
    code, said = await reconcile()
    assert (code, unexplained(said)) == (1, [("*", "one.wav", "twice"), ("*", "two.wav", "twice")])


@pytest.mark.torture
async def test_what_is_held_or_left_or_no_audio_is_explained(world, make_wav, reconcile):
    world.put("bad.flac", b"fLaC" + bytes(range(256)) * 16)
    world.put("good.wav", make_wav(1.0))
    world.put("notes.txt", b"not audio")
    world.put("zero.wav", make_wav(2.0))
    await world.scan(monthly_hours=0.0)
    code, said = await reconcile()
    assert (code, symbols(said)) == (0, {"p": 3, "skipped": 1})
    assert {each["why"] for each in said["reasons"]} == {"deferred", "skipped"}
    await world.scan()
    code, said = await reconcile()
    assert (code, symbols(said)) == (0, {"q": 1, "=": 2, "skipped": 1})
    assert {(each["why"], each["reason"]) for each in said["reasons"]} >= {("held", "undecodable"), ("skipped", "not_audio")}


@pytest.mark.torture
async def test_what_a_run_has_quarantined_and_somebody_released_waits_for_a_scan(world, reconcile):
    world.put("bad.flac", b"fLaC" + bytes(range(256)) * 16)
    await world.scan(endpoints=["music"])
    assert (await reconcile())[0] == 0
    released = ["quarantine", "release", "--all", "--reason", "mended", "--results", str(world.results)]
    assert await asyncio.to_thread(run, released) == 0
    code, said = await reconcile()
    assert (code, symbols(said)) == (0, {"p": 1})
    assert {each["why"] for each in said["reasons"]} == {"released"}


@pytest.mark.torture
async def test_history_is_explained(scanned, reconcile, make_wav):
    """A version that was overwritten, and a key that has gone from a source."""
    scanned.put("two.wav", make_wav(2.0))
    await scanned.scan()
    code, said = await reconcile()
    assert (code, symbols(said)) == (0, {"=": 3})
    assert {each["why"]: each["objects"] for each in said["reasons"] if each["endpoint"] == "music"} == {"done": 2, "earlier": 1}


@pytest.mark.torture
async def test_a_result_that_no_listing_has_is_extra(scanned, reconcile):
    store = FolderStore(scanned.results)
    [manifest] = [name for name in store.list("_runs/") if name.endswith("manifest.parquet")]
    rows = pq.read_table(BytesIO(store.get(manifest)))
    run_id = manifest.split("/")[1]
    write_rows(store, "manifests", run_id, run_date(run_id), "manifest", rows.slice(0, 1).to_pylist())
    code, said = await reconcile()
    gone = "two.wav" if rows["key"][0].as_py() == "one.wav" else "one.wav"
    assert (code, unexplained(said)) == (1, [("+", gone, "unlisted")])
    code, said = await reconcile("s3://catalogue/")
    assert (code, symbols(said)) == (0, {"=": 1}), "of a source only what it lists counts"


@pytest.mark.torture
@pytest.mark.parametrize(
    ("state", "with_summary", "why"),
    [
        ("finished", False, "unpublished"),
        ("finished", True, "unconfirmed"),
        ("streaming", False, "streams"),
    ],
)
async def test_what_a_run_at_work_has_not_published_is_pending(scanned, reconcile, state, with_summary, why):
    in_ledger(scanned, f"UPDATE sessions SET state = '{state}' WHERE endpoint = 'music'")
    store = FolderStore(scanned.results)
    for name in [] if with_summary else list(store.list("music_summaries/")):
        store.delete(name)
    code, said = await reconcile()
    assert (code, symbols(said)) == (0, {"p": 2})
    assert why in {each["why"] for each in said["reasons"]}


@pytest.mark.torture
async def test_a_run_that_died_explains_what_it_left(scanned, reconcile):
    store = FolderStore(scanned.results)
    for folder in ("music_summaries", "music_frames", "segments", "attempts"):
        for name in list(store.list(f"{folder}/")):
            store.delete(name)
    in_ledger(scanned, "DELETE FROM sessions WHERE endpoint = 'music'")
    [end] = [name for name in store.list("runs/") if name.endswith("end.parquet")]
    store.delete(end)
    code, said = await reconcile()
    assert (code, symbols(said)) == (0, {"p": 2})
    [plan] = [name for name in store.list("_runs/") if name.endswith("plan.parquet")]
    store.delete(plan)
    _, said = await reconcile()
    assert {each["why"] for each in said["reasons"] if each["endpoint"] == "music"} == {"unplanned"}


@pytest.mark.torture
async def test_the_flow_fails_as_found(scanned):
    state = await reconcile_lake.fn(str(scanned.results))
    assert (state.name, "(exit code 0)" in state.message) == ("Completed", True)
    store, name, _ = summary_of(scanned, "two.wav")
    store.delete(name)
    async with reconciled_results(scanned.settings, now, ()) as done:
        state = state_of_reconciliation(done)
    assert (state.name, state.is_failed(), "1 are not explained" in state.message) == ("Found", True, True)
    assert (await reconcile_lake.fn(str(scanned.results / "gone"))).name == "Configuration"


@pytest.mark.torture
async def test_a_damaged_file_is_said(scanned, reconcile):
    store, name, _ = summary_of(scanned, "two.wav")
    store.put(name, b"PAR1 nothing")
    code, said = await reconcile()
    assert (code, "verify" in said["error"]) == (78, True)


def test_every_reason_that_is_not_explained_says_what_to_do():
    assert all(why.remedy for why in Why if not why.symbol.is_explained)
    assert [symbol.value for symbol in Symbol if not symbol.is_explained] == ["*", "+", "-"]
