"""The report that a scan leaves, and that no run ends for one."""

import json

import pytest

from connectors.lake.packages import run_file
from connectors.lake.store import FolderStore
from flows.wiring import now
from moderation.breaker import BreakerRules
from moderation.outcomes import ExitCode
from tasks.decide import STARTER
from tasks.verify import verify

POLICY = STARTER.read_text(encoding="utf-8")


async def test_a_scan_leaves_a_page_with_its_own_end_decisions_and_refusals(world, make_wav, tmp_path):
    (tmp_path / "policy.toml").write_text(POLICY)
    world.put("good.wav", make_wav(4.0))
    world.put("<script>alert(1)</script>.flac", b"fLaC" + bytes(range(256)) * 16)
    report = await world.scan(report=True, policy=tmp_path / "policy.toml", link_hours=1)
    store = FolderStore(world.results)
    assert report.page == report.counts()["report"] == store.address(run_file(report.run_id, "report.html"))
    page = store.get(run_file(report.run_id, "report.html")).decode()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;.flac" in page
    figures = json.loads(store.get(run_file(report.run_id, "report.json")))
    [run] = figures["runs"]
    assert (run["state"], run["exit_code"], run["finished_at"] is not None) == ("Completed", ExitCode.QUARANTINED, True)
    assert figures["local_results"] is True
    assert {(row["outcome"], row["reason"], row["objects"]) for row in figures["outcomes"]} >= {("quarantined", "undecodable", 1)}
    assert figures["flagged"] == 1
    assert "X-Amz-Signature" in page
    assert verify(store, now(), lambda _done, _total: None).findings == []


@pytest.mark.torture
async def test_a_scan_that_wants_no_report_leaves_none(world, make_wav):
    world.put("one.wav", make_wav(1.0))
    report = await world.scan(endpoints=["music"])
    assert report.page is None
    assert FolderStore(world.results).get(run_file(report.run_id, "report.html")) is None


async def test_a_report_that_fails_is_a_line_in_the_log_and_changes_nothing_else(world, make_wav, caplog, monkeypatch):
    def fails(*_: object) -> None:
        raise OSError("the disk is gone")

    world.put("one.wav", make_wav(1.0))
    monkeypatch.setattr("flows.reporting.keep_report", fails)
    report = await world.scan(endpoints=["music"], report=True)
    assert (report.exit_code, report.page) == (ExitCode.OK, None)
    assert "has no report: the disk is gone" in caplog.text


@pytest.mark.torture
async def test_a_run_that_is_stopped_by_its_key_has_a_report_of_the_refusals(world, make_wav):
    world.put("one.wav", make_wav(1.0))
    world.velma.organisation.api_keys = frozenset({"another"})
    report = await world.scan(endpoints=["music"], breaker=BreakerRules(pause_factor=0), report=True)
    figures = json.loads(FolderStore(world.results).get(run_file(report.run_id, "report.json")))
    assert figures["runs"][0]["state"] == "AccessDenied"
    assert {row["outcome"] for row in figures["troubles"]} == {"refused"}
