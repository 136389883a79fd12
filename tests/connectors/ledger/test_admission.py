"""Who may stream: every reason for and against, in both databases."""

import asyncio
from dataclasses import replace

import pytest

from connectors.ledger import LEASE_MS, Ledger
from ledger_facts import (
    MONTH,
    RUN,
    SCAN_DATE,
    START,
    admit,
    change,
    claim_of,
    execute,
    failed_as,
    finished,
    live,
    money,
    set_gate,
    usage_of,
    write_gate,
)
from moderation.admission import Denial, Grant, Refusal, SessionKind
from moderation.breaker import Breaker, BreakerState, OpenedBy
from moderation.budget import MICROS, MS_PER_HOUR, Allowance
from moderation.errors import ConfigurationError
from moderation.gate import GateRules
from moderation.limits import ConnectionLimit, Stage
from moderation.outcomes import StopCause
from moderation.refusals import CANCELLED


async def test_a_grant_writes_the_session_and_its_reservation_before_any_audio(ledger, clock):
    grant = await ledger.admit(claim_of(1))
    assert grant == Grant("session-0001", clock.ms + LEASE_MS, awaited=False), "the ledger of these tests has grown to its ceiling"
    session = await ledger.session("session-0001")
    assert (session.state, session.kind, session.reserved_ms, session.started_at) == ("streaming", "object", 1000, START)
    assert await money(ledger) == (1000, 0, 0)


@pytest.mark.fault(61)
async def test_a_missing_gate_is_a_configuration_fault_and_never_an_unlimited_one(ledger):
    for org, endpoint in (("acme", "unknown"), ("nobody", "music")):
        with pytest.raises(ConfigurationError, match=org) as caught:
            await ledger.admit(claim_of(1, org=org, endpoint=endpoint))
        assert caught.value.exit_code == 78
    assert await execute(ledger, "SELECT * FROM sessions") == []


@pytest.mark.fault(61)
async def test_a_deleted_gate_of_the_organisation_is_missed_too(ledger):
    await change(ledger, "DELETE FROM gates WHERE endpoint = '*'")
    with pytest.raises(ConfigurationError, match=r"'acme', endpoint '\*'"):
        await ledger.admit(claim_of(1))


async def test_the_ceiling_of_an_endpoint_holds(ledger):
    await admit(ledger, 1)
    await admit(ledger, 2)
    assert await ledger.admit(claim_of(3)) == Refusal(Denial.FULL, live=2)
    await admit(ledger, 4, endpoint="ai_music")
    await ledger.finish("session-0001", 900)
    await admit(ledger, 5)


async def test_the_ceiling_of_the_organisation_holds_over_all_endpoints(ledger):
    await ledger.set_gate("acme", "*", 3)
    await admit(ledger, 1)
    await admit(ledger, 2)
    await admit(ledger, 3, endpoint="ai_music")
    assert await ledger.admit(claim_of(4, endpoint="ai_music")) == Refusal(Denial.FULL, live=3)
    assert await live(ledger, "*") == 3


async def test_one_organisation_does_not_take_slots_or_hours_of_another(ledger):
    await set_gate(ledger, "other", "music", 1)
    await ledger.set_cap("other", "music", 1000)
    await admit(ledger, 1, org="other")
    await admit(ledger, 2)
    assert await money(ledger) == (1000, 0, 0)


async def test_a_ceiling_of_nothing_admits_nothing_and_none_admits_all(ledger):
    await set_gate(ledger, "acme", "music", 0)
    assert await ledger.admit(claim_of(1)) == Refusal(Denial.FULL, live=0)
    await set_gate(ledger, "acme", "music", None)
    for number in range(5):
        await admit(ledger, number)


async def test_settings_written_again_change_only_what_they_say(ledger):
    await ledger.set_gate("acme", "*", 9)
    await ledger.set_cap("acme", "music", 5000)
    await ledger.pause("acme")
    await set_gate(ledger, "acme", "music", 4)
    await ledger.resume("acme")
    await admit(ledger, 1)
    await ledger.set_cap("acme", "music", 7000)
    usages = {usage.endpoint: usage for usage in await ledger.usage("acme", MONTH)}
    assert (usages["*"].gate.ceiling, usages["music"].gate.ceiling) == (9, 4)
    assert (usages["music"].reserved_ms, usages["music"].hours) == (1000, Allowance(7000, 1000))
    assert usages["*"].hours.left is None


