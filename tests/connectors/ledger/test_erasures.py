"""What was erased by request, in both databases: no admission, no package, and no figure that changes."""

from datetime import date

import pytest

from connectors.ledger import reading
from ledger_facts import admit, claim_of, finished, money
from moderation.admission import Denial, Member, Refusal
from moderation.errors import ConfigurationError


@pytest.mark.parametrize("of", ["key", "object"])
async def test_keys_and_single_versions_are_never_admitted_again(ledger, of):
    assert await ledger.bury(f"{of}-1", "receipt", ["lake"], []) == ()
    assert await ledger.bury(f"{of}-1", "another", ["lake"], []) == (), "repeatable"
    assert await ledger.admit(claim_of(1, force=True)) == Refusal(Denial.TOMBSTONE)
    await admit(ledger, 2)
    assert await ledger.buried() == {f"{of}-1"}


async def test_nothing_is_erased_while_it_streams(ledger):
    await finished(ledger, 1)
    await admit(ledger, 2, object_id="object-1", endpoint="ai_music")
    with pytest.raises(ConfigurationError, match="session session-0002 of run"):
        await ledger.bury("key-1", "receipt", ["lake"], ["object-1"])
    assert (await ledger.buried(), await ledger.erased(["session-0001"])) == (frozenset(), frozenset())
    await ledger.bury("key-1", "receipt", ["another lake"], ["object-1"])


async def test_what_was_erased_is_in_no_package_and_still_paid_for(ledger):
    for number in range(1, 5):
        await finished(ledger, number)
    before = await money(ledger)
    package = await ledger.assign_package("lake", claim_of(1).run_id, date(2026, 11, 21), max_sessions=2)
    assert await ledger.bury("key", "receipt", ["lake"], ["object-1", "object-3"]) == ("session-0001", "session-0003")
    [waiting] = await ledger.unpublished("lake")
    assert waiting.members == (Member("session-0002", "music", "finished", "done"),) != package.members
    await ledger.mark_published(package.package)
    following = await ledger.assign_package("lake", package.run_id, package.scan_date, max_sessions=9)
    assert [member.session_id for member in following.members] == ["session-0004"]
    assert await ledger.erased([f"session-{number:04}" for number in range(9)]) == {"session-0001", "session-0003"}
    assert await money(ledger) == before


async def test_the_sessions_of_a_lake_are_read_in_pieces(ledger, monkeypatch):
    monkeypatch.setattr(reading, "PIECE", 2)
    for number in range(1, 6):
        await finished(ledger, number, lake="other" if number == 4 else "lake")
    pieces = [piece async for piece in ledger.sessions_of("lake")]
    assert [[row.session_id[-1] for row in piece] for piece in pieces] == [["1", "2"], ["3", "5"]]
    assert tuple(pieces[1][1]) == ("session-0005", "music", "object-5", "params", claim_of(5).run_id, "finished", 1000)
    assert [piece async for piece in ledger.sessions_of("nobody's")] == []
