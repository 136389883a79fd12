"""Scans against a local service, in this process or in ones of their own, and what its journal and the ledger say of them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from connectors.lake.query import connect
from connectors.ledger import Ledger
from connectors.ledger.schema import sessions
from connectors.local_velma.journal import Journal
from connectors.local_velma.organisation import Organisation
from connectors.local_velma.server import LocalVelma, local_velma
from connectors.local_velma.switches import Switches
from connectors.s3 import S3Settings, s3_client
from flows.launch import scan_directly
from flows.places import open_ledger
from flows.report import Report
from flows.setting_types import RawRule
from flows.settings import Settings, fixed_settings
from flows.watch import Watch
from moderation.admission import SessionRecord

KEY = "canary-2b7e1f09d3"
BUCKET = "short-objects"
BYTES_PER_SECOND = 8_000
RAW = RawRule(glob="*.ulaw", audio_format="mulaw", sample_rate=BYTES_PER_SECOND, num_channels=1)
"""The smallest audio whose length the plan knows exactly."""
PATIENCE_S = 60.0

Put = Callable[[str, float], None]


@contextmanager
def bucket() -> Iterator[Put]:
    """A new bucket at the S3 of the environment; what it gives puts an object of so many seconds."""
    client = s3_client(S3Settings())
    client.create_bucket(Bucket=BUCKET)

    def put(key: str, seconds: float) -> None:
        client.put_object(Bucket=BUCKET, Key=key, Body=b"\xff" * round(seconds * BYTES_PER_SECOND))

    try:
        yield put
        while entries := client.list_objects_v2(Bucket=BUCKET).get("Contents"):
            client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": entry["Key"]} for entry in entries]})
        client.delete_bucket(Bucket=BUCKET)
    finally:
        client.close()


@dataclass(frozen=True)
class Seen:
    """What the server's journal says: the judge."""

    path: Path

    def events(self, *names: str) -> list[dict[str, Any]]:
        """All lines, or those of these events."""
        lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [line for line in lines if not names or line["event"] in names]

    def sessions_after(self, position: int) -> set[int]:
        """The numbers of the sessions of which nothing was known until then."""
        lines = [line for line in self.events() if "session" in line]
        before = {line["session"] for line in lines if line["position"] <= position}
        return {line["session"] for line in lines} - before

    async def until(self, holds: Callable[["Seen"], bool]) -> None:
        """Wait until it says so."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds(self):
                await asyncio.sleep(0.01)


@dataclass(frozen=True)
class Scanning:
    """A running service, the settings for scans with it, and what they leave."""

    velma: LocalVelma
    seen: Seen
    settings: Settings

    @property
    def said(self) -> dict[str, Any]:
        """The settings that are not the defaults, for processes of their own."""
        said = self.settings.model_dump(mode="json", exclude_defaults=True)
        secrets = {name: getattr(self.settings, name).get_secret_value() for name in ("api_key", "ledger_url") if name in said}
        return said | secrets

    async def scan(self, prefix: str = "", **changes: Any) -> Report:
        """One scan in this process."""
        return await scan_directly(self.settings.model_copy(update=changes), f"s3://{BUCKET}/{prefix}", Watch())

    async def change_service(self, **changes: Any) -> None:
        """Change its organisation over the admin API."""
        headers = {"Authorization": f"Bearer {self.velma.admin_token}"}
        async with aiohttp.request("PATCH", f"{self.velma.admin_url}organisation", json=changes, headers=headers) as answer:
            assert answer.status == HTTPStatus.OK, await answer.text()

    async def until_limit(self, holds: Callable[[int], bool]) -> None:
        """Wait until the ledger's limit of music is such."""
        async with asyncio.timeout(PATIENCE_S), open_ledger(self.settings) as ledger:
            while not any(holds(u.gate.limit.allowed) for u in await ledger.usage(self.settings.org, "") if u.endpoint == "music"):
                await asyncio.sleep(0.05)

    async def until_done(self, times: int) -> None:
        """Wait until so many sessions have ended well; as long as any does within a minute."""
        while (done := self.velma.journal.counts["done"]) < times:
            async with asyncio.timeout(PATIENCE_S):
                while self.velma.journal.counts["done"] == done:
                    await asyncio.sleep(0.02)

    async def rows(self) -> list[SessionRecord]:
        """All sessions of the ledger, oldest first."""
        async with open_ledger(self.settings) as ledger:
            return await session_rows(ledger)

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """An answer of the lake."""
        with connect(str(self.settings.results)) as lake:
            return lake.execute(query).fetchall()


async def session_rows(ledger: Ledger) -> list[SessionRecord]:
    """All sessions of a ledger, in the order of their start."""
    query = select(sessions).order_by(sessions.c.started_at, sessions.c.session_id)

    async def read(connection: AsyncConnection) -> list[SessionRecord]:
        return [SessionRecord(*row) for row in await connection.execute(query)]

    return await ledger._database.transact(read)


@asynccontextmanager
async def scanning(folder: Path, *, speed: float | None = None, **settings: Any) -> AsyncIterator[Scanning]:
    """A service in this process, which takes audio at so many times real time; settings are those of the scans."""
    journal = folder / "journal.jsonl"
    with Journal(journal) as book:
        organisation = Organisation(frozenset({KEY}))
        async with local_velma(organisation, journal=book, detector="stub", switches=Switches(speed=speed)) as velma:
            given = {
                "api_key": KEY,
                "results": str(folder / "results"),
                "velma_url": velma.url,
                "endpoints": ["music"],
                "raw_rules": [RAW],
                "report": False,
            }
            yield Scanning(velma, Seen(journal), fixed_settings(**given | settings))