async def test_a_pause_stops_admission_and_leaves_what_streams(ledger):
    await admit(ledger, 1)
    await ledger.pause("acme")
    assert await ledger.admit(claim_of(2)) == Refusal(Denial.PAUSED)
    assert await ledger.renew("worker") == {"session-0001"}
    await ledger.finish("session-0001", 900)
    assert [usage.gate.paused for usage in await ledger.usage("acme", MONTH)] == [True, False, False]
    await ledger.resume("acme")
    await admit(ledger, 2)


async def test_pausing_an_unknown_organisation_is_said(ledger):
    for act in (ledger.pause, ledger.resume):
        with pytest.raises(ConfigurationError, match="acmee"):
            await act("acmee")


async def test_a_slot_is_given_back_by_whoever_asks_next_and_the_session_is_held_until_it_is_booked(ledger):
    for number in (1, 2):
        await admit(ledger, number)
    assert await ledger.admit(claim_of(3)) == Refusal(Denial.FULL, live=2)
    assert isinstance(await ledger.admit(claim_of(3), ["session-0001"]), Grant)
    assert await ledger.admit(claim_of(4, object_id="object-1"), ["session-0001"]) == Refusal(Denial.CLAIMED)
    assert await ledger.admit(claim_of(5)) == Refusal(Denial.FULL, live=2)
    assert await money(ledger) == (3000, 0, 0)
    await ledger.finish("session-0001", 900)
    assert await live(ledger) == 2
    assert (await ledger.session("session-0001")).closed


async def test_a_higher_limit_is_learned_from_all_that_have_a_result_told_before_or_not(ledger, clock):
    found = ConnectionLimit(Stage.HOLDING, allowed=2, learned=2, raise_at_ms=clock.ms)
    await ledger.set_gate("acme", "music", 5)
    await write_gate(ledger, "acme", "music", limit=found)
    for number in (1, 2, 3):
        await admit(ledger, number)
    await ledger.note_result("session-0003", ["session-0001", "session-0002", "of nobody"])
    assert (await usage_of(ledger)).gate.limit.allowed == 3
    assert (await usage_of(ledger)).admitted == 3


@pytest.mark.parametrize("held", [True, False])
async def test_a_result_told_beside_another_one_is_heard_by_its_own_gate_still(ledger, clock, held):
    """It is of another endpoint, or the other one's lease is over."""
    endpoint = "ai_music" if held else "music"
    await write_gate(ledger, "acme", endpoint, breaker=Breaker(row=4), key_ok_ms=None)
    await admit(ledger, 1)
    if not held:
        clock.ms += LEASE_MS
    await admit(ledger, 2, endpoint=endpoint)
    await ledger.note_result("session-0001", ["session-0002"])
    await ledger.note_result("session-0002")
    gate = (await usage_of(ledger, endpoint)).gate
    assert (gate.breaker.row, gate.key_ok_ms) == (0, clock.ms)


async def test_a_session_that_has_given_its_slot_back_shows_no_higher_limit(ledger, clock):
    """Nobody was there to take the slot: never more than two were open."""
    await ledger.set_gate("acme", "music", 5)
    await write_gate(ledger, "acme", "music", limit=ConnectionLimit(Stage.HOLDING, allowed=2, learned=2, raise_at_ms=clock.ms))
    for number in (1, 2, 3):
        await admit(ledger, number)
    for session_id in ("session-0001", "session-0002"):
        await ledger.note_result(session_id)
    await ledger.note_result("session-0003", closed=["session-0001"])
    usage = await usage_of(ledger)
    assert (usage.gate.limit.allowed, usage.live, usage.admitted) == (2, 2, 2)


async def test_a_late_booking_makes_no_higher_limit_of_a_session_and_the_one_in_its_place(ledger, clock):
    """Never more than two were open."""
    found = ConnectionLimit(Stage.HOLDING, allowed=2, learned=2, raise_at_ms=clock.ms + LEASE_MS)
    await ledger.set_gate("acme", "music", 5)
    await write_gate(ledger, "acme", "music", limit=found)
    for number in (1, 2):
        await admit(ledger, number)
    assert isinstance(await ledger.admit(claim_of(3), ["session-0001"]), Grant)
    for session_id in ("session-0002", "session-0003"):
        await ledger.note_result(session_id)
    await ledger.finish("session-0001", 900)
    assert (await usage_of(ledger)).gate.limit == found


