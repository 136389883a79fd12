"""What an object costs as a catalogue grows: CPU and peak memory of listing, planning, streaming, publishing and deciding, from 10^2 on.

Each size is one run of the pipeline in a fresh process, warmed up by a run over a few objects. Objects are listed by S3's list API in a
process of its own. Streaming is stubbed at the socket: heads, bodies and the service's messages come from memory, and everything else is
as always, ledger, spool, session and admission included. CPU is of the process; its peak of memory begins anew with each stage. Sizes take
turns, from the smallest to the largest and back again, as a machine is not the same a quarter of an hour later; figures are medians.
"""

import asyncio
import logging
import os
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from listing import BUCKET, serve
from measuring import Spent, Told, process, spending, spread, told
from services import KEY

from flows.request import Request
from flows.run import run_scan
from flows.setting_types import RawRule
from flows.settings import fixed_settings
from flows.watch import Watch
from flows.wiring import wired
from moderation.catalogue import AudioObject
from moderation.endpoints import Endpoint
from moderation.formats import StreamParameters
from moderation.messages import Frame, MusicDone, encode
from moderation.results import SessionResult
from moderation.session import ClientSession

SIZES = (100, 1_000, 10_000, 100_000)
SMALLEST_COMPARED = 1_000
SHORT, RUNS = 1_000, 2
"""Runs of so many objects or fewer take seconds, of which a pause of the machine is much: so many of them are made in each turn."""
CPU_BOUND, MEMORY_BOUND = 1.3, 1.5
"""What an object may cost at the largest size beside SMALLEST_COMPARED, and what the process may hold."""
PEAK, CPU = "peak memory, MiB", "CPU-ms an object"
WARMING_OBJECTS = 100
CONNECTIONS = 5
STAGES = ("listing", "planning", "streaming", "publishing", "deciding")
RAW = RawRule(glob="*", audio_format="mulaw", sample_rate=8000, num_channels=1)
FRAMES = tuple(Frame(start_time_ms=192 * n, end_time_ms=192 * (n + 1), music_prob=0.9, speech_prob=0.1) for n in range(10))
DONE = MusicDone(duration_ms=1920, frame_count=10, music_pct=100.0, speech_pct=0.0, primary_label="music")
MESSAGES = tuple(encode(message) for message in (*FRAMES, DONE))
POLICY = """
name = "growth"

[[rules]]
id = "music"
when = "music_pct >= 50"
decide = "review"
reason = "It has music"
"""
CLEAR_PEAK = Path("/proc/self/clear_refs")


