"""The ledger: every rule of admission, every end of a session, packages, and what holds under crashes and several processes."""

import asyncio
import itertools
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import text

from connectors.ledger import LEASE_MS, Ledger, database, host_boot_ms
from moderation.admission import Claim, Denial, Grant, Member, SessionKind, SessionState, UnpackagedRun
from moderation.errors import ConfigurationError, LeaseLost, ResultsNotWritable, Scope, UnreachableError
from moderation.results import SpooledSession

ROOT = Path(__file__).parents[2]
START = datetime(2026, 11, 21, 12, tzinfo=UTC)
MONTH = "2026-11"
SCAN_DATE = date(2026, 11, 21)
RUN = "20261121T120000Z-abcdef"


class Clock:
    """The host's boot clock, set by hand."""

    def __init__(self, ms=1_000_000):
        self.ms = ms

    def __call__(self):
        return self.ms


def claim_of(number, **changes):
    base = Claim(
        session_id=f"session-{number:04}",
        lake="lake",
        org="acme",
        endpoint="music",
        object_id=f"object-{number}",
        object_key_id=f"key-{number}",
        params_hash="params",
        run_id=RUN,
        shard=0,
        worker="worker",
        attempt=1,
        month=MONTH,
        estimate_ms=1000,
    )
    return replace(base, **changes)


def spooled(claim, *, done, sent_ms=700, booked_ms=0):
    attempt = {"outcome": "done" if done else "failed", "scope": None if done else "object", "close_code": 1000, "error_text": None}
    return SpooledSession(
        session_id=claim.session_id,
        run_id=claim.run_id,
        endpoint=claim.endpoint,
        object_id=claim.object_id,
        attempt=attempt,
        booked_ms=booked_ms,
        sent_ms=sent_ms,
        summary={"frame_count": 4} if done else None,
    )


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "ledger.sqlite"


@pytest.fixture
async def ledger(path, clock):
    async with Ledger.open(path, boot_ms=clock, now=lambda: START) as ledger:
        await ledger.set_gate("acme", "music", 2)
        await ledger.set_gate("acme", "ai_music", 2)
        yield ledger


async def execute(ledger, statement):
    return (await ledger._database.transact(lambda c: c.execute(text(statement)))).all()


async def change(ledger, statement, **parameters):
    await ledger._database.transact(lambda c: c.execute(text(statement), parameters))


async def money(ledger, endpoint="music", month=MONTH):
    """(reserved, settled, at risk) of an endpoint's budget, which must be the organisation's when nothing else streamed."""
    rows = {usage.endpoint: (usage.reserved_ms, usage.settled_ms, usage.at_risk_ms) for usage in await ledger.usage("acme", month)}
    assert rows[endpoint] == rows["*"]
    return rows[endpoint]


async def live(ledger, endpoint="music"):
    return next(usage.live for usage in await ledger.usage("acme", MONTH) if usage.endpoint == endpoint)


async def admit(ledger, number, **changes):
    claim = claim_of(number, **changes)
    assert isinstance(await ledger.admit(claim), Grant)
    return claim


async def finished(ledger, number, **changes):
    claim = await admit(ledger, number, **changes)
    await ledger.finish(claim.session_id, claim.estimate_ms, 1000)
    return claim


# admission


async def test_a_grant_writes_the_session_and_its_reservation_before_any_audio(ledger, clock):
    grant = await ledger.admit(claim_of(1, kind=SessionKind.PROBE))
    assert grant == Grant("session-0001", clock.ms + LEASE_MS)
    session = await ledger.session("session-0001")
    assert (session.state, session.kind, session.reserved_ms, session.started_at) == ("streaming", "probe", 1000, START)
    assert await money(ledger) == (1000, 0, 0)


async def test_a_missing_gate_is_a_configuration_fault_and_never_an_unlimited_one(ledger):
    for org, endpoint in (("acme", "unknown"), ("nobody", "music")):
        with pytest.raises(ConfigurationError, match=org) as caught:
            await ledger.admit(claim_of(1, org=org, endpoint=endpoint))
        assert caught.value.exit_code == 78
    assert await execute(ledger, "SELECT * FROM sessions") == []


async def test_a_deleted_gate_of_the_organisation_is_missed_too(ledger):
    await change(ledger, "DELETE FROM gates WHERE endpoint = '*'")
    with pytest.raises(ConfigurationError, match=r"'acme', endpoint '\*'"):
        await ledger.admit(claim_of(1))


async def test_the_ceiling_of_an_endpoint_holds(ledger):
    await admit(ledger, 1)
    await admit(ledger, 2)
    assert await ledger.admit(claim_of(3)) is Denial.FULL
    await admit(ledger, 4, endpoint="ai_music")
    await ledger.finish("session-0001", 900)
    await admit(ledger, 5)


async def test_the_ceiling_of_the_organisation_holds_over_all_endpoints(ledger):
    await ledger.set_gate("acme", "*", 3)
    await admit(ledger, 1)
    await admit(ledger, 2)
    await admit(ledger, 3, endpoint="ai_music")
    assert await ledger.admit(claim_of(4, endpoint="ai_music")) is Denial.FULL
    assert await live(ledger, "*") == 3


