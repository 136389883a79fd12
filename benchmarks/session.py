"""What a streaming session costs its client: CPU beside a bare websockets loop, and memory at 1, 25 and 250 sessions at once.

The server is the local one with the stub detector, in a process of its own; what is measured runs in further ones, so that nobody else's
CPU or memory is in a figure. CPU is compared in pairs, one session of each kind directly after the other and the order turned each time
(A B B A): on a shared machine only such ratios can be trusted. Memory is what a client process grew by, a session.
"""

import asyncio
import gc
import json
import multiprocessing
import platform
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from rich.console import Console
from rich.table import Table
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket

from connectors.audio_store import READ_BYTES
from connectors.local_velma.organisation import Organisation
from connectors.local_velma.server import local_velma
from connectors.velma import ApiKey, VelmaClient, VelmaSettings
from connectors.velma.client import MAX_MESSAGE_BYTES, PING_SECONDS, RECEIVE_QUEUE
from connectors.velma.settings import CHUNK_BYTES
from moderation.endpoints import ENDPOINTS
from moderation.formats import AudioFormat, StreamParameters
from moderation.pacing import Deadlines, Pace
from moderation.session import ClientSession

KEY = "a-key-of-the-benchmark"
MUSIC = ENDPOINTS["music"]
RAW = StreamParameters(AudioFormat.S16LE, 16_000, 1)
BYTES_PER_SECOND = 32_000
TARGET = 0.8
"""Audio for a second of CPU that our client must reach, as a share of what the bare loop does."""
SESSIONS = (1, 25, 250)
PIECES_PER_MINUTE = 60 * BYTES_PER_SECOND / READ_BYTES
SAMPLE_SECONDS = 0.25
SETTLED_SAMPLES = 12
"""Of memory, once all sessions are where they should be: three seconds, in which each sends another chunk."""
SMAPS = Path("/proc/self/smaps_rollup")
KIB = 1024
AS_ACCEPTED = Pace()
PATIENT = Deadlines(connect_s=60.0, close_s=0.5)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one session took: seconds of CPU and of wall time."""

    client: str
    cpu_s: float
    wall_s: float
    items: int


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a client process holds with so many sessions, KiB a session over the MiB that it held before."""

    sessions: int
    state: str
    rss_kib: float
    pss_kib: float
    before_mib: float


# -- the server's process ---------------------------------------------------------------------------------------------------------------


def serve(pipe: Connection) -> None:
    """Serve until the pipe's other end is closed; says two URLs: of the local Velma, and of a server that reads nothing."""
    asyncio.run(_serve(pipe))


async def _serve(pipe: Connection) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(pipe.fileno(), ended.set)

    async def deaf(_: ServerConnection) -> None:
        await ended.wait()

    async with (
        local_velma(Organisation(frozenset({KEY})), detector="stub") as velma,
        serve_websocket(deaf, "127.0.0.1", 0, compression=None, max_queue=1, ping_interval=None, close_timeout=0.1) as silent,
    ):
        pipe.send((velma.url, f"ws://127.0.0.1:{silent.sockets[0].getsockname()[1]}"))
        await ended.wait()


