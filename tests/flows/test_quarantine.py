"""`soundcheck quarantine list | release`, at the command line and with a real scan."""

import io
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from connectors.lake.packages import write_rows
from connectors.lake.query import connect
from connectors.lake.store import FolderStore
from flows.cli import run
from flows.person import who
from flows.quarantine import held_now, release
from flows.quarantine_tables import NAMED_ROWS, print_held
from flows.settings import fixed_settings
from moderation.catalogue import AudioObject
from moderation.outcomes import ExitCode, Reason
from moderation.printable import printable
from odd_keys import ODD_KEYS
from tasks.records import Run, quarantine_row

pytestmark = pytest.mark.torture

AT = datetime(2026, 11, 21, 8, 0, 0, tzinfo=UTC)
RUN_ID = "20261121T080000Z-0a1b2c"
ORGANISATIONS = """
[organisations.acme]
api_key_env = "ACME_KEY"

[organisations.globex]
api_key_env = "GLOBEX_KEY"
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory of one's own, whose user is ada."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOGNAME", "ada")
    return tmp_path


def hold(folder: Path, *keys: str, reason: Reason = Reason.UNDECODABLE, org: str = "default", detail: str = "no sound in it") -> None:
    """Write keys into the quarantine of the results in a folder, each a minute after the one before."""
    rows = [
        quarantine_row(
            AudioObject("audio", key, "e1", 10, AT),
            "music",
            "p1",
            reason,
            detail=detail,
            run_id=RUN_ID,
            org=org,
            happened_at=AT + timedelta(minutes=number),
        )
        for number, key in enumerate(keys)
    ]
    write_rows(FolderStore(folder), "quarantine", RUN_ID, AT.date(), f"{org}-{reason.value}", rows)


def ask(query: str) -> list[tuple]:
    with connect("out") as lake:
        return lake.execute(query).fetchall()


def said_as_json(capsys, *arguments: str) -> dict:
    assert run(["quarantine", *arguments, "--results", "out", "--json"]) == ExitCode.OK
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


def test_the_list_counts_by_endpoint_and_reason_and_names_the_newest(place):
    hold(place / "out", *(f"{number:02}.wav" for number in range(NAMED_ROWS)))
    hold(place / "out", "x.wma", "y.wma", reason=Reason.UNSUPPORTED_FORMAT)
    console = Console(file=io.StringIO(), width=120)
    print_held(held_now(fixed_settings(results="out")), "held", console)
    shown = [line.strip("│┃ ").split() for line in console.file.getvalue().splitlines()]
    assert ["music", "│", "undecodable", "│", str(NAMED_ROWS)] in shown
    assert ["music", "│", "unsupported_format", "│", "2"] in shown
    named = [line[0] for line in shown if line and line[0].endswith((".wav", ".wma"))]
    assert named[:2] == ["24.wav", "23.wav"]
    assert len(named) == NAMED_ROWS
    assert "... and 2 more" in console.file.getvalue()
    assert "2026-11-21 08:24 UTC" in console.file.getvalue()


def test_the_list_as_json_has_every_row(place, capsys):
    hold(place / "out", *(f"{number:02}.wav" for number in range(NAMED_ROWS + 1)))
    said = said_as_json(capsys, "list")
    assert (said["org"], said["held"], said["exit_code"]) == ("default", NAMED_ROWS + 1, 0)
    assert said["counts"] == [{"endpoint": "music", "reason": "undecodable", "objects": NAMED_ROWS + 1}]
    newest = said["objects"][0]
    assert (newest["key"], newest["detail"], newest["happened_at"]) == ("25.wav", "no sound in it", "2026-11-21T08:25:00.000000Z")
    assert len(said["objects"]) == NAMED_ROWS + 1
    assert said_as_json(capsys, "list", "--where", "key < '02'")["held"] == 2


def test_a_release_is_on_record_once_with_who_and_why(place, capsys):
    hold(place / "out", "a.wav", "b.wav")
    one = ("release", "--where", "key = 'a.wav'", "--reason", "sent again")
    assert said_as_json(capsys, *one, "--dry-run")["released"] == 1
    assert ask("SELECT count(*) FROM quarantine") == [(2,)], "a dry run writes nothing"
    said = said_as_json(capsys, *one)
    assert (said["released"], [row["key"] for row in said["objects"]]) == (1, ["a.wav"])
    released = ask("SELECT key, endpoint, reason, detail, run_id FROM quarantine WHERE event = 'released'")
    assert released == [("a.wav", "music", "undecodable", "ada: sent again", said["run_id"])]
    assert said_as_json(capsys, *one)["released"] == 0
    assert ask("SELECT key FROM quarantined_now") == [("b.wav",)]
    assert said_as_json(capsys, "release", "--all", "--reason", "all is well")["released"] == 1
    assert ask("FROM quarantined_now") == []


def test_people_are_told_what_was_released_and_when_there_was_nothing(place, capsys):
    hold(place / "out", "a.wav")
    for word in (["would be released", "a.wav"], ["released, for the next scan to plan", "a.wav"], ["nothing to release"]):
        dry = ["--dry-run"] if word[0].startswith("would") else []
        assert run(["quarantine", "release", "--all", "--reason", "why", "--results", "out", *dry]) == ExitCode.OK
        shown = " ".join(capsys.readouterr().out.split())
        assert all(part in shown for part in word)
    assert run(["quarantine", "list", "--results", "out"]) == ExitCode.OK
    assert "Nothing of default is held." in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--reason", "why"],
        ["--all=false", "--reason", "why"],
        ["--all", "--where", "true", "--reason", "why"],
        ["--all"],
        ["--all", "--reason", " "],
        ["--where", "reson = 'undecodable'", "--reason", "why"],
        ["--where", "", "--reason", "why"],
    ],
)
def test_nothing_is_released_without_one_predicate_or_all_and_a_reason(place, capsys, arguments):
    hold(place / "out", "a.wav")
    assert run(["quarantine", "release", *arguments, "--results", "out"]) == ExitCode.USAGE
    assert capsys.readouterr().err
    assert ask("SELECT event FROM quarantine") == [("quarantined",)]


@pytest.mark.parametrize("command", [["list"], ["release", "--reason", "why"]])
def test_what_is_wrong_with_a_predicate_is_one_line(place, capsys, command):
    hold(place / "out", "a.wav")
    assert run(["quarantine", *command, "--where", "reson = 'undecodable'", "--results", "out"]) == ExitCode.USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert "reson" in line
    assert "happened_at" in line, "the columns that there are"


@pytest.mark.fault(81)
def test_odd_keys_are_data_and_shown_escaped(place, capsys):
    keys = [*ODD_KEYS, "\x1b[31mred\x07.wav"]
    hold(place / "out", *keys, detail="first\nsecond \x1b]0;title\x07 \u202eelif")
    console = Console(file=io.StringIO(), width=4000, color_system="truecolor", force_terminal=True)
    held = held_now(fixed_settings(results="out"))
    for start in range(0, held.height, NAMED_ROWS):
        print_held(held.slice(start, NAMED_ROWS), "held", console)
    shown = console.file.getvalue()
    assert [part for part in ("\x07", "\r", "\t", "\u202e", "\x1b]", "\x1b[31m") if part in shown] == []
    assert all(printable(key) in shown for key in keys)
    assert shown.count(r"first\nsecond \x1b]0;title\x07 \u202eelif") == len(keys)
    assert {row["key"] for row in said_as_json(capsys, "list")["objects"]} == set(keys)
    literals = ", ".join("'" + key.replace("'", "''") + "'" for key in ODD_KEYS)
    assert said_as_json(capsys, "release", "--where", f"key in ({literals})", "--reason", "why")["released"] == len(ODD_KEYS)
    assert ask("SELECT key FROM quarantined_now") == [(keys[-1],)]


def test_of_several_organisations_one_is_named_and_releases_its_own(place, capsys):
    (place / "soundcheck.toml").write_text(ORGANISATIONS)
    hold(place / "out", "ours.wav", org="acme")
    hold(place / "out", "theirs.wav", org="globex")
    assert run(["quarantine", "release", "--all", "--reason", "why", "--results", "out"]) == ExitCode.CONFIGURATION
    assert run(["quarantine", "list", "--results", "out"]) == ExitCode.CONFIGURATION
    assert "which organisation?" in capsys.readouterr().err
    assert [row["key"] for row in said_as_json(capsys, "list", "--org", "acme")["objects"]] == ["ours.wav"]
    said = said_as_json(capsys, "release", "--all", "--reason", "why", "--org", "acme")
    assert (said["org"], said["released"]) == ("acme", 1)
    assert ask("SELECT org, key FROM quarantined_now") == [("globex", "theirs.wav")]


@pytest.mark.parametrize("command", [["list"], ["release", "--all", "--reason", "why"]])
def test_where_there_are_no_results_there_is_nothing_to_ask(place, capsys, command):
    assert run(["quarantine", *command, "--results", "nowhere"]) == ExitCode.CONFIGURATION
    assert "There is no results folder" in capsys.readouterr().err
    assert not (place / "nowhere").exists()


def test_a_user_without_a_name_has_a_number(monkeypatch):
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2_000_000_011)
    assert who() == "uid 2000000011"


async def test_the_next_scan_streams_exactly_what_was_released(world, make_wav):
    for key in ("bad.flac", "worse.flac"):
        world.put(key, b"fLaC" + os.urandom(4000))
    world.put("good.wav", make_wav(1.0))
    await world.scan()
    at = datetime.now(UTC)
    again = Run("20990101T000000Z-0a1b2c", world.settings.org, at)
    released = release(world.settings, again, "key = 'bad.flac' and endpoint = 'music'", "a decoder has been mended")
    (row,) = released.select("org", "endpoint", "bucket", "key", "version_id").rows()
    assert row[:4] == ("default", "music", "catalogue", "bad.flac")
    report = await world.scan()
    assert (report.progress.sessions, report.exit_code) == (1, ExitCode.QUARANTINED)
    streamed = f"SELECT DISTINCT endpoint, object_id FROM attempts WHERE run_id = '{report.run_id}'"
    assert world.ask(streamed) == [("music", released["object_id"][0])]
    assert world.ask("SELECT key, endpoint FROM quarantined_now ORDER BY ALL") == [
        (key, endpoint) for key in ("bad.flac", "worse.flac") for endpoint in ("ai_music", "music")
    ]
