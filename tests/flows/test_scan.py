"""A scan from S3 to Parquet, against the local Velma server and a real S3 API, without Prefect."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from connectors.lake.query import connect
from connectors.s3 import S3Settings, s3_client
from flows.launch import scan_directly
from flows.watch import Watch
from moderation.breaker import BreakerRules
from moderation.errors import ConfigurationError, ResultsNotWritable
from moderation.outcomes import ExitCode, StopCause
from moderation.packaging import PackageRules
from moderation.segments import SegmentRules
from tasks.progress import Standing

BUCKET = "catalogue"
KEY = "canary-5f0e9d1c7b"


def figures(report):
    """What an object's standings are, as the JSON has them."""
    counts = report.counts()
    return {name: counts[name] for name in ("objects", "done", "quarantined", "skipped", "pending", "sessions", "exit_code")}


def events(world, kind):
    return [line for line in map(json.loads, world.journal.read_text().splitlines()) if line["event"] == kind]


async def test_segments_say_where_there_is_music(world, make_wav):
    """The stub hears 4.8 s of music, then as much speech, and so on."""
    world.put("one.wav", make_wav(14.4))
    await world.scan(segments=SegmentRules(min_ms=500))
    asked = "SELECT kind, start_time_ms, end_time_ms, rule_version FROM segments_latest WHERE endpoint = 'music' ORDER BY segment_index"
    version = "1:enter=0.5,leave=0.4,min_ms=500"
    assert world.ask(asked) == [("music", 0, 4800, version), ("speech", 4800, 9600, version), ("music", 9600, 14400, version)]


async def test_every_object_ends_once_and_lies_in_the_lake(world, make_wav):
    world.put("a/one.wav", make_wav(2.0))
    world.put("a/two.WAV", make_wav(9.0))
    world.put("a/raw.pcm", make_wav(1.0)[44:])
    world.put("a/raw.pcm.json", b'{"audio_format": "s16le", "sample_rate": 16000, "num_channels": 1}')
    world.put("a/call.dat", b"\x80\xff" * 8000, audio_format="mulaw", sample_rate="8000", num_channels="1")
    world.put("a/notes.txt", b"not audio")
    world.put("a/empty.wav", b"")
    world.put("a/song.m4a", b"\x00\x00\x00\x20ftypM4A " + bytes(64))
    world.put("a/lonely.s16le", bytes(range(256)) * 16)
    world.put("a/folder/", b"")
    report = await world.scan("a/")
    expected = {"objects": 10, "done": 4, "quarantined": 2, "skipped": 4, "pending": 0, "sessions": 8, "exit_code": 3}
    assert figures(report) == expected
    assert dict(report.progress.of("music").reasons) == {
        "sidecar": 1,
        "not_audio": 1,
        "empty": 1,
        "folder_marker": 1,
        "undecodable": 1,
        "unknown_parameters": 1,
    }
    assert world.ask("SELECT key, audio_format, frame_count, quality_flags FROM music_latest ORDER BY key") == [
        ("a/call.dat", "mulaw", 10, ""),
        ("a/one.wav", "wav", 10, ""),
        ("a/raw.pcm", "s16le", 5, ""),
        ("a/two.WAV", "wav", 46, ""),
    ]
    assert world.ask("SELECT sum(frame_count) FROM music_summaries") == world.ask("SELECT count(*) FROM music_frames")
    assert world.ask("SELECT key, window_count FROM ai_music_latest ORDER BY key")[-1] == ("a/two.WAV", 2)
    assert world.ask("SELECT outcome, count(*) FROM attempts GROUP BY outcome ORDER BY outcome") == [("done", 8), ("failed", 2)]
    assert world.ask("SELECT DISTINCT key, reason FROM quarantined_now ORDER BY key") == [
        ("a/lonely.s16le", "unknown_parameters"),
        ("a/song.m4a", "undecodable"),
    ]
    assert world.ask("SELECT state, exit_code, objects_listed, done, pending FROM runs_latest") == [("Completed", 3, 10, 4, 0)]


async def test_scanning_again_streams_nothing_and_a_changed_object_alone_is_streamed(world, make_wav):
    world.put("one.wav", make_wav(1.0))
    world.put("two.wav", make_wav(2.0))
    assert (await world.scan()).progress.sessions == 4
    again = await world.scan()
    assert figures(again) == {"objects": 2, "done": 2, "quarantined": 0, "skipped": 0, "pending": 0, "sessions": 0, "exit_code": 0}
    world.put("two.wav", make_wav(3.0))
    assert (await world.scan()).progress.sessions == 2
    assert world.ask("SELECT count(*) FROM music_latest") == [(3,)]
    assert world.ask("SELECT count(*) FROM music_current") == [(2,)]


