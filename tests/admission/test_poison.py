"""An object that kills whoever streams it is quarantined before a fourth worker dies over it; what streamed beside it is not."""

from datetime import UTC, datetime

import pytest

from connectors.ledger import Ledger
from flows.places import ledger_place, open_ledger
from flows.plan import plan_scan
from flows.quarantine import release
from moderation.admission import DEATHS, Claim, Grant
from moderation.budget import month_of
from moderation.identity import lake_id, session_id
from moderation.outcomes import ExitCode
from scan_processes import ScanProcesses
from scanning import BUCKET, scanning
from tasks.records import Run

LEASE_S = 2.0


async def workers_died_over(world, key, deaths):
    """Leave sessions of an object in the ledger that no worker has ended, swept; the object's id."""
    await plan_scan(world.settings, f"s3://{BUCKET}/")
    [(object_id, key_id, params_hash)] = world.ask(
        f"SELECT DISTINCT object_id, object_key_id, params_hash FROM manifests JOIN plan USING (object_id) WHERE key = '{key}'"
    )
    org, now = world.settings.org, datetime.now(UTC)
    names = {"object_id": object_id, "object_key_id": key_id, "params_hash": params_hash, "estimate_ms": 1000, "month": month_of(now)}
    clock = [0]
    async with Ledger.open(ledger_place(world.settings), lease_ms=1, clock_ms=lambda: clock[0]) as ledger:
        await ledger.set_gate(org, "music", 10)
        for number in range(deaths):
            who = {"worker": f"dead-{number}", "run_id": "20200101T000000Z-aaaaaa", "shard": 0, "attempt": 1}
            claim = Claim(session_id(now, number.to_bytes(10)), lake_id(world.settings.results), org, "music", **who, **names)
            assert isinstance(await ledger.admit(claim), Grant)
            clock[0] += 2
            await ledger.recover(claim.session_id, None)
    return object_id


@pytest.mark.fault(82)
async def test_an_object_over_which_three_workers_died_is_never_connected_again_until_it_is_released(put, tmp_path):
    put("deadly.ulaw", 1.0)
    put("good.ulaw", 1.5)
    async with scanning(tmp_path) as world:
        await workers_died_over(world, "deadly.ulaw", DEATHS)
        report = await world.scan()
        assert (report.counts()["done"], report.counts()["quarantined"], report.exit_code) == (1, 1, ExitCode.QUARANTINED)
        assert len(world.seen.events("connect")) == 1
        [(key, reason, detail)] = world.ask("SELECT key, reason, detail FROM quarantined_now")
        assert (key, reason) == ("deadly.ulaw", "poison")
        assert "3 workers" in detail
        assert world.ask("SELECT cause, bytes_sent FROM attempts WHERE cause IN ('poison', 'worker_died') ORDER BY ALL") == [
            ("poison", 0),
            *[("worker_died", 0)] * DEATHS,
        ]
        assert (await world.scan()).progress.sessions == 0
        release(world.settings, Run("20990101T000000Z-0a1b2c", world.settings.org, datetime.now(UTC)), "true", "its worker was mended")
        assert (await world.scan()).exit_code is ExitCode.OK
        assert len(world.seen.events("connect")) == 2


@pytest.mark.fault(82)
@pytest.mark.torture
async def test_objects_over_which_two_workers_died_are_streamed_one_at_a_time(put, tmp_path):
    """They are the longest, and would go first and together."""
    for name, seconds in (("a", 0.2), ("b", 0.6), ("c", 0.6), ("suspect", 2.0), ("suspected", 2.0)):
        put(f"{name}.ulaw", seconds)
    async with scanning(tmp_path, speed=2, connections=5) as world:
        suspects = {await workers_died_over(world, f"{name}.ulaw", DEATHS - 1) for name in ("suspect", "suspected")}
        report = await world.scan()
    assert (report.exit_code, report.counts()["done"]) == (ExitCode.OK, 5)
    streamed = world.ask("SELECT object_id, started_at, finished_at FROM attempts WHERE outcome = 'done' ORDER BY started_at")
    [(_, _, first_ends), (_, second_starts, _)] = [row for row in streamed if row[0] in suspects]
    assert first_ends <= second_starts


@pytest.mark.fault(82)
@pytest.mark.torture
async def test_processes_that_abort_over_one_object_end_with_the_fourth_and_it_alone_is_held(put, tmp_path):
    """Its neighbours are as long as it, and stream beside it whenever they may."""
    for number in range(6):
        put(f"{number}.ulaw", 2.0)
    async with (
        scanning(tmp_path, speed=2, connections=6, lease_seconds=LEASE_S) as world,
        ScanProcesses.ready(tmp_path) as scans,
        open_ledger(world.settings) as ledger,
    ):
        ends = []
        while len(ends) < 3 * DEATHS and not (ends and ends[-1]):
            scan = await scans.scan(f"s3://{BUCKET}/", world.said, deadly="3.ulaw")
            ends.append(await scan.ended())
        rows = await world.rows()
        assert await ledger.suspects(world.settings.org, lake_id(world.settings.results)) == frozenset()
    assert [bool(end) for end in ends] == [False] * DEATHS + [True]
    assert (ends[-1]["done"], ends[-1]["quarantined"], ends[-1]["exit_code"]) == (5, 1, ExitCode.QUARANTINED)
    assert world.ask("SELECT key, reason FROM quarantined_now") == [("3.ulaw", "poison")]
    [(deadly,)] = world.ask("SELECT DISTINCT object_id FROM quarantined_now")
    assert sum(row.object_id == deadly and row.outcome is None for row in rows) == DEATHS
