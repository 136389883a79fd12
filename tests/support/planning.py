"""A catalogue in a folder, a lake beside it, and plans of the one against the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from connectors.audio_store import FolderAudioStore
from connectors.lake.packages import write_rows
from connectors.lake.query import connect
from connectors.lake.store import FolderStore
from connectors.s3 import S3Uri
from moderation.catalogue import AudioObject
from moderation.endpoints import ENDPOINTS
from tasks.plan import Plan, PlanRules, make_plan
from tasks.progress import Progress
from tasks.records import Run

START = datetime(2026, 11, 21, 8, 0, 0, tzinfo=UTC)
BOTH = tuple(ENDPOINTS.values())


class CountingStore(FolderAudioStore):
    """A folder that counts what is read of each file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.bytes_read: dict[str, int] = {}
        self.asked: list[str] = []

    async def head(self, item: AudioObject, size: int, offset: int = 0) -> bytes:
        data = await super().head(item, size, offset)
        self.bytes_read[item.key] = self.bytes_read.get(item.key, 0) + len(data)
        return data

    async def metadata(self, item: AudioObject) -> Mapping[str, str]:
        self.asked.append(item.key)
        return await super().metadata(item)


@dataclass
class Planned:
    """A plan, how it was counted, and its rows."""

    plan: Plan
    progress: Progress
    rows: pl.DataFrame

    def of(self, key: str, endpoint: str = "music") -> dict[str, Any]:
        """The row of an object."""
        return self.rows.row(by_predicate=(pl.col("key") == key) & (pl.col("endpoint") == endpoint), named=True)

    def streamed(self, endpoint: str = "music") -> list[str]:
        """The keys to be streamed, sorted."""
        return self.rows.filter((pl.col("decision") == "stream") & (pl.col("endpoint") == endpoint))["key"].sort().to_list()


@dataclass
class Bench:
    """Plans over a folder of audio; every plan is a run of its own."""

    folder: Path
    results: FolderStore
    listed: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.store = CountingStore(self.folder)

    @property
    def bucket(self) -> str:
        return str(self.folder.resolve())

    def put(self, key: str, body: bytes) -> None:
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        self.listed.pop(key, None)

    async def objects(self) -> list[AudioObject]:
        """What the folder holds, with what is listed of it beside."""
        keys = sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())
        found = {key: manifest_row(await self.store.find(self.bucket, key)) for key in keys}
        return [AudioObject(**{name: (row | self.listed.get(key, {}))[name] for name in OBJECT}) for key, row in found.items()]

    def list_only(self, key: str, **facts: Any) -> None:
        """Something that is in the listing otherwise than it is in the folder."""
        self.listed[key] = facts

    async def plan(self, rules: PlanRules | None = None, endpoints: Sequence[Any] = BOTH, **options: Any) -> Planned:
        run = Run(f"20261121T08{self.runs:04d}Z-abcdef", "acme", START + timedelta(minutes=self.runs))
        self.runs += 1
        rows = [manifest_row(item) for item in await self.objects()]
        write_rows(self.results, "manifests", run.run_id, run.scan_date, "manifest", rows)
        progress = Progress(listed=len(rows))
        options.setdefault("sources", [S3Uri(self.bucket, "")])
        store = options.pop("store", self.store)
        plan = await make_plan(
            store, self.results, partial(connect, self.results.url), run, endpoints, rules or PlanRules(), progress, **options
        )
        return Planned(plan, progress, rows_of(self.results, run.run_id))

    def publish(self, planned: Planned, *keys: str, endpoint: str = "music") -> None:
        """Write results as if these objects had been streamed."""
        rows = [summary(planned.of(key, endpoint)) for key in keys]
        name = "music_summaries" if endpoint == "music" else "ai_music_summaries"
        write_rows(
            self.results, name, f"r{len(rows)}", START.date(), f"{endpoint}-{self.runs}-{'-'.join(keys)[:20].replace('/', '_')}", rows
        )

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with connect(self.results.url) as lake:
            return lake.execute(query).fetchall()


OBJECT = ("bucket", "key", "etag", "size_bytes", "last_modified", "version_id", "storage_class")


def manifest_row(item: AudioObject) -> dict[str, Any]:
    """A row of `manifests`."""
    return {name: getattr(item, name) for name in (*OBJECT, "object_id", "object_key_id")}


def rows_of(results: FolderStore, run_id: str) -> pl.DataFrame:
    """The rows of a plan with the keys of their objects, as they lie in the lake."""
    folder = results.root / "_runs" / run_id
    manifest = pl.read_parquet(folder / "manifest.parquet").unique("object_id", keep="first")
    return pl.read_parquet(folder / "plan.parquet").join(manifest, on="object_id", maintain_order="left")


def summary(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of summaries for a row of a plan, as far as planning reads it."""
    words = ("object_id", "object_key_id", "params_hash", "endpoint", *OBJECT[:-1])
    texts = dict.fromkeys(("audio_format", "host", "evidence", "wire_shape", "primary_label", "primary_verdict", "package", "run_id"), "x")
    measured = {"covered_ms": 1000, "items_received": 5, "attempt": 1, "started_at": START, "finished_at": START + timedelta(seconds=1)}
    known = {name: row[name] for name in words}
    music = row["endpoint"] == "music"
    texts.pop("primary_verdict" if music else "primary_label")
    more = {"threshold": 0.5} if music else {}
    return known | texts | measured | more | {"org": "acme", "quality_flags": "", "session_id": f"s-{row['object_id']}"}