async def test_a_new_sidecar_makes_an_object_streamable(world, make_wav):
    world.put("x.s16le", make_wav(1.0)[44:])
    assert (await world.scan()).exit_code is ExitCode.QUARANTINED
    assert (await world.scan()).exit_code is ExitCode.OK, "an old quarantine is no news"
    world.put("x.s16le.json", b'{"audio_format": "s16le", "sample_rate": 16000, "num_channels": 1}')
    report = await world.scan()
    assert report.progress.of("music").standings[Standing.DONE] == 1


async def test_what_the_service_cannot_decode_is_quarantined_and_the_scan_goes_on(world, make_wav):
    world.put("bad.flac", b"fLaC" + os.urandom(4000))
    world.put("good.wav", make_wav(1.0))
    report = await world.scan()
    assert figures(report) | {"sessions": 4} == {
        "objects": 2,
        "done": 1,
        "quarantined": 1,
        "skipped": 0,
        "pending": 0,
        "sessions": 4,
        "exit_code": 3,
    }
    assert world.ask("SELECT DISTINCT key, reason FROM quarantined_now") == [("bad.flac", "undecodable")]
    assert {row[0] for row in world.ask("SELECT close_code FROM attempts WHERE outcome = 'refused'")} == {4002}
    assert (await world.scan()).progress.sessions == 0


async def test_the_connection_limit_is_never_exceeded(world, make_wav):
    for number in range(12):
        world.put(f"{number}.wav", make_wav(1.0, 200.0 + number))
    world.velma.organisation.max_connections = 3
    report = await world.scan(connections=3)
    assert figures(report)["done"] == 12
    assert max(world.velma.journal.peak.values()) <= 3
    assert events(world, "refused") == []
    assert len(events(world, "connect")) == 24


async def test_a_wrong_key_stops_the_run_with_nothing_quarantined(world, make_wav):
    world.put("one.wav", make_wav(1.0))
    world.put("two.wav", make_wav(2.0))
    world.velma.organisation.api_keys = frozenset({"another"})
    report = await world.scan(endpoints=["music"], breaker=BreakerRules(pause_factor=0))
    assert (report.state, report.exit_code) == ("AccessDenied", ExitCode.ACCESS_DENIED)
    assert figures(report)["pending"] == 2
    assert figures(report)["quarantined"] == 0
    assert "not permitted" in report.message
    assert len(events(world, "refused")) == 3
    world.velma.organisation.api_keys = frozenset({KEY})
    assert figures(await world.scan(endpoints=["music"]))["done"] == 2


async def test_running_out_of_credits_leaves_the_rest_pending(world, make_wav):
    for number in range(6):
        world.put(f"{number}.wav", make_wav(4.0, 300.0 + number))
    world.velma.organisation.credit_hours = 9 / 3600
    report = await world.scan(connections=1, endpoints=["music"], breaker=BreakerRules(pause_factor=0))
    assert (report.state, report.exit_code) == ("CreditsExhausted", ExitCode.EXHAUSTED)
    done = figures(report)["done"]
    assert 0 < done < 6
    assert figures(report)["pending"] == 6 - done
    world.velma.organisation.credit_hours = None
    rest = await world.scan(connections=1, endpoints=["music"])
    assert rest.progress.sessions == 6 - done


async def test_the_months_cap_of_the_settings_is_kept(world, make_wav):
    for number in range(5):
        world.put(f"{number}.s16le", make_wav(3.84, 300.0 + number)[44:])
        world.put(f"{number}.s16le.json", b'{"audio_format": "s16le", "sample_rate": 16000, "num_channels": 1}')
    report = await world.scan(endpoints=["music"], monthly_hours=8 / 3600)
    assert (report.state, report.exit_code) == ("CreditsExhausted", ExitCode.EXHAUSTED)
    assert report.progress.audio_ms <= 8000
    assert figures(report)["done"] == 2


@pytest.mark.parametrize(
    ("source", "said"), [("s3://nobody-has-this/", "does not exist"), (f"s3://{BUCKET}/nothing/here", "nothing below")]
)
async def test_a_missing_bucket_or_an_empty_prefix_is_a_configuration_error(world, source, said):

    with pytest.raises(ConfigurationError, match=said) as raised:
        await scan_directly(world.settings, source, Watch())
    assert raised.value.exit_code is ExitCode.CONFIGURATION
    assert world.journal.read_text() == ""


