"""What people are told, once for each cause: over a webhook, or in the log."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from aiohttp import web
from pydantic import SecretStr

from connectors.ledger import Ledger
from connectors.letters import Letters
from connectors.notices import Notice, Notices
from flows.notifying import MANY_QUARANTINED, Notifier, tell_once
from hooks import TOKEN, webhook
from ledger_facts import claim_of
from moderation.admission import CapShare, CapUnit, Denial, Grant, Refusal
from moderation.breaker import BreakerRules, OpenedBy
from moderation.errors import ConfigurationError, ResultsNotWritable, SoundcheckError
from moderation.identity import event_id
from moderation.outcomes import ExitCode, StopCause

KEY = "canary-5f0e9d1c7b"
NOTICE = Notice("acme", "CreditsExhausted", "run-1", "credits are used up: add some", 75)


@pytest.fixture
async def ledger(tmp_path) -> AsyncIterator[Ledger]:
    async with Ledger.open(tmp_path / "ledger.db") as ledger:
        yield ledger


def grant(shares: dict[str, float], unit: CapUnit = CapUnit.HOURS) -> Grant:
    """A session with which so much of these endpoints' caps is taken."""
    return Grant("session", 0, spent=tuple(CapShare(endpoint, unit, share) for endpoint, share in shares.items()))


def warnings_of(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture
def once(monkeypatch):
    """Nothing is sent twice."""
    monkeypatch.setattr("connectors.notices.TRIES", 1)


async def test_a_notice_is_json_with_a_sentence_for_people():
    async with webhook() as hook:
        await Notices(hook.url, now=lambda: datetime(2026, 11, 21, 8, tzinfo=UTC)).send(NOTICE)
    assert hook.told == [
        {
            "schema_version": 1,
            "event_id": event_id("notice", "acme", "CreditsExhausted", "run-1"),
            "event": "notice",
            "at": "2026-11-21T08:00:00+00:00",
            "org": "acme",
            "cause": "CreditsExhausted",
            "run_id": "run-1",
            "message": "credits are used up: add some",
            "exit_code": 75,
            "text": "soundcheck, acme: CreditsExhausted (exit code 75) in run run-1: credits are used up: add some",
        }
    ]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda: web.Response(status=500), "HTTP 500"),
        (lambda: web.Response(status=404), "HTTP 404"),
        (lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/elsewhere"}), "HTTP 302"),
    ],
)
@pytest.mark.usefixtures("once")
async def test_a_webhook_that_refuses_or_leads_elsewhere_is_one_warning_without_its_token(caplog, answer, why):
    caplog.set_level(logging.DEBUG)
    async with webhook(answer) as hook:
        await Notices(hook.url).send(NOTICE)
        assert len(hook.told) == 1
    [warning] = warnings_of(caplog)
    assert warning == f"a notice was not delivered to 127.0.0.1 ({why}): {NOTICE.text}"
    assert TOKEN not in caplog.text


@pytest.mark.usefixtures("once")
async def test_a_webhook_that_is_not_there_is_one_warning_without_its_token(caplog):
    caplog.set_level(logging.DEBUG)
    async with webhook() as hook:
        pass
    await Notices(hook.url).send(NOTICE)
    [warning] = warnings_of(caplog)
    assert "ClientConnectorError" in warning
    assert TOKEN not in caplog.text