@contextmanager
def process(target: Callable[..., None], *arguments: Any):
    """The pipe to a new interpreter that runs target(pipe, *arguments); it is given up at the end."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=target, args=(theirs, *arguments))
    child.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        child.join()


# -- CPU --------------------------------------------------------------------------------------------------------------------------------


async def audio(pieces: int, size: int = READ_BYTES) -> AsyncIterator[bytes]:
    """So many pieces of silence, as large as the audio store reads them, and each with memory of its own."""
    for _ in range(pieces):
        yield b"\0" * size


async def ours(url: str, pieces: int) -> int:
    """A session of our client; how many items it had."""
    client = VelmaClient(ApiKey(KEY), VelmaSettings(hosts={MUSIC.name: url}))
    return len((await client.analyse(MUSIC, RAW, audio(pieces))).columns)


async def bare(url: str, pieces: int) -> int:
    """The least that any client must do: one task sends chunks, another receives what comes and looks at none of it."""
    query = "&".join(f"{name}={value}" for name, value in {"api_key": KEY, **RAW.query()}.items())
    async with connect(
        f"{url}{MUSIC.path}?{query}",
        compression=None,
        proxy=None,
        ping_interval=PING_SECONDS,
        ping_timeout=None,
        max_size=MAX_MESSAGE_BYTES,
        max_queue=RECEIVE_QUEUE,
    ) as connection:

        async def send() -> None:
            async for piece in audio(pieces):
                for start in range(0, len(piece), CHUNK_BYTES):
                    await connection.send(piece[start : start + CHUNK_BYTES])
            await connection.send("")

        sender = asyncio.create_task(send())
        messages = 0
        async for _ in connection:
            messages += 1
        await sender
    return messages - 1


CLIENTS: dict[str, Callable[[str, int], Awaitable[int]]] = {"ours": ours, "bare": bare}


def spend(pipe: Connection, url: str, pieces: int, pairs: int) -> None:
    """Run both clients by turns, A B B A, after one of each to warm up; says every Cost."""
    for client in CLIENTS:
        asyncio.run(_cost(client, url, max(1, pieces // 8)))
    for pair in range(pairs):
        for client in list(CLIENTS)[:: -1 if pair % 2 else 1]:
            pipe.send(asyncio.run(_cost(client, url, pieces)))


async def _cost(client: str, url: str, pieces: int) -> Cost:
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    items = await CLIENTS[client](url, pieces)
    return Cost(client, time.process_time() - cpu, time.perf_counter() - wall, items)


# -- memory -----------------------------------------------------------------------------------------------------------------------------


def hold(pipe: Connection, velma: str, url: str, sessions: int) -> None:
    """Hold so many sessions with a URL at once; says the Footprint. velma is the local server's."""
    pipe.send(asyncio.run(_hold(velma, url, sessions)))


async def _hold(velma: str, url: str, sessions: int) -> Footprint:
    """The most of some samples, over what was there when one small session had imported and cached what it needs.

    Sessions with the local server flow at real time; those with the server that reads nothing have all that they can hold.
    """
    await _client(velma).analyse(MUSIC, RAW, audio(1, BYTES_PER_SECOND))
    gc.collect()
    before = _memory()
    flowing = url == velma
    client = _client(url, Pace(1.0 if flowing else None))
    begun: list[ClientSession] = []
    running = [asyncio.create_task(client.analyse(MUSIC, RAW, audio(1000), on_session=begun.append)) for _ in range(sessions)]
    try:
        while not _settled(begun, sessions, flowing=flowing):  # noqa: ASYNC110 - how far sessions are can only be polled
            await asyncio.sleep(SAMPLE_SECONDS)
        samples = []
        for _ in range(SETTLED_SAMPLES):
            await asyncio.sleep(SAMPLE_SECONDS)
            samples.append(_memory())
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    rss, pss = (max(sample[field] for sample in samples) - before[field] for field in ("Rss", "Pss"))
    return Footprint(sessions, "flowing" if flowing else "blocked", rss / sessions, pss / sessions, before["Rss"] / KIB)


def _client(url: str, pace: Pace = AS_ACCEPTED) -> VelmaClient:
    return VelmaClient(ApiKey(KEY), VelmaSettings(hosts={MUSIC.name: url}, deadlines=PATIENT, pace=pace))


def _settled(begun: list[ClientSession], sessions: int, *, flowing: bool) -> bool:
    """Whether all sessions have got their first answer, or have sent what they could."""
    return len(begun) == sessions and all(session.acknowledged_ms if flowing else session.bytes_sent for session in begun)


def _memory() -> dict[str, int]:
    """KiB that this process holds, and its proportional share where pages are shared with others."""
    lines = (line.split() for line in SMAPS.read_text().splitlines()[1:])
    return {name.rstrip(":"): int(value) for name, value, *_ in lines}


# -- the report -------------------------------------------------------------------------------------------------------------------------


def main(
    *,
    short: bool = False,
    pairs: int | None = None,
    minutes: int = 15,
    json_file: Annotated[Path | None, cyclopts.Parameter("--json")] = None,
) -> None:
    """Measure, and print two tables.

    Parameters
    ----------
    short
        Fewer sessions for CPU.
    pairs
        Pairs of sessions for CPU.
    minutes
        Minutes of audio of one such session.
    json_file
        Where to write the figures.
    """
    pairs = pairs or (9 if short else 20)
    with process(serve) as server:
        velma, deaf = server.recv()
        costs = _costs(velma, minutes, pairs)
        footprints = _footprints(velma, deaf)
    report = machine() | ratios(costs, minutes) | {"memory": [asdict(footprint) for footprint in footprints]}
    show(report)
    if json_file:
        json_file.write_text(json.dumps(report, indent=2) + "\n")


