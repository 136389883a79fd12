"""What `soundcheck status` says of a ledger, which is the same whatever database it is in."""

import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from connectors.lake.packages import write_rows
from connectors.lake.store import FolderStore
from connectors.ledger import LEASE_MS, Ledger
from flows.cli import app
from flows.ledger import status_of, statuses
from flows.settings import fixed_settings
from flows.status import print_statuses
from ledger_facts import MONTH, START, Clock, admit, claim_of, failed_as, finished, set_gate, write_gate
from moderation.admission import Adjustment
from moderation.breaker import Breaker, BreakerState, OpenedBy
from moderation.budget import MICROS, MS_PER_HOUR

HOUR = MS_PER_HOUR
LATER = START + timedelta(seconds=75)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path):
    return f"sqlite:///{tmp_path}/ledger.db" if request.param == "sqlite" else request.getfixturevalue("postgresql").url()


@pytest.fixture
def clock():
    """Of a ledger that is long past any clock that a process of this test could read."""
    return Clock(10**15)


@pytest.fixture
async def ledger(place, clock):
    async with Ledger.open(place, clock_ms=clock, now=lambda: START, chance=lambda: 0.5) as ledger:
        await set_gate(ledger, "acme", "music", 3)
        await set_gate(ledger, "acme", "ai_music", 2)
        yield ledger


async def seen(ledger, place):
    settings = fixed_settings(ledger_url=place, currency="EUR", prices={"music": 3, "ai_music": 6})
    return await status_of(ledger, "acme", MONTH, settings, lambda: LATER)


def shown(status):
    console = Console(file=io.StringIO(), width=250)
    print_statuses([status], console)
    return " ".join(console.file.getvalue().split())


