"""The services that the benchmarks of whole runs talk to, each in a process of its own, and the audio that they scan."""

import asyncio
import os
import sys
import wave
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))

from measuring import process

from audio_files import CODINGS, container_bytes
from connectors.local_s3 import LocalS3
from connectors.local_velma.journal import Journal
from connectors.local_velma.organisation import Organisation
from connectors.local_velma.server import local_velma
from connectors.local_velma.switches import NO_SWITCHES
from connectors.s3 import S3Settings, s3_client
from flows.demo import environment
from flows.embedded_prefect import embedded_prefect
from moderation.formats import AudioFormat
from tasks.sample_sounds import HIGH_VOICE, LOW_VOICE, Piece, music, talk

KEY = "a-key-of-the-benchmark"
BUCKET = "music-uploads"
RATE = 16_000
SEED = 20261121
CLIP_SECONDS = 20.0
"""Of sound that is synthesised; an object repeats it for as long as it lasts."""
LOOK_SECONDS = 2.0
MOST_LOOKS = 150
IDLE_SHARE = 0.1
"""Of a core: what Prefect's server takes for its own loops when nobody wants anything."""
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Service:
    """A service that listens at url."""

    url: str
    ask: Callable[[], Any]
    """What it has seen so far: of Velma the counts of its journal and the audio in seconds, of Prefect its CPU in seconds when it rests."""


# -- Velma ------------------------------------------------------------------------------------------------------------------------------


def _serve_velma(pipe: Connection, limit: int | None, detector: str, speed: float | None, journal: Path | None) -> None:
    asyncio.run(_velma(pipe, limit, detector, speed, journal))


async def _velma(pipe: Connection, limit: int | None, detector: str, speed: float | None, path: Path | None) -> None:
    organisation = Organisation(frozenset({KEY}), max_connections=limit)
    switches = NO_SWITCHES.changed({"speed": speed})
    with Journal(path) as journal:
        async with local_velma(organisation, detector=detector, switches=switches, journal=journal) as velma:
            ended = asyncio.Event()

            def answer() -> None:
                try:
                    pipe.recv()
                except EOFError:
                    asyncio.get_running_loop().remove_reader(pipe.fileno())
                    ended.set()
                else:
                    pipe.send(dict(journal.counts) | {"audio_s": organisation.used_ms / 1000})

            asyncio.get_running_loop().add_reader(pipe.fileno(), answer)
            pipe.send(velma.url)
            await ended.wait()


@contextmanager
def velma(limit: int | None = None, detector: str = "stub", speed: float | None = None, journal: Path | None = None) -> Iterator[Service]:
    """The local Velma server, which admits so many connections and analyses so many times as fast as real time."""
    with process(_serve_velma, limit, detector, speed, journal) as (pipe, _):
        yield Service(pipe.recv(), lambda: _asked(pipe))


def _asked(pipe: Connection) -> Any:
    pipe.send(None)
    return pipe.recv()


# -- S3 ---------------------------------------------------------------------------------------------------------------------------------


def _serve_s3(pipe: Connection) -> None:
    with LocalS3() as s3:
        pipe.send(s3.environment())
        pipe.poll(None)


@contextmanager
def local_s3() -> Iterator[None]:
    """The local S3 with an empty bucket; all that begins in the block finds it in its environment."""
    with process(_serve_s3) as (pipe, _), environment(pipe.recv()):
        s3_client(S3Settings()).create_bucket(Bucket=BUCKET)
        yield


def put(prefix: str, bodies: Sequence[tuple[str, bytes]]) -> None:
    """Put objects below a prefix."""
    client = s3_client(S3Settings())
    for key, body in bodies:
        client.put_object(Bucket=BUCKET, Key=f"{prefix}{key}", Body=body)


# -- Prefect ----------------------------------------------------------------------------------------------------------------------------


