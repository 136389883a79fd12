"""Events to other programs: signed, at least once, the same by their id; who does not take them gets them later."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from aiohttp import web
from pydantic import SecretStr

from connectors.lake.query import connect
from connectors.lake.store import FolderStore
from connectors.lake.untold import ABANDONED, Untold, note, notes
from connectors.ledger import Ledger
from connectors.letters import Letters
from connectors.notices import NOT_TRIED, Notice, Notices
from connectors.people import Person
from crashing import Calls, Crash
from flows.cli import run as command
from flows.dead_letters import send_again, undelivered
from flows.deciding import decide_results, tell
from flows.ledger import statuses
from flows.notifying import notices_of
from flows.reviewing import take_in, tell_imported
from flows.settings import fixed_settings
from flows.status import print_statuses
from flows.telling import PART_OBJECTS, events_of, tell_changes
from judged_lakes import RUN, fill, identity_of, result
from moderation.errors import ConfigurationError
from moderation.events import CEILING_S, EVENT_HEADER, SIGNATURE_HEADER, Event, EventKind, is_signed, pause_s
from tasks.changes import Changes
from tasks.decide import decide as decide_lake
from tasks.decide import read_policy
from tasks.desk import Desk
from tasks.records import Run

SECRET = "a-secret-of-both-sides"
TOKEN = "T0KEN-of-the-receiver"
AT = datetime(2026, 11, 21, 8, 0, 0, tzinfo=UTC)
NOTICE = Notice("default", "CreditsExhausted", RUN, "credits are used up", 75)
Answer = Callable[[], "web.Response | None"]
POLICY = """
name = "ours"
[[rules]]
id = "loud"
when = "music_pct > 50"
decide = "block"
reason = "loud"
[[rules]]
id = "rest"
when = "true"
decide = "allow"
reason = "quiet"
"""


class Receiver:
    """A receiver as it should be: it verifies signatures, and keeps each event once by its id. calls has every try."""

    def __init__(self) -> None:
        self.url = ""
        self.calls: list[str] = []
        self.forged = 0
        self.events: dict[str, dict[str, object]] = {}
        self.answers: list[int | None] = []
        self.silence = asyncio.Event()

    async def hear(self, request: web.Request) -> web.Response:
        body = await request.read()
        if not is_signed(SECRET, body, request.headers.get(SIGNATURE_HEADER, "")):
            self.forged += 1
            return web.Response(status=401)
        told = json.loads(body)
        assert told["event_id"] == request.headers[EVENT_HEADER]
        self.calls.append(told["event_id"])
        status = self.answers.pop(0) if self.answers else 200
        if status is None:
            await self.silence.wait()
            return web.Response(status=200)
        if status < 300:
            self.events.setdefault(told["event_id"], told)
        return web.Response(status=status)


@asynccontextmanager
async def receiving(*answers: int | None) -> AsyncIterator[Receiver]:
    """A receiver that answers so, None being silence, and then takes everything."""
    receiver = Receiver()
    receiver.answers = list(answers)
    application = web.Application()
    application.router.add_post(f"/{TOKEN}", receiver.hear)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/{TOKEN}"
        yield receiver
    finally:
        receiver.silence.set()
        await runner.cleanup()


class Pauses:
    """A sleep that takes no time, and is on record."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


@pytest.fixture
def letters(tmp_path):
    return Letters(tmp_path / "notices")


def ways(url: str | None, letters: Letters | None, pauses: Pauses | None = None, people: Sequence[str] = ()) -> Notices:
    return Notices(url, secret=SECRET, people=people, letters=letters, sleep=pauses or Pauses(), chance=lambda: 0.5, now=lambda: AT)


def event(number: int = 0) -> Event:
    return Event(
        f"{number:032x}", EventKind.DECISIONS_CHANGED, "default", AT + timedelta(seconds=number), f"event {number}", {"part": number}
    )


async def test_a_receiver_that_fails_twice_times_out_and_then_accepts_has_the_event_once_and_signed(letters, monkeypatch):
    monkeypatch.setattr("connectors.notices.POST_SECONDS", 0.3)
    pauses = Pauses()
    async with receiving(500, 503, None) as receiver:
        assert await ways(receiver.url, letters, pauses).send(NOTICE)
        assert len(receiver.calls) == 4
        assert len(set(receiver.calls)) == 1
        assert [told["cause"] for told in receiver.events.values()] == ["CreditsExhausted"]
        assert receiver.forged == 0
    assert pauses.seconds == [1.0, 2.0, 4.0]
    assert letters.undelivered() == []


