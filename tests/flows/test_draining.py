"""Ending a run from outside: nothing new starts, what streams finishes or is ended, the rest is pending, and no slot stays taken."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest

from connectors.ledger import Ledger
from flows.report import Report
from flows.stopping import SAME_SIGNAL_SECONDS, Drain
from flows.watch import Watch
from moderation.admission import SessionState
from moderation.outcomes import ExitCode, Reason, StopCause
from paced_scans import live_sessions, put_raw, seen

ROOT = Path(__file__).parents[2]
KEY = "canary-5f0e9d1c7b"
COMMAND = [sys.executable, "-c", "from flows.cli import main; main()"]
ENDLESS_S = 300.0
"""Seconds of a session that nobody waits for."""


async def scan_until(world, happened: Callable[[], object], *signals: signal.Signals, **changes: object) -> Report:
    """A scan of the music endpoint in this process, which is sent signals once something has happened."""
    watch = changes.pop("watch", Watch())
    scan = asyncio.create_task(world.scan(endpoints=["music"], watch=watch, **changes))
    await happened()
    for name in signals:
        os.kill(os.getpid(), name)
        while not watch.stop:
            await asyncio.sleep(0.01)
        await asyncio.sleep(2 * SAME_SIGNAL_SECONDS)
    async with asyncio.timeout(120):
        return await scan


@pytest.mark.fault(64)
@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
async def test_what_streams_finishes_and_the_next_run_does_exactly_the_rest(world, make_wav, name):
    put_raw(world, make_wav, 6, 3.0)
    handler = signal.getsignal(name)
    report = await scan_until(world, lambda: seen(world, "first_audio", 2), name, pace=3.0)
    streamed = world.velma.journal.counts["connect"]
    assert (report.state, report.exit_code) == (StopCause.TERMINATED, ExitCode.DRAINED)
    assert "the next run does exactly the rest" in report.message
    assert world.velma.journal.counts["done"] == streamed == report.counts()["done"] < 6
    assert report.counts()["endpoints"]["music"]["reasons"][Reason.NOT_REACHED] == 6 - streamed
    assert world.ask("SELECT state, exit_code FROM runs_latest") == [("Terminated", 143)]
    assert await live_sessions(world) == []
    assert signal.getsignal(name) is handler
    rest = await world.scan(endpoints=["music"])
    assert (rest.exit_code, rest.progress.sessions) == (ExitCode.OK, 6 - streamed)


@pytest.mark.torture
async def test_a_second_signal_ends_every_session_now(world, make_wav):
    put_raw(world, make_wav, 3, ENDLESS_S)
    began = monotonic()
    report = await scan_until(
        world, lambda: seen(world, "first_audio", 1), signal.SIGTERM, signal.SIGTERM, pace=1.0, grace_seconds=ENDLESS_S
    )
    assert monotonic() - began < ENDLESS_S / 4
    assert (report.exit_code, report.counts()["pending"]) == (ExitCode.DRAINED, 3)
    assert world.ask("SELECT DISTINCT outcome FROM attempts") == [("cancelled",)]
    assert await live_sessions(world) == []


@pytest.mark.fault(64)
@pytest.mark.torture
async def test_sessions_end_with_the_grace_period(world, make_wav):
    put_raw(world, make_wav, 3, ENDLESS_S)
    report = await scan_until(world, lambda: seen(world, "first_audio", 1), signal.SIGTERM, pace=1.0, grace_seconds=0.3)
    assert (report.exit_code, report.counts()["pending"]) == (ExitCode.DRAINED, 3)
    async with Ledger.open(world.results / "_state" / "ledger.db") as ledger:
        sessions = {row[0] for row in world.ask("SELECT session_id FROM attempts")}
        states = {(await ledger.session(session_id)).state for session_id in sessions}
    assert states == {SessionState.AT_RISK}, "what was sent may be billed"
    assert await live_sessions(world) == []


async def test_a_listing_ends_with_the_grace_period_too(world, make_wav, monkeypatch):
    put_raw(world, make_wav, 1, 1.0)
    listing = asyncio.Event()

    async def list_for_ever(*_: object) -> None:
        listing.set()
        await asyncio.Event().wait()

    monkeypatch.setattr("flows.run.list_catalogue", list_for_ever)
    report = await scan_until(world, listing.wait, signal.SIGTERM, grace_seconds=0.1)
    assert (report.state, report.exit_code) == (StopCause.TERMINATED, ExitCode.DRAINED)
    assert world.velma.journal.counts["connect"] == 0


@pytest.mark.torture
async def test_a_signal_after_another_stop_still_leaves_the_grace_period(world, make_wav):
    put_raw(world, make_wav, 2, 3.0)
    watch = Watch()

    async def out_of_credits() -> None:
        await seen(world, "first_audio", 1)
        watch.stop.give_up(StopCause.CREDITS_EXHAUSTED)

    report = await scan_until(world, out_of_credits, signal.SIGTERM, watch=watch, pace=3.0, connections=1)
    assert (report.state, report.exit_code) == (StopCause.CREDITS_EXHAUSTED, ExitCode.EXHAUSTED)
    assert world.velma.journal.counts["done"] == world.velma.journal.counts["connect"] == 1


class TestDrain:
    async def test_a_signal_that_comes_twice_at_once_is_one(self):
        watch = Counting()
        drain = Drain(watch, 60)
        drain.signalled()
        drain.signalled()
        drain.over()
        assert (watch.terminated, watch.dropped) == (1, 0)

    async def test_the_first_signal_after_prefect_called_the_run_off_is_no_second_one(self):
        watch = Counting()
        drain = Drain(watch, 60)
        drain.begin("Prefect (Cancelling)")
        drain.signalled()
        drain.over()
        assert (watch.terminated, watch.dropped) == (1, 0)

    async def test_the_grace_period_begins_when_the_end_was_wanted_and_not_when_that_was_heard(self):
        watch = Counting()
        drain = Drain(watch, 60)
        drain.signalled()
        drain.begin("Prefect (Cancelling)", ago_s=59.95)
        drain.begin("Prefect (Cancelling)", ago_s=-5.0)
        async with asyncio.timeout(30):
            while not watch.dropped:
                await asyncio.sleep(0.01)
        drain.over()
        assert (watch.terminated, watch.dropped) == (1, 1)

    async def test_nothing_is_dropped_once_it_is_over(self):
        watch = Counting()
        drain = Drain(watch, 0.01)
        drain.begin("a signal")
        drain.over()
        await asyncio.sleep(0.05)
        assert watch.dropped == 0


class Counting(Watch):
    """A watch that counts how it is stopped."""

    terminated = dropped = 0

    def terminate(self, wanted_by: str = "") -> None:
        self.terminated += 1

    def drop(self) -> None:
        self.dropped += 1


@pytest.mark.fault(64)
@pytest.mark.slow
@pytest.mark.torture
async def test_the_command_says_that_it_stops_and_exits_with_143(world, make_wav):
    put_raw(world, make_wav, 16, 3.0)
    settings = {"SOUNDCHECK_API_KEY": KEY, "SOUNDCHECK_VELMA_URL": world.velma.url, "SOUNDCHECK_PACE": "2", "SOUNDCHECK_CONNECTIONS": "2"}
    command = [
        sys.executable,
        "-c",
        "from flows.cli import main; main()",
        "scan",
        "s3://catalogue/",
        "--endpoint",
        "music",
        "--direct",
        "--json",
    ]
    process = await asyncio.create_subprocess_exec(
        *command, "--results", str(world.results), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | settings, cwd=ROOT
    )
    await seen(world, "first_audio", 2)
    process.send_signal(signal.SIGTERM)
    out, err = await process.communicate()
    assert process.returncode == 143, err.decode()
    assert err.decode().count("stopping: running sessions have 30 s to finish") == 1
    counts = json.loads(out)
    assert (counts["state"], counts["exit_code"], counts["quarantined"]) == ("Terminated", 143, 0)
    assert world.velma.journal.counts["done"] == world.velma.journal.counts["connect"] == counts["sessions"] < 16
    assert counts["pending"] == 16 - counts["sessions"]
    assert await live_sessions(world) == []
