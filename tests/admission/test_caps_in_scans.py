"""Caps of the month in whole scans: what they leave, what they hold all the same, and sessions that outlive their estimate under them."""

from flows.report import Report
from moderation.outcomes import ExitCode
from scanning import scanning


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
