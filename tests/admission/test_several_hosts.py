"""Hosts that share a ledger and results and nothing else: what one has streamed before it died another publishes."""

import pytest

from connectors.ledger import Ledger
from moderation.errors import ResultsNotWritable
from scanning import scanning


@pytest.mark.fault(63)
async def test_a_paid_result_of_a_dead_host_is_published_by_another(put, tmp_path, monkeypatch):
    put("one.ulaw", 1.0)
    book = Ledger.finish

    async def dies(*_: object) -> None:
        raise ResultsNotWritable("the host dies between spool and booking")

    shared = {"ledger_url": f"sqlite:///{tmp_path}/ledger.db", "lease_seconds": 1.0, "connections": 1}
    async with scanning(tmp_path, **shared, state_dir=tmp_path / "first") as world:
        monkeypatch.setattr(Ledger, "finish", dies)
        with pytest.raises(ResultsNotWritable):
            await world.scan()
        monkeypatch.setattr(Ledger, "finish", book)
        report = await world.scan(state_dir=tmp_path / "second")
        assert (report.state, report.progress.sessions, report.recovered) == ("Completed", 0, 1)
        assert world.ask("SELECT count(*) FROM music_summaries") == [(1,)]
        assert len(world.seen.events("connect")) == 1
        assert list((tmp_path / "results" / "v1" / "_spool").iterdir()) == []
        assert not (tmp_path / "first" / "spool").exists()
