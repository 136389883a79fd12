"""A host whose clock is wrong, or is set in mid-run: the run goes on, and people are told."""

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from flows.terminal import print_summary
from moderation.outcomes import ExitCode

HOUR = timedelta(hours=1)


@pytest.mark.fault(55)
@pytest.mark.parametrize("looks", [0, 6], ids=["from the start", "in mid-run"])
async def test_a_clock_that_is_an_hour_ahead_ends_nothing_and_is_shown(world, make_wav, monkeypatch, capsys, looks):
    number = count()
    monkeypatch.setattr("flows.wiring.now", lambda: datetime.now(UTC) + (HOUR if next(number) >= looks else timedelta()))
    for name in ("a.wav", "b.wav"):
        world.put(name, make_wav(1.0))
    report = await world.scan(endpoints=["music"])
    assert (report.exit_code, report.counts()["done"], report.progress.refusals) == (ExitCode.OK, 2, {})
    assert abs(report.counts()["clock_skew_s"] - 3600) < 60
    print_summary(report)
    assert "Clock skew: this host's clock was +36" in capsys.readouterr().out


async def test_of_a_clock_that_is_right_nothing_is_said(world, make_wav, capsys):
    world.put("a.wav", make_wav(1.0))
    report = await world.scan(endpoints=["music"])
    assert report.counts()["clock_skew_s"] == 0
    print_summary(report)
    assert "skew" not in capsys.readouterr().out
