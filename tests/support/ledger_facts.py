"""Claims, ends and readings of the ledger that its tests share."""

from dataclasses import replace
from datetime import UTC, date, datetime

from sqlalchemy import text

from connectors.ledger import Ledger
from connectors.ledger.gates import gate_of, keep_gate
from moderation.admission import Claim, Grant
from moderation.errors import Phase
from moderation.judgement import Failure
from moderation.limits import ConnectionLimit, Stage
from moderation.refusals import INCOMPLETE, Cause
from moderation.results import SpooledSession

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
MONTH = "2026-11"
SCAN_DATE = date(2026, 11, 21)
RUN = "20261121T120000Z-abcdef"


class Clock:
    """The ledger's clock, set by hand."""

    def __init__(self, ms: int = 1_000_000) -> None:
        self.ms = ms

    def __call__(self) -> int:
        return self.ms


def claim_of(number: int, **changes) -> Claim:
    base = Claim(
        session_id=f"session-{number:04}",
        lake="lake",
        org="acme",
        endpoint="music",
        object_id=f"object-{number}",
        object_key_id=f"key-{number}",
        params_hash="params",
        run_id=RUN,
        shard=0,
        worker="worker",
        attempt=1,
        month=MONTH,
        estimate_ms=1000,
    )
    return replace(base, **changes)


def failed_as(claim: Claim, cause: Cause = INCOMPLETE, phase: Phase = Phase.ADMITTED) -> Failure:
    return Failure(claim.session_id, phase, cause)


def spooled(claim: Claim, *, done: bool, sent_ms: int = 700, booked_ms: int = 0) -> SpooledSession:
    attempt = {"outcome": "done" if done else "failed", "scope": None if done else "object", "close_code": 1000, "error_text": None}
    return SpooledSession(
        session_id=claim.session_id,
        run_id=claim.run_id,
        endpoint=claim.endpoint,
        object_id=claim.object_id,
        attempt=attempt,
        booked_ms=booked_ms,
        sent_ms=sent_ms,
        summary={"frame_count": 4} if done else None,
    )


async def execute(ledger: Ledger, statement: str) -> list:
    async def read(connection) -> list:
        return (await connection.execute(text(statement))).all()

    return await ledger._database.transact(read)


async def change(ledger: Ledger, statement: str, **parameters) -> None:
    async def write(connection) -> None:
        await connection.execute(text(statement), parameters)

    await ledger._database.transact(write)


async def set_gate(ledger: Ledger, org: str, endpoint: str, ceiling: int | None) -> None:
    """A gate whose ceiling alone limits it: the service has been found to admit more."""
    await ledger.set_gate(org, endpoint, ceiling)
    await write_gate(ledger, org, endpoint, limit=ConnectionLimit(Stage.GROWING, allowed=1000))


async def write_gate(ledger: Ledger, org: str, endpoint: str, **changes) -> None:
    async def write(connection) -> None:
        await keep_gate(connection, org, endpoint, replace(await gate_of(connection, org, endpoint), **changes))

    await ledger._database.transact(write)


async def money(ledger: Ledger, endpoint: str = "music", month: str = MONTH) -> tuple[int, int, int]:
    """(reserved, settled, at risk) of an endpoint's budget, which must be the organisation's when nothing else streamed."""
    rows = {usage.endpoint: (usage.reserved_ms, usage.settled_ms, usage.at_risk_ms) for usage in await ledger.usage("acme", month)}
    assert rows[endpoint] == rows["*"]
    return rows[endpoint]


async def usage_of(ledger: Ledger, endpoint: str = "music"):
    return next(usage for usage in await ledger.usage("acme", MONTH) if usage.endpoint == endpoint)


async def live(ledger: Ledger, endpoint: str = "music") -> int:
    return (await usage_of(ledger, endpoint)).live


async def admit(ledger: Ledger, number: int, **changes) -> Claim:
    claim = claim_of(number, **changes)
    answer = await ledger.admit(claim)
    assert isinstance(answer, Grant), answer
    return claim


async def finished(ledger: Ledger, number: int, **changes) -> Claim:
    claim = await admit(ledger, number, **changes)
    await ledger.finish(claim.session_id, claim.estimate_ms, 1000)
    return claim