async def test_one_organisation_does_not_take_slots_or_hours_of_another(ledger):
    await ledger.set_gate("other", "music", 1)
    await ledger.set_cap("other", "music", MONTH, 1000)
    await admit(ledger, 1, org="other")
    await admit(ledger, 2)
    assert await money(ledger) == (1000, 0, 0)


async def test_a_ceiling_of_nothing_admits_nothing_and_none_admits_all(ledger):
    await ledger.set_gate("acme", "music", 0)
    assert await ledger.admit(claim_of(1)) is Denial.FULL
    await ledger.set_gate("acme", "music", None)
    for number in range(5):
        await admit(ledger, number)


async def test_settings_written_again_change_only_what_they_say(ledger):
    await ledger.set_gate("acme", "*", 9)
    await ledger.set_cap("acme", "music", MONTH, 5000)
    await ledger.pause("acme")
    await ledger.set_gate("acme", "music", 4)
    await ledger.resume("acme")
    await admit(ledger, 1)
    await ledger.set_cap("acme", "music", MONTH, 7000)
    usages = {usage.endpoint: usage for usage in await ledger.usage("acme", MONTH)}
    assert (usages["*"].ceiling, usages["music"].ceiling) == (9, 4)
    assert (usages["music"].cap_ms, usages["music"].reserved_ms, usages["music"].left_ms) == (7000, 1000, 6000)
    assert usages["*"].left_ms is None


async def test_a_pause_stops_admission_and_leaves_what_streams(ledger):
    await admit(ledger, 1)
    await ledger.pause("acme")
    assert await ledger.admit(claim_of(2)) is Denial.PAUSED
    assert await ledger.renew("worker") == {"session-0001"}
    await ledger.finish("session-0001", 900)
    assert [usage.paused for usage in await ledger.usage("acme", MONTH)] == [True, False, False]
    await ledger.resume("acme")
    await admit(ledger, 2)


async def test_pausing_an_unknown_organisation_is_said(ledger):
    for act in (ledger.pause, ledger.resume):
        with pytest.raises(ConfigurationError, match="acmee"):
            await act("acmee")


@pytest.mark.parametrize("gate", ["music", "*"])
async def test_an_open_breaker_stops_admission(ledger, gate):
    await change(ledger, "UPDATE gates SET breaker = 'open' WHERE endpoint = :gate", gate=gate)
    assert await ledger.admit(claim_of(1)) is Denial.BREAKER


@pytest.mark.parametrize("gate", ["music", "*"])
async def test_a_cap_counts_settled_at_risk_and_reserved(ledger, gate):
    await ledger.set_cap("acme", gate, MONTH, 4000)
    await finished(ledger, 1)
    failed = await admit(ledger, 2)
    await ledger.fail(failed.session_id, sent_ms=1000, outcome="failed")
    await admit(ledger, 3)
    assert await money(ledger) == (1000, 1000, 1000)
    assert await ledger.admit(claim_of(4, estimate_ms=1001)) is Denial.BUDGET
    await admit(ledger, 4, estimate_ms=1000)


async def test_each_month_has_its_own_budget(ledger):
    await ledger.set_cap("acme", "music", MONTH, 1000)
    await admit(ledger, 1)
    assert await ledger.admit(claim_of(2)) is Denial.BUDGET
    await admit(ledger, 2, month="2026-12")
    assert await money(ledger, month="2026-12") == (1000, 0, 0)


async def test_an_erased_key_is_never_streamed_again(ledger):
    await change(ledger, "INSERT INTO tombstones VALUES ('key-1', '2026-11-01 00:00:00.000000', 'receipt')")
    assert await ledger.admit(claim_of(1, force=True)) is Denial.TOMBSTONE


async def test_an_object_that_streams_is_claimed_even_by_force(ledger):
    await admit(ledger, 1)
    for force in (False, True):
        assert await ledger.admit(claim_of(2, object_id="object-1", force=force)) is Denial.CLAIMED


@pytest.mark.parametrize("published", [False, True])
async def test_what_is_done_is_done_unless_forced(ledger, published):
    await finished(ledger, 1)
    if published:
        package = await ledger.assign_package("lake", RUN, SCAN_DATE, max_sessions=10)
        await ledger.mark_published(package.package)
    assert await ledger.admit(claim_of(2, object_id="object-1")) is Denial.DONE
    await admit(ledger, 2, object_id="object-1", force=True)


@pytest.mark.parametrize("difference", [{"lake": "other"}, {"endpoint": "ai_music"}, {"params_hash": "other"}])
async def test_what_is_done_elsewhere_or_otherwise_is_not_done(ledger, difference):
    await finished(ledger, 1)
    await admit(ledger, 2, object_id="object-1", **difference)


async def test_a_failed_object_is_free_again(ledger):
    for number, sent_ms in ((1, 0), (2, 500)):
        claim = await admit(ledger, number, object_id="same")
        await ledger.fail(claim.session_id, sent_ms=sent_ms, outcome="failed")
    await admit(ledger, 3, object_id="same")


