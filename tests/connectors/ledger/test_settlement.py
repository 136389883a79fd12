"""What a session costs, however it ends, in both databases."""

import asyncio

import pytest

from connectors.ledger import LEASE_MS, Ledger
from ledger_facts import admit, claim_of, failed_as, finished, live, money, spooled
from moderation.admission import Denial, Refusal, SessionState
from moderation.errors import LeaseLost
from moderation.refusals import CANCELLED, INCOMPLETE, UNDECODABLE


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
    said = {"close_code": 4002, "error_text": "could not be processed"}
    cause = await ledger.fail(failed_as(claim, UNDECODABLE), sent_ms=400, outcome="failed", **said)
    session = await ledger.session(claim.session_id)
    assert cause is UNDECODABLE
    assert (session.state, session.booked_ms, session.sent_ms, session.outcome) == ("at_risk", 400, 400, "failed")
    assert (session.scope, session.close_code, session.error_text) == ("object", 4002, "could not be processed")
    assert await money(ledger) == (0, 0, 400)


async def test_a_session_that_sent_no_audio_is_released(ledger):
    claim = await admit(ledger, 1)
    await ledger.fail(failed_as(claim), sent_ms=0, outcome="refused")
    assert (await ledger.session(claim.session_id)).state == SessionState.RELEASED
    assert await money(ledger) == (0, 0, 0)


async def test_only_the_objects_own_failures_spend_its_attempts(ledger):
    for number, cause in enumerate((UNDECODABLE, INCOMPLETE, CANCELLED, UNDECODABLE)):
        claim = await admit(ledger, number, object_id="same")
        await ledger.fail(failed_as(claim, cause), sent_ms=1, outcome="failed")
    assert await ledger.attempts_of("lake", "same", "music", "params") == 2
    assert await ledger.attempts_of("lake", "same", "ai_music", "params") == 0


async def test_a_session_that_outlives_its_estimate_reserves_more(ledger):
    await ledger.set_cap("acme", "*", 1500)
    claim = await admit(ledger, 1)
    assert await ledger.extend(claim.session_id, 500)
    assert not await ledger.extend(claim.session_id, 1)
    assert (await ledger.session(claim.session_id)).reserved_ms == 1500
    assert await money(ledger) == (1500, 0, 0)
    await ledger.finish(claim.session_id, 1400)
    assert await money(ledger) == (0, 1400, 0)
    with pytest.raises(LeaseLost):
        await ledger.extend(claim.session_id, 1)


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
    assert await ledger.admit(claim_of(2, object_id="object-1")) == Refusal(Denial.DONE)


@pytest.mark.parametrize(("sent_ms", "state"), [(700, "at_risk"), (0, "released")])
async def test_a_failure_in_the_spool_fails_its_session_with_its_facts(ledger, clock, sent_ms, state):
    claim = await admit(ledger, 1)
    clock.ms += LEASE_MS
    assert await ledger.recover(claim.session_id, spooled(claim, done=False, sent_ms=sent_ms)) == state
    session = await ledger.session(claim.session_id)
    assert (session.state, session.booked_ms, session.outcome, session.scope) == (state, sent_ms, "failed", "object")
    assert await money(ledger) == (0, 0, sent_ms)


@pytest.mark.fault(63)
async def test_without_a_trace_the_whole_reservation_is_at_risk_and_the_object_free(ledger, clock):
    claim = await admit(ledger, 1)
    await ledger.extend(claim.session_id, 500)
    clock.ms += LEASE_MS
    assert await ledger.recover(claim.session_id, None) is SessionState.AT_RISK
    assert await money(ledger) == (0, 0, 1500)
    with pytest.raises(LeaseLost):
        await ledger.finish(claim.session_id, 900)
    with pytest.raises(LeaseLost):
        await ledger.fail(failed_as(claim), sent_ms=1, outcome="failed")
    await admit(ledger, 2, object_id="object-1")


async def test_two_sweepers_at_once_recover_once(ledger, place, clock):
    claim = await admit(ledger, 1)
    clock.ms += LEASE_MS
    async with Ledger.open(place, clock_ms=clock) as second:
        states = await asyncio.gather(*(sweeper.recover(claim.session_id, None) for sweeper in (ledger, second, ledger, second)))
    assert sorted(states, key=str) == [None, None, None, SessionState.AT_RISK]
    assert await money(ledger) == (0, 0, 1000)
