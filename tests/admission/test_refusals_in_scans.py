"""Credits that run out, keys that are wrong or revoked, limits that change: scans over sockets, judged by the server's journal."""

import asyncio
from datetime import UTC, datetime

import pytest

from connectors.local_velma.fault_script import Scene
from flows.ledger import statuses
from moderation.admission import SessionKind
from moderation.breaker import BreakerRules
from moderation.errors import Scope
from moderation.limits import LimitRules
from moderation.outcomes import ExitCode, Reason
from moderation.retry import RetryRules
from scanning import KEY, scanning

SOON = BreakerRules(pause_factor=0.01)
"""Breakers wait a hundredth of their pauses."""
AT_ONCE = LimitRules(start=3)


def probes_of(rows):
    """All of these but an object at the beginning: it waited for a slot, and went out before the third loss opened the breaker."""
    probes = rows[rows[0].kind == SessionKind.OBJECT :]
    assert {row.kind for row in probes} == {SessionKind.PROBE}
    return probes


def counts(report):
    said = report.counts()
    return {name: said[name] for name in ("done", "pending", "quarantined")}


async def why_closed(world):
    (status,) = await statuses(world.settings, None, lambda: datetime.now(UTC))
    return {gate["endpoint"]: gate["breaker_reason"] for gate in status.as_json()["gates"]}


@pytest.mark.fault(32, 53)
async def test_when_credits_run_out_one_probe_goes_out_and_the_next_run_does_exactly_the_rest(put, tmp_path):
    """One object of 2 s goes first, then waves of three of 8 s: the credits end in the middle of the second."""
    put("first.ulaw", 2.0)
    for number in range(9):
        put(f"{number}.ulaw", 8.0)
    async with scanning(tmp_path, speed=10, connections=3, breaker=SOON, limit=AT_ONCE) as world:
        world.velma.organisation.credit_hours = (2 + 24 + 12) / 3600
        report = await world.scan()
        assert (report.state, report.exit_code) == ("CreditsExhausted", ExitCode.EXHAUSTED)
        assert counts(report) == {"done": 4, "pending": 6, "quarantined": 0}
        first, *others = world.seen.events("refused")
        assert {line["text"] for line in (first, *others)} == {"Insufficient credits."}
        probe = world.seen.sessions_after(first["position"])
        assert len(probe) == 1
        assert [row.kind for row in await world.rows()].count(SessionKind.PROBE) == 1
        assert (await why_closed(world))["*"] == "quota"
        assert "credits" in report.message

        world.velma.organisation.credit_hours = None
        before = world.seen.events()[-1]["position"]
        rest = await world.scan()
        assert counts(rest) == {"done": 10, "pending": 0, "quarantined": 0}
        assert len(world.seen.sessions_after(before)) == rest.progress.sessions == 6
        assert world.ask("SELECT count(*), count(DISTINCT object_id) FROM music_summaries") == [(10, 10)]
        assert (await why_closed(world))["*"] is None


@pytest.mark.fault(31)
async def test_a_wrong_key_at_start_costs_three_refused_tries_of_the_shortest_object_and_nothing_else(put, tmp_path):
    """The shortest object is 200 KB: enough to tell whether more than one message went out."""
    for number in range(4):
        put(f"{number}.ulaw", 25.0 + number)
    async with scanning(tmp_path, connections=3, breaker=SOON) as world:
        world.velma.organisation.api_keys = frozenset({"another"})
        report = await world.scan()
        assert (report.state, report.exit_code) == ("AccessDenied", ExitCode.ACCESS_DENIED)
        assert counts(report) == {"done": 0, "pending": 4, "quarantined": 0}
        assert [line["event"] for line in world.seen.events()] == ["refused"] * 3
        tries = "SELECT count(*), min(key), max(key), max(bytes_sent) FROM attempts JOIN manifests USING (object_id)"
        ((number, first, last, most),) = world.ask(tries)
        assert (number, first, last) == (3, "0.ulaw", "0.ulaw")
        assert most <= 65_536
        assert "not permitted" in report.message


async def test_a_wrong_key_at_start_of_both_endpoints_costs_no_more_than_that(put, tmp_path):
    for number in range(4):
        put(f"{number}.ulaw", 25.0 + number)
    async with scanning(tmp_path, connections=3, breaker=SOON, endpoints=["music", "ai_music"]) as world:
        world.velma.organisation.api_keys = frozenset({"another"})
        report = await world.scan()
        assert (report.state, report.exit_code) == ("AccessDenied", ExitCode.ACCESS_DENIED)
        assert counts(report) == {"done": 0, "pending": 4, "quarantined": 0}
        assert [line["event"] for line in world.seen.events()] == ["refused"] * 3
        assert {row.scope for row in await world.rows()} == {Scope.KEY}


async def test_the_rest_waits_for_the_first_result_of_the_shortest_object_and_not_for_its_end(put, tmp_path):
    for number in range(3):
        put(f"{number}.ulaw", 20.0 + number)
    async with scanning(tmp_path, speed=10, connections=3, limit=AT_ONCE) as world:
        await world.scan()
        assert [line["event"] for line in world.seen.events("first_audio", "done")][:3] == ["first_audio"] * 3