async def test_what_lasts_is_said_before_what_passes(ledger):
    await finished(ledger, 1)
    await ledger.pause("acme")
    assert await ledger.admit(claim_of(2, object_id="object-1")) is Denial.DONE


async def test_a_denial_writes_nothing(ledger):
    await ledger.pause("acme")
    before = await execute(ledger, "SELECT * FROM budgets")
    await ledger.admit(claim_of(1))
    assert await ledger.session("session-0001") is None
    assert await execute(ledger, "SELECT * FROM budgets") == before


def test_a_claim_cannot_reserve_less_than_nothing():
    with pytest.raises(ValueError, match="-1 ms"):
        claim_of(1, estimate_ms=-1)


async def test_an_admission_cancelled_at_any_moment_leaves_nothing_streaming(ledger):
    for turns in range(60):
        task = asyncio.create_task(ledger.admit(claim_of(turns)))
        for _ in range(turns):
            await asyncio.sleep(0)
        if not task.cancel():  # so late that it was granted and its caller knows
            await ledger.fail((await task).session_id, sent_ms=0, outcome="cancelled")
            continue
        with pytest.raises(asyncio.CancelledError):
            await task
        session = await ledger.session(f"session-{turns:04}")
        assert session is None or (session.state, session.outcome) == ("released", "cancelled")
        assert await money(ledger) == (0, 0, 0)


@pytest.mark.parametrize("times", [1, 2])
async def test_a_cancelled_booking_is_whole(ledger, times):
    claim = await admit(ledger, 1)
    task = asyncio.create_task(ledger.finish(claim.session_id, 900))
    for _ in range(times):
        await asyncio.sleep(0)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await money(ledger) == (0, 900, 0)


# ends


async def test_a_done_session_settles_what_it_booked(ledger):
    claim = await admit(ledger, 1)
    await ledger.finish(claim.session_id, 1234, 1000)
    session = await ledger.session(claim.session_id)
    assert (session.state, session.booked_ms, session.close_code, session.outcome) == ("finished", 1234, 1000, "done")
    assert session.lease_until is None
    assert await money(ledger) == (0, 1234, 0)
    assert await live(ledger) == 0


async def test_a_session_is_finished_once(ledger):
    claim = await finished(ledger, 1)
    with pytest.raises(LeaseLost, match=claim.session_id):
        await ledger.finish(claim.session_id, 1)
    assert await money(ledger) == (0, 1000, 0)


async def test_a_failed_session_is_at_risk_with_what_was_sent(ledger):
    claim = await admit(ledger, 1)
    state = await ledger.fail(
        claim.session_id, sent_ms=400, outcome="failed", scope=Scope.OBJECT, close_code=4002, error_text="could not be processed"
    )
    session = await ledger.session(claim.session_id)
    assert state is SessionState.AT_RISK
    assert (session.state, session.booked_ms, session.sent_ms, session.outcome) == ("at_risk", 400, 400, "failed")
    assert (session.scope, session.close_code, session.error_text) == ("object", 4002, "could not be processed")
    assert await money(ledger) == (0, 0, 400)


async def test_a_session_that_sent_no_audio_is_released(ledger):
    claim = await admit(ledger, 1)
    assert await ledger.fail(claim.session_id, sent_ms=0, outcome="refused", scope=Scope.ORGANISATION) is SessionState.RELEASED
    assert await money(ledger) == (0, 0, 0)


async def test_only_the_objects_own_failures_spend_its_attempts(ledger):
    for number, scope in enumerate((Scope.OBJECT, Scope.SERVICE, None, Scope.OBJECT)):
        claim = await admit(ledger, number, object_id="same")
        await ledger.fail(claim.session_id, sent_ms=1, outcome="failed", scope=scope)
    assert await ledger.attempts_of("lake", "same", "music", "params") == 2
    assert await ledger.attempts_of("lake", "same", "ai_music", "params") == 0


async def test_a_session_that_outlives_its_estimate_reserves_more(ledger):
    await ledger.set_cap("acme", "*", MONTH, 1500)
    claim = await admit(ledger, 1)
    assert await ledger.extend(claim.session_id, 500)
    assert not await ledger.extend(claim.session_id, 1)
    assert (await ledger.session(claim.session_id)).reserved_ms == 1500
    assert await money(ledger) == (1500, 0, 0)
    await ledger.finish(claim.session_id, 1400)
    assert await money(ledger) == (0, 1400, 0)
    with pytest.raises(LeaseLost):
        await ledger.extend(claim.session_id, 1)


# leases


async def test_a_renewed_lease_holds_and_another_worker_renews_nothing(ledger, clock):
    claim = await admit(ledger, 1)
    for _ in range(10):
        clock.ms += LEASE_MS - 1
        assert await ledger.renew("worker") == {claim.session_id}
    assert await ledger.renew("another") == frozenset()
    await ledger.finish(claim.session_id, 900)
    assert await ledger.renew("worker") == frozenset()


