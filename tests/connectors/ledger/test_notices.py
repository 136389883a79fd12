"""One notification per cause, over all processes, in both databases."""

import asyncio

from connectors.ledger import Ledger


async def test_a_cause_is_news_once_until_it_is_cleared(ledger):
    assert [await ledger.first_notice("acme", "CreditsExhausted") for _ in range(3)] == [True, False, False]
    assert await ledger.first_notice("acme", "AccessDenied")
    await ledger.clear_notices("acme", ["CreditsExhausted", "NeverTold"])
    assert not await ledger.first_notice("acme", "AccessDenied")
    assert await ledger.first_notice("acme", "CreditsExhausted")
    await ledger.clear_notices("acme", [])
    assert not await ledger.first_notice("acme", "CreditsExhausted")
    await ledger.clear_notices("acme")
    assert await ledger.first_notice("acme", "AccessDenied")
    assert await ledger.first_notice("acme", "CreditsExhausted")


async def test_what_one_organisation_was_told_is_news_to_another(ledger):
    assert await ledger.first_notice("acme", "AccessDenied")
    assert await ledger.first_notice("other", "AccessDenied")
    await ledger.clear_notices("acme")
    assert not await ledger.first_notice("other", "AccessDenied")


async def test_of_several_processes_one_tells(ledger, place):
    async with Ledger.open(place) as second, Ledger.open(place) as third:
        told = await asyncio.gather(*(each.first_notice("acme", "AccessDenied") for each in (ledger, second, third) * 3))
    assert sorted(told) == [False] * 8 + [True]