@pytest.mark.usefixtures("once")
async def test_a_webhook_that_never_answers_is_given_up(caplog, monkeypatch):
    monkeypatch.setattr("connectors.notices.POST_SECONDS", 0.2)
    silence = asyncio.Event()

    async def hear(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await silence.wait()
        writer.close()

    async with await asyncio.start_server(hear, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await Notices(f"http://127.0.0.1:{port}/{TOKEN}").send(NOTICE)
        silence.set()
    assert "TimeoutError" in warnings_of(caplog)[0]


@pytest.mark.parametrize("exit_code", [75, None])
async def test_without_a_webhook_the_log_has_it(caplog, exit_code):
    notice = Notice("acme", "CreditsExhausted", "run-1", "credits are used up", exit_code)
    await Notices(None).send(notice)
    [record] = caplog.records
    assert (record.getMessage(), record.levelno) == (notice.text, logging.WARNING if exit_code is None else logging.ERROR)


@pytest.mark.parametrize("url", ["http://hooks.example/T0KEN", "ftp://127.0.0.1/T0KEN", "https://", "T0KEN", "http://[::1/T0KEN"])
def test_a_url_that_others_could_read_is_refused_without_showing_it(url):
    with pytest.raises(ConfigurationError) as refused:
        Notices(url)
    assert "T0KEN" not in str(refused.value)


async def test_a_cause_is_told_once_until_a_run_completes(ledger):
    async with webhook() as hook:
        notifier = Notifier(ledger, Notices(hook.url), "acme", "run-1", 0.8)
        for _ in range(2):
            await notifier.ended("CreditsExhausted", ExitCode.EXHAUSTED, "credits are used up")
        await notifier.ended("AccessDenied", ExitCode.ACCESS_DENIED, "the key is wrong")
        assert hook.causes == ["CreditsExhausted", "AccessDenied"]
        await Notifier(ledger, Notices(hook.url), "others", "run-2", 0.8).completed(ExitCode.OK, 0, streamed=True)
        await notifier.ended("CreditsExhausted", ExitCode.EXHAUSTED, "credits are used up")
        assert len(hook.told) == 2, "another organisation's run is no news of this one"
        await notifier.completed(ExitCode.QUARANTINED, 1, streamed=True)
        await notifier.ended("CreditsExhausted", ExitCode.EXHAUSTED, "credits are used up")
    assert hook.causes == ["CreditsExhausted", "AccessDenied", "CreditsExhausted"]


class Dies(Exception):
    """The process, in the middle of something."""


class AtTheLedger:
    """A ledger whose process dies right after it has booked a notice."""

    def __init__(self, ledger):
        self.ledger = ledger

    async def first_notice(self, org, cause):
        await self.ledger.first_notice(org, cause)
        raise Dies


async def test_a_process_that_dies_once_it_has_booked_a_notice_leaves_its_letter(ledger, tmp_path):
    letters = Letters(tmp_path / "notices")
    async with webhook() as hook:
        notices = Notices(hook.url, letters=letters)
        with pytest.raises(Dies):
            await tell_once(AtTheLedger(ledger), notices, NOTICE)
        assert [letter.text for letter in letters.undelivered()] == [NOTICE.text]
        assert await notices.resend(letters.undelivered()) == []
        await tell_once(ledger, notices, replace(NOTICE, run_id="run-2"))
    assert hook.causes == ["CreditsExhausted"]
    assert letters.undelivered() == []


async def test_a_run_with_much_quarantined_is_told_and_ends_other_causes(ledger):
    async with webhook() as hook:
        notifier = Notifier(ledger, Notices(hook.url), "acme", "run-1", 0.8)
        await notifier.ended("AccessDenied", ExitCode.ACCESS_DENIED, "the key is wrong")
        for _ in range(2):
            await notifier.completed(ExitCode.MANY_QUARANTINED, 7, streamed=True)
        await notifier.ended("AccessDenied", ExitCode.ACCESS_DENIED, "the key is wrong")
    assert hook.causes == ["AccessDenied", MANY_QUARANTINED, "AccessDenied"]
    assert (hook.told[1]["exit_code"], str(hook.told[1]["message"])[:2]) == (65, "7 ")


@pytest.mark.parametrize("state", ["Terminated", "Incomplete", "Completed"])
async def test_what_is_no_cause_is_not_told(ledger, state):
    async with webhook() as hook:
        await Notifier(ledger, Notices(hook.url), "acme", "run-1", 0.8).ended(state, ExitCode.OK, "")
    assert hook.told == []


async def test_a_cap_is_warned_of_once_a_month_whichever_run_reaches_it(ledger):
    async with webhook() as hook:
        for run in ("run-1", "run-2"):
            notifier = Notifier(ledger, Notices(hook.url), "acme", run, 0.8)
            async with notifier.until_told():
                for shares in ({}, {"music": 0.79}, {"music": 0.8}, {"music": 0.95}):
                    notifier.granted(claim_of(1), grant(shares))
            await notifier.completed(ExitCode.OK, 0, streamed=True)
        notifier = Notifier(ledger, Notices(hook.url), "acme", "run-3", 0.8)
        async with notifier.until_told():
            notifier.granted(claim_of(1, month="2026-12"), grant({"music": 1.0}))
    assert hook.causes == ["budget_80:music:hours:2026-11", "budget_80:music:hours:2026-12"]
    assert [notice["exit_code"] for notice in hook.told] == [None, None]
    assert "80% of the cap in hours for music of 2026-11" in str(hook.told[0]["text"])


async def test_each_cap_is_warned_of_by_itself_whichever_endpoints_session_reaches_it(ledger):
    async with webhook() as hook:
        notifier = Notifier(ledger, Notices(hook.url), "acme", "run-1", 0.8)
        async with notifier.until_told():
            notifier.granted(claim_of(1), grant({"music": 0.5, "*": 0.9}))
            notifier.granted(claim_of(2, endpoint="ai_music"), grant({"*": 0.91}))
            notifier.granted(claim_of(3), grant({"music": 0.85, "*": 0.92}))
            notifier.granted(claim_of(4), grant({"music": 0.9}, CapUnit.MONEY))
    months = [f"budget_80:{cap}:2026-11" for cap in ("*:hours", "music:hours", "music:money")]
    assert sorted(map(str, hook.causes)) == months
    assert "90% of the cap in hours of 2026-11" in " ".join(str(notice["text"]) for notice in hook.told)


@pytest.mark.usefixtures("once")
async def test_what_was_not_delivered_is_told_when_it_comes_again(ledger, caplog):
    works = [500, 500, 200, 200]
    async with webhook(lambda: web.Response(status=works.pop(0))) as hook:
        for run in ("run-1", "run-2", "run-3", "run-4"):
            notifier = Notifier(ledger, Notices(hook.url), "acme", run, 0.8)
            await notifier.ended("CreditsExhausted", ExitCode.EXHAUSTED, "credits are used up")
    assert [notice["run_id"] for notice in hook.told] == ["run-1", "run-2", "run-3"], "the third was delivered"


@pytest.mark.parametrize(
    ("suspends", "opened_by", "causes"),
    [(True, OpenedBy.QUOTA, ["CreditsExhausted"]), (True, OpenedBy.SERVICE, []), (False, OpenedBy.QUOTA, [])],
)
async def test_a_run_that_waits_for_credits_tells_it_once_when_it_begins_to(ledger, suspends, opened_by, causes):
    async with webhook() as hook:
        notifier = Notifier(ledger, Notices(hook.url), "acme", "run-1", 0.8, suspends=suspends)
        async with notifier.until_told():
            for denial in (Denial.FULL, Denial.BREAKER, Denial.BREAKER):
                notifier.refused(Refusal(denial, opened_by=opened_by if denial is Denial.BREAKER else None))
    assert hook.causes == causes


async def test_a_run_without_credits_is_told_once_and_again_after_one_that_completes(world, make_wav):
    for number in range(4):
        world.put(f"{number}.wav", make_wav(4.0, 300.0 + number))
    async with webhook() as hook:
        changes = {"connections": 1, "endpoints": ["music"], "breaker": BreakerRules(pause_factor=0), "notify_url": SecretStr(hook.url)}
        for credit_seconds, expected in ((9, ExitCode.EXHAUSTED), (1, ExitCode.EXHAUSTED), (None, ExitCode.OK)):
            world.velma.organisation.credit_hours = None if credit_seconds is None else credit_seconds / 3600
            report = await world.scan(**changes)
            assert report.exit_code is expected
        world.put("another.wav", make_wav(4.0, 500.0))
        world.velma.organisation.credit_hours = 0.0
        last = await world.scan(**changes)
    assert hook.causes == ["CreditsExhausted", "CreditsExhausted"]
    envelope = {"schema_version": 1, "event": "notice", "event_id": hook.told[-1]["event_id"], "at": hook.told[-1]["at"]}
    assert hook.told[-1] | {"text": ""} == envelope | {
        "org": "default",
        "cause": StopCause.CREDITS_EXHAUSTED,
        "run_id": last.run_id,
        "message": last.message,
        "exit_code": 75,
        "text": "",
    }
    assert KEY not in json.dumps(hook.told)


async def test_a_cap_of_the_settings_is_warned_of_before_it_stops_the_run(world, make_wav):
    for number in range(5):
        world.put(f"{number}.s16le", make_wav(3.84, 300.0 + number)[44:])
        world.put(f"{number}.s16le.json", b'{"audio_format": "s16le", "sample_rate": 16000, "num_channels": 1}')
    async with webhook() as hook:
        report = await world.scan(endpoints=["music"], monthly_hours=8 / 3600, notify_url=SecretStr(hook.url))
    assert report.exit_code is ExitCode.EXHAUSTED
    [month] = {str(cause)[-7:] for cause in hook.causes[:1]}
    assert hook.causes == [f"budget_80:*:hours:{month}", "CreditsExhausted"]


@pytest.mark.parametrize(
    ("missing", "cause"),
    [
        ({"api_key": None}, StopCause.ACCESS_DENIED),
        ({"ledger_url": SecretStr("postgresql://nobody@127.0.0.1:1/none")}, StopCause.SERVICE_UNREACHABLE),
    ],
    ids=["key", "ledger"],
)
async def test_what_keeps_a_run_from_beginning_is_told_too(world, make_wav, missing, cause):
    world.put("one.wav", make_wav(1.0))
    async with webhook() as hook:
        with pytest.raises(SoundcheckError):
            await world.scan(notify_url=SecretStr(hook.url), **missing)
    assert hook.causes == [cause]
    assert hook.told[0]["run_id"] is None
    assert "before a run began" in hook.told[0]["text"]


async def test_what_keeps_runs_from_beginning_is_told_once(world):
    async with webhook() as hook:
        for _ in range(3):
            with pytest.raises(SoundcheckError):
                await world.scan(notify_url=SecretStr(hook.url), api_key=None)
    assert hook.causes == [StopCause.ACCESS_DENIED]


async def test_an_organisation_whose_every_run_stops_is_told_once_even_where_some_have_nothing_to_stream(world, make_wav):
    for key in ("done/one.wav", "new/two.wav", "more/three.wav"):
        world.put(key, make_wav(1.0, 200.0 + len(key)))
    async with webhook() as hook:
        changes = {"endpoints": ["music"], "breaker": BreakerRules(pause_factor=0), "notify_url": SecretStr(hook.url)}
        await world.scan("done/", **changes)
        world.velma.organisation.api_keys = frozenset({"another"})
        for _ in range(2):
            both = await asyncio.gather(world.scan("new/", **changes), world.scan("more/", **changes))
            assert [report.exit_code for report in both] == [ExitCode.ACCESS_DENIED] * 2
            assert (await world.scan("done/", **changes)).exit_code is ExitCode.OK
    assert hook.causes == [StopCause.ACCESS_DENIED]


async def test_results_that_cannot_be_written_are_told_though_no_record_is(world, make_wav):
    world.put("one.wav", make_wav(1.0))
    (world.results / "v1").mkdir(parents=True)
    (world.results / "v1" / "runs").write_text("in the way")
    async with webhook() as hook:
        with pytest.raises(ResultsNotWritable):
            await world.scan(notify_url=SecretStr(hook.url))
    assert hook.causes == ["ResultsNotWritable"]
    assert hook.told[0]["exit_code"] == ExitCode.CANNOT_WRITE


@pytest.mark.usefixtures("once")
async def test_a_webhook_that_fails_changes_nothing_about_a_run(world, make_wav, caplog):
    world.put("one.wav", make_wav(1.0))
    world.velma.organisation.api_keys = frozenset({"another"})
    async with webhook(lambda: web.Response(status=500)) as hook:
        report = await world.scan(endpoints=["music"], breaker=BreakerRules(pause_factor=0), notify_url=SecretStr(hook.url))
    assert (report.state, report.exit_code) == ("AccessDenied", ExitCode.ACCESS_DENIED)
    assert len([line for line in warnings_of(caplog) if "not delivered" in line]) == 1
    assert TOKEN not in caplog.text
