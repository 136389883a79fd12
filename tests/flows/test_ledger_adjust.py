"""`soundcheck ledger adjust`: what it corrects, and what it refuses before anything is written."""

import pytest

from connectors.ledger import Ledger
from flows.ledger import Correction, adjust
from flows.settings import fixed_settings
from ledger_facts import MONTH, START, money, set_gate
from moderation.errors import ConfigurationError

GOOD = {"org": "acme", "endpoint": "music", "month": MONTH, "spent_hours": 1.0, "possible_hours": 0.5, "reason": "invoice 4711"}
HOUR = 3_600_000


@pytest.fixture
async def place(tmp_path):
    url = f"sqlite:///{tmp_path}/ledger.db"
    async with Ledger.open(url) as ledger:
        await set_gate(ledger, "acme", "music", 1)
    return url


async def correct(place, **changes):
    correction = Correction(**GOOD | changes)
    await adjust(fixed_settings(ledger_url=place), correction, lambda length: b"\x01" * length, lambda: START)


async def test_a_correction_counts_and_says_who_and_why(place):
    await correct(place)
    async with Ledger.open(place) as ledger:
        assert await money(ledger) == (0, HOUR, HOUR // 2)
        assert [each.reason for each in await ledger.adjustments("acme", MONTH)] == ["invoice 4711"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"endpoint": "musik"}, "no endpoint 'musik': it is music, ai_music or \\*"),
        ({"endpoint": ""}, "no endpoint"),
        ({"month": "2026-1"}, "no month: write it as 2026-11"),
        ({"month": "2026-13"}, "no month"),
        ({"month": " 2026-11"}, "no month"),
        ({"month": "November"}, "no month"),
        ({"reason": " "}, "needs a reason"),
        ({"org": "other"}, "no organisation 'other'"),
    ],
)
async def test_what_is_not_there_is_not_corrected(place, changes, words):
    with pytest.raises(ConfigurationError, match=words):
        await correct(place, **changes)
    async with Ledger.open(place) as ledger:
        month = changes.get("month", MONTH)
        assert {(usage.settled_ms, usage.at_risk_ms) for usage in await ledger.usage("acme", month)} == {(0, 0)}
        assert await ledger.adjustments("acme", month) == []
