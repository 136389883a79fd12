"""`soundcheck erase` after scans against the local server: it is gone, stays gone, and everything else is as before."""

import asyncio
import json
from datetime import UTC, datetime

import pytest

from connectors.lake.store import open_store
from connectors.letters import Letter
from flows.cli import run
from flows.notifying import letters_of
from flows.plan import plan_scan
from flows.rebuild import rebuild
from flows.settings import fixed_settings
from flows.wiring import now
from moderation.identity import object_key_id
from tasks.refresh import keep_current


@pytest.fixture
def command(world, capsys):
    """Runs a command over the world's results, and gives its exit code and its JSON."""

    async def command(*words: str):
        capsys.readouterr()
        code = await asyncio.to_thread(run, [*words, "--results", str(world.results), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return command


async def test_what_was_erased_is_gone_and_never_streamed_again(world, make_wav, command):
    for name in ("one.wav", "two.wav"):
        world.put(name, make_wav(1.0))
    await world.scan()
    keep_current(open_store(str(world.results)))
    others = "SELECT * FROM frames_latest WHERE object_id IN (SELECT object_id FROM music_latest WHERE key = 'two.wav') ORDER BY ALL"
    before = world.ask(others)
    assert (await command("erase", "s3://catalogue/one.wav", "--dry-run"))[1]["lakes"][0]["datasets"]["music_summaries"] == 1
    assert world.ask("SELECT count(*) FROM music_latest") == [(2,)]
    letters = letters_of(fixed_settings(results=str(world.results)))
    row = {"object_id": world.ask("SELECT object_id FROM music_latest WHERE key = 'one.wav'")[0][0], "key": "one.wav"}
    letters.keep(
        Letter("0" * 32, "webhook", "default", json.dumps({"decisions": [row]}), "one has changed", datetime(2026, 11, 21, tzinfo=UTC))
    )
    code, said = await command("erase", "s3://catalogue/one.wav", "--reason", "request 4711")
    assert letters.undelivered() == []
    [lake] = said["lakes"]
    assert (code, lake["sessions"], lake["datasets"]["manifests"]) == (0, 2, 1)
    receipt = (world.results / "v1" / "_erased" / f"{object_key_id('catalogue', 'one.wav')}.json").read_text()
    assert json.loads(receipt)["reason"] == "request 4711"
    assert not any(b"one.wav" in path.read_bytes() for path in (world.results / "v1").rglob("*") if path.is_file())
    assert world.ask("SELECT key FROM music_current") == [("two.wav",)]
    assert world.ask(others) == before
    assert (await command("verify"))[1]["findings"] == []
    assert (await command("reconcile"))[0] == 0

    again = await world.scan()
    assert (again.progress.sessions, again.exit_code, dict(again.progress.of("music").reasons)) == (0, 0, {"filtered": 1})
    world.put("one.wav", make_wav(3.0))
    assert (await world.scan()).progress.sessions == 0
    plan = await plan_scan(world.settings, "s3://catalogue/")
    assert [each.sessions for each in plan.forecast.endpoints] == [0, 0]
    code, said = await command("reconcile")
    assert (code, said["endpoints"]["music"]["="], said["endpoints"]["music"]["skipped"]) == (0, 1, 1)
    assert (await command("verify"))[0] == 0


@pytest.mark.torture
async def test_a_ledger_that_is_made_anew_knows_what_was_erased(world, make_wav, command):
    for name in ("one.wav", "two.wav"):
        world.put(name, make_wav(1.0))
    await world.scan()
    assert (await command("erase", "s3://catalogue/one.wav", "--reason", "4711"))[0] == 0
    for path in (world.results / "_state").glob("ledger.db*"):
        path.unlink()
    assert (await rebuild(world.settings, now, replace=False)).found.erased == 1
    assert (await world.scan()).progress.sessions == 0
    assert (await command("reconcile"))[0] == 0


@pytest.mark.torture
async def test_a_quarantined_object_goes_with_what_held_it(world, make_wav, command):
    world.put("bad.flac", b"fLaC" + bytes(range(256)) * 16)
    world.put("good.wav", make_wav(1.0))
    await world.scan()
    assert (await command("erase", "bad.flac", "--bucket", "catalogue", "--reason", "4711"))[0] == 0
    assert world.ask("SELECT DISTINCT key FROM quarantine") == []
    assert world.ask("SELECT DISTINCT outcome FROM attempts") == [("done",)]
    assert (await command("verify"))[1]["findings"] == []
    assert (await command("reconcile"))[0] == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("s3://catalogue/one.wav",), "needs a --reason"),
        (("one.wav", "--reason", "x"), "is not an S3 address"),
        (("s3://catalogue", "--reason", "x"), "is a bucket"),
        (("0" * 32, "--reason", "x"), "nothing in the results has the id"),
    ],
)
def test_what_says_no_object_is_refused(tmp_path, capsys, words, says):
    (tmp_path / "results").mkdir()
    assert run(["erase", *words, "--results", str(tmp_path / "results")]) == 78
    assert says in " ".join(capsys.readouterr().err.split())
