"""`soundcheck serve`: what its options make of the local server, and the server as a process."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from connectors.local_velma.switches import NO_SWITCHES, Rule, Script, Switches, Verdict, digest_of
from flows.cli import run
from flows.serve import connection_limit, switches_of
from flows.serve_options import ServeOptions
from moderation.errors import ConfigurationError
from moderation.outcomes import ExitCode
from velma_admin import FRAME, analysed

KEY = "sk-live-0123456789abcdef"
RUN = "import sys; from flows.cli import main; main()"


@pytest.mark.parametrize(
    ("said", "limit"),
    [
        ((), None),
        (("5",), 5),
        (("0",), 0),
        (("music=2",), {"music": 2, "ai_music": None}),
        (("5", "music=2"), {"music": 2, "ai_music": 5}),
        (("music=2", "ai_music=0", "5"), {"music": 2, "ai_music": 0}),
    ],
)
def test_connection_limits(said, limit):
    assert connection_limit(said) == limit


@pytest.mark.parametrize("said", ["", "x", "-1", "1.5", "musik=1", "music=", "music=x", "music=1=2"])
def test_connection_limits_that_mean_nothing(said):
    with pytest.raises(ConfigurationError, match="--max-connections"):
        connection_limit([said])


def options(**changes) -> ServeOptions:
    return ServeOptions(api_key=(KEY,), **changes)


def test_nothing_is_switched_on_by_default():
    assert switches_of(options()) == NO_SWITCHES


def test_switches():
    on = {"short_windows": True, "newer_windows": True, "source_duration": True, "ignore_container_rate": True}
    numbers = {"max_session_hours": 2.0, "speed": 60.0, "threshold": 0.3}
    assert switches_of(options(**on, **numbers)) == Switches(**on, **numbers)
    assert switches_of(options(scripted=True)) == Switches(script=Script())


def test_verdicts_on_the_files_of_a_catalogue(tmp_path):
    (tmp_path / "ai").mkdir()
    (tmp_path / "ai" / "song.wav").write_bytes(bytes(5000))
    (tmp_path / "band.wav").write_bytes(b"band")
    script = switches_of(options(verdict=("ai/*=ai-vocal-music", "a=b=ai-instrumental"), catalogue=tmp_path)).script
    assert script.rules == (Rule("ai/*", Verdict.AI_VOCAL_MUSIC), Rule("a=b", Verdict.AI_INSTRUMENTAL))
    assert script.digests == {"ai/song.wav": digest_of(bytes(4096)), "band.wav": digest_of(b"band")}


@pytest.mark.parametrize(
    "changes",
    [
        {"speed": 0.0},
        {"threshold": 1.5},
        {"max_session_hours": 0.0},
        {"verdict": ("*=robots",), "catalogue": Path()},
        {"verdict": ("ai-vocal-music",), "catalogue": Path()},
        {"verdict": ("*=ai-vocal-music",)},
    ],
)
def test_switches_that_mean_nothing(changes):
    with pytest.raises(ConfigurationError):
        switches_of(options(**changes))


def test_wrong_usage_is_said_in_one_line(capsys):
    assert run(["serve", "--api-key", KEY, "--max-connections", "many"]) == ExitCode.CONFIGURATION
    assert "--max-connections takes a number" in capsys.readouterr().err
    assert run(["serve"]) == ExitCode.USAGE


def test_help_has_examples(capsys):
    assert run(["serve", "--help"]) == ExitCode.OK
    said = capsys.readouterr().out
    assert "soundcheck serve --api-key YOUR_API_KEY" in said
    assert "Bearer" in said
    assert all(f"--{option}" in said for option in ("max-connections", "newer-windows", "speed", "verdict", "admin-token"))


class Place:
    """Where a server says that it is."""

    def __init__(self, said: dict[str, str]) -> None:
        self.url, self.admin_url, self.admin_token = said["url"], said["admin_url"], said["admin_token"]


@pytest.mark.net
async def test_a_server_as_a_process(tmp_path):
    journal = tmp_path / "journal.jsonl"
    arguments = ["serve", "--api-key", KEY, "--port", "0", "--detector", "stub", "--newer-windows", "--journal", str(journal), "--json"]
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", RUN, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        said = json.loads(await process.stdout.readline())
        assert said["pid"] == process.pid
        assert "not Modulate's model" in said["notice"]
        place = Place(said)
        messages, code = await analysed(place, FRAME * 21, "ai_music")
        assert (messages[0]["window"].keys() >= {"vocal_ai_probability"}, code) == (True, 1000)
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {place.admin_token}"}) as browser:
            async with browser.get(f"{place.admin_url}usage") as answer:
                assert (await answer.json())["used_ms"] == 4032
            async with browser.patch(f"{place.admin_url}organisation", json={"revoke_keys": [KEY]}) as answer:
                assert answer.status == 200
        messages, code = await analysed(place, FRAME)
        assert (messages[0]["error"], code) == ("This request is not permitted.", 4003)
    finally:
        process.send_signal(signal.SIGTERM)
        printed, complained = await process.communicate()
    assert (process.returncode, printed, complained) == (0, b"", b"")
    text = journal.read_text()
    events = [json.loads(line)["event"] for line in text.splitlines()]
    assert [event for event in events if event != "close"] == ["peak", "connect", "first_audio", "done", "refused"]
    assert KEY not in text
    assert place.admin_token not in text


@pytest.mark.net
def test_it_says_where_it_listens_and_with_which_token():
    arguments = ["serve", "--api-key", KEY, "--port", "0", "--admin-token", "the-token"]
    with subprocess.Popen([sys.executable, "-c", RUN, *arguments], stdout=subprocess.PIPE, env=os.environ, text=True) as process:
        said = [process.stdout.readline().strip() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert said[0] == "soundcheck's local Velma server: reference detector, not Modulate's model"
    assert said[1].startswith("listening on ws://127.0.0.1:")
    assert said[2].startswith("admin API on http://127.0.0.1:")
    assert said[2].endswith("/admin/ with the token the-token")