class AudioInMemory:
    """A store in which every object is some bytes that are no container's."""

    async def find(self, bucket: str, key: str, version_id: str | None = None) -> AudioObject:
        raise NotImplementedError

    async def head(self, item: AudioObject, size: int, offset: int = 0) -> bytes:
        return bytes(item.size_bytes)[offset : offset + size]

    async def metadata(self, item: AudioObject) -> Mapping[str, str]:
        del item
        return {}

    async def stream(self, item: AudioObject, offset: int = 0) -> AsyncGenerator[bytes, None]:
        if offset < item.size_bytes:
            yield bytes(item.size_bytes - offset)

    def checked(self, item: AudioObject, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        del item
        return pieces


class ServiceInMemory:
    """A client whose every session gets the same messages, through the real state machine."""

    chunk_bytes = 65_536

    def host(self, endpoint: Endpoint) -> str:
        return f"memory://{endpoint.name}"

    async def analyse(
        self,
        endpoint: Endpoint,
        parameters: StreamParameters,
        audio: AsyncGenerator[bytes, None],
        *,
        on_session: Callable[[ClientSession], None],
        on_result: Callable[[], None],
        **_: Any,
    ) -> SessionResult:
        session = ClientSession(endpoint, parameters)
        on_session(session)
        async for piece in audio:
            session.sending(len(piece))
        session.end_of_stream()
        for text in MESSAGES:
            session.receive(text)
        on_result()
        session.closed(1000)
        return session.result()


class Stages:
    """An executor that keeps what each stage takes: streaming is all that lies between the plan and its publication."""

    def __init__(self) -> None:
        self.spent: dict[str, Spent] = {}
        self._streaming = ExitStack()

    async def __call__(self, name: str, step: Callable[[], Awaitable[Any]]) -> Any:
        stage = {"list": "listing", "plan": "planning", "publish": "publishing", "decide": "deciding"}.get(name)
        if stage is None:
            return await step()
        self._streaming.close()
        with self._measured(stage):
            done = await step()
        if stage == "planning":
            self._streaming.enter_context(self._measured("streaming"))
        return done

    @contextmanager
    def _measured(self, stage: str) -> Iterator[None]:
        _forget_peak()
        with spending() as self.spent[stage]:
            yield


def _forget_peak() -> None:
    try:
        CLEAR_PEAK.write_text("5", encoding="ascii")
    except OSError:
        return


def grow(pipe: Connection, warming: str, url: str, objects: int) -> None:
    """Scan a few objects, then all; says the figures of that."""
    logging.disable(logging.WARNING)
    os.environ |= {"AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "not-a-secret", "AWS_REGION": "us-east-1"}
    asyncio.run(_scan(warming, WARMING_OBJECTS))
    stages = asyncio.run(_scan(url, objects))
    pipe.send(_figures(objects, stages))
    pipe.poll(None)
    os._exit(0)


async def _scan(url: str, objects: int) -> dict[str, Spent]:
    with tempfile.TemporaryDirectory() as name:
        policy = Path(name) / "policy.toml"
        policy.write_text(POLICY, encoding="utf-8")
        os.environ["AWS_ENDPOINT_URL"] = url
        names = {"results": f"{name}/results", "policy": str(policy), "connections": CONNECTIONS, "endpoints": ["music"]}
        settings = fixed_settings(api_key=KEY, raw_rules=[RAW], report=False, **names)
        request, stages = Request((f"s3://{BUCKET}/",)), Stages()
        async with wired(settings, request) as parts:
            stubbed: Any = {"client": ServiceInMemory(), "audio": AudioInMemory()}
            report = await run_scan(replace(parts, **stubbed), request, Watch(), stages)
        done = report.counts()["done"]
        if done != objects:
            raise SystemExit(f"{done} of {objects} objects are done: {report.message}")
        return stages.spent


def _figures(objects: int, stages: Mapping[str, Spent]) -> dict[str, float]:
    figures = {PEAK: max(spent.peak_mib for spent in stages.values())}
    for name, spent in stages.items():
        figures |= {f"{name}, {CPU}": 1000 * spent.cpu_s / objects, f"{name}, s": spent.wall_s, f"{name}, peak MiB": spent.peak_mib}
    return figures


def measure(objects: int) -> dict[str, float]:
    """The figures of one run over so many objects."""
    with process(serve, WARMING_OBJECTS) as (few, _), process(serve, objects) as (all_of_them, _):
        addresses = [f"http://127.0.0.1:{pipe.recv()}" for pipe in (few, all_of_them)]
        with process(grow, *addresses, objects) as (pipe, _):
            figures: dict[str, float] = pipe.recv()
            return figures


def turns(most: int) -> list[int]:
    """The sizes in the order of their runs: up to the largest, which comes once, and back again."""
    up = [size for size in SIZES if size <= most for _ in range(RUNS if size <= SHORT else 1)]
    return up if up[-1] <= SHORT else up + up[-2::-1]


def show(report: Told, runs: Mapping[int, Sequence[Mapping[str, float]]]) -> None:
    """A table of the stages by size, and whether the lines are straight."""
    grown = {size: {name: spread((run[name] for run in of_size), 6) for name in of_size[0]} for size, of_size in runs.items()}
    columns = ["stage", *(f"{size:,}" for size in grown)]
    rows = [
        [f"{stage}, {unit}", *(told(of_size[f"{stage}, {unit}"], form) for of_size in grown.values())]
        for unit, form in ((CPU, ".3f"), ("s", ".1f"), ("peak MiB", ".0f"))
        for stage in STAGES
    ]
    report.table("stages of runs of so many objects, one endpoint", columns, rows)
    report.figures["growth"] = runs
    small, large = grown.get(SMALLEST_COMPARED), grown[max(grown)]
    if small is None or small is large:
        return
    bounds = {f"{stage}, {CPU}": CPU_BOUND for stage in STAGES} | {PEAK: MEMORY_BOUND}
    for name, bound in bounds.items():
        found = large[name]["median"] / small[name]["median"]
        report.verdict(f"{name}, {max(grown):,} objects beside {SMALLEST_COMPARED:,}", found, f"<= {bound}", reached=found <= bound)


def main(
    *,
    most: Annotated[int, cyclopts.Parameter(validator=cyclopts.validators.Number(gte=SIZES[0]))] = SIZES[-1],
    json_file: Annotated[Path | None, cyclopts.Parameter("--json")] = None,
) -> None:
    """Measure, and print a table.

    Parameters
    ----------
    most
        The most objects: sizes are powers of ten from 100 on up to that.
    json_file
        Where to write the figures.
    """
    report = Told(json_file)
    runs: dict[int, list[dict[str, float]]] = {}
    for objects in turns(most):
        runs.setdefault(objects, []).append(measure(objects))
    show(report, runs)
    report.end()


if __name__ == "__main__":
    cyclopts.run(main)