@pytest.mark.fault(72)
async def test_results_that_cannot_be_written_stop_before_anything_is_streamed(world, make_wav, tmp_path):
    world.put("one.wav", make_wav(1.0))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResultsNotWritable) as raised:
        await world.scan(results=str(tmp_path / "file" / "results"))
    assert raised.value.exit_code is ExitCode.CANNOT_WRITE
    assert world.journal.read_text() == ""


async def test_results_in_s3_are_the_same(world, make_wav, tmp_path, aws):

    world.put("in/one.wav", make_wav(2.0))
    results = f"s3://{BUCKET}/out"
    report = await world.scan("in/", results=results, state_dir=tmp_path / "state")
    assert report.progress.sessions == 2
    with connect(results, s3_client(S3Settings())) as lake:
        assert lake.execute("SELECT key, frame_count FROM music_latest").fetchall() == [("in/one.wav", 10)]
    assert (await world.scan("in/", results=results, state_dir=tmp_path / "state")).progress.sessions == 0


async def test_a_stopped_run_leaves_the_rest_pending_and_the_next_one_does_it(world, make_wav):
    for number in range(8):
        world.put(f"{number}.wav", make_wav(2.0, 300.0 + number))
    watch = Watch()
    put = type(world.velma.journal).note

    def stop_after_three(journal, event, *arguments, **facts):
        put(journal, event, *arguments, **facts)
        if journal.counts["done"] == 3:
            watch.terminate()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(world.velma.journal), "note", stop_after_three)
        report = await world.scan(watch=watch, endpoints=["music"], connections=1)
    assert (report.state, report.exit_code) == (StopCause.TERMINATED.value, ExitCode.DRAINED)
    done = figures(report)["done"]
    assert 3 <= done <= 4
    rest = await world.scan(endpoints=["music"])
    assert rest.progress.sessions == 8 - done


@pytest.mark.fault(63)
async def test_a_killed_run_is_taken_up_without_paying_twice(world, make_wav, tmp_path):
    """kill -9 between the spool and the package: the next run publishes what was paid for and streams the rest."""
    for number in range(6):
        world.put(f"{number}.wav", make_wav(2.0, 300.0 + number))
    script = (
        "import asyncio, os, signal\n"
        "from flows.launch import scan_directly\nfrom flows.watch import Watch\nfrom flows.settings import load_settings\n"
        "import tasks.publish\n"
        "async def die(*a, **k): os.kill(os.getpid(), signal.SIGKILL)\n"
        "tasks.publish.Publisher.publish_run = die\n"
        f"asyncio.run(scan_directly(load_settings(), 's3://{BUCKET}/', Watch()))\n"
    )
    settings = {
        "SOUNDCHECK_API_KEY": KEY,
        "SOUNDCHECK_RESULTS": str(world.results),
        "SOUNDCHECK_VELMA_URL": world.velma.url,
        "SOUNDCHECK_ENDPOINTS": '["music"]',
    }
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", script, env=os.environ | settings, cwd=Path(__file__).parents[2])
    assert await killed.wait() == -signal.SIGKILL
    assert world.ask("SELECT count(*) FROM music_summaries") == [(0,)]
    report = await world.scan(endpoints=["music"])
    assert report.recovered == 6
    assert report.progress.sessions == 0
    assert world.ask("SELECT count(*), count(DISTINCT object_id) FROM music_summaries") == [(6, 6)]
    assert len(events(world, "connect")) == 6


@pytest.mark.fault(63)
@pytest.mark.torture
async def test_a_session_killed_on_its_way_is_paid_again_and_both_attempts_are_on_record(world, make_wav):
    world.put("one.s16le", make_wav(10.0)[44:])
    world.put("one.s16le.json", b'{"audio_format": "s16le", "sample_rate": 16000, "num_channels": 1}')
    settings = {
        "SOUNDCHECK_API_KEY": KEY,
        "SOUNDCHECK_RESULTS": str(world.results),
        "SOUNDCHECK_VELMA_URL": world.velma.url,
        "SOUNDCHECK_ENDPOINTS": '["music"]',
        "SOUNDCHECK_PACE": "0.01",
    }
    command = [sys.executable, "-c", "from flows.cli import main; main()", "scan", f"s3://{BUCKET}/", "--direct", "--json"]
    killed = await asyncio.create_subprocess_exec(
        *command, env=os.environ | settings, cwd=Path(__file__).parents[2], stderr=asyncio.subprocess.DEVNULL
    )
    while not events(world, "first_audio"):
        await asyncio.sleep(0.05)
    killed.kill()
    await killed.wait()
    with contextlib.closing(sqlite3.connect(world.results / "_state" / "ledger.db")) as ledger, ledger:
        ledger.execute("UPDATE sessions SET lease_until = 1")  # as if its minute were over
    report = await world.scan(endpoints=["music"])
    assert figures(report)["done"] == 1
    assert len(events(world, "connect")) == 2
    assert world.ask("SELECT outcome, cause, audio_sent_ms FROM attempts ORDER BY outcome") == [
        ("done", None, 10_000),
        ("failed", "worker_died", 10_000),
    ]
    assert world.ask("SELECT count(*) FROM music_summaries") == [(1,)]