def _costs(url: str, minutes: int, pairs: int) -> list[Cost]:
    with process(spend, url, round(minutes * PIECES_PER_MINUTE), pairs) as pipe:
        return [pipe.recv() for _ in range(2 * pairs)]


def _footprints(velma: str, deaf: str) -> list[Footprint]:
    if not SMAPS.exists():
        return []
    found = []
    for url in (velma, deaf):
        for sessions in SESSIONS:
            with process(hold, velma, url, sessions) as pipe:
                found.append(pipe.recv())
    return found


def ratios(costs: list[Cost], minutes: int) -> dict[str, Any]:
    """Audio-seconds for a CPU-second of each client, and of the pairs' ratios the median and the spread."""
    items = {cost.items for cost in costs}
    if len(items) != 1:
        raise ValueError(f"the sessions differ: {items} items")
    pairs = [{cost.client: cost for cost in costs[at : at + 2]} for at in range(0, len(costs), 2)]
    found = sorted(pair["bare"].cpu_s / pair["ours"].cpu_s for pair in pairs)
    audio_s = round(minutes * PIECES_PER_MINUTE) * READ_BYTES / BYTES_PER_SECOND
    speeds = {client: statistics.median(audio_s / pair[client].cpu_s for pair in pairs) for client in CLIENTS}
    return {
        "audio_s": round(audio_s),
        "items": items.pop(),
        "pairs": len(pairs),
        "ratio": round(statistics.median(found), 3),
        "ratio_quartiles": [round(quartile, 3) for quartile in statistics.quantiles(found, n=4)[::2]],
        "ratio_range": [round(found[0], 3), round(found[-1], 3)],
        "audio_s_per_cpu_s": {client: round(speed) for client, speed in speeds.items()},
        "times_real_time": {client: round(statistics.median(audio_s / pair[client].wall_s for pair in pairs)) for client in CLIENTS},
    }


def machine() -> dict[str, Any]:
    """Where this was measured, and with which versions."""
    packages = ("websockets", "aiohttp", "msgspec")
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.system()} {platform.machine()}, {multiprocessing.cpu_count()} cores",
        "processor": _processor(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def show(report: dict[str, Any]) -> None:
    """The report as two tables."""
    console = Console()
    versions = ", ".join(f"{package} {number}" for package, number in report["versions"].items())
    console.print(f"{report['machine']}, {report['processor']}; Python {report['python']}, {versions}", highlight=False)
    cpu = Table(title=f"CPU: {report['pairs']} pairs of sessions of {report['audio_s']} s, 16 kHz mono s16le", title_justify="left")
    for title in ("client", "audio-seconds a CPU-second", "times real time", "of the bare loop"):
        cpu.add_column(title, justify="left" if title == "client" else "right")
    for client in CLIENTS:
        ratio = f"{report['ratio']:.2f} (quartiles {report['ratio_quartiles'][0]:.2f} to {report['ratio_quartiles'][1]:.2f})"
        cpu.add_row(
            client, f"{report['audio_s_per_cpu_s'][client]:,}", f"{report['times_real_time'][client]:,}", ratio if client == "ours" else "1"
        )
    verdict = "which is reached" if report["ratio"] >= TARGET else "which is NOT reached"
    console.print(cpu, f"at least {TARGET} of the bare loop is asked for, {verdict}", highlight=False)
    memory = Table(title="Memory of the client process: what it had before, and what each session added", title_justify="left")
    for title in ("sessions", "state", "before, MiB", "RSS, KiB a session", "PSS, KiB a session"):
        memory.add_column(title, justify="left" if title == "state" else "right")
    for row in report["memory"]:
        figures = (f"{row['before_mib']:.0f}", f"{row['rss_kib']:,.0f}", f"{row['pss_kib']:,.0f}")
        memory.add_row(str(row["sessions"]), row["state"], *figures)
    console.print(memory)


if __name__ == "__main__":
    cyclopts.run(main)
