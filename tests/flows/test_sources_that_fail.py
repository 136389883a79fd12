"""Scans whose source fails in mid-run: what is one object's matter, and what ends the run for all."""

from http import HTTPStatus

import pytest
from aiohttp import web

from connectors.s3 import S3Settings, s3_client
from flows.watch import Watch
from moderation.errors import ConfigurationError
from moderation.outcomes import ExitCode, Reason
from moderation.retry import RetryRules
from s3_shim import s3_error
from tasks.progress import Standing

AT_ONCE = RetryRules(step_s=0)
OBJECTS = 5


class Failing:
    """Refuses to give any audio, once something was streamed, until it is mended."""

    def __init__(self, status: int, code: str) -> None:
        self.status, self.code = status, code
        self.watch, self.mended = Watch(), False

    def __call__(self, request: web.Request) -> web.Response | None:
        fails = self.watch.progress.sessions and not self.mended and request.path.endswith(".wav")
        return s3_error(self.status, self.code) if fails else None


@pytest.fixture
def catalogue(world, make_wav):
    for number in range(OBJECTS):
        world.put(f"{number}.wav", make_wav(1.0, 200.0 + number))
    return world


@pytest.mark.fault(74)
@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId"])
async def test_credentials_that_end_in_mid_run_end_it_and_are_no_objects_fault(catalogue, shimmed, code):
    failing = Failing(HTTPStatus.BAD_REQUEST, code)
    async with shimmed(failing):
        report = await catalogue.scan(watch=failing.watch, endpoints=["music"], connections=1, retries=AT_ONCE)
        assert (report.state, report.exit_code) == ("AccessDenied", ExitCode.ACCESS_DENIED)
        assert "credentials" in report.message
        standings = report.progress.of("music").standings
        assert standings[Standing.QUARANTINED] == 0
        assert standings[Standing.PENDING] == OBJECTS - standings[Standing.DONE] > 0
        failing.mended = True
        rest = await catalogue.scan(endpoints=["music"])
    assert (rest.exit_code, rest.progress.of("music").standings) == (ExitCode.OK, {Standing.DONE: OBJECTS})


@pytest.mark.fault(56)
async def test_a_clock_that_s3_refuses_ends_the_run_with_advice(catalogue, shimmed):
    failing = Failing(HTTPStatus.FORBIDDEN, "RequestTimeTooSkewed")
    async with shimmed(failing):
        with pytest.raises(ConfigurationError, match="this host's clock is wrong: set it"):
            await catalogue.scan(watch=failing.watch, endpoints=["music"], connections=1)
    assert catalogue.ask("SELECT state, exit_code FROM runs_latest") == [("Configuration", ExitCode.CONFIGURATION)]
    assert catalogue.ask("SELECT count(*) FROM quarantine") == [(0,)]


@pytest.mark.fault(6)
async def test_reading_that_is_denied_from_some_object_on_ends_the_run_after_three_in_a_row(catalogue, shimmed):
    failing = Failing(HTTPStatus.FORBIDDEN, "AccessDenied")
    async with shimmed(failing):
        report = await catalogue.scan(watch=failing.watch, endpoints=["music"], connections=1)
    assert (report.state, report.exit_code) == ("AccessDenied", ExitCode.ACCESS_DENIED)
    assert "s3:GetObject" in report.message
    assert report.progress.of("music").standings[Standing.QUARANTINED] <= 3


@pytest.mark.fault(5)
async def test_objects_that_are_deleted_while_a_run_is_on_are_skipped_as_gone(catalogue):
    """They are listed and planned: the first session ends when they are not there any more."""
    watch, client = Watch(), s3_client(S3Settings())
    note = type(catalogue.velma.journal).note

    def delete_at_the_first(journal, event, *arguments, **facts):
        if event == "connect":
            for number in range(OBJECTS):
                client.delete_object(Bucket="catalogue", Key=f"{number}.wav")
        note(journal, event, *arguments, **facts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(catalogue.velma.journal), "note", delete_at_the_first)
        report = await catalogue.scan(watch=watch, endpoints=["music"], connections=1)
    client.close()
    counts = report.progress.of("music")
    assert report.exit_code is ExitCode.OK
    assert counts.reasons == {Reason.GONE: counts.standings[Standing.SKIPPED]}
    assert counts.standings[Standing.SKIPPED] >= OBJECTS - 2
    assert counts.standings.total() == OBJECTS
    assert catalogue.ask("SELECT count(*) FROM quarantine") == [(0,)]