@pytest.mark.parametrize("gate", ["music", "*"])
async def test_an_open_breaker_stops_admission_until_its_probe_is_due(ledger, clock, gate):
    breaker = Breaker(BreakerState.OPEN, OpenedBy.SERVICE, opened_ms=clock.ms, until_ms=clock.ms + 1)
    await write_gate(ledger, "acme", gate, breaker=breaker)
    assert await ledger.admit(claim_of(1)) == Refusal(Denial.BREAKER, opened_by=OpenedBy.SERVICE, probe_in_ms=1)
    clock.ms += 1
    assert (await ledger.admit(claim_of(1))).kind is SessionKind.PROBE
    assert await ledger.admit(claim_of(2)) == Refusal(Denial.BREAKER, opened_by=OpenedBy.SERVICE, probe_in_ms=None)


async def test_while_a_limit_rests_nothing_is_said_about_how_many_are_live(ledger, clock):
    """Who waits asks again, since it is time that makes room, and not a slot that is given back."""
    limit = (await usage_of(ledger)).gate.limit
    await write_gate(ledger, "acme", "music", limit=replace(limit, rest_until_ms=clock.ms + 1))
    assert await ledger.admit(claim_of(1)) == Refusal(Denial.FULL, live=None)
    clock.ms += 1
    await admit(ledger, 1)


async def test_a_breaker_that_has_given_up_names_what_ends_the_run(ledger, clock):
    await write_gate(ledger, "acme", "*", breaker=Breaker(BreakerState.OPEN, OpenedBy.QUOTA, opened_ms=clock.ms, bad_probes=1))
    assert await ledger.admit(claim_of(1)) == Refusal(Denial.BREAKER, StopCause.CREDITS_EXHAUSTED, OpenedBy.QUOTA, 0)


@pytest.mark.parametrize("gate", ["music", "*"])
async def test_a_cap_counts_settled_at_risk_and_reserved(ledger, gate):
    await ledger.set_cap("acme", gate, 4000)
    await finished(ledger, 1)
    failed = await admit(ledger, 2)
    await ledger.fail(failed_as(failed), sent_ms=1000, outcome="failed")
    await admit(ledger, 3)
    assert await money(ledger) == (1000, 1000, 1000)
    assert await ledger.admit(claim_of(4, estimate_ms=1001)) == Refusal(Denial.BUDGET, cap=gate)
    await admit(ledger, 4, estimate_ms=1000)


@pytest.mark.fault(54)
async def test_each_month_has_its_own_budget_under_the_same_cap(ledger):
    await ledger.set_cap("acme", "music", 1000)
    await set_gate(ledger, "acme", "music", None)
    for number, month in enumerate((MONTH, "2026-12", "2031-07")):
        await admit(ledger, 2 * number, month=month)
        assert await ledger.admit(claim_of(2 * number + 1, month=month)) == Refusal(Denial.BUDGET, cap="music")
        assert await money(ledger, month=month) == (1000, 0, 0)


@pytest.mark.parametrize("gate", ["music", "*"])
async def test_a_cap_in_money_holds_to_the_millisecond(ledger, gate):
    await ledger.set_price("acme", "music", 3 * MICROS)
    await ledger.set_cap("acme", gate, None, cap_micros=3 * MICROS)
    await finished(ledger, 1, estimate_ms=MS_PER_HOUR - 1000)
    assert await ledger.admit(claim_of(2, estimate_ms=1001)) == Refusal(Denial.BUDGET, cap=gate)
    claim = await admit(ledger, 2, estimate_ms=900)
    assert not await ledger.extend(claim.session_id, 101)
    assert await ledger.extend(claim.session_id, 100)
    await ledger.set_price("acme", "music", 6 * MICROS)
    assert not await ledger.extend(claim.session_id, 0)


async def test_a_cap_in_money_without_a_price_is_a_configuration_fault_and_never_free_audio(ledger):
    await ledger.set_cap("acme", "*", None, cap_micros=MICROS)
    with pytest.raises(ConfigurationError, match="'music' has no price") as caught:
        await ledger.admit(claim_of(1))
    assert caught.value.exit_code == 78
    await ledger.set_price("acme", "music", MICROS)
    await admit(ledger, 1)