async def test_an_expired_lease_frees_the_slot_and_is_not_renewed_nor_finished(ledger, clock):
    await ledger.set_gate("acme", "music", 1)
    claim = await admit(ledger, 1)
    clock.ms += LEASE_MS - 1
    assert await ledger.admit(claim_of(2)) is Denial.FULL
    clock.ms += 1
    await admit(ledger, 2, worker="another")
    assert await ledger.renew("worker") == frozenset()
    with pytest.raises(LeaseLost):
        await ledger.finish(claim.session_id, 900)
    with pytest.raises(LeaseLost):
        await ledger.extend(claim.session_id, 1)


async def test_until_it_is_swept_an_expired_session_keeps_its_object_and_its_money(ledger, clock):
    await admit(ledger, 1)
    clock.ms += LEASE_MS
    assert await ledger.admit(claim_of(2, object_id="object-1")) is Denial.CLAIMED
    assert await money(ledger) == (1000, 0, 0)


async def test_a_worker_that_slept_books_what_it_knows_until_it_is_swept(ledger, clock):
    claim = await admit(ledger, 1)
    clock.ms += 42 * LEASE_MS
    assert await ledger.fail(claim.session_id, sent_ms=10, outcome="cancelled") is SessionState.AT_RISK
    assert await money(ledger) == (0, 0, 10)
    assert await ledger.expired() == ()


@pytest.mark.parametrize("uptime_ms", [0, 5_000, 500_000])
async def test_a_lease_of_before_a_reboot_has_expired(ledger, clock, uptime_ms):
    await ledger.set_gate("acme", "music", 1)
    claim = await admit(ledger, 1)
    clock.ms = uptime_ms
    assert await live(ledger) == 0
    assert await ledger.expired() == (claim.session_id,)
    await admit(ledger, 2)
    with pytest.raises(LeaseLost):
        await ledger.finish(claim.session_id, 900)


async def test_the_clock_is_read_under_the_lock(path):
    # read earlier, it could lie so far before leases renewed meanwhile that they look like ones of before a reboot
    readings = []

    def boot_ms():
        with sqlite3.connect(path, timeout=0, isolation_level=None) as other, pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.close()
        readings.append(1_000_000)
        return 1_000_000

    async with Ledger.open(path, boot_ms=boot_ms) as ledger:
        await ledger.set_gate("acme", "music", 2)
        claim = await admit(ledger, 1)
        await ledger.renew("worker")
        await ledger.extend(claim.session_id, 1)
        await ledger.expired()
        await ledger.recover(claim.session_id, None)
        await ledger.usage("acme", MONTH)
        await ledger.finish(claim.session_id, 900)
    assert len(readings) == 7


def test_the_boot_clock_moves_forward():
    assert 0 < host_boot_ms() <= host_boot_ms()


# the sweep


async def test_only_expired_sessions_are_recovered(ledger, clock):
    claim = await admit(ledger, 1)
    assert await ledger.expired() == ()
    assert await ledger.recover(claim.session_id, None) is None
    clock.ms += LEASE_MS
    assert await ledger.expired() == (claim.session_id,)


async def test_a_result_in_the_spool_finishes_its_session(ledger, clock):
    claim = await admit(ledger, 1)
    clock.ms += LEASE_MS
    assert await ledger.recover(claim.session_id, spooled(claim, done=True, booked_ms=950)) is SessionState.FINISHED
    session = await ledger.session(claim.session_id)
    assert (session.state, session.booked_ms, session.sent_ms, session.close_code) == ("finished", 950, 700, 1000)
    assert await money(ledger) == (0, 950, 0)
    assert await ledger.admit(claim_of(2, object_id="object-1")) is Denial.DONE


@pytest.mark.parametrize(("sent_ms", "state"), [(700, "at_risk"), (0, "released")])
async def test_a_failure_in_the_spool_fails_its_session_with_its_facts(ledger, clock, sent_ms, state):
    claim = await admit(ledger, 1)
    clock.ms += LEASE_MS
    assert await ledger.recover(claim.session_id, spooled(claim, done=False, sent_ms=sent_ms)) == state
    session = await ledger.session(claim.session_id)
    assert (session.state, session.booked_ms, session.outcome, session.scope) == (state, sent_ms, "failed", "object")
    assert await money(ledger) == (0, 0, sent_ms)


async def test_without_a_trace_the_whole_reservation_is_at_risk_and_the_object_free(ledger, clock):
    claim = await admit(ledger, 1)
    await ledger.extend(claim.session_id, 500)
    clock.ms += LEASE_MS
    assert await ledger.recover(claim.session_id, None) is SessionState.AT_RISK
    assert await money(ledger) == (0, 0, 1500)
    with pytest.raises(LeaseLost):
        await ledger.finish(claim.session_id, 900)
    with pytest.raises(LeaseLost):
        await ledger.fail(claim.session_id, sent_ms=1, outcome="failed")
    await admit(ledger, 2, object_id="object-1")


