"""When a scan tells the ledger of a session's first result: at once where others wait for it, else with its end, if that comes soon."""

from collections.abc import Collection

import pytest

from connectors.ledger import Ledger
from moderation.breaker import BreakerRules
from moderation.outcomes import ExitCode
from scanning import scanning

LONG_S = 3600.0


@pytest.fixture
def noted(monkeypatch):
    """The sessions whose first result was told by itself."""
    told: list[str] = []
    note_result = Ledger.note_result

    async def note(self: Ledger, session_id: str, *others: Collection[str]) -> None:
        told.append(session_id)
        await note_result(self, session_id, *others)

    monkeypatch.setattr(Ledger, "note_result", note)
    return told


async def test_a_session_that_ends_soon_after_its_first_result_tells_it_with_its_end(put, tmp_path, noted, monkeypatch):
    monkeypatch.setattr("tasks.first_result.HELD_BACK_S", LONG_S)
    for number in range(6):
        put(f"{number}.ulaw", 2.0)
    async with scanning(tmp_path, connections=2) as world:
        report = await world.scan()
        assert (report.state, report.exit_code) == ("Completed", ExitCode.OK)
        rows = await world.rows()
        assert [row.state for row in rows] == ["published"] * 6
        assert noted == [rows[0].session_id], "once the limit stands nobody waits for a first result"


async def test_one_that_streams_on_tells_it_in_the_meantime(put, tmp_path, noted, monkeypatch):
    monkeypatch.setattr("tasks.first_result.HELD_BACK_S", 0.001)
    for number in range(2):
        put(f"{number}.ulaw", 20.0)
    async with scanning(tmp_path, connections=1, speed=20) as world:
        await world.scan()
        assert sorted(noted) == sorted(row.session_id for row in await world.rows())


async def test_one_that_fails_after_its_first_result_tells_it_before_its_failure(put, tmp_path, noted, monkeypatch):
    monkeypatch.setattr("tasks.first_result.HELD_BACK_S", LONG_S)
    put("0-first.ulaw", 1.0)
    put("1-fails.ulaw", 40.0)
    async with scanning(tmp_path, connections=1, speed=40, breaker=BreakerRules(pause_factor=0.01)) as world:
        world.velma.organisation.credit_hours = 20 / 3600
        report = await world.scan()
        assert report.state == "CreditsExhausted"
        rows = await world.rows()
        assert [row.state for row in rows[:2]] == ["published", "at_risk"]
        assert noted[:2] == [row.session_id for row in rows[:2]]
