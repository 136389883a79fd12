"""Scans over an S3 that refuses, fails or changes: what is one object's matter, and what is everybody's."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus

import aiohttp
import pytest
from aiohttp import web

from flows.watch import Watch
from moderation.errors import AccessDeniedError
from moderation.outcomes import ExitCode
from moderation.retry import RetryRules
from tasks.progress import Standing

DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
OF_THE_HOP = {"host", "connection", "content-length", "transfer-encoding", "expect", "date", "server"}

Answer = Callable[[web.Request], web.StreamResponse | None]
"""What a rule says to a request; None lets it through."""


@asynccontextmanager
async def s3_shim(behind: str, rule: Answer) -> AsyncIterator[str]:
    """A stand before an S3 server that answers by a rule, or passes on what it is asked."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if (refusal := rule(request)) is not None:
            return refusal
        body = await request.read()
        async with session.request(request.method, f"{behind}{request.raw_path}", data=body, headers=_passed_on(request.headers)) as reply:
            return web.Response(status=reply.status, headers=_passed_on(reply.headers), body=await reply.read())

    application = web.Application(client_max_size=1 << 30)
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in OF_THE_HOP}


@pytest.fixture
def shimmed(s3_server, aws, monkeypatch):
    """Enters a shim before the S3 server, and leads AWS clients to it."""

    @asynccontextmanager
    async def enter(rule: Answer) -> AsyncIterator[None]:
        async with s3_shim(s3_server.endpoint_url, rule) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
            yield

    return enter


def denies(*keys: str) -> Answer:
    def rule(request: web.Request) -> web.Response | None:
        wanted = request.path.rpartition("/")[2] in keys and request.method in {"GET", "HEAD"}
        return web.Response(status=HTTPStatus.FORBIDDEN, body=DENIED, content_type="application/xml") if wanted else None

    return rule


async def test_one_object_that_may_not_be_read_is_quarantined_and_the_rest_is_scanned(world, make_wav, shimmed):
    names = [f"{number:02}.wav" for number in range(24)]
    for number, name in enumerate(names):
        world.put(name, make_wav(1.0, 200.0 + number))
    async with shimmed(denies("07.wav")):
        report = await world.scan(endpoints=["music"])
    assert report.exit_code is ExitCode.QUARANTINED
    assert report.progress.of("music").standings == {Standing.DONE: 23, Standing.QUARANTINED: 1}
    [(key, reason, detail)] = world.ask("SELECT key, reason, detail FROM quarantined_now")
    assert (key, reason) == ("07.wav", "source_error")
    assert "s3:GetObject" in detail


async def test_many_objects_that_may_not_be_read_are_a_matter_of_the_credentials(world, make_wav, shimmed):
    for number in range(10):
        world.put(f"{number}.wav", make_wav(1.0, 200.0 + number))
    async with shimmed(denies("1.wav", "2.wav", "3.wav")):
        with pytest.raises(AccessDeniedError, match="s3:GetObject"):
            await world.scan(endpoints=["music"])
    assert world.ask("SELECT state, exit_code FROM runs_latest") == [("AccessDenied", ExitCode.ACCESS_DENIED)]
    assert world.velma.journal.counts["connect"] == 0


async def test_an_s3_that_fails_in_mid_run_leaves_the_rest_pending_and_is_nobodys_fault(world, make_wav, shimmed):
    for number in range(6):
        world.put(f"{number}.wav", make_wav(1.0, 200.0 + number))
    watch, mended = Watch(), False

    def rule(_: web.Request) -> web.Response | None:
        broken = watch.progress.sessions >= 2 and not mended
        return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE) if broken else None

    async with shimmed(rule):
        report = await world.scan(watch=watch, endpoints=["music"], connections=1, retries=RetryRules(patience=1))
        standings = report.progress.of("music").standings
        assert standings[Standing.DONE] >= 1
        assert standings[Standing.QUARANTINED] == 0
        assert standings[Standing.PENDING] == 6 - standings[Standing.DONE]
        assert report.exit_code is ExitCode.UNREACHABLE
        mended = True
        rest = await world.scan(endpoints=["music"])
    assert rest.progress.of("music").standings == {Standing.DONE: 6}
    assert world.ask("SELECT count(*), count(DISTINCT object_id) FROM music_summaries") == [(6, 6)]