async def test_two_sweepers_at_once_recover_once(ledger, path, clock):
    claim = await admit(ledger, 1)
    clock.ms += LEASE_MS
    async with Ledger.open(path, boot_ms=clock) as second:
        states = await asyncio.gather(*(sweeper.recover(claim.session_id, None) for sweeper in (ledger, second, ledger, second)))
    assert sorted(states, key=str) == [None, None, None, SessionState.AT_RISK]
    assert await money(ledger) == (0, 0, 1000)


# packages


async def test_a_package_takes_the_oldest_ended_sessions_of_its_run_and_lake(ledger):
    await ledger.set_gate("acme", "music", 9)
    await finished(ledger, 3)
    await finished(ledger, 1)
    failed = await admit(ledger, 2)
    await ledger.fail(failed.session_id, sent_ms=0, outcome="refused")
    await admit(ledger, 4)
    await finished(ledger, 5, lake="other")
    await finished(ledger, 6, run_id="other")
    first = await ledger.assign_package("lake", RUN, SCAN_DATE, max_sessions=2)
    assert (first.package, first.org, first.scan_date) == (f"{RUN}-p0001", "acme", SCAN_DATE)
    assert first.members == (Member("session-0001", "music", "finished"), Member("session-0002", "music", "released"))
    second = await ledger.assign_package("lake", RUN, SCAN_DATE, max_sessions=2)
    assert (second.package, [member.session_id for member in second.members]) == (f"{RUN}-p0002", ["session-0003"])
    assert await ledger.assign_package("lake", RUN, SCAN_DATE, max_sessions=2) is None
    assert await ledger.unpublished("lake") == [first, second]
    assert await ledger.runs_with_unpackaged("lake") == [UnpackagedRun("other", "acme", 1)]


async def test_publishing_is_repeatable_and_touches_only_finished_members(ledger):
    await finished(ledger, 1)
    failed = await admit(ledger, 2)
    await ledger.fail(failed.session_id, sent_ms=5, outcome="failed")
    package = await ledger.assign_package("lake", RUN, SCAN_DATE, max_sessions=10)
    for _ in range(2):
        await ledger.mark_published(package.package)
        assert await ledger.unpublished("lake") == []
    assert [(await ledger.session(member.session_id)).state for member in package.members] == ["published", "at_risk"]
    assert await money(ledger) == (0, 1000, 5)


async def test_a_package_of_failures_alone_can_be_published(ledger):
    failed = await admit(ledger, 1)
    await ledger.fail(failed.session_id, sent_ms=5, outcome="failed")
    package = await ledger.assign_package("lake", RUN, SCAN_DATE, max_sessions=10)
    assert await ledger.unpublished("lake") == [package]
    await ledger.mark_published(package.package)
    assert await ledger.unpublished("lake") == []


async def test_two_publishers_at_once_share_the_sessions_without_overlap(ledger, path):
    await ledger.set_gate("acme", "music", None)
    for number in range(20):
        await finished(ledger, number)
    async with Ledger.open(path) as second:
        both = itertools.cycle((ledger, second))
        packages = await asyncio.gather(*(next(both).assign_package("lake", RUN, SCAN_DATE, max_sessions=5) for _ in range(6)))
    members = [member.session_id for package in packages if package for member in package.members]
    assert len(members) == len(set(members)) == 20
    assert sorted(package.package for package in packages if package) == [f"{RUN}-p000{n}" for n in (1, 2, 3, 4)]


# the database


async def test_everything_is_there_after_reopening(path, clock):
    async with Ledger.open(path, boot_ms=clock) as ledger:
        await ledger.set_gate("acme", "music", 2)
        await admit(ledger, 1)
    async with Ledger.open(str(path), boot_ms=clock) as ledger:
        assert await ledger.renew("worker") == {"session-0001"}
        assert await money(ledger) == (1000, 0, 0)
        assert await execute(ledger, "PRAGMA journal_mode") == [("wal",)]
        assert await execute(ledger, "PRAGMA synchronous") == [(2,)]


async def test_a_url_and_a_path_with_odd_characters_open(tmp_path):
    async with Ledger.open(tmp_path / "a b?c#d%20" / "ledger.sqlite"):
        assert (tmp_path / "a b?c#d%20" / "ledger.sqlite").exists()
    async with Ledger.open(f"sqlite+aiosqlite:///{tmp_path}/url.sqlite"):
        assert (tmp_path / "url.sqlite").exists()


async def opening_fails(path_or_url, error, words):
    with pytest.raises(error, match=words):
        async with Ledger.open(path_or_url):
            pass


async def test_another_database_is_refused():
    await opening_fails("mysql://host/ledger", ConfigurationError, "sqlite")


async def test_another_schema_version_is_refused(path, ledger):
    await change(ledger, "UPDATE schema_version SET version = 99")
    await opening_fails(path, ConfigurationError, "version 99")


async def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "ledger.sqlite").write_bytes(b"no database " * 1000)
    await opening_fails(tmp_path / "ledger.sqlite", UnreachableError, r"ledger\.sqlite is damaged.*rebuild")


