"""Figures for Prometheus: what a run has done is what is served, while it runs and nowhere else."""

import asyncio
import json
import re
import socket
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import pytest

from flows.metrics import PORTS, Figures, metrics_served
from flows.request import Request
from flows.run import run_scan
from flows.watch import Watch
from flows.wiring import wired
from moderation.admission import Denial, Refusal
from moderation.breaker import Breaker, BreakerState, OpenedBy
from moderation.gate import Gate
from moderation.outcomes import Reason
from moderation.usage import Usage
from tasks.progress import Outcome

ROOT = Path(__file__).parents[2]
HOUR_MS = 3_600_000


def samples_of(figures):
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in figures.collect() for s in family.samples}


def one(samples, name, **labels):
    return samples[name, tuple(sorted(labels.items()))]


def test_a_run_in_figures():
    watch = Watch()
    progress = watch.progress
    progress.listed, progress.step = 3, "streaming (2 shards wait for a worker)"
    counts = progress.of("music")
    counts.live, counts.sessions, counts.refusals, counts.audio_ms, counts.planned_ms = 1, 2, 4, HOUR_MS // 2, HOUR_MS
    progress.add(Outcome("a", "a.wav", "music"))
    progress.add(Outcome("b", "b.wav", "music", Reason.UNDECODABLE))
    progress.refusals["music"] = Refusal(Denial.BREAKER, opened_by=OpenedBy.QUOTA)
    gate = Gate(ceiling=8, cap_ms=10 * HOUR_MS, breaker=Breaker(BreakerState.OPEN, OpenedBy.QUOTA))
    usages = [Usage("acme", "music", "2026-11", gate, 1, 1, 2 * HOUR_MS, HOUR_MS, 0)]
    samples = samples_of(Figures(watch, "acme", usages))
    assert one(samples, "soundcheck_run_info", org="acme", step="streaming") == 1
    assert one(samples, "soundcheck_objects", endpoint="music", standing="done") == 1
    assert one(samples, "soundcheck_objects_not_done", endpoint="music", reason="undecodable") == 1
    assert one(samples, "soundcheck_sessions_live", endpoint="music") == 1
    assert one(samples, "soundcheck_sessions_total", endpoint="music") == 2
    assert one(samples, "soundcheck_refusals_total", endpoint="music") == 4
    assert one(samples, "soundcheck_audio_hours_total", endpoint="music") == 0.5
    assert one(samples, "soundcheck_waits", endpoint="music", cause=Denial.BREAKER.value) == 1
    assert one(samples, "soundcheck_slots", org="acme", endpoint="music") == gate.limit.allowed
    assert one(samples, "soundcheck_breaker_open", org="acme", endpoint="music", cause=OpenedBy.QUOTA.value) == 1
    assert one(samples, "soundcheck_month_hours", org="acme", endpoint="music", kind="possible") == 1
    assert one(samples, "soundcheck_month_cap_hours", org="acme", endpoint="music") == 10


def test_the_dashboard_asks_for_figures_that_there_are():
    dashboard = json.loads((ROOT / "deployments" / "grafana" / "soundcheck.json").read_text(encoding="utf-8"))
    asked = {name for panel in dashboard["panels"] for target in panel["targets"] for name in re.findall(r"soundcheck_\w+", target["expr"])}
    described = {figure: set(family.labels) for family, figure in figures_there_are()}
    assert asked - described.keys() == set()
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            labels = {label for name in re.findall(r"soundcheck_\w+", target["expr"]) for label in described[name]} | {"instance"}
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels


def figures_there_are():
    """Each family of figures under the name that Prometheus knows it by."""
    for family in Figures(Watch(), "acme").collect():
        name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
        yield SimpleNamespace(labels=getattr(family, "_labelnames", ()) or ("org", "step")), name


async def text_at(port):
    async with aiohttp.request("GET", f"http://127.0.0.1:{port}/metrics") as answer:
        return await answer.text()


async def test_they_are_served_while_a_run_runs(world, make_wav, unused_tcp_port):
    world.put("one.wav", make_wav(1.0))
    settings = world.settings.model_copy(update={"metrics_port": unused_tcp_port})
    request, watch = Request(("s3://catalogue/",)), Watch()
    async with wired(settings, request) as parts:
        async with metrics_served(parts, watch):
            report = await run_scan(parts, request, watch)
            text = await text_at(unused_tcp_port)
        with pytest.raises(aiohttp.ClientError):
            await text_at(unused_tcp_port)
    assert report.counts()["done"] == 1
    assert 'soundcheck_objects{endpoint="music",standing="done"} 1.0' in text
    assert not re.search("one.wav|canary", text), "nothing an item, and no key"


async def test_processes_beside_each_other_take_the_ports_behind_it_and_none_ends_a_run(world):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = world.settings.model_copy(update={"metrics_port": port})
        async with wired(settings, Request(("s3://catalogue/",))) as parts, metrics_served(parts, Watch()):
            served = [each for each in range(port + 1, port + PORTS) if await answers(each)]
    assert len(served) == 1


async def answers(port):
    try:
        return "soundcheck_objects_listed" in await text_at(port)
    except aiohttp.ClientError:
        return False


async def test_nothing_is_served_unless_it_is_wanted(world, monkeypatch):
    monkeypatch.setattr("flows.metrics.start_http_server", lambda *_: pytest.fail("nobody asked"))
    async with wired(world.settings, Request(("s3://catalogue/",))) as parts, metrics_served(parts, Watch()):
        await asyncio.sleep(0)