async def test_an_event_that_was_taken_though_its_answer_was_lost_comes_again_with_the_same_id(letters, monkeypatch):
    monkeypatch.setattr("connectors.notices.POST_SECONDS", 0.3)
    async with receiving(None) as receiver:
        await ways(receiver.url, letters).send(NOTICE)
        await ways(receiver.url, letters).send(NOTICE)
    assert len(receiver.calls) == 3
    assert len(receiver.events) == 1


async def test_a_receiver_that_takes_nothing_leaves_a_dead_letter_that_is_sent_again_later(letters, caplog):
    async with receiving(*[500] * 5) as receiver:
        assert not await ways(receiver.url, letters).send(NOTICE)
        assert len(receiver.calls) == 5
        [dead] = letters.undelivered()
        assert (dead.to, dead.why, dead.text) == ("webhook", "HTTP 500", NOTICE.text)
        assert await ways(receiver.url, letters).resend([dead]) == []
        assert [told["event_id"] for told in receiver.events.values()] == [dead.event_id]
    assert letters.undelivered() == []
    assert TOKEN not in caplog.text
    assert TOKEN not in dead.body


@pytest.mark.parametrize("status", [301, 400, 401, 404, 410])
async def test_a_refusal_that_does_not_pass_is_not_tried_again(letters, status):
    async with receiving(status) as receiver:
        assert not await ways(receiver.url, letters).send(NOTICE)
        assert len(receiver.calls) == 1
    assert [letter.why for letter in letters.undelivered()] == [f"HTTP {status}"]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
async def test_a_refusal_that_passes_is_tried_again(letters, status):
    async with receiving(status) as receiver:
        assert await ways(receiver.url, letters).send(NOTICE)
        assert len(receiver.calls) == 2


async def test_another_secret_is_no_signature(letters):
    async with receiving() as receiver:
        forged = Notices(receiver.url, secret="another", letters=letters, sleep=Pauses(), now=lambda: AT)
        assert not await forged.send(NOTICE)
        assert not await Notices(receiver.url, sleep=Pauses(), now=lambda: AT).send(NOTICE)
    assert (receiver.forged, receiver.events) == (2, {})


async def test_of_several_that_belong_together_the_rest_is_not_tried_where_one_was_not_taken(letters):
    async with receiving(200, *[500] * 5) as receiver:
        assert not await ways(receiver.url, letters).send_events([event(number) for number in range(4)])
        assert len(receiver.calls) == 6
        dead = letters.undelivered()
        assert [letter.why for letter in dead] == ["HTTP 500", NOT_TRIED, NOT_TRIED]
        assert await ways(receiver.url, letters).resend([*reversed(dead)]) == [], "their order is irrelevant"
        assert {told["part"] for told in receiver.events.values()} == {0, 1, 2, 3}


async def test_what_a_process_left_when_it_died_is_there_to_be_sent(letters):
    async with receiving(None) as receiver:
        sending = asyncio.create_task(ways(receiver.url, letters).send(NOTICE))
        while not receiver.calls:
            await asyncio.sleep(0.01)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        [left] = letters.undelivered()
        assert left.why == ""
        assert await ways(receiver.url, letters).resend([left]) == []
        assert len(receiver.events) == 1


async def test_a_letter_to_somebody_who_is_set_no_more_stays(letters):
    letters.keep(ways("http://127.0.0.1:1/x", letters)._letter(event(), "people-7"))
    [letter] = letters.undelivered()
    assert await ways("http://127.0.0.1:1/x", letters).resend([letter]) == [letter]


async def test_a_disk_that_keeps_no_letter_does_not_keep_the_notice(tmp_path, caplog):
    (tmp_path / "notices").write_text("in the way")
    async with receiving() as receiver:
        assert await ways(receiver.url, Letters(tmp_path / "notices")).send(NOTICE)
        assert len(receiver.events) == 1
    assert "is not kept until it has arrived" in caplog.text