async def test_a_folder_that_cannot_be_made_or_a_file_that_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "file").touch()
    await opening_fails(tmp_path / "file" / "ledger.sqlite", ResultsNotWritable, str(tmp_path / "file"))
    await opening_fails(tmp_path, ResultsNotWritable, str(tmp_path))


async def test_a_full_disk_stops_admission_and_nothing_is_lost(ledger, path):
    claim = await admit(ledger, 1)
    await execute(ledger, "PRAGMA max_page_count = 1")
    with pytest.raises(ResultsNotWritable, match=f"{path.name} takes no writes: the disk is full"):
        await ledger.fail(claim.session_id, sent_ms=1, outcome="failed", error_text="x" * 100_000)
    await execute(ledger, "PRAGMA max_page_count = 1000000")
    assert await money(ledger) == (1000, 0, 0)
    await ledger.finish(claim.session_id, 900)


async def test_a_read_only_ledger_is_said(ledger):
    await change(ledger, "PRAGMA query_only = ON")
    with pytest.raises(ResultsNotWritable, match="read-only"):
        await ledger.admit(claim_of(1))


async def test_a_locked_ledger_is_said_and_works_again_afterwards(path, clock, monkeypatch):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.05)
    async with Ledger.open(path, boot_ms=clock) as ledger:
        await ledger.set_gate("acme", "music", 2)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UnreachableError, match=r"locked for 0\.05 s"):
            await ledger.admit(claim_of(1))
        task = asyncio.create_task(ledger.admit(claim_of(1)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        other.execute("ROLLBACK")
        other.close()
        await admit(ledger, 1)


async def test_a_session_id_used_twice_is_our_mistake_and_rolls_back(ledger):
    await finished(ledger, 1)
    with pytest.raises(Exception, match="UNIQUE constraint"):
        await ledger.admit(claim_of(1, force=True))
    assert await money(ledger) == (0, 1000, 0)


async def test_ledgers_opened_at_the_same_time_make_one_schema(path):
    async def visit(number):
        async with Ledger.open(path) as ledger:
            await ledger.set_gate("acme", f"endpoint-{number}", 1)

    await asyncio.gather(*(visit(number) for number in range(8)))
    async with Ledger.open(path) as ledger:
        assert len(await ledger.usage("acme", MONTH)) == 9


# several processes

_PROCESS = """
import asyncio, sys
from connectors.ledger import Ledger
from moderation.admission import Claim, Denial, Grant

path, me, wanted, hold = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "hold"

def claim_of(number):
    return Claim(session_id=f"{me}-{number:03}", lake="lake", org="acme", endpoint="music", object_id=f"{me}-{number}", object_key_id="key",
                 params_hash="params", run_id="run", shard=0, worker=me, attempt=1, month="2026-11", estimate_ms=1000)

async def main():
    async with Ledger.open(path) as ledger:
        held = []
        for number in range(wanted):
            while not isinstance(answer := await ledger.admit(claim_of(number)), Grant):
                assert answer is Denial.FULL, answer
                if held:
                    await ledger.finish(held.pop(0), 900)
            held.append(claim_of(number).session_id)
        if hold:
            print("holding", flush=True)
            sys.stdin.read()
        for session_id in held:
            await ledger.finish(session_id, 900)

asyncio.run(main())
"""


def process(path, name, wanted, hold="go"):
    return subprocess.Popen(
        [sys.executable, "-c", _PROCESS, str(path), name, str(wanted), hold],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


async def test_two_processes_admitting_at_once_never_exceed_the_ceiling(path):
    async with Ledger.open(path) as ledger:
        await ledger.set_gate("acme", "music", 3)
        # an independent witness, inside the database: how many stream right after each admission
        await change(ledger, "CREATE TABLE witness (process TEXT, streaming INTEGER)")
        await change(
            ledger,
            "CREATE TRIGGER witnessed AFTER INSERT ON sessions BEGIN INSERT INTO witness "
            "SELECT NEW.worker, count(*) FROM sessions WHERE state = 'streaming'; END",
        )
        workers = [process(path, name, 60) for name in ("one", "two")]
        results = await asyncio.gather(*(asyncio.to_thread(worker.communicate) for worker in workers))
        assert [worker.returncode for worker in workers] == [0, 0], results
        seen = await execute(ledger, "SELECT process, streaming FROM witness")
        assert Counter(name for name, _ in seen) == {"one": 60, "two": 60}
        assert max(streaming for _, streaming in seen) == 3
        assert await money(ledger) == (0, 120 * 900, 0)


async def test_a_killed_holder_is_swept_and_its_objects_stream_again(path):
    slept = Clock(0)
    async with Ledger.open(path, boot_ms=lambda: host_boot_ms() + slept.ms) as ledger:
        await ledger.set_gate("acme", "music", 2)
        holder = process(path, "holder", 2, "hold")
        assert await asyncio.to_thread(holder.stdout.readline) == "holding\n"
        holder.kill()
        await asyncio.to_thread(holder.communicate)
        assert await ledger.admit(claim_of(1)) is Denial.FULL
        assert await ledger.expired() == ()
        slept.ms = LEASE_MS
        assert await ledger.expired() == ("holder-000", "holder-001")
        result = spooled(claim_of(1, session_id="holder-000"), done=True, booked_ms=900)
        assert await ledger.recover("holder-000", result) is SessionState.FINISHED
        assert await ledger.recover("holder-001", None) is SessionState.AT_RISK
        assert await money(ledger) == (0, 900, 1000)
        assert await ledger.admit(claim_of(1, object_id="holder-0")) is Denial.DONE
        await admit(ledger, 2, object_id="holder-1")


async def test_a_worker_killed_amid_its_transactions_leaves_exact_counters(path):
    async with Ledger.open(path) as ledger:
        await ledger.set_gate("acme", "music", 3)
        worker = process(path, "worker", 100_000)
        while (await ledger.usage("acme", MONTH))[0].settled_ms < 20 * 900:
            assert worker.poll() is None
        worker.kill()
        await asyncio.to_thread(worker.communicate)
        sums = await execute(
            ledger,
            "SELECT sum(reserved_ms) FILTER (WHERE state = 'streaming'), sum(booked_ms) FILTER (WHERE state = 'finished') FROM sessions",
        )
        reserved, settled, at_risk = await money(ledger)
        assert [(reserved or None, settled)] == sums
        assert at_risk == 0
        assert await execute(ledger, "PRAGMA integrity_check") == [("ok",)]


# a model

ENDPOINTS = ("music", "ai_music")
CEILINGS = {"music": 2, "ai_music": 2, "*": 3}
CAPS = {"music": 6000, "ai_music": None, "*": 9000}
MONTHS = ("2026-11", "2026-12")
WORKERS = ("north", "south")


class LedgerMachine(RuleBasedStateMachine):
    """The ledger beside a dict of sessions that follows design.md section 5 word by word."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.opened = Ledger.open(Path(self.folder.name) / "ledger.sqlite", boot_ms=self.clock, now=lambda: START)
        self.ledger = self.run(self.opened.__aenter__())
        self.sessions = {}
        self.packages = {}
        self.paused = False

    def run(self, awaitable):
        return self.runner.run(awaitable)

    def teardown(self):
        self.run(self.opened.__aexit__(None, None, None))
        self.runner.close()
        self.folder.cleanup()

    @initialize()
    def settings_are_written(self):
        for endpoint, ceiling in CEILINGS.items():
            self.run(self.ledger.set_gate("acme", endpoint, ceiling))
        for endpoint, month in itertools.product(CAPS, MONTHS):
            self.run(self.ledger.set_cap("acme", endpoint, month, CAPS[endpoint]))

    def held(self, session):
        return session["state"] == "streaming" and self.clock.ms < session["lease_until"]

    def live(self, endpoint):
        return sum(self.held(s) and endpoint in {"*", s["claim"].endpoint} for s in self.sessions.values())

    def spent(self, endpoint, month):
        """{reserved, settled, at_risk} as sums over sessions."""
        sums = {"reserved": 0, "settled": 0, "at_risk": 0}
        for session in self.sessions.values():
            claim = session["claim"]
            if claim.month == month and endpoint in {"*", claim.endpoint}:
                column = {"streaming": "reserved", "finished": "settled", "published": "settled"}.get(session["state"], "at_risk")
                sums[column] += session["ms"]
        return sums

    def over_budget(self, claim, more_ms):
        return any(
            CAPS[endpoint] is not None and sum(self.spent(endpoint, claim.month).values()) + more_ms > CAPS[endpoint]
            for endpoint in (claim.endpoint, "*")
        )

    def denial(self, claim):
        states = {
            s["state"] for s in self.sessions.values() if (s["claim"].object_id, s["claim"].endpoint) == (claim.object_id, claim.endpoint)
        }
        if "streaming" in states:
            return Denial.CLAIMED
        if states & {"finished", "published"} and not claim.force:
            return Denial.DONE
        if self.paused:
            return Denial.PAUSED
        if any(self.live(endpoint) >= CEILINGS[endpoint] for endpoint in (claim.endpoint, "*")):
            return Denial.FULL
        return Denial.BUDGET if self.over_budget(claim, claim.estimate_ms) else None

    @rule(
        number=st.integers(0, 4),
        endpoint=st.sampled_from(ENDPOINTS),
        month=st.sampled_from(MONTHS),
        worker=st.sampled_from(WORKERS),
        estimate_ms=st.integers(0, 2000),
        force=st.booleans(),
    )
    def admits(self, number, **wish):
        claim = claim_of(len(self.sessions), object_id=f"object-{number}", **wish)
        expected = self.denial(claim)
        answer = self.run(self.ledger.admit(claim))
        if expected is not None:
            assert answer is expected
            return
        assert answer == Grant(claim.session_id, self.clock.ms + LEASE_MS)
        self.sessions[claim.session_id] = {
            "claim": claim,
            "state": "streaming",
            "ms": claim.estimate_ms,
            "lease_until": self.clock.ms + LEASE_MS,
        }

    def pick(self, index):
        return list(self.sessions)[index % len(self.sessions)]

    def end(self, session_id, state, ms):
        self.sessions[session_id] |= {"state": str(state), "ms": ms}

    @precondition(lambda self: self.sessions)
    @rule(index=st.integers(0, 99), share=st.floats(0, 1))
    def finishes(self, index, share):
        session = self.sessions[session_id := self.pick(index)]
        booked_ms = round(session["ms"] * share)
        if self.held(session):
            self.run(self.ledger.finish(session_id, booked_ms))
            self.end(session_id, "finished", booked_ms)
        else:
            with pytest.raises(LeaseLost):
                self.run(self.ledger.finish(session_id, booked_ms))

    @precondition(lambda self: self.sessions)
    @rule(index=st.integers(0, 99), share=st.sampled_from([0, 0.5, 1]))
    def fails(self, index, share):
        session = self.sessions[session_id := self.pick(index)]
        sent_ms = round(session["ms"] * share)
        if session["state"] == "streaming":
            state = self.run(self.ledger.fail(session_id, sent_ms=sent_ms, outcome="failed"))
            assert state == ("at_risk" if sent_ms else "released")
            self.end(session_id, state, sent_ms)
        else:
            with pytest.raises(LeaseLost):
                self.run(self.ledger.fail(session_id, sent_ms=sent_ms, outcome="failed"))

    @precondition(lambda self: self.sessions)
    @rule(index=st.integers(0, 99), more_ms=st.integers(0, 2000))
    def extends(self, index, more_ms):
        session = self.sessions[session_id := self.pick(index)]
        if not self.held(session):
            with pytest.raises(LeaseLost):
                self.run(self.ledger.extend(session_id, more_ms))
            return
        allowed = not self.over_budget(session["claim"], more_ms)
        assert self.run(self.ledger.extend(session_id, more_ms)) == allowed
        session["ms"] += more_ms if allowed else 0

    @rule(worker=st.sampled_from(WORKERS))
    def renews(self, worker):
        mine = {name for name, session in self.sessions.items() if self.held(session) and session["claim"].worker == worker}
        assert self.run(self.ledger.renew(worker)) == mine
        for session_id in mine:
            self.sessions[session_id]["lease_until"] = self.clock.ms + LEASE_MS

    @rule(ms=st.sampled_from([15_000, 30_000, LEASE_MS]))
    def time_passes(self, ms):
        self.clock.ms += ms

    @rule(left=st.sampled_from(["nothing", "failure", "result"]))
    def sweeps(self, left):
        stale = [name for name, session in self.sessions.items() if session["state"] == "streaming" and not self.held(session)]
        assert list(self.run(self.ledger.expired())) == stale
        for session_id in self.sessions:
            session = self.sessions[session_id]
            half_ms = session["ms"] // 2
            entry = None if left == "nothing" else spooled(session["claim"], done=left == "result", sent_ms=half_ms, booked_ms=half_ms)
            state = self.run(self.ledger.recover(session_id, entry))
            if session_id not in stale:
                assert state is None
                continue
            failed = "at_risk" if half_ms or left == "nothing" else "released"
            assert state == ("finished" if left == "result" else failed)
            self.end(session_id, state, session["ms"] if left == "nothing" else half_ms)

    @rule(max_sessions=st.integers(1, 3))
    def assigns_a_package(self, max_sessions):
        packaged = {member for members in self.packages.values() for member in members}
        waiting = [name for name, s in self.sessions.items() if s["state"] in {"finished", "at_risk", "released"} and name not in packaged]
        package = self.run(self.ledger.assign_package("lake", RUN, SCAN_DATE, max_sessions=max_sessions))
        members = [member.session_id for member in package.members] if package else []
        assert members == waiting[:max_sessions]
        if package:
            self.packages[package.package] = members

    @precondition(lambda self: self.packages)
    @rule(index=st.integers(0, 99))
    def publishes(self, index):
        package = list(self.packages)[index % len(self.packages)]
        self.run(self.ledger.mark_published(package))
        for session_id in self.packages[package]:
            if self.sessions[session_id]["state"] == "finished":
                self.sessions[session_id]["state"] = "published"

    @rule(pause=st.booleans())
    def pauses_or_resumes(self, pause):
        self.run(self.ledger.pause("acme") if pause else self.ledger.resume("acme"))
        self.paused = pause

    @invariant()
    def counters_are_the_sums_over_sessions_and_limits_hold(self):
        for month in MONTHS:
            for usage in self.run(self.ledger.usage("acme", month)):
                spent = {"reserved": usage.reserved_ms, "settled": usage.settled_ms, "at_risk": usage.at_risk_ms}
                assert spent == self.spent(usage.endpoint, month)
                assert usage.left_ms is None or usage.left_ms >= 0
                assert usage.live == self.live(usage.endpoint) <= usage.ceiling

    @invariant()
    def no_object_streams_twice(self):
        streaming = self.run(execute(self.ledger, "SELECT object_id, endpoint FROM sessions WHERE state = 'streaming'"))
        assert len(streaming) == len(set(streaming))


LedgerMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestLedgerAgainstItsModel = LedgerMachine.TestCase
