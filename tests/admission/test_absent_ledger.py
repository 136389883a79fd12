"""A ledger on a server that goes away in the middle of a scan, and comes back: nothing that is live is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr
from sqlalchemy import make_url

from moderation.outcomes import ExitCode
from postgresql import Cluster
from scanning import PATIENCE_S, Scanning, scanning

pytestmark = pytest.mark.torture


@asynccontextmanager
async def away(cluster: Cluster, url: str) -> AsyncIterator[None]:
    """The server ends every connection to a database and takes none while the block runs."""
    database = make_url(url).database
    await asyncio.to_thread(cluster.sql, f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
    await asyncio.to_thread(cluster.sql, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")
    yield
    await asyncio.to_thread(cluster.sql, f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")


async def until_streaming(world: Scanning, sessions: int) -> None:
    await world.seen.until(lambda seen: len(seen.events("first_audio")) >= sessions)


@pytest.mark.fault(62)
async def test_a_ledger_that_is_away_for_a_moment_costs_no_session(put, tmp_path, postgresql, caplog):
    for number, seconds in enumerate((1.0, 3.0, 20.0, 2.0)):
        put(f"{number}.ulaw", seconds)
    url = postgresql.url()
    async with (
        scanning(tmp_path, speed=4, connections=2, ledger_url=SecretStr(url), lease_seconds=30.0) as world,
        asyncio.timeout(PATIENCE_S),
    ):
        scan = asyncio.create_task(world.scan())
        await until_streaming(world, 3)
        async with away(postgresql, url):
            ended = len(world.seen.events("done"))
            await world.seen.until(lambda seen: len(seen.events("done")) > ended)
            while "tried again for half a lease" not in caplog.text:
                await asyncio.sleep(0.02)
        report = await scan
        assert (report.state, report.exit_code) == ("Completed", ExitCode.OK)
        assert (report.counts()["done"], report.progress.sessions) == (4, 4)
        assert {row.state for row in await world.rows()} == {"published"}