async def test_caps_and_prices_are_set_about_gates_that_there_are(ledger):
    for act in (ledger.set_cap, ledger.set_price):
        with pytest.raises(ConfigurationError, match="'acme', endpoint 'speech'"):
            await act("acme", "speech", 1)
    for endpoint, price in (("*", 1), ("music", -1)):
        with pytest.raises(ValueError, match="is none"):
            await ledger.set_price("acme", endpoint, price)


def spent(grant):
    """The shares of every cap by its endpoint and unit."""
    return {(cap.endpoint, cap.unit): round(cap.share, 2) for cap in grant.spent}


async def test_a_grant_says_of_every_cap_how_much_is_taken(ledger):
    assert spent(await ledger.admit(claim_of(1))) == {}
    await ledger.set_cap("acme", "music", 10_000)
    await ledger.set_cap("acme", "*", 100_000)
    assert spent(await ledger.admit(claim_of(2))) == {("music", "hours"): 0.2, ("*", "hours"): 0.02}
    await ledger.set_price("acme", "music", MICROS)
    await ledger.set_price("acme", "ai_music", 2 * MICROS)
    await ledger.set_cap("acme", "*", 100_000, MICROS * 5000 // MS_PER_HOUR)
    assert spent(await ledger.admit(claim_of(3, endpoint="ai_music"))) == {("*", "hours"): 0.03, ("*", "money"): 0.8}
    await ledger.finish("session-0001", 500)
    assert spent(await ledger.admit(claim_of(4, estimate_ms=0)))["*", "money"] == 0.7


@pytest.mark.parametrize(("priority", "slots"), [(0, 2), (1, 3)])
async def test_a_slot_can_be_kept_for_urgent_runs(place, priority, slots):
    async with Ledger.open(place, rules=GateRules(kept_slots=1)) as ledger:
        await set_gate(ledger, "acme", "music", 3)
        for number in range(slots):
            await admit(ledger, number, priority=priority)
        assert await ledger.admit(claim_of(9, priority=priority)) == Refusal(Denial.FULL, live=slots)


async def test_an_erased_key_is_never_streamed_again(ledger):
    await change(ledger, "INSERT INTO tombstones VALUES ('key-1', '2026-11-01 00:00:00.000000', 'receipt')")
    assert await ledger.admit(claim_of(1, force=True)) == Refusal(Denial.TOMBSTONE)


async def test_an_object_that_streams_is_claimed_even_by_force(ledger):
    await admit(ledger, 1)
    for force in (False, True):
        assert await ledger.admit(claim_of(2, object_id="object-1", force=force)) == Refusal(Denial.CLAIMED)


@pytest.mark.parametrize("published", [False, True])
async def test_what_is_done_is_done_unless_another_run_is_forced(ledger, published):
    await finished(ledger, 1)
    if published:
        package = await ledger.assign_package("lake", RUN, SCAN_DATE, max_sessions=10)
        await ledger.mark_published(package.package)
    for force in (False, True):
        assert await ledger.admit(claim_of(2, object_id="object-1", force=force)) == Refusal(Denial.DONE)
    assert await ledger.admit(claim_of(2, object_id="object-1", run_id="another")) == Refusal(Denial.DONE)
    await admit(ledger, 2, object_id="object-1", run_id="another", force=True)


@pytest.mark.parametrize("difference", [{"lake": "other"}, {"endpoint": "ai_music"}, {"params_hash": "other"}])
async def test_what_is_done_elsewhere_or_otherwise_is_not_done(ledger, difference):
    await finished(ledger, 1)
    await admit(ledger, 2, object_id="object-1", **difference)


async def test_a_failed_object_is_free_again(ledger):
    for number, sent_ms in ((1, 0), (2, 500)):
        claim = await admit(ledger, number, object_id="same")
        await ledger.fail(failed_as(claim), sent_ms=sent_ms, outcome="failed")
    await admit(ledger, 3, object_id="same")


async def test_what_lasts_is_said_before_what_passes(ledger):
    await finished(ledger, 1)
    await ledger.pause("acme")
    assert await ledger.admit(claim_of(2, object_id="object-1")) == Refusal(Denial.DONE)


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
    for turns in range(100):
        task = asyncio.create_task(ledger.admit(claim_of(turns)))
        for _ in range(turns):
            await asyncio.sleep(0)
        if not task.cancel():  # so late that it was granted and its caller knows
            await task
            await ledger.fail(failed_as(claim_of(turns), CANCELLED), sent_ms=0, outcome="cancelled")
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