async def test_everything_that_a_person_asks_is_in_it(place, ledger, clock):
    await ledger.set_price("acme", "music", 3 * MICROS)
    await ledger.set_cap("acme", "*", 10 * HOUR, 24 * MICROS)
    await ledger.set_cap("acme", "music", 4 * HOUR)
    await finished(ledger, 1, estimate_ms=HOUR)
    await ledger.fail(failed_as(await admit(ledger, 2, estimate_ms=HOUR)), sent_ms=HOUR // 2, outcome="failed")
    await admit(ledger, 3, estimate_ms=HOUR // 2, worker="dead")
    clock.ms += LEASE_MS
    await set_gate(ledger, "acme", "music", 1)
    await admit(ledger, 4, estimate_ms=HOUR, worker="north")
    await ledger.admit(claim_of(5, worker="south"))
    clock.ms += 1000
    await ledger.admit(claim_of(6, worker="west"))
    clock.ms += 1000
    breaker = Breaker(BreakerState.OPEN, OpenedBy.QUOTA, opened_ms=clock.ms, until_ms=clock.ms + 42_000)
    await write_gate(ledger, "acme", "*", breaker=breaker, paused=True)
    await ledger.adjust("a1", Adjustment("acme", "*", MONTH, -HOUR // 2, 0, "ann", "invoice 4711"))
    status = await seen(ledger, place)
    said = status.as_json()
    assert json.loads(json.dumps(said)) == said
    whole, ai_music, music = said["gates"]
    assert (whole["paused"], whole["breaker"], whole["breaker_reason"], whole["next_probe_seconds"]) == (True, "open", "quota", 42.0)
    assert (music["live"], music["ceiling"], music["breaker"], music["next_probe_seconds"]) == (1, 1, "closed", None)
    assert [music[f"{name}_hours"] for name in ("spent", "possible", "reserved", "cap", "left")] == [1, 0.5, 1.5, 4, 1]
    assert (music["hours_cap_share"], whole["hours_cap_share"]) == (0.75, 0.25)
    assert (music["price"], music["estimated_cost"], music["cap_cost"]) == (3, 9, None)
    assert (whole["estimated_cost"], whole["cap_cost"], whole["left_cost"], whole["cost_cap_share"]) == (9, 24, 15, 0.375)
    assert (ai_music["estimated_cost"], ai_music["cap_hours"], said["currency"]) == (None, None, "EUR")
    assert [(each["worker"], each["age_seconds"], each["lease_expired"]) for each in said["streaming"]] == [
        ("dead", 75.0, True),
        ("north", 75.0, False),
    ]
    assert [(each["endpoint"], each["worker"], each["seconds"]) for each in said["waiting"]] == [
        ("music", "south", 2.0),
        ("music", "west", 1.0),
    ]
    text = shown(status)
    for words in (
        "paused, open (quota, probe in 42 s)",
        "2 workers wait to stream, the longest since 2 s.",
        "estimated cost of 2026-11 in EUR",
        "75 s │ dead",
        "expired, to be swept",
        "75%",
        "corrected by ann: * -0.5 h, possible +0.0 h: invoice 4711",
    ):
        assert words in text, words


async def test_without_a_price_nothing_is_said_of_money(place, ledger):
    await finished(ledger, 1)
    status = await seen(ledger, place)
    text = shown(status)
    assert "estimated" not in text
    assert "wait" not in text
    assert {gate["estimated_cost"] for gate in status.as_json()["gates"]} == {None}


@pytest.mark.parametrize(
    ("breaker", "words"),
    [
        ({"state": BreakerState.HALF_OPEN, "opened_by": OpenedBy.KEY, "probe": "s"}, "half-open (key, its probe is out)"),
        ({"state": BreakerState.OPEN, "opened_by": OpenedBy.QUOTA, "bad_probes": 1}, "open (quota, the next run probes)"),
        ({"state": BreakerState.OPEN, "opened_by": OpenedBy.UNDECIDED}, "open (undecided, probe in 0 s)"),
    ],
    ids=["half open", "given up", "due"],
)
async def test_a_breaker_says_why_and_what_comes_next(place, ledger, breaker, words):
    await write_gate(ledger, "acme", "music", breaker=Breaker(**breaker))
    assert words in shown(await seen(ledger, place))


def test_an_empty_ledger_is_no_error(place, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOUNDCHECK_LEDGER_URL", str(place))
    assert app(["status"], exit_on_error=False, result_action="return_value") == 0
    assert "no organisation yet" in capsys.readouterr().out
    assert app(["status", "--json"], exit_on_error=False, result_action="return_value") == 0
    assert json.loads(capsys.readouterr().out) == {"organisations": []}


def test_an_unknown_organisation_is_named(place, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOUNDCHECK_LEDGER_URL", str(place))
    with pytest.raises(Exception, match="'acmee'"):
        app(["status", "acmee"], exit_on_error=False, result_action="return_value")


async def test_a_status_is_of_the_month_in_utc(place, ledger):
    found = await statuses(fixed_settings(ledger_url=place), "acme", lambda: datetime(2026, 12, 31, 23, 59, tzinfo=UTC))
    assert found[0].month == "2026-12"


async def test_hours_that_cascades_save_are_shown_where_the_results_can_be_read(ledger, clock, tmp_path, run_row):
    store = FolderStore(tmp_path / "results")
    settings = fixed_settings(results=str(tmp_path / "results"))

    async def saved():
        return await status_of(ledger, "acme", MONTH, settings, lambda: LATER)

    assert (await saved()).as_json()["saved_hours"] == 0
    write_rows(store, "runs", "r1", START.date(), "end", [run_row | {"audio_ms_saved": 3 * HOUR // 2}])
    status = await saved()
    assert status.as_json()["saved_hours"] == 1.5
    assert "The cascade saves 1.5 audio-hours" in shown(status)
    (store.root / "runs" / f"scan_date={START.date()}" / "r2-end.parquet").write_bytes(b"no parquet")
    status = await saved()
    assert status.as_json()["saved_hours"] is None
    assert "cascade" not in shown(status)


@pytest.fixture
def run_row():
    counts = ("objects_listed", "planned", "done", "quarantined", "skipped", "pending", "audio_ms_settled", "audio_ms_at_risk")
    words = {"run_id": "r1", "flow": "scan", "source": "s3://audio/", "parameters": "{}", "fingerprint": "f", "code_version": "0.1.0"}
    return words | dict.fromkeys(counts, 0) | {"org": "acme", "state": "Completed", "started_at": START, "finished_at": LATER}
