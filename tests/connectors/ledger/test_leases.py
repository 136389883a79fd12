"""How long a session is held without a sign of life, in both databases."""

import sqlite3

import pytest

from connectors.ledger import LEASE_MS, Ledger, host_boot_ms
from ledger_facts import MONTH, admit, claim_of, failed_as, live, money, set_gate
from moderation.admission import Denial, Refusal
from moderation.errors import LeaseLost
from moderation.refusals import CANCELLED


async def test_a_renewed_lease_holds_and_another_worker_renews_nothing(ledger, clock):
    claim = await admit(ledger, 1)
    for _ in range(10):
        clock.ms += LEASE_MS - 1
        assert await ledger.renew("worker") == {claim.session_id}
    assert await ledger.renew("another") == frozenset()
    await ledger.finish(claim.session_id, 900)
    assert await ledger.renew("worker") == frozenset()


async def test_an_expired_lease_frees_the_slot_and_is_not_renewed_nor_finished(ledger, clock):
    await set_gate(ledger, "acme", "music", 1)
    claim = await admit(ledger, 1)
    clock.ms += LEASE_MS - 1
    assert await ledger.admit(claim_of(2)) == Refusal(Denial.FULL, live=1)
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
    assert await ledger.admit(claim_of(2, object_id="object-1")) == Refusal(Denial.CLAIMED)
    assert await money(ledger) == (1000, 0, 0)


@pytest.mark.fault(57)
async def test_a_worker_that_slept_books_what_it_knows_until_it_is_swept(ledger, clock):
    claim = await admit(ledger, 1)
    clock.ms += 42 * LEASE_MS
    await ledger.fail(failed_as(claim, CANCELLED), sent_ms=10, outcome="cancelled")
    assert await money(ledger) == (0, 0, 10)
    assert await ledger.expired() == ()


@pytest.mark.parametrize("uptime_ms", [0, 5_000, 500_000])
@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
async def test_a_lease_of_before_a_reboot_has_expired(ledger, clock, uptime_ms):
    await set_gate(ledger, "acme", "music", 1)
    claim = await admit(ledger, 1)
    clock.ms = uptime_ms
    assert await live(ledger) == 0
    assert await ledger.expired() == (claim.session_id,)
    await admit(ledger, 2)
    with pytest.raises(LeaseLost):
        await ledger.finish(claim.session_id, 900)


@pytest.mark.parametrize("back_ms", [1, 200, 3_600_000])
@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
async def test_a_server_whose_clock_is_set_back_drops_nobody_and_gives_no_slot_twice(ledger, clock, back_ms):
    await set_gate(ledger, "acme", "music", 1)
    claim = await admit(ledger, 1)
    clock.ms -= back_ms
    assert await live(ledger) == 1
    assert await ledger.expired() == ()
    assert await ledger.admit(claim_of(2, worker="another")) == Refusal(Denial.FULL, live=1)
    assert await ledger.renew("worker") == {claim.session_id}
    clock.ms += LEASE_MS
    assert await ledger.expired() == (claim.session_id,), "it was renewed by the clock as it was then"


async def test_the_clock_is_read_under_the_lock(path):
    # read earlier, it could lie so far before leases renewed meanwhile that they look like ones of before a reboot
    readings = []

    def boot_ms():
        with sqlite3.connect(path, timeout=0, isolation_level=None) as other, pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.close()
        readings.append(1_000_000)
        return 1_000_000

    async with Ledger.open(path, clock_ms=boot_ms) as ledger:
        await set_gate(ledger, "acme", "music", 2)
        claim = await admit(ledger, 1)
        await ledger.renew("worker")
        await ledger.extend(claim.session_id, 1)
        await ledger.expired()
        await ledger.recover(claim.session_id, None)
        await ledger.usage("acme", MONTH)
        await ledger.finish(claim.session_id, 900)
    assert len(readings) == 8


def test_the_boot_clock_moves_forward():
    assert 0 < host_boot_ms() <= host_boot_ms()
