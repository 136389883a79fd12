"""Packages: fixed sets of ended sessions, in both databases."""

import asyncio
import itertools

from connectors.ledger import Ledger
from ledger_facts import RUN, SCAN_DATE, admit, change, failed_as, finished, money, set_gate
from moderation.admission import Member, UnpackagedRun


async def test_a_package_takes_the_oldest_ended_sessions_of_its_run_and_lake(ledger):
    await set_gate(ledger, "acme", "music", 9)
    await finished(ledger, 3)
    await finished(ledger, 1)
    failed = await admit(ledger, 2)
    await ledger.fail(failed_as(failed), sent_ms=0, outcome="refused")
    await admit(ledger, 4)
    await finished(ledger, 5, lake="other")
    await finished(ledger, 6, run_id="other")
    first = await ledger.assign_package("lake", RUN, SCAN_DATE, max_sessions=2)
    assert (first.package, first.org, first.scan_date) == (f"{RUN}-p0001", "acme", SCAN_DATE)
    assert first.members == (Member("session-0001", "music", "finished", "done"), Member("session-0002", "music", "released", "refused"))
    second = await ledger.assign_package("lake", RUN, SCAN_DATE, max_sessions=2)
    assert (second.package, [member.session_id for member in second.members]) == (f"{RUN}-p0002", ["session-0003"])
    assert await ledger.assign_package("lake", RUN, SCAN_DATE, max_sessions=2) is None
    assert await ledger.unpublished("lake") == [first, second]
    assert await ledger.runs_with_unpackaged("lake") == [UnpackagedRun("other", "acme", 1)]


async def test_publishing_is_repeatable_and_touches_only_finished_members(ledger):
    await finished(ledger, 1)
    failed = await admit(ledger, 2)
    await ledger.fail(failed_as(failed), sent_ms=5, outcome="failed")
    package = await ledger.assign_package("lake", RUN, SCAN_DATE, max_sessions=10)
    for _ in range(2):
        await ledger.mark_published(package.package)
        assert await ledger.unpublished("lake") == []
    assert [(await ledger.session(member.session_id)).state for member in package.members] == ["published", "at_risk"]
    assert await money(ledger) == (0, 1000, 5)


async def test_a_package_of_failures_alone_can_be_published(ledger):
    failed = await admit(ledger, 1)
    await ledger.fail(failed_as(failed), sent_ms=5, outcome="failed")
    package = await ledger.assign_package("lake", RUN, SCAN_DATE, max_sessions=10)
    assert await ledger.unpublished("lake") == [package]
    await ledger.mark_published(package.package)
    assert await ledger.unpublished("lake") == []


async def test_two_publishers_at_once_share_the_sessions_without_overlap(ledger, place):
    await set_gate(ledger, "acme", "music", None)
    for number in range(20):
        await finished(ledger, number)
    async with Ledger.open(place) as second:
        both = itertools.cycle((ledger, second))
        packages = await asyncio.gather(*(next(both).assign_package("lake", RUN, SCAN_DATE, max_sessions=5) for _ in range(6)))
    members = [member.session_id for package in packages if package for member in package.members]
    assert len(members) == len(set(members)) == 20
    assert sorted(package.package for package in packages if package) == [f"{RUN}-p000{n}" for n in (1, 2, 3, 4)]


async def test_a_package_never_gets_a_name_that_was_used_whatever_gaps_there_are(ledger):
    await set_gate(ledger, "acme", "music", None)
    for number in range(4):
        await finished(ledger, number)
    for _ in range(2):
        await ledger.assign_package("lake", RUN, SCAN_DATE, max_sessions=1)
    await change(ledger, "DELETE FROM packages WHERE package LIKE '%-p0001'")
    assert (await ledger.assign_package("lake", RUN, SCAN_DATE, max_sessions=1)).package == f"{RUN}-p0003"
    await change(ledger, f"UPDATE packages SET package = '{RUN}-p10000' WHERE package LIKE '%-p0003'")
    assert (await ledger.assign_package("lake", RUN, SCAN_DATE, max_sessions=1)).package == f"{RUN}-p10001"
