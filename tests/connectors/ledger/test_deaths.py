"""Workers that die over an object, in both databases: how many in a row, until one comes to the end of a session."""

import pytest

from connectors.ledger import LEASE_MS
from ledger_facts import admit, claim_of, failed_as, spooled
from moderation.admission import Suspect
from moderation.refusals import INCOMPLETE

ITS_OBJECT = Suspect("music", "object-0", "params")


async def dies(ledger, clock, number, **changes) -> None:
    claim = await admit(ledger, number, object_id="object-0", **changes)
    clock.ms += LEASE_MS
    await ledger.recover(claim.session_id, None)


async def deaths(ledger, number, **changes) -> int:
    """What the next session of the object is told; it ends well."""
    claim = claim_of(number, object_id="object-0", **changes)
    told = (await ledger.admit(claim)).deaths
    await ledger.finish(claim.session_id, 1000)
    return told


@pytest.mark.fault(82)
@pytest.mark.parametrize("workers", [0, 1, 3])
async def test_workers_that_die_over_an_object_in_a_row_are_counted(ledger, clock, workers):
    for number in range(workers):
        await dies(ledger, clock, number)
    assert await ledger.suspects("acme", "lake") == ({ITS_OBJECT} if workers > 1 else frozenset())
    assert await ledger.suspects("acme", "elsewhere") == await ledger.suspects("others", "lake") == frozenset()
    assert await deaths(ledger, 10) == workers
    assert await ledger.suspects("acme", "lake") == frozenset()


async def test_a_session_that_comes_to_an_end_good_or_bad_begins_the_count_anew(ledger, clock):
    for number in range(2):
        await dies(ledger, clock, number)
    claim = await admit(ledger, 2, object_id="object-0")
    await ledger.fail(failed_as(claim, INCOMPLETE), sent_ms=5, outcome="failed")
    assert await ledger.suspects("acme", "lake") == frozenset()
    await dies(ledger, clock, 3)
    assert await deaths(ledger, 4) == 1


async def test_a_worker_that_left_a_word_in_the_spool_did_not_die_over_the_object(ledger, clock):
    for number in range(3):
        claim = await admit(ledger, number, object_id="object-0")
        clock.ms += LEASE_MS
        await ledger.recover(claim.session_id, spooled(claim, done=False))
    assert await deaths(ledger, 10) == 0


async def test_other_endpoints_parameters_and_lakes_are_another_matter(ledger, clock):
    for number in range(3):
        await dies(ledger, clock, number)
    assert await deaths(ledger, 10, endpoint="ai_music") == 0
    assert await deaths(ledger, 11, params_hash="others") == 0
    assert await deaths(ledger, 12, lake="elsewhere") == 0
