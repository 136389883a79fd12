"""The composition root: connectors made from settings, and closed again. Nothing else makes a connector of the real thing."""

import atexit
import gc
import os
import random
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from typing import TYPE_CHECKING

from duckdb import DuckDBPyConnection

from connectors.audio_store import AudioStore, AudioStores, S3AudioStore
from connectors.catalogue import KeyList, Source
from connectors.clock import WallClock
from connectors.lake.query import connect
from connectors.lake.store import ResultStore, open_store
from connectors.ledger import Ledger, host_boot_ms
from connectors.media.local_decoder import LocalDecoder
from connectors.notices import Notices
from connectors.s3 import S3Caller, S3Settings, s3_client, tell_dates
from connectors.spool import SharedSpool, Spool
from connectors.velma import ApiKey, VelmaClient, VelmaSettings
from flows.keys import load_key
from flows.notifying import failed_start_told, notices_of
from flows.places import open_ledger, open_spool, results_of, spool_of
from flows.request import Request
from flows.run_settings import as_begun, ownership, run_settings
from flows.settings import Settings
from flows.sources import open_source
from moderation.endpoints import ENDPOINTS, Endpoint
from moderation.identity import lake_id
from moderation.pacing import Pace
from moderation.policy_file import PolicyText
from moderation.selection import Selection
from tasks.decide import read_policy
from tasks.publish import Publisher
from tasks.spans import traced

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def now() -> datetime:
    """The wall clock, in UTC."""
    return datetime.now(UTC)


def wall_clock(s3: "S3Client") -> WallClock:
    """The wall clock, held against S3's by each of its answers."""
    clock = WallClock(host_boot_ms, now)
    tell_dates(s3, lambda date: clock.compare(date, "S3's"))
    return clock


@dataclass(frozen=True, slots=True)
class Wired:
    """Everything that a run talks to. worker names this process in the ledger."""

    settings: Settings
    endpoints: tuple[Endpoint, ...]
    client: VelmaClient
    audio: AudioStore
    decoder: LocalDecoder
    source: Source
    key_list: Callable[[str], Source]
    selection: Selection
    results: ResultStore
    open_lake: Callable[..., DuckDBPyConnection]
    lake: str
    ledger: Ledger
    spool: Spool
    notices: Notices
    policy: PolicyText | None
    worker: str
    now: WallClock
    chance: Callable[[], float] = random.random
    entropy: Callable[[int], bytes] = secrets.token_bytes

    @property
    def publisher(self) -> Publisher:
        """What publishes this run's sessions."""
        before = Spool(spool_of(self.settings)) if isinstance(self.spool, SharedSpool) else None
        return Publisher(self.ledger, self.spool, self.results, self.lake, before, self.settings.packages.max_sessions)

    async def renewed_client(self, client: VelmaClient) -> VelmaClient | None:
        """The client with the key that is where the settings say by now; None where that has not changed. Raises what `load_key` does."""
        return client.renewed(await load_key(self.settings))


@dataclass(frozen=True, slots=True)
class WiredToPlan:
    """What a plan talks to: no service, and therefore no key."""

    settings: Settings
    endpoints: tuple[Endpoint, ...]
    audio: AudioStore
    source: Source
    key_list: Callable[[str], Source]
    selection: Selection
    results: ResultStore
    open_lake: Callable[..., DuckDBPyConnection]
    ledger: Ledger
    now: WallClock
    entropy: Callable[[int], bytes] = secrets.token_bytes


@asynccontextmanager
async def wired_to_plan(settings: Settings, request: Request) -> AsyncIterator[WiredToPlan]:
    """The connectors of a plan for as long as the block runs. Raises as `wired`, but for the key and the service."""
    own = run_settings(settings, request.sources, needs_key=False)
    results_url = results_of(own)
    s3 = s3_client(S3Settings())
    clock = wall_clock(s3)
    results = open_store(results_url, s3)
    results.check_writable()
    async with AsyncExitStack() as stack:
        audio, source, key_list = await _catalogue(stack, s3, request)
        yield WiredToPlan(
            settings=own,
            endpoints=tuple(ENDPOINTS[name] for name in own.endpoints),
            audio=audio,
            source=source,
            key_list=key_list,
            selection=request.portion.selection(ownership(settings)),
            results=results,
            open_lake=partial(connect, results_url, s3, frugal=True),
            ledger=await stack.enter_async_context(open_ledger(own)),
            now=clock,
        )


