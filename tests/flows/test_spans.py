"""Spans of runs, shards and sessions, sent to a real collector where OpenTelemetry's SDK is installed; and what is said where it is not."""

import sys
from collections.abc import Iterator

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_service

from moderation.errors import ConfigurationError
from moderation.outcomes import ExitCode
from tasks.about import about
from tasks.spans import span


def test_without_the_setting_a_span_is_nothing_and_an_error_passes():
    with pytest.raises(KeyError), about(run="20261121T101500Z-3fa2c1"), span("run"):
        raise KeyError


async def test_without_the_sdk_the_setting_is_refused_with_what_to_install(world, make_wav, monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    world.put("one.wav", make_wav(1.0))
    with pytest.raises(ConfigurationError, match=r"opentelemetry-exporter-otlp-proto-http.*not installed.*extra traces"):
        await world.scan(traces=True)
    assert world.velma.journal.counts["connect"] == 0


@pytest.fixture
async def collector(monkeypatch) -> Iterator[list]:
    """Every span that a collector has been sent."""
    spans = []

    async def take(request: web.Request) -> web.Response:
        sent = trace_service.ExportTraceServiceRequest.FromString(await request.read())
        spans.extend(each for of_resource in sent.resource_spans for of_scope in of_resource.scope_spans for each in of_scope.spans)
        return web.Response()

    application = web.Application()
    application.router.add_post("/v1/traces", take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{runner.addresses[0][1]}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    yield spans
    await runner.cleanup()


def facts(spans, kind):
    return [
        {each.key: each.value.string_value or each.value.int_value for each in s.attributes}
        for s in spans
        if s.name == f"soundcheck.{kind}"
    ]


async def test_a_run_is_one_trace_of_its_shards_and_sessions(world, make_wav, collector):
    for number in range(3):
        world.put(f"{number}.wav", make_wav(1.0, 200.0 + number))
    world.put("bad.flac", b"fLaC" + bytes(range(256)) * 8)
    report = await world.scan(endpoints=["music"], traces=True)
    assert facts(collector, "run") == [{"soundcheck.run": report.run_id}]
    assert len({each.trace_id for each in collector}) == 1
    sessions = [each for each in collector if each.name == "soundcheck.session"]
    assert len(sessions) == report.progress.sessions == 4
    assert [each.status.code for each in sessions].count(2) == 1, "the one that cannot be decoded"
    assert all(
        {"soundcheck.shard", "soundcheck.object", "soundcheck.session", "soundcheck.endpoint"} <= each.keys()
        for each in facts(collector, "session")
    )
    shards = {each.span_id for each in collector if each.name == "soundcheck.shard"}
    assert {each.parent_span_id for each in sessions} == shards
    assert (await world.scan(endpoints=["music"], traces=True)).exit_code is ExitCode.OK
    assert len({each.trace_id for each in collector}) == 2, "another run is another trace"


async def test_a_collector_that_is_away_ends_no_run(world, make_wav, collector, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    world.put("one.wav", make_wav(1.0))
    assert (await world.scan(endpoints=["music"], traces=True)).exit_code is ExitCode.OK
    assert collector == []
