"""Sessions of hours, and services and clients that take their time: none waits for the other for ever, and memory stays where it is."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection

import long_session
from long_session import BYTES_PER_SECOND, SmallBuffers, silence
from moderation.messages import Frame
from moderation.results import Columns
from velma_services import MUSIC, RAW, WAV, as_wav, client_of, done, item, pieces, service

pytestmark = pytest.mark.net

MIB = 1024
"""KiB."""
HOUR = 3600
SPEED = 120
"""Times real time: of the local server, where it is to be slower than the client."""
STALLED_SECONDS = 30.0
"""Without a byte, and nothing that could still come: a stall."""


@dataclass
class Program:
    """One end of a long session, in a process of its own."""

    process: subprocess.Popen[str]

    @classmethod
    @contextmanager
    def of(cls, *words: object) -> Iterator[Self]:
        command = [sys.executable, long_session.__file__, *map(str, words)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield cls(process)
            finally:
                process.stdin.close()
                try:
                    process.wait(5 if words[0] == "server" else 0)
                except subprocess.TimeoutExpired:
                    process.kill()

    def says(self) -> Iterator[dict[str, Any]]:
        """What it says, line by line, to its end."""
        return map(json.loads, self.process.stdout)


@contextmanager
def slow_server(speed: float = SPEED) -> Iterator[str]:
    with Program.of("server", speed) as server:
        yield next(server.says())["url"]


def shown(curve: list[dict[str, Any]], every: int = 20) -> str:
    """Every so many samples of a session as a table."""
    rows = [f"{facts['at']:8.1f} {facts['sent_s']:8} {facts['items']:8} {facts['rss_kib'] / MIB:8.1f}" for facts in curve[::every]]
    return "\n".join([" seconds   sent s    items  RSS MiB", *rows])


def peak(end: dict[str, Any]) -> str:
    return f"{end['ended']} with {end['rss_kib'] / MIB:.1f} MiB, at most {end['peak_kib'] / MIB:.1f} MiB"


@pytest.fixture
def told(capsys) -> Callable[[str], None]:
    """Shows a long test's figures to who runs it: they go into docs/reliability.md."""

    def tell(figures: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{figures}\n")

    return tell


# -- both directions full ---------------------------------------------------------------------------------------------------------------


@pytest.mark.torture
@pytest.mark.fault(38, 40)
def test_four_hours_at_120_times_real_time(told):
    with slow_server() as url, Program.of("ours", url, 4 * HOUR) as client:
        *curve, end = client.says()
    first_minute = [facts["rss_kib"] for facts in curve if facts["at"] <= 60]
    told(f"{shown(curve)}\n{peak(end)}; after a minute {first_minute[-1] / MIB:.1f} MiB")
    assert (end["ended"], end["items"], end["flags"], end["close_code"]) == ("done", 75_000, [], 1000)
    assert curve[-1]["at"] > 100  # else the server was not slow, and nothing was tried
    assert end["peak_kib"] - first_minute[-1] < 16 * MIB


@pytest.mark.torture
@pytest.mark.fault(40)
def test_sending_everything_before_reading_stalls(told):
    """The reason for two tasks: the server waits until it is read, the client until it can send."""
    moved_at, curve = 0.0, []
    with slow_server() as url, Program.of("sample", url, 4 * HOUR) as client:
        for facts in client.says():
            if curve and facts["sent_s"] > curve[-1]["sent_s"]:
                moved_at = facts["at"]
            curve.append(facts)
            if "ended" in facts or facts["at"] - moved_at > STALLED_SECONDS:
                break
    told(f"{shown(curve)}\n{curve[-1].get('ended', 'stalled')}: last byte after {moved_at:.0f} s")
    assert curve[-1].get("ended") != "done"
    assert curve[-1]["sent_s"] < 3 * HOUR
    assert moved_at < 100


@pytest.mark.fault(40)
def test_a_service_that_reads_only_while_it_can_write():
    """In miniature: with small buffers the sample is stuck in the middle of twenty minutes, and our client is through in a second."""
    with asyncio.Runner(loop_factory=SmallBuffers) as runner:
        runner.run(_a_service_that_reads_only_while_it_can_write())


async def _a_service_that_reads_only_while_it_can_write() -> None:
    seconds = HOUR // 3
    sent, writing = 0, False

    async def handler(connection: ServerConnection) -> None:
        nonlocal writing
        received = answered = 0
        while message := await connection.recv():
            received += len(message)
            while (answered + 1) * 192 * 32 <= received:
                writing = True
                await connection.send(item(answered * 192))
                writing = False
                answered += 1
        await connection.send(done(answered))

    async def send_all(connection: Any) -> None:
        nonlocal sent
        async for piece in silence(seconds):
            await connection.send(piece)
            sent += len(piece)

    async with service(handler, max_queue=1, write_limit=1024, compression=None) as host:
        result = await client_of(host).analyse(MUSIC, RAW, silence(seconds))
        assert (len(result.columns), result.flags) == (seconds * 1000 // 192, frozenset())
        async with connect(host, proxy=None, ping_interval=None, close_timeout=0.1) as connection:
            sending = asyncio.create_task(send_all(connection))
            before, still = -1, 0
            while still < 5 and not sending.done():
                still = still + 1 if writing and sent == before else 0
                before = sent
                await asyncio.sleep(0.2)
            assert not sending.done()
            assert sent < seconds * BYTES_PER_SECOND * 3 // 4
            sending.cancel()
            connection.transport.abort()


@pytest.mark.parametrize("wrapped", [None, as_wav], ids=["raw", "container"])
async def test_a_service_that_keeps_twenty_seconds_to_itself(velma, wrapped):
    velma.faults.queue("buffer=20")
    samples = bytes(120 * BYTES_PER_SECOND)
    parameters, audio = (WAV, wrapped(samples)) if wrapped else (RAW, samples)
    client = client_of(velma.url, window_ms=30_000, window_bytes=30 * BYTES_PER_SECOND)
    result = await client.analyse(MUSIC, parameters, pieces(audio), expected_ms=120_000)
    assert (len(result.columns), result.flags, result.close_code) == (625, frozenset(), 1000)
    assert [fault["spec"] for fault in velma.named("fault")] == ["buffer=20"]


# -- a client that is stopped -----------------------------------------------------------------------------------------------------------


@pytest.mark.fault(39)
@pytest.mark.parametrize(("seconds", "stopped_s"), [(240, 1.5), pytest.param(HOUR, 45.0, marks=pytest.mark.torture)])
def test_a_client_that_stands_still_for_a_while_goes_on(seconds, stopped_s):
    """A longer while than a keepalive would take: ours is not tied to work."""
    with slow_server() as url, Program.of("ours", url, seconds) as client:
        says = client.says()
        while (facts := next(says))["items"] == 0:
            pass
        assert "ended" not in facts
        os.kill(client.process.pid, signal.SIGSTOP)
        time.sleep(stopped_s)
        os.kill(client.process.pid, signal.SIGCONT)
        *_, end = says
    assert (end["ended"], end["items"], end["flags"], end["close_code"]) == ("done", seconds * 1000 // 192, [], 1000)


# -- a very long object -----------------------------------------------------------------------------------------------------------------


@pytest.mark.fault(80)
def test_items_take_little_memory():
    """A day of them, 450,000, less than 16 MiB."""
    columns = Columns(MUSIC)
    for start in range(0, 6 * HOUR * 1000, 192):
        columns.append(Frame(start_time_ms=start, end_time_ms=start + 192, music_prob=0.5, speech_prob=0.25))
    assert len(columns) == 112_500
    assert sum(sys.getsizeof(column) for column in (columns.times | columns.measures).values()) < 4 * MIB * 1024


@pytest.mark.torture
@pytest.mark.fault(80)
@pytest.mark.timeout(1800)
def test_a_day_of_audio(told):
    with slow_server(0) as url, Program.of("ours", url, 24 * HOUR) as client:
        *curve, end = client.says()
    told(f"{shown(curve, every=40)}\n{peak(end)}")
    assert (end["ended"], end["items"], end["flags"]) == ("done", 450_000, [])
    assert end["peak_kib"] - curve[0]["rss_kib"] < 32 * MIB
