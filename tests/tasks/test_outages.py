"""An absence of the ledger: outlasted for half a lease, and then an end."""

import pytest

from ledger_facts import Clock
from moderation.errors import LeaseLost, UnreachableError
from tasks.outages import Outages

LEASE_MS = 8_000


class Ledger:
    """One that is away for so long."""

    def __init__(self, away_ms: int) -> None:
        self.clock = Clock()
        self.back_ms = self.clock.ms + away_ms
        self.asked = 0
        self.outages = Outages(LEASE_MS, self.clock, self.sleep, lambda: 0.5)

    async def sleep(self, seconds: float) -> None:
        self.clock.ms += round(1000 * seconds)

    async def step(self) -> str:
        self.asked += 1
        if self.clock.ms < self.back_ms:
            raise UnreachableError("away")
        return "answer"


@pytest.mark.fault(77)
@pytest.mark.parametrize("away_ms", [0, 1, LEASE_MS // 2 - 400])
async def test_what_comes_back_within_half_a_lease_is_waited_for_as_often_as_it_goes(away_ms, caplog):
    ledger = Ledger(away_ms)
    for _ in range(2):
        assert await ledger.outages.outlast(ledger.step) == "answer"
        ledger.back_ms = ledger.clock.ms + away_ms
    assert len(caplog.records) == (2 if away_ms else 0), "an absence is one line, however often it is asked"


@pytest.mark.fault(62)
async def test_after_half_a_lease_it_is_an_error():
    ledger = Ledger(LEASE_MS)
    began = ledger.clock.ms
    with pytest.raises(UnreachableError, match="away"):
        await ledger.outages.outlast(ledger.step)
    assert LEASE_MS // 2 <= ledger.clock.ms - began < LEASE_MS // 2 + LEASE_MS // 16
    asked = ledger.asked
    with pytest.raises(UnreachableError, match="away"):
        await ledger.outages.outlast(ledger.step)
    assert ledger.asked == asked + 1, "it is the same absence, whatever asks"
    ledger.outages.answered()
    ledger.back_ms = ledger.clock.ms + LEASE_MS // 4
    assert await ledger.outages.outlast(ledger.step) == "answer"


async def test_other_errors_come_at_once():
    async def lost() -> None:
        raise LeaseLost("swept")

    ledger = Ledger(0)
    with pytest.raises(LeaseLost):
        await ledger.outages.outlast(lost)
