"""Scans that do not complete before the next one is due: told once, whatever became of them."""

import json
from datetime import timedelta

import pytest
from pydantic import SecretStr

from flows.cli import run
from flows.overdue import look_for_scans
from flows.wiring import now
from hooks import webhook
from moderation.breaker import BreakerRules
from moderation.outcomes import ExitCode

DAY = timedelta(days=1)


@pytest.fixture
async def looking(world):
    """Looks at a moment so long from now, for scans of the catalogue every day; what it has is the webhook."""
    async with webhook() as hook:

        async def look(later=timedelta(0), sources=("s3://catalogue/",)):
            settings = world.settings.model_copy(update={"notify_url": SecretStr(hook.url)})
            return await look_for_scans(settings, sources, DAY, lambda: now() + later)

        look.hook = hook
        yield look


async def test_a_scan_is_in_time_until_the_next_one_should_have_completed_and_told_once_after_that(world, make_wav, looking):
    world.put("one.wav", make_wav(1.0))
    first = await world.scan(endpoints=["music"])
    for later in (timedelta(0), 2 * DAY - timedelta(minutes=5)):
        found = await looking(later)
        assert (found.exit_code, found.completed.run_id) == (ExitCode.OK, first.run_id)
    assert looking.hook.told == []
    for minutes in range(5):
        assert (await looking(2 * DAY + timedelta(minutes=minutes))).exit_code is ExitCode.FOUND
    assert looking.hook.causes == ["Overdue:s3://catalogue/"]
    assert looking.hook.told[0]["run_id"] == first.run_id
    assert "every 24 h" in looking.hook.told[0]["text"]
    await world.scan(endpoints=["music"])
    assert (await looking()).exit_code is ExitCode.OK
    await looking(3 * DAY)
    assert looking.hook.causes == ["Overdue:s3://catalogue/"] * 2, "it is news again"


async def test_a_scan_that_has_never_been_is_overdue(looking):
    found = await looking()
    assert (found.exit_code, found.newest) == (ExitCode.FOUND, None)
    assert [told["run_id"] for told in looking.hook.told] == [None]


async def test_a_scan_that_was_stopped_or_is_of_another_source_does_not_count(world, make_wav, looking):
    world.put("one.wav", make_wav(1.0))
    world.put("other/two.wav", make_wav(1.0))
    assert (await world.scan("other/", endpoints=["music"])).exit_code is ExitCode.OK
    world.velma.organisation.api_keys = frozenset({"another"})
    stopped = await world.scan(endpoints=["music"], breaker=BreakerRules(pause_factor=0))
    found = await looking()
    assert found.is_overdue
    assert f"the newest, {stopped.run_id}, is AccessDenied" in found.sentence()
    assert not (await looking(sources=())).is_overdue, "without a source every scan counts"
    assert not (await looking(sources=("s3://catalogue/other/",))).is_overdue


def test_the_command_says_it_and_ends_with_1(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["overdue", "s3://music/", "--every-hours", "6", "--results", str(tmp_path / "out"), "--json"]) == ExitCode.FOUND
    told = json.loads(capsys.readouterr().out)
    assert (told["overdue"], told["every_hours"], told["source"], told["exit_code"]) == (True, 6, "s3://music/", 1)
    assert run(["overdue", "--every-hours", "0"]) == ExitCode.USAGE
