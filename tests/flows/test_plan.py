"""`soundcheck plan` against a real S3 API: what it says, and what it leaves alone."""

import json
import time
from decimal import Decimal
from pathlib import Path

import pytest

from connectors.local_velma.organisation import Organisation
from connectors.local_velma.server import local_velma
from connectors.local_velma.switches import Switches
from connectors.s3 import S3Settings, s3_client
from flows.flags import RunFlags
from flows.launch import scan_directly
from flows.plan import plan_scan
from flows.plan_tables import print_plan
from flows.request import Portion, Request
from flows.scan_cli import plan as command
from flows.settings import fixed_settings
from flows.terminal import print_summary
from flows.watch import Watch

BUCKET = "catalogue"
KEY = "canary-5f0e9d1c7b"
SAMPLES = Path(__file__).parents[3] / "shared" / "audio"
SOURCE = f"s3://{BUCKET}/"


def files_of(results):
    return sorted(path.relative_to(results / "v1").parts[0] for path in (results / "v1").rglob("*.parquet"))


async def test_a_plan_opens_no_session_and_writes_no_row_beyond_its_own_two_files(world, make_wav):
    world.put("a/one.wav", make_wav(3.6))
    world.put("a/notes.txt", b"not audio")
    world.put("a/lonely.s16le", bytes(range(256)) * 16)
    prices = {"music": Decimal(20), "ai_music": Decimal(30)}
    report = await plan_scan(world.settings.model_copy(update={"api_key": None, "prices": prices, "currency": "EUR"}), SOURCE)
    assert world.journal.read_text() == ""
    assert files_of(world.results) == ["_runs", "_runs"]
    assert world.ask("SELECT count(*) FROM catalogue_latest") == [(0,)]
    counts = report.counts()
    music = counts["endpoints"]["music"]
    assert music["objects"] == {"not_audio": 1, "stream": 1, "unknown_parameters": 1}
    assert (music["new"], music["sessions"], music["shards"], music["audio_hours"]) == (2, 1, 1, 0.001)
    assert music["bytes_to_read"] == len(make_wav(3.6))
    assert music["hours_known_by"] == {"header": {"objects": 1, "audio_hours": 0.001, "audio_hours_error": 0.0}}
    assert (counts["eta_seconds"], counts["left_hours"], counts["price"], counts["currency"]) == (None, None, 0.05, "EUR")


async def test_after_a_scan_a_plan_knows_the_budget_the_speed_and_what_has_changed(world, make_wav):
    for number in range(3):
        world.put(f"{number}.wav", make_wav(7.2, 200.0 + number))
    await world.scan(monthly_hours=1)
    world.put("0.wav", make_wav(3.6))
    world.put("new.wav", make_wav(10.8))
    report = await plan_scan(world.settings.model_copy(update={"monthly_hours": 1.0}), SOURCE)
    counts = report.counts()
    music = counts["endpoints"]["music"]
    assert (music["new"], music["changed"], music["unchanged"], music["deleted"]) == (1, 1, 2, 0)
    assert music["sessions"] == 2
    assert counts["left_hours"] == pytest.approx(1 - 6 * 7.2 / 3600, abs=0.001)
    assert music["speed"] > 1
    assert 0 < counts["eta_seconds"] < 14.4
    assert counts["audio_hours"] == 0.008


@pytest.mark.parametrize(
    ("caps", "left", "of_music", "of_ai_music", "fits"),
    [
        ({}, None, None, None, True),
        ({"monthly_hours": 2.0}, 2, 2, 2, True),
        ({"endpoint_hours": {"music": 0.001}}, None, 0.001, None, False),
        ({"endpoint_hours": {"music": 0.5, "ai_music": 1.0}}, 1.5, 0.5, 1, True),
        ({"endpoint_hours": {"music": 0.5, "ai_music": 1.0}, "monthly_hours": 0.7}, 0.7, 0.5, 0.7, True),
        ({"endpoint_costs": {"ai_music": Decimal(3)}, "prices": {"ai_music": Decimal(30)}}, None, None, 0.1, True),
        ({"monthly_cost": Decimal(60), "prices": {"music": Decimal(20), "ai_music": Decimal(30)}}, 3, 3, 2, True),
        ({"monthly_cost": Decimal("0.09"), "prices": {"music": Decimal(20), "ai_music": Decimal(30)}}, 0.0045, 0.0045, 0.003, False),
    ],
)
async def test_a_plan_knows_every_cap_before_a_first_run(world, make_wav, capsys, caps, left, of_music, of_ai_music, fits):
    world.put("one.wav", make_wav(7.2))
    report = await plan_scan(world.settings.model_copy(update=caps), SOURCE)
    counts = report.counts()
    assert (counts["left_hours"], counts["fits"]) == (left, fits)
    assert [counts["endpoints"][name]["left_hours"] for name in ("music", "ai_music")] == [of_music, of_ai_music]
    print_plan(report)
    shown = capsys.readouterr().out
    assert ("no cap is set" in shown) == (not caps)
    assert ("what does not fit stays pending" in shown) == (not fits)