def test_what_is_no_letter_is_passed_over(tmp_path, letters, caplog):
    (tmp_path / "notices").mkdir()
    (tmp_path / "notices" / "0123.json").write_text("{")
    assert letters.undelivered() == []
    assert "is no letter" in caplog.text


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_pauses_have_full_jitter_below_a_ceiling(chance):
    pauses = [pause_s(tries, chance) for tries in range(1, 12)]
    assert pauses == sorted(pauses)
    assert max(pauses) == pytest.approx(chance * CEILING_S)


async def test_people_are_told_in_a_sentence_over_apprise(letters, caplog):
    heard: list[dict[str, str]] = []

    async def hear(request: web.Request) -> web.Response:
        heard.append(await request.json())
        return web.Response()

    application = web.Application()
    application.router.add_post(f"/{TOKEN}", hear)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    caplog.set_level("DEBUG")
    address = f"json://127.0.0.1:{runner.addresses[0][1]}/{TOKEN}"
    try:
        assert await ways(None, letters, people=[address]).send_events([event(1), event(2)])
    finally:
        await runner.cleanup()
    assert [(each["title"], each["message"]) for each in heard] == [("soundcheck", "event 1")]
    assert not await ways(None, letters, people=[address]).send(NOTICE)
    assert [(letter.to, letter.why) for letter in letters.undelivered()] == [("people-1", "not taken")]
    assert TOKEN not in caplog.text


def test_an_address_that_is_none_is_refused_without_showing_it():
    with pytest.raises(ConfigurationError) as refused:
        Person(f"nonsense{TOKEN}")
    assert TOKEN not in str(refused.value)


def changes(listed: int, total: int) -> Changes:
    rows = [{"object_id": f"{number:032x}", "before": None, "after": "block", "key": f"{number}.mp3"} for number in range(listed)]
    counts = pl.DataFrame({"before": [None], "after": ["block"], "objects": [total]})
    return Changes(Untold("decisions/x.parquet", "default", RUN, AT, "ours", "hash"), counts, pl.DataFrame(rows))


def test_many_changed_decisions_are_several_events_with_ids_that_stay():
    done = changes(PART_OBJECTS + 1, PART_OBJECTS + 11)
    one, two = events_of(done)
    assert (len(one.facts["decisions"]), len(two.facts["decisions"]), two.facts["not_listed"]) == (PART_OBJECTS, 1, 10)
    assert [each.body() for each in (one, two)] == [each.body() for each in events_of(done)]
    assert one.event_id != two.event_id
    assert json.loads(one.body())["decisions"][0]["key"] == "0.mp3"


