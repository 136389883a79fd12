"""One local server with an instant detector, and a client of its admin API that finds it as new."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
import msgspec
import pytest

from connectors.local_velma.journal import Journal
from connectors.local_velma.organisation import Organisation
from connectors.local_velma.server import LocalVelma
from connectors.local_velma.switches import NO_SWITCHES
from velma_admin import KEY, OTHER, Admin


@pytest.fixture(scope="session")
def journal_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stub_velma") / "journal.jsonl"


@pytest.fixture(scope="session")
def stub_velma(velma_in_a_thread: Callable[..., object], journal_file: Path) -> Iterator[LocalVelma]:
    with Journal(journal_file) as journal, velma_in_a_thread(journal, Organisation((KEY, OTHER)), detector="stub") as server:
        yield server


@pytest.fixture
async def admin(stub_velma: LocalVelma) -> AsyncIterator[Admin]:
    async with aiohttp.ClientSession() as browser:
        admin = Admin(browser, stub_velma)
        await admin.all_free()
        organisation = stub_velma.organisation
        organisation.api_keys = (KEY, OTHER)
        organisation.max_connections = organisation.total_connections = organisation.monthly_hours = organisation.credit_hours = None
        organisation.new_month()
        stub_velma.journal.peak.clear()
        await admin.switch(**msgspec.to_builtins(NO_SWITCHES))
        admin.began = max((line["position"] for line in await admin.journal()), default=0)
        yield admin
