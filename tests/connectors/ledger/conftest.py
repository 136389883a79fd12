"""Every test that takes `place` holds for both databases: a SQLite file, and a database of a private PostgreSQL cluster."""

import pytest

from connectors.ledger import Ledger
from ledger_facts import START, Clock, set_gate


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "ledger.sqlite"


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, path):
    return path if request.param == "sqlite" else request.getfixturevalue("postgresql").url()


@pytest.fixture
async def ledger(place, clock):
    async with Ledger.open(place, clock_ms=clock, now=lambda: START, chance=lambda: 0.5) as ledger:
        await set_gate(ledger, "acme", "music", 2)
        await set_gate(ledger, "acme", "ai_music", 2)
        yield ledger