@pytest.mark.fault(31, 76)
async def test_a_key_that_is_revoked_in_mid_run_stops_it_within_the_sessions_live_and_its_probes(put, tmp_path):
    put("first.ulaw", 1.0)
    for number in range(8):
        put(f"{number}.ulaw", 30.0)
    async with scanning(tmp_path, speed=10, connections=3, breaker=SOON, limit=AT_ONCE) as world:
        scan = asyncio.create_task(world.scan())
        await world.seen.until(lambda seen: len(seen.events("first_audio")) == 4)
        world.velma.organisation.revoke_key(KEY)
        report = await scan
        assert (report.state, report.exit_code) == ("AccessDenied", ExitCode.ACCESS_DENIED)
        assert counts(report) == {"done": 1, "pending": 8, "quarantined": 0}
        refused = world.seen.events("refused")
        probes = world.seen.sessions_after(refused[0]["position"])
        assert len(refused) == 3 + len(probes)
        assert len(probes) <= 3
        assert {row.kind for row in (await world.rows())[4:]} == {SessionKind.PROBE}


@pytest.mark.fault(31)
@pytest.mark.torture
async def test_an_object_that_is_refused_with_4003_after_results_is_tried_twice_more(put, tmp_path):
    """Every probe is admitted, and then refused as well."""
    put("one.ulaw", 4.0)
    async with scanning(tmp_path, breaker=SOON, retries=RetryRules(step_s=0.0)) as world:
        world.velma.faults.play(Scene(standing={"*": "close=4003@items=1"}))
        report = await world.scan()
        assert counts(report) == {"done": 0, "pending": 1, "quarantined": 0}
        assert report.progress.pending_reasons() == {Reason.DEFERRED_KEY: 1}
        assert [row.close_code for row in await world.rows()] == [4003] * 3


@pytest.mark.fault(26, 76)
@pytest.mark.parametrize("hidden", [2])
@pytest.mark.torture
async def test_a_revocation_that_is_hidden_as_1006_is_recognised_within_three_probes(hidden, put, tmp_path):
    """The sessions that are live lose the words of their refusal, and so do the first probes."""
    put("first.ulaw", 1.0)
    for number in range(8):
        put(f"{number}.ulaw", 30.0)
    async with scanning(tmp_path, speed=10, connections=3, breaker=SOON, limit=AT_ONCE) as world:
        world.velma.faults.play(Scene(standing={"*": "abrupt"}))
        scan = asyncio.create_task(world.scan())
        await world.seen.until(lambda seen: len(seen.events("first_audio")) == 4)
        world.velma.faults.play(Scene(next=("abrupt",) * hidden))
        world.velma.organisation.revoke_key(KEY)
        report = await scan
        assert (report.state, report.exit_code) == ("AccessDenied", ExitCode.ACCESS_DENIED)
        assert counts(report) == {"done": 1, "pending": 8, "quarantined": 0}
        later = (await world.rows())[4:]
        assert probes_of(later)
        assert [row.close_code for row in later[:3]].index(4003) == hidden


@pytest.mark.torture
async def test_a_revocation_that_is_always_hidden_stops_the_run_after_three_probes(put, tmp_path):
    put("first.ulaw", 1.0)
    for number in range(5):
        put(f"{number}.ulaw", 30.0)
    async with scanning(tmp_path, speed=10, connections=3, breaker=SOON, limit=AT_ONCE) as world:
        world.velma.faults.play(Scene(standing={"*": "abrupt"}))
        scan = asyncio.create_task(world.scan())
        await world.seen.until(lambda seen: len(seen.events("first_audio")) == 4)
        world.velma.organisation.revoke_key(KEY)
        report = await scan
        assert report.exit_code is ExitCode.UNREACHABLE
        assert counts(report) == {"done": 1, "pending": 5, "quarantined": 0}
        assert len(probes_of((await world.rows())[4:])) == 3


@pytest.mark.fault(52)
@pytest.mark.torture
async def test_a_limit_that_falls_and_rises_is_followed_and_loses_no_object(put, tmp_path):
    """The times of the limit's rules are a hundredth, and under a ceiling of 8 the service's limit goes from 6 to 2 to 5."""
    for number in range(60):
        put(f"{number:02}.ulaw", 6.0)
    quick = LimitRules(rest_ms=(5, 15), raise_ms=300, longest_raise_ms=9_000)
    async with scanning(tmp_path, speed=10, connections=8, breaker=SOON, limit=quick) as world:
        await world.change_service(max_connections=6)
        scan = asyncio.create_task(world.scan())
        for limit in (6, 2, 5):
            await world.change_service(max_connections=limit)
            await world.until_limit(lambda allowed, limit=limit: abs(allowed - limit) <= (limit > 2))
        await world.change_service(max_connections=None)
        report = await scan
        assert counts(report) == {"done": 60, "pending": 0, "quarantined": 0}
        assert world.ask("SELECT count(*), count(DISTINCT object_id) FROM music_summaries") == [(60, 60)]
        assert 0 < len(world.seen.events("refused")) < 30
        assert {row.scope for row in await world.rows()} == {None, Scope.ORGANISATION}