@pytest.mark.fault(67)
async def test_two_scans_at_once_share_a_catalogue_and_pay_once(world, make_wav, monkeypatch):
    monkeypatch.setattr("tasks.stream.CLAIM_PAUSE_S", 0.1)
    for number in range(8):
        world.put(f"{number}.wav", make_wav(2.0, 200.0 + number))
    one, other = await asyncio.gather(world.scan(), world.scan())
    assert figures(one)["done"] == figures(other)["done"] == 8
    assert one.progress.sessions + other.progress.sessions == len(events(world, "connect")) == 16
    assert max(world.velma.journal.peak.values()) <= 2
    assert world.ask("SELECT count(*), count(DISTINCT object_id) FROM music_summaries") == [(8, 8)]


async def test_a_sidecar_of_brackets_is_bad_parameters_and_no_crash(world):
    world.put("x.pcm", bytes(64_000))
    world.put("x.pcm.json", b"[" * 60_000)
    report = await world.scan()
    assert dict(report.progress.of("music").reasons) == {"bad_parameters": 1, "sidecar": 1}


async def test_the_key_is_nowhere(world, make_wav, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    world.put("one.wav", make_wav(1.0))
    world.put("bad.flac", b"fLaC" + os.urandom(2000))
    await world.scan()
    world.velma.organisation.credit_hours = 0.0
    world.put("two.wav", make_wav(1.5))
    assert (await world.scan(breaker=BreakerRules(pause_factor=0))).exit_code is ExitCode.EXHAUSTED
    assert KEY not in caplog.text
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "ledger.db" for path in files)
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


def test_the_command_line_prints_one_json_object_and_nothing_else(tmp_path, aws, make_wav):
    """The real commands in processes of their own: serve, scan, sql."""
    aws("one.wav", make_wav(2.0))
    command = [sys.executable, "-c", "from flows.cli import main; main()"]
    root = Path(__file__).parents[2]
    serve = [*command, "serve", "--api-key", KEY, "--port", "0", "--detector", "stub", "--journal", str(tmp_path / "j"), "--json"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True, cwd=root) as server:
        where = json.loads(server.stdout.readline())
        scan = [*command, "scan", f"s3://{BUCKET}/", "--results", str(tmp_path / "r"), "--velma-url", where["url"], "--direct", "--json"]
        environment = os.environ | {"SOUNDCHECK_API_KEY": KEY}
        done = subprocess.run(scan, capture_output=True, text=True, env=environment, cwd=root, check=False)
        assert done.returncode == 0, done.stderr
        counts = json.loads(done.stdout)
        assert {
            "run_id",
            "objects",
            "done",
            "quarantined",
            "skipped",
            "pending",
            "sessions",
            "audio_hours",
            "results",
            "exit_code",
        } <= counts.keys()
        assert (counts["objects"], counts["done"], counts["sessions"]) == (1, 1, 2)
        query = [*command, "sql", "--results", str(tmp_path / "r"), "--json", "select count(*) as frames from music_frames"]
        assert json.loads(subprocess.run(query, capture_output=True, text=True, cwd=root, check=True).stdout) == [{"frames": 10}]
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
        assert server.stdout.read() == ""


@pytest.mark.torture
async def test_results_are_there_while_the_run_goes_on(world, make_wav, monkeypatch):
    """As soon as one object waits, it is published; the run publishes the rest at its end."""
    monkeypatch.setattr("tasks.early.LOOK_S", 0.01)
    for number in range(4):
        world.put(f"{number}.wav", make_wav(1.0 + number / 10))
    report = await world.scan(connections=1, endpoints=["music"], packages=PackageRules(max_bytes=1))
    assert report.exit_code is ExitCode.OK
    assert world.ask("SELECT count(*), count(DISTINCT session_id), count(DISTINCT package) > 1 FROM music_summaries") == [(4, 4, True)]