@asynccontextmanager
async def wired(settings: Settings, request: Request) -> AsyncIterator[Wired]:
    """The connectors of a run for as long as the block runs.

    Raises ConfigurationError, AccessDeniedError, UnreachableError or ResultsNotWritable before anything is streamed, and tells it.
    """
    _spare_what_is_imported()
    async with AsyncExitStack() as stack:
        async with failed_start_told(settings):
            parts = await stack.enter_async_context(_wired(settings, request))
        yield parts


@cache
def _spare_what_is_imported() -> None:
    """Once a process, take what lives as long as it does out of full collections of garbage: each took 0.1 s to walk it, unheard by all."""
    gc.freeze()
    atexit.register(gc.unfreeze)  # modules written in C count what is left of them


@asynccontextmanager
async def _wired(settings: Settings, request: Request) -> AsyncIterator[Wired]:
    own = as_begun(run_settings(settings, request.sources), request)
    key = await load_key(own)
    client, policy = velma_client(own, key), policy_of(own)
    results_url = results_of(own)
    s3 = s3_client(S3Settings())
    clock = wall_clock(s3)
    results = open_store(results_url, s3)
    results.check_writable()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(traced(wanted=own.traces))
        audio, source, key_list = await _catalogue(stack, s3, request)
        yield Wired(
            settings=own,
            endpoints=tuple(ENDPOINTS[name] for name in own.endpoints),
            client=client,
            audio=audio,
            decoder=await stack.enter_async_context(LocalDecoder()),
            source=source,
            key_list=key_list,
            selection=request.portion.selection(ownership(settings)),
            results=results,
            open_lake=partial(connect, results_url, s3, frugal=True),
            lake=lake_id(results.url),
            ledger=await stack.enter_async_context(open_ledger(own)),
            spool=open_spool(own, results),
            notices=notices_of(own),
            policy=policy,
            # in containers host and process id repeat: a successor must not renew what a dead one held
            worker=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}",
            now=clock,
        )


async def _catalogue(stack: AsyncExitStack, s3: "S3Client", request: Request) -> tuple[AudioStore, Source, Callable[[str], Source]]:
    """Where a run reads its audio, where it learns what there is, and what opens a key list of its own making."""
    caller = await stack.enter_async_context(S3Caller(s3))
    audio = AudioStores(await stack.enter_async_context(S3AudioStore(s3)))
    return audio, open_source(request.sources, request.portion, caller, audio), partial(KeyList, caller, audio)


async def check_before_start(settings: Settings, request: Request) -> Settings:
    """The settings of a run, where nothing is wrong with them that can be known before anything is started: key, hosts, results, policy.

    Raises what `wired` would, and tells it, only sooner.
    """
    async with failed_start_told(settings):
        own = run_settings(settings, request.sources)
        key = await load_key(own) if own.api_key_block is None else ApiKey("in-a-block")
        velma_client(own, key)
        results_of(own)
        policy_of(own)
    return own


def policy_of(settings: Settings) -> PolicyText | None:
    """The policy of the settings, None where there is none. Raises PolicyError that names the line."""
    return None if settings.policy is None else read_policy(settings.policy.expanduser())


def velma_client(settings: Settings, key: ApiKey) -> VelmaClient:
    """The client for the service, or for a local one. Raises ConfigurationError for an insecure host."""
    everywhere = {name: settings.velma_url.rstrip("/") for name in ENDPOINTS} if settings.velma_url else {}
    return VelmaClient(
        key,
        VelmaSettings(
            hosts=everywhere | settings.hosts,
            deadlines=settings.deadlines,
            pace=Pace(settings.pace),
            proxy=settings.proxy,
            transcripts=settings.transcripts,
        ),
    )