def _serve_prefect(pipe: Connection, folder: Path) -> None:
    async def run() -> None:
        async with embedded_prefect(folder) as server:
            pipe.send({name: value for name, value in os.environ.items() if name.startswith("PREFECT_")})
            while await asyncio.to_thread(_told_to_go_on, pipe):
                pipe.send(await _settled(server.process.pid))

    asyncio.run(run())


def _told_to_go_on(pipe: Connection) -> bool:
    try:
        pipe.recv()
    except EOFError:
        return False
    return True


async def _settled(pid: int) -> float:
    """What a process has spent once it has nothing left to do: Prefect's server records what it was told long after a flow has ended."""
    spent = _cpu_of(pid)
    for _ in range(MOST_LOOKS):
        await asyncio.sleep(LOOK_SECONDS)
        before, spent = spent, _cpu_of(pid)
        if spent - before < IDLE_SHARE * LOOK_SECONDS:
            break
    return spent


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / CLOCK_TICKS


@contextmanager
def prefect_server(folder: Path) -> Iterator[Service]:
    """A Prefect server as soundcheck starts it; all that begins in the block finds it in its environment."""
    with process(_serve_prefect, folder) as (pipe, _):
        settings = pipe.recv()
        with environment(settings | {"DO_NOT_TRACK": "1"}):
            yield Service(settings["PREFECT_API_URL"], lambda: _asked(pipe))


# -- audio ------------------------------------------------------------------------------------------------------------------------------

_SOUNDS = (
    lambda rng: music(rng, CLIP_SECONDS, RATE, Piece()),
    lambda rng: talk(rng, CLIP_SECONDS, RATE, LOW_VOICE),
    lambda rng: music(rng, CLIP_SECONDS, RATE, Piece(tempo=124, key=53, progression=1, melody=0.25, drums=0.8)),
    lambda rng: talk(rng, CLIP_SECONDS, RATE, HIGH_VOICE),
)
FORMATS = (AudioFormat.WAV, AudioFormat.MP3)


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long the objects of a catalogue are: log-normal around a median within bounds (s), sigma being that of the logarithm."""

    median_s: float
    sigma: float
    shortest_s: float
    longest_s: float

    def drawn(self, hours: float, draw: int = 0) -> list[float]:
        """Seconds of each object, so many hours together, in an order of their own; each draw is another catalogue."""
        rng = np.random.default_rng([SEED, draw])
        found: list[float] = []
        while sum(found) < hours * 3600:
            found.append(float(np.clip(rng.lognormal(np.log(self.median_s), self.sigma), self.shortest_s, self.longest_s)))
        return found


def recordings(seconds: Sequence[float]) -> list[tuple[str, bytes]]:
    """Audio of these lengths, made here: music and talk in turn, in two formats in turn. Equal lengths in one format share their bytes."""
    clips = [sound(np.random.default_rng([SEED, number])) for number, sound in enumerate(_SOUNDS)]
    made: dict[tuple[float, AudioFormat], bytes] = {}
    found = []
    for number, length in enumerate(seconds):
        audio_format = FORMATS[number % len(FORMATS)]
        if (length, audio_format) not in made:
            made[length, audio_format] = _coded(clips[number % len(clips)], length, audio_format)
        found.append((f"{number // 100:03}/{number:05}.{audio_format}", made[length, audio_format]))
    return found


def of_folder(folder: Path) -> list[tuple[str, bytes]]:
    """The files of a folder whose names end with a format of the service."""
    kinds = {f".{kind.value}" for kind in FORMATS}
    return [(path.relative_to(folder).as_posix(), path.read_bytes()) for path in sorted(folder.rglob("*")) if path.suffix in kinds]


def _coded(clip: Any, seconds: float, audio_format: AudioFormat) -> bytes:
    samples = np.resize(clip, round(seconds * RATE))
    if audio_format is AudioFormat.WAV:
        out = BytesIO()
        with wave.open(out, "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes(np.rint(samples * np.iinfo(np.int16).max).astype("<i2").tobytes())
        return out.getvalue()
    coding = next(each for each in CODINGS if each.audio_format is audio_format)
    return container_bytes(samples.reshape(-1, 1), RATE, coding)
