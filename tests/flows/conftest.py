import io
import wave
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from connectors.lake.query import connect
from connectors.local_s3 import LocalS3
from connectors.local_velma.journal import Journal
from connectors.local_velma.organisation import Organisation
from connectors.local_velma.server import LocalVelma, local_velma
from connectors.s3 import S3Settings, s3_client
from flows.launch import scan_directly
from flows.report import Report
from flows.request import Request
from flows.settings import Settings, fixed_settings
from flows.watch import Watch
from s3_shim import Answer, Send, s3_shim, whole

KEY = "canary-5f0e9d1c7b"
BUCKET = "catalogue"


def _wav(seconds: float = 1.0, hertz: float = 440.0, rate: int = 16_000) -> bytes:
    """A sine in a WAV."""
    samples = (np.sin(np.arange(int(seconds * rate)) * 2 * np.pi * hertz / rate) * 12_000).astype("<i2")
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return out.getvalue()


@dataclass
class World:
    """A bucket, a Velma server and a results folder."""

    velma: LocalVelma
    results: Path
    journal: Path
    settings: Settings
    put: Callable[..., None]
    reports: list[Report] = field(default_factory=list)

    async def scan(self, prefix: str = "", watch: Watch | None = None, **changes: object) -> Report:
        return await self.scan_request(Request((f"s3://{BUCKET}/{prefix}",)), watch, **changes)

    async def scan_request(self, request: Request, watch: Watch | None = None, **changes: object) -> Report:
        return await scan_directly(self.settings.model_copy(update=changes), request, watch or Watch())

    def ask(self, query: str) -> list[tuple[object, ...]]:
        with connect(str(self.results)) as lake:
            return lake.execute(query).fetchall()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[LocalS3]:
    with LocalS3() as server:
        yield server


@pytest.fixture
def aws(s3_server: LocalS3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """An empty bucket, and the environment that leads to it; the value puts an object."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    client = s3_client(S3Settings())
    client.create_bucket(Bucket=BUCKET)

    def put(key: str, body: bytes, **metadata: str) -> None:
        client.put_object(Bucket=BUCKET, Key=key, Body=body, Metadata={name.replace("_", "-"): text for name, text in metadata.items()})

    yield put
    while keys := [{"Key": entry["Key"]} for entry in client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]:
        client.delete_objects(Bucket=BUCKET, Delete={"Objects": keys})
    client.delete_bucket(Bucket=BUCKET)
    client.close()


@pytest.fixture
async def world(aws: Callable[..., None], tmp_path: Path) -> AsyncIterator[World]:
    journal = tmp_path / "journal.jsonl"
    with Journal(journal) as book:
        async with local_velma(Organisation(frozenset({KEY})), journal=book, detector="stub") as velma:
            settings = fixed_settings(api_key=KEY, results=str(tmp_path / "results"), velma_url=velma.url, connections=2, report=False)
            yield World(velma, tmp_path / "results", journal, settings, aws)


@pytest.fixture
def make_wav() -> Callable[..., bytes]:
    return _wav


@pytest.fixture
def shimmed(s3_server, aws, monkeypatch):
    """Enters a shim before the S3 server, and leads AWS clients to it."""

    @asynccontextmanager
    async def enter(rule: Answer = lambda _: None, send: Send = whole) -> AsyncIterator[None]:
        async with s3_shim(s3_server.endpoint_url, rule, send) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
            yield

    return enter
