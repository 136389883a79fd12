"""Who waits to stream, as status shows it, in both databases."""

from ledger_facts import admit, claim_of, set_gate
from moderation.admission import Denial, Refusal
from moderation.turns import FRESH_MS, Waiting


async def test_workers_that_were_denied_wait_from_then_on_the_longest_first(ledger, clock):
    await set_gate(ledger, "acme", "music", 1)
    held = await admit(ledger, 1)
    await ledger.admit(claim_of(2, worker="north", priority=3))
    since_ms = clock.ms
    clock.ms += FRESH_MS - 1
    await ledger.admit(claim_of(2, worker="north", priority=3))
    await ledger.admit(claim_of(3, worker="east"))
    assert await ledger.waiting("acme") == {
        "music": [Waiting("north", 3, 0, since_ms, clock.ms), Waiting("east", 0, 0, clock.ms, clock.ms)],
    }
    assert await ledger.waiting("other") == {}
    await ledger.finish(held.session_id, 900)
    await admit(ledger, 2, worker="north", priority=3)
    assert [waits.worker for waits in (await ledger.waiting("acme"))["music"]] == ["east"]


async def test_a_slot_that_is_free_is_left_to_who_has_fewer_and_nothing_is_said_of_who_is_live(ledger):
    await set_gate(ledger, "acme", "music", 2)
    sessions = [await admit(ledger, number, worker="east") for number in (1, 2)]
    assert await ledger.admit(claim_of(3, worker="north")) == Refusal(Denial.FULL, live=2)
    await ledger.finish(sessions[0].session_id, 900)
    assert await ledger.admit(claim_of(4, worker="east")) == Refusal(Denial.FULL)
    await admit(ledger, 3, worker="north")


async def test_who_stands_before_a_closed_door_waits_as_well(ledger, clock):
    await set_gate(ledger, "acme", "music", 2)
    await ledger.pause("acme")
    since_ms = clock.ms
    await ledger.admit(claim_of(1, worker="north"))
    clock.ms += 1000
    assert [waits.since_ms for waits in (await ledger.waiting("acme"))["music"]] == [since_ms]


async def test_a_worker_that_asks_no_more_waits_no_more(ledger, clock):
    await set_gate(ledger, "acme", "music", 1)
    await admit(ledger, 1)
    await ledger.admit(claim_of(2, worker="north"))
    clock.ms += FRESH_MS
    assert await ledger.waiting("acme") == {}