async def test_a_plan_reckons_with_the_connections_of_each_endpoint(world, make_wav):
    world.put("one.wav", make_wav(1.0))
    settings = world.settings.model_copy(update={"endpoint_connections": {"ai_music": 20}, "connections": 3})
    endpoints = (await plan_scan(settings, SOURCE)).counts()["endpoints"]
    assert {name: each["connections"] for name, each in endpoints.items()} == {"music": 3, "ai_music": 20}


async def test_a_scan_says_what_has_changed_as_far_as_its_sources_tell(world, make_wav, capsys):
    for key in ("kept", "changed", "gone"):
        world.put(f"{key}.wav", make_wav(1.0))
    first = await world.scan(endpoints=["music"])
    world.put("changed.wav", make_wav(1.2))
    s3_client(S3Settings()).delete_object(Bucket=BUCKET, Key="gone.wav")
    world.put("new.wav", make_wav(1.4))
    second = await world.scan(endpoints=["music"])
    again = await world.scan_request(Request((SOURCE,), Portion(include=("*",))), endpoints=["music"])
    names = ("new", "changed", "unchanged", "deleted")
    counted = [tuple(report.counts()["endpoints"]["music"][name] for name in names) for report in (first, second, again)]
    assert counted == [(3, 0, 0, 0), (1, 1, 1, 1), (0, 0, 3, None)]
    print_summary(second)
    assert "Against earlier results of music: 1 new, 1 changed, 1 unchanged, 1 deleted." in capsys.readouterr().out
    print_plan(await plan_scan(world.settings.model_copy(update={"endpoints": ["music"]}), Request((SOURCE,), Portion(include=("*",)))))
    [row] = [line for line in capsys.readouterr().out.splitlines() if "deleted" in line]
    assert row.split()[-2] == "-"


async def test_a_plan_can_be_cut(world, make_wav):
    for number in range(6):
        world.put(f"{number}.wav", make_wav(1.0, 200.0 + number))
    report = await plan_scan(world.settings, Request((SOURCE,), Portion(limit=2)))
    assert report.counts()["endpoints"]["music"]["objects"] == {"not_reached": 4, "stream": 2}


async def test_a_plan_reads_as_tables(world, make_wav, capsys):
    world.put("[/x]/lying.mp3", make_wav(3.6))
    print_plan(await plan_scan(world.settings, f"{SOURCE}[/x]/"))
    shown = capsys.readouterr().out
    assert "objects below s3://catalogue/[/x]/" in " ".join(shown.split())
    assert "to stream" in shown
    assert "In all 0.002 +- 0.000 audio-hours." in shown
    assert "Left of this month's budget: no cap is set." in shown
    assert "lying.mp3: named .mp3, but its bytes are wav" in shown


def test_the_command_needs_no_key_and_prints_one_json_object(aws, make_wav, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    aws("one.wav", make_wav(3.6))
    aws("two.wav", make_wav(7.2))
    assert command(SOURCE, portion=Portion(limit=1), flags=RunFlags(results="out", endpoint=["music"]), json=True) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["endpoints"]["music"]["objects"] == {"not_reached": 1, "stream": 1}
    assert (said["audio_hours"], said["exit_code"]) == (0.001, 0)


@pytest.mark.torture
async def test_the_time_of_a_second_plan_is_within_a_quarter_of_the_run_that_follows(aws, tmp_path):
    """On a server at 20 times real time, with the sample audio under names that the first run has not seen."""
    for path in sorted(SAMPLES.iterdir()):
        if path.suffix != ".csv":
            aws(f"first/{path.name}", path.read_bytes())
            aws(f"second/{path.name}", path.read_bytes())
    async with local_velma(Organisation(frozenset({KEY})), detector="stub", switches=Switches(speed=20.0)) as velma:
        settings = fixed_settings(api_key=KEY, results=str(tmp_path / "results"), velma_url=velma.url)
        await scan_directly(settings, f"{SOURCE}first/", Watch())
        plan = await plan_scan(settings, f"{SOURCE}second/")
        began = time.monotonic()
        report = await scan_directly(settings, f"{SOURCE}second/", Watch())
        took = time.monotonic() - began
    assert report.progress.sessions == sum(each.sessions for each in plan.forecast.endpoints)
    assert plan.eta_s == pytest.approx(took, rel=0.25)
