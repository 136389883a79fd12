"""Scans over an S3 that refuses, fails or changes: what is one object's matter, and what is everybody's."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus

import pytest
from aiohttp import web

from flows.plan import plan_scan
from flows.request import FlowName, Request
from flows.watch import Watch
from moderation.errors import AccessDeniedError
from moderation.outcomes import ExitCode, Reason
from moderation.retry import RetryRules
from s3_shim import Answer, s3_error
from tasks.progress import Standing

pytestmark = pytest.mark.torture

SOURCE = "s3://catalogue/"


def denies(*keys: str) -> Answer:
    def rule(request: web.Request) -> web.Response | None:
        wanted = request.path.rpartition("/")[2] in keys and request.method in {"GET", "HEAD"}
        return s3_error(HTTPStatus.FORBIDDEN, "AccessDenied") if wanted else None

    return rule


@pytest.mark.fault(6)
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


@pytest.mark.fault(9)
@pytest.mark.parametrize("heads", [0, 1])
async def test_what_lies_in_an_archive_without_saying_so_is_skipped(world, make_wav, shimmed, heads):
    world.put("old.wav", make_wav(1.0))
    asked: list[str] = []

    def rule(request: web.Request) -> web.Response | None:
        if request.method != "GET" or not request.path.endswith("old.wav"):
            return None
        asked.append(request.headers["Range"])
        is_refused = len(asked) > heads
        return s3_error(HTTPStatus.FORBIDDEN, "InvalidObjectState") if is_refused else None

    async with shimmed(rule):
        report = await world.scan(endpoints=["music"])
    assert (report.exit_code, report.progress.of("music").reasons) == (ExitCode.OK, {Reason.ARCHIVED: 1})
    assert world.ask("SELECT count(*) FROM quarantine") == [(0,)]


async def test_what_is_no_audio_is_looked_at_once(world, make_wav, shimmed):
    for number in range(3):
        world.put(f"{number}.jpg", b"\xff\xd8\xff" + bytes(5000))
        world.put(f"{number}.bin", bytes([number + 1, 200, 3]) * 3000)
    world.put("one.wav", make_wav(1.0))
    looked: list[str] = []

    def rule(request: web.Request) -> None:
        if request.path.count("/") > 1 and request.path.rpartition("/")[2]:
            looked.append(request.path.rpartition("/")[2])

    async with shimmed(rule):
        for sees_all, scan in (
            (True, Request((SOURCE,))),
            (False, Request((SOURCE,))),
            (False, Request((SOURCE,))),
            (True, Request((SOURCE,), flow=FlowName.BACKFILL, force=True)),
        ):
            looked.clear()
            report = await world.scan_request(scan, endpoints=["music"])
            assert report.progress.of("music").reasons == {Reason.NOT_AUDIO: 6}
            assert bool(looked) == sees_all
        looked.clear()
        await plan_scan(world.settings.model_copy(update={"endpoints": ["music"]}), Request((SOURCE,)))
        assert looked == []
        world.put("1.bin", make_wav(1.2))
        assert (await world.scan(endpoints=["music"])).progress.sessions == 1
        assert set(looked) == {"1.bin"}


@pytest.mark.fault(6)
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


@pytest.mark.fault(4)
@pytest.mark.fault(7)
@pytest.mark.parametrize("swapped", [True, False], ids=["overwritten", "only broken off"])
async def test_a_body_that_breaks_off_goes_on_only_while_the_object_is_what_was_listed(world, make_wav, shimmed, swapped):
    old, new = make_wav(120.0), make_wav(48.0, 300.0)
    world.put("long.wav", old)
    broken: list[str] = []

    async def send(request: web.Request, answer: web.Response) -> web.StreamResponse:
        if len(answer.body or b"") < len(old) // 2 or broken:
            return answer
        broken.append(request.headers["Range"])
        cut = web.StreamResponse(status=answer.status, headers={**answer.headers, "Content-Length": str(len(answer.body))})
        await cut.prepare(request)
        await cut.write(answer.body[: 1 << 20])
        await _until(lambda: world.velma.journal.counts["connect"] == 1)
        if swapped:
            world.put("long.wav", new)
        request.transport.abort()
        return cut

    async with shimmed(send=send):
        first = await world.scan(endpoints=["music"])
        assert len(broken) == 1
        if not swapped:
            assert first.progress.of("music").standings == {Standing.DONE: 1}
            assert world.ask("SELECT duration_ms FROM music_summaries") == [(120_000,)]
            return
        assert first.exit_code is ExitCode.EXHAUSTED
        assert (await world.scan(endpoints=["music"])).progress.of("music").standings == {Standing.DONE: 1}
        assert (await world.scan(endpoints=["music"])).progress.sessions == 0
    assert world.ask("SELECT duration_ms, size_bytes FROM music_summaries") == [(48_000, len(new))]
    [failed, done] = world.ask("SELECT outcome, cause, audio_sent_ms FROM attempts ORDER BY started_at")
    assert failed[:2] == ("failed", "changed")
    assert 0 < failed[2] < 120_000
    assert done == ("done", None, 48_000)
    assert first.progress.of("music").at_risk_ms >= failed[2], "also what the bytes sent are by the estimate"


@pytest.mark.fault(8)
@pytest.mark.parametrize(("times", "ends"), [(1, ["source_corrupt", None]), (9, ["source_corrupt"] * 2)], ids=["once", "always"])
async def test_bytes_that_change_on_the_way_are_read_once_more_and_then_the_object_is_held(
    world, make_wav, shimmed, monkeypatch, times, ends
):
    monkeypatch.setattr("connectors.audio_store.is_open_to_changes", lambda _: True)
    good, bad = make_wav(1.0), make_wav(3.0)
    world.put("good.wav", good)
    world.put("bad.wav", bad)
    flipped: list[str] = []

    async def send(request: web.Request, answer: web.Response) -> web.StreamResponse:
        if request.path.endswith("bad.wav") and answer.body == bad and len(flipped) < times:
            flipped.append(request.method)
            answer.body = bad[:-1] + bytes([bad[-1] ^ 1])
        return answer

    async with shimmed(send=send):
        report = await world.scan(endpoints=["music"], connections=1, retries=RetryRules(step_s=0))
    done = ends[-1] is None
    assert report.exit_code is (ExitCode.OK if done else ExitCode.QUARANTINED)
    assert [cause for (cause,) in world.ask("SELECT cause FROM attempts WHERE attempt > 1 OR cause IS NOT NULL ORDER BY attempt")] == ends
    assert world.ask("SELECT key, reason FROM quarantined_now") == ([] if done else [("bad.wav", "source_error")])
    assert world.ask("SELECT count(*) FROM music_summaries") == [(1 + done,)]


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)
