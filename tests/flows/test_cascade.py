"""The cascade in scans: who is asked about AI-made music, what that saves, and what changes with the threshold.

The stub hears 4.8 s of music, then as much speech, and so on: how long a sound is says how much of it is music.
"""

import json
import os

import pytest

from flows.cli import run
from flows.ledger import statuses
from flows.plan import plan_scan
from flows.plan_tables import print_plan
from flows.settings import load_settings
from flows.wiring import now
from moderation.outcomes import ExitCode

pytestmark = pytest.mark.torture

MS_PER_HOUR = 3_600_000
SOURCE = "s3://catalogue/"
SECONDS = {"all.wav": 3.0, "most.wav": 6.5, "half.wav": 9.7, "third.wav": 14.4, "blip.wav": 0.1, "old/all.wav": 2.0, "old/half.wav": 9.8}
"""Music in percent: 100, 75, 50, 66 and, of what is too short for a frame, no figure."""


def seen(world, event, endpoint):
    """How often the service saw this."""
    lines = [json.loads(line) for line in world.journal.read_text().splitlines()]
    return sum(line["event"] == event and line["endpoint"] == endpoint for line in lines)


def asked(world):
    """The keys with an AI-music result."""
    return {key for (key,) in world.ask("SELECT key FROM ai_music_summaries")}


def passing(world, condition):
    return {key for (key,) in world.ask(f"SELECT key FROM music_latest WHERE {condition}")}


def hours_of(world, condition):
    [(ms,)] = world.ask(f"SELECT coalesce(sum(greatest(duration_ms, covered_ms)), 0) FROM music_latest WHERE {condition}")
    return round(ms / MS_PER_HOUR, 4), ms


async def test_only_what_passes_is_asked_about_and_the_others_hours_are_saved(world, make_wav):
    for number, (key, seconds) in enumerate(SECONDS.items()):
        world.put(key, make_wav(seconds, 200.0 + number))
    world.put("notes.txt", b"words")
    world.put("broken.flac", b"fLaC" + os.urandom(2000))
    await world.scan("old/", endpoints=["music"])

    first = await world.scan(cascade="music_pct >= 60")
    counts = first.counts()
    passed = passing(world, "music_pct >= 60")
    assert passed == {"all.wav", "most.wav", "third.wav", "old/all.wav"} == asked(world)
    assert counts["endpoints"]["ai_music"]["sessions"] == seen(world, "connect", "ai_music") == len(passed)
    saved_hours, saved_ms = hours_of(world, "(music_pct >= 60) IS NOT TRUE")
    assert (counts["saved_hours"], first.progress.saved_ms) == (saved_hours, saved_ms)
    assert saved_ms > 19_000
    assert world.ask(f"SELECT audio_ms_saved FROM runs_latest WHERE run_id = '{first.run_id}'") == [(saved_ms,)]
    reasons = counts["endpoints"]["ai_music"]["reasons"]
    assert reasons == {"second_stage": 4, "not_audio": 1}
    assert {name: counts[name] for name in ("done", "skipped", "quarantined", "pending", "exit_code")} == {
        "done": 4,
        "skipped": 4,
        "quarantined": 1,
        "pending": 0,
        "exit_code": ExitCode.QUARANTINED,
    }
    assert world.ask(
        "SELECT key, ai_music_outcome, ai_music_reason FROM catalogue_latest WHERE NOT starts_with(key, 'old/') ORDER BY 1"
    ) == [
        ("all.wav", "done", None),
        ("blip.wav", "skipped", "second_stage"),
        ("broken.flac", "skipped", "second_stage"),
        ("half.wav", "skipped", "second_stage"),
        ("most.wav", "done", None),
        ("notes.txt", "skipped", "not_audio"),
        ("third.wav", "done", None),
    ]
    assert world.ask("FROM cascade_backlog") == []

    [status] = await statuses(world.settings, None, now)
    assert status.as_json()["saved_hours"] == saved_hours

    again = await world.scan(cascade="music_pct >= 60")
    assert (again.progress.sessions, again.counts()["saved_hours"], again.exit_code) == (0, saved_hours, ExitCode.OK)
    assert again.counts()["skipped"] == 4

    lower = await world.scan(cascade="music_pct >= 45 -- of late")
    assert asked(world) - passed == {"half.wav", "old/half.wav"}
    assert lower.progress.sessions == 2
    assert lower.progress.saved_ms == hours_of(world, "music_pct IS NULL")[1]

    rest = await world.scan(cascade=None)
    assert asked(world) == SECONDS.keys()
    assert rest.progress.saved_ms == 0
    assert seen(world, "done", "music") == seen(world, "done", "ai_music") == len(SECONDS)


