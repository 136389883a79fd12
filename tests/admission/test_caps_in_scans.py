"""Caps of the month in whole scans: what they leave, what they hold all the same, and sessions that outlive their estimate under them."""

import pytest

from connectors.ledger import Ledger
from estimates import estimate_all
from flows.report import Report
from moderation.errors import AccessDeniedError
from moderation.outcomes import ExitCode
from scanning import scanning

pytestmark = pytest.mark.torture


def ended(report: Report) -> dict[str, tuple[int, int]]:
    """(done, pending) by endpoint."""
    return {name: (counts["done"], counts["pending"]) for name, counts in report.counts()["endpoints"].items()}


async def test_the_cap_of_one_endpoint_leaves_the_others_alone(put, tmp_path):
    for number in range(4):
        put(f"{number}.ulaw", 2.0)
    caps = {"endpoints": ["music", "ai_music"], "endpoint_hours": {"music": 3 / 3600}}
    async with scanning(tmp_path, connections=2, **caps) as world:
        report = await world.scan()
        assert ended(report) == {"music": (1, 3), "ai_music": (4, 0)}
        assert (report.state, report.exit_code) == ("CreditsExhausted", ExitCode.EXHAUSTED)
        assert report.counts()["endpoints"]["music"]["reasons"] == {"deferred_quota": 3}
        assert "default for music" in report.message
        again = await world.scan()
        assert (again.state, again.progress.sessions) == ("CreditsExhausted", 0)


async def test_a_cap_is_used_by_whatever_it_still_holds(put, tmp_path):
    for number, seconds in enumerate((1.0, 9.0, 9.0, 2.0, 9.0, 2.0)):
        put(f"{number}.ulaw", seconds)
    async with scanning(tmp_path, connections=1, monthly_hours=6 / 3600) as world:
        report = await world.scan()
        assert ended(report) == {"music": (3, 3)}
        assert (report.state, report.exit_code) == ("CreditsExhausted", ExitCode.EXHAUSTED)


@pytest.fixture
def too_short(monkeypatch):
    """Takes every object for one of thirty seconds."""
    estimate_all(monkeypatch, 30_000)


@pytest.mark.parametrize(("cap_s", "reserved_ms"), [(None, 150_000), (101, 99_375)])
async def test_a_session_that_outlives_its_estimate_reserves_what_the_cap_still_holds(put, tmp_path, too_short, cap_s, reserved_ms):
    put("long.ulaw", 100.0)
    async with scanning(tmp_path, monthly_hours=cap_s and cap_s / 3600) as world:
        report = await world.scan()
        assert (report.state, ended(report)) == ("Completed", {"music": (1, 0)})
        [row] = await world.rows()
        assert (row.reserved_ms, row.booked_ms) == (reserved_ms, 99_840), "whole windows are booked"


async def test_a_session_that_outlives_its_estimate_and_the_cap_is_cut_off_and_its_object_left(put, tmp_path, too_short):
    put("long.ulaw", 100.0)
    async with scanning(tmp_path, monthly_hours=95 / 3600) as world:
        report = await world.scan()
        assert (report.state, report.exit_code) == ("CreditsExhausted", ExitCode.EXHAUSTED)
        assert report.counts()["endpoints"]["music"]["reasons"] == {"deferred_quota": 1}
        assert "does not hold the rest of this object" in report.message
        [row] = await world.rows()
        assert row.state == "at_risk"
        assert 93_750 <= row.booked_ms < 100_000, "no more went out once its reservation was used up"
        assert world.ask("SELECT cause, outcome FROM attempts") == [("budget", "failed")]


async def test_a_ledger_that_refuses_its_user_in_mid_session_is_not_taken_for_s3(put, tmp_path, too_short, monkeypatch):
    async def refuse(*_: object) -> bool:
        raise AccessDeniedError("the ledger cannot be used: this user may not change its tables")

    monkeypatch.setattr(Ledger, "extend", refuse)
    put("long.ulaw", 100.0)
    async with scanning(tmp_path) as world:
        with pytest.raises(AccessDeniedError, match="may not change its tables"):
            await world.scan()
        [row] = await world.rows()
        assert (row.state, row.outcome) == ("at_risk", "cancelled")
        assert world.ask("SELECT count(*) FROM quarantine") == [(0,)]