class Deciding:
    """Processes that decide about one lake, each of which may die before it tells anybody."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.store = FolderStore(folder / "results")
        self.open_lake = partial(connect, self.store.url)
        self.policy = folder / "policy.toml"
        self.policy.write_text(POLICY)
        self.letters = Letters(folder / "notices")

    def decide(self, number: int = 1) -> Path:
        """Store what is new; the file of it."""
        run = Run(f"20261121T08000{number}Z-0a1b2c", "default", AT + timedelta(seconds=number))
        file = decide_lake(self.store, self.open_lake, run, read_policy(self.policy), run.started_at).file
        return self.store.root / str(file)

    async def tell(self, receiver: Receiver, at: datetime = AT + timedelta(minutes=1)) -> None:
        await tell_changes(ways(receiver.url, self.letters), self.store, self.open_lake, "default", at)


@pytest.fixture
def deciding(tmp_path):
    made = Deciding(tmp_path)
    fill(made.store, result("a", music_pct=90.0), result("b", music_pct=30.0))
    return made


async def test_what_a_process_decided_before_it_died_is_told_by_the_next_and_then_no_more(deciding):
    file = deciding.decide()
    async with receiving() as receiver:
        await deciding.tell(receiver)
        await deciding.tell(receiver)
    [told] = receiver.events.values()
    assert (told["file"].rpartition("/")[2], told["changed"], len(receiver.calls)) == (file.name, 2, 1)
    assert sorted(row["key"] for row in told["decisions"]) == ["a", "b"]
    assert list(notes(deciding.store)) == []


async def test_what_a_person_answered_before_the_page_died_is_told_by_whoever_decides_next(deciding):
    deciding.decide()
    async with receiving() as receiver:
        await deciding.tell(receiver)
        desk = Desk(deciding.store, deciding.open_lake, "default", "true")
        desk.read()
        at = AT + timedelta(minutes=2)
        desk.answer(Run("20261121T080200Z-0a1b2c", "default", at), identity_of("a"), {"answer": "allow", "note": "licensed"}, "ada", at)
        await deciding.tell(receiver, at)
    [row] = list(receiver.events.values())[1]["decisions"]
    assert (row["key"], row["before"], row["after"], row["reviewer"], row["note"]) == ("a", "block", "allow", "ada", "licensed")


async def test_a_receiver_that_takes_nothing_leaves_letters_and_no_note(deciding):
    deciding.decide()
    async with receiving(404) as receiver:
        await deciding.tell(receiver)
    assert len(deciding.letters.undelivered()) == 1
    assert list(notes(deciding.store)) == []


async def test_what_two_decide_at_once_is_told_once(deciding, tmp_path):
    first = deciding.decide(1)
    hidden = first.rename(tmp_path / "hidden")
    deciding.decide(2)
    hidden.rename(first)
    async with receiving() as receiver:
        await deciding.tell(receiver)
    assert [told["file"].rpartition("/")[2] for told in receiver.events.values()] == [first.name]


async def test_a_note_of_what_was_never_written_tells_nothing_and_goes_after_a_day(deciding):
    note(deciding.store, Untold(f"decisions/scan_date=2026-11-21/{RUN}-d0001.parquet", "default", RUN, AT, "ours", "hash"))
    async with receiving() as receiver:
        await deciding.tell(receiver, AT + timedelta(minutes=1))
        assert len(list(notes(deciding.store))) == 1
        await deciding.tell(receiver, AT + ABANDONED + timedelta(minutes=1))
    assert (list(notes(deciding.store)), receiver.calls) == ([], [])


async def test_what_cannot_be_read_is_a_warning_and_stays_to_be_told(deciding, caplog):
    whole = (file := deciding.decide()).read_bytes()
    file.write_bytes(b"PAR1")
    async with receiving() as receiver:
        await deciding.tell(receiver)
        assert "not told yet" in caplog.text
        file.write_bytes(whole)
        await deciding.tell(receiver)
    assert len(receiver.events) == 1


async def test_a_decision_by_another_rule_that_says_the_same_is_no_event(deciding):
    deciding.decide(1)
    deciding.policy.write_text(POLICY.replace('"loud"', '"louder"'))
    deciding.decide(2)
    async with receiving() as receiver:
        await deciding.tell(receiver)
    assert [told["changed"] for told in receiver.events.values()] == [2]


async def test_only_what_changes_is_told_and_each_object_with_what_it_was(tmp_path):
    store = FolderStore(tmp_path / "results")
    fill(store, result("a", music_pct=90.0), result("b", music_pct=30.0))
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    async with receiving() as receiver:
        told = {"notify_url": SecretStr(receiver.url), "notify_secret": SecretStr(SECRET)}
        settings = fixed_settings(results=store.url, policy=policy, state_dir=tmp_path / "state", **told)
        for text in (POLICY, POLICY, POLICY.replace("> 50", "> 20")):
            policy.write_text(text)
            await tell(settings, decide_results(settings, lambda: AT))
        first, second = receiver.events.values()
    turned = [[(row["key"], row["before"], row["after"], row["rule_id"]) for row in each["decisions"]] for each in (first, second)]
    assert sorted(turned[0]) == [("a", None, "block", "loud"), ("b", None, "allow", "rest")]
    assert turned[1] == [("b", "allow", "block", "loud")]
    assert (second["changed"], second["parts"], second["event"], second["schema_version"]) == (1, 1, "decisions_changed", 1)


async def test_what_people_overturn_is_told_once(tmp_path):
    store = FolderStore(tmp_path / "results")
    fill(store, result("a", music_pct=90.0), result("b", music_pct=30.0))
    (tmp_path / "policy.toml").write_text(POLICY)
    sheet = tmp_path / "answers.csv"
    sheet.write_text(f"object_id,answer,note\n{identity_of('a')},allow,a licence\n{identity_of('b')},allow,\n")
    dry = fixed_settings(results=store.url, policy=tmp_path / "policy.toml", state_dir=tmp_path / "state")
    await tell(dry, decide_results(dry, lambda: AT))
    async with receiving() as receiver:
        settings = dry.model_copy(update={"notify_url": SecretStr(receiver.url), "notify_secret": SecretStr(SECRET)})
        for minute in (1, 2):
            await tell_imported(settings, take_in(settings, sheet, "ada", lambda at=AT + timedelta(minutes=minute): at))
        [told] = receiver.events.values()
    assert [(row["key"], row["before"], row["after"], row["reviewer"], row["note"]) for row in told["decisions"]] == [
        ("a", "block", "allow", "ada", "a licence")
    ]


async def test_where_nobody_is_set_to_be_told_it_says_what_would_be(tmp_path, capsys):
    store = FolderStore(tmp_path / "results")
    fill(store, result("a", music_pct=90.0))
    (tmp_path / "policy.toml").write_text(POLICY)
    settings = fixed_settings(results=store.url, policy=tmp_path / "policy.toml")
    await tell(settings, decide_results(settings, lambda: AT))
    assert "1 changed decisions would be told" in capsys.readouterr().err
    assert not (tmp_path / "results" / "_state" / "notices").exists()


async def test_dead_letters_are_a_line_in_status_and_commands_show_and_send_them(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("connectors.notices.TRIES", 1)
    monkeypatch.setattr("connectors.notices.asyncio.sleep", Pauses())
    async with receiving(500, 500) as receiver:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("SOUNDCHECK_NOTIFY_URL", receiver.url)
        monkeypatch.setenv("SOUNDCHECK_NOTIFY_SECRET", SECRET)
        settings = fixed_settings(results="out", notify_url=SecretStr(receiver.url), notify_secret=SecretStr(SECRET))
        await notices_of(settings).send(NOTICE)
        async with Ledger.open(tmp_path / "out" / "_state" / "ledger.db") as ledger:
            await ledger.set_gate("default", "music", 4)
        [status] = await statuses(settings, None, lambda: AT)
        assert status.as_json()["undelivered_notices"] == 1
        print_statuses([status])
        assert "1 notices were not delivered" in " ".join(capsys.readouterr().out.split())
        assert await asyncio.to_thread(command, ["notices", "list", "--results", "out", "--json"]) == 0
        [listed] = json.loads(capsys.readouterr().out)["undelivered"]
        assert (listed["to"], listed["why"], listed["text"]) == ("webhook", "HTTP 500", NOTICE.text)
        sent, left = await send_again(settings)
        assert (sent, len(left)) == (0, 1)
        assert await asyncio.to_thread(command, ["notices", "resend", "--results", "out", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["sent"] == 1
        assert len(receiver.events) == 1
    assert undelivered(settings) == []


async def test_what_was_erased_is_in_no_letter_and_what_else_a_letter_has_stays(deciding):
    deciding.decide()
    fill(deciding.store, result("c", music_pct=90.0), name="p0002")
    deciding.decide(2)
    async with receiving(404, 404) as receiver:
        await deciding.tell(receiver)
        deciding.letters.forget({identity_of("a"), identity_of("c")})
        [left] = deciding.letters.undelivered()
        assert ([row["key"] for row in json.loads(left.body)["decisions"]], identity_of("a") in left.body) == (["b"], False)
        assert await ways(receiver.url, deciding.letters).resend([left]) == []
    assert [row["key"] for row in receiver.events[left.event_id]["decisions"]] == ["b"]


@pytest.mark.torture
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_wherever_a_process_dies_each_change_is_told_once_by_its_id_and_stored_once(tmp_path, after):
    """It decides and tells with a store whose nth call kills it; then another does."""
    whole, at, died = Deciding(tmp_path / "whole"), 0, True
    fill(whole.store, result("a", music_pct=90.0), result("b", music_pct=30.0))
    while died:
        at, one = at + 1, Deciding(tmp_path / f"{at + 1}")
        shutil.copytree(whole.store.url, one.store.url, dirs_exist_ok=True)
        calls, sound = Calls(at, after), one.store
        one.store = calls.of("store", sound)
        async with receiving() as receiver:
            try:
                one.decide(1)
                await one.tell(receiver)
                died = False
            except Crash:
                one.store = sound
                one.decide(2)
                await one.tell(receiver, AT + ABANDONED + timedelta(minutes=1))
            told = [(row["key"], row["before"], row["after"]) for each in receiver.events.values() for row in each["decisions"]]
        with one.open_lake() as lake:
            assert lake.execute("SELECT count(*) FROM decisions").fetchall() == [(2,)]
        assert sorted(told) == [("a", None, "block"), ("b", None, "allow")], calls.made
        assert list(notes(sound)) == []
    assert at > 8