@pytest.mark.parametrize(
    ("cap", "second", "backlog"),
    [({"endpoint_hours": {"music": 7 / 3600}}, 1, 0), ({"monthly_hours": 7 / 3600}, 0, 1)],
    ids=["of music alone", "of all endpoints"],
)
async def test_what_has_no_music_result_yet_waits_for_it(world, make_wav, cap, second, backlog):
    """The music of all but the first object does not fit into the month: nothing of theirs is known, and nothing is left out for good."""
    for number in range(3):
        world.put(f"{number}.wav", make_wav(6.0 + number))
    report = await world.scan(cascade="music_pct >= 0", **cap)
    counts = report.counts()
    assert (counts["exit_code"], counts["pending"], counts["saved_hours"]) == (ExitCode.EXHAUSTED, 3 - second, 0)
    assert seen(world, "connect", "ai_music") == second
    assert world.ask("SELECT count(*) FROM cascade_backlog") == [(backlog,)]
    after = await world.scan(cascade="music_pct >= 0")
    assert (after.counts()["done"], seen(world, "connect", "music"), seen(world, "connect", "ai_music")) == (3, 3, 3)


async def test_with_one_endpoint_alone_the_published_results_decide(world, make_wav):
    world.put("all.wav", make_wav(3.0))
    world.put("half.wav", make_wav(9.7))
    assert (await world.scan(cascade="music_pct >= 60", endpoints=["music"])).counts()["done"] == 2
    world.put("new.wav", make_wav(3.0, 300.0))
    report = await world.scan(cascade="music_pct >= 60", endpoints=["ai_music"])
    assert asked(world) == {"all.wav"}
    assert (report.exit_code, report.counts()["endpoints"]["ai_music"]["reasons"]) == (ExitCode.OK, {"second_stage": 2})
    assert report.progress.saved_ms == hours_of(world, "key = 'half.wav'")[1]


async def test_a_plan_decides_by_what_is_known_and_says_what_is_not(world, make_wav, capsys):
    for key in ("all.wav", "half.wav"):
        world.put(key, make_wav(SECONDS[key]))
    await world.scan(endpoints=["music"])
    world.put("new.wav", make_wav(7.2))
    report = await plan_scan(world.settings.model_copy(update={"cascade": "music_pct >= 60"}), SOURCE)
    second = report.counts()["endpoints"]["ai_music"]
    assert second["objects"] == {"second_stage": 1, "stream": 2}
    assert (second["undecided"], second["undecided_hours"], second["audio_hours"]) == (1, 0.002, round(10.2 / 3600, 4))
    assert report.counts()["endpoints"]["music"]["undecided"] == 0
    print_plan(report)
    assert "At most: 1 objects (0.002 hours) of ai_music have no music result yet" in capsys.readouterr().out
    without = await plan_scan(world.settings, SOURCE)
    assert without.counts()["endpoints"]["ai_music"]["objects"] == {"stream": 3}


@pytest.mark.parametrize("command", [["plan", SOURCE], ["scan", SOURCE, "--direct"]])
@pytest.mark.parametrize(
    ("condition", "says"),
    [("music_share >= 10", "columns of music_summaries are object_id"), ("music_pct >=", "syntax error"), ("true; FROM runs", "statement")],
)
def test_what_is_no_condition_is_refused_before_anything_is_listed(tmp_path, monkeypatch, capsys, command, condition, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOUNDCHECK_API_KEY", "canary-5f0e9d1c7b")
    assert run([*command, "--results", "out", "--cascade", condition]) == ExitCode.USAGE
    assert says in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out" / "v1").exists()


def test_a_blank_condition_takes_back_what_a_file_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "soundcheck.toml").write_text('cascade = "music_pct >= 10"\n')
    assert load_settings().cascade == "music_pct >= 10"
    assert load_settings(cascade="").cascade is None
