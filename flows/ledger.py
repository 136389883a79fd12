"""What a person does with the ledger, on any host: look into it, pause, correct what a month has cost, settle what dead workers left."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from duckdb import Error as DuckDBError
from pyarrow import ArrowException

from connectors.lake.query import audio_saved_ms, connect
from connectors.lake.store import open_store
from connectors.ledger import Ledger
from connectors.s3 import S3Settings, s3_client
from flows.notifying import letters_of
from flows.person import who
from flows.places import open_ledger, open_spool, results_of
from flows.rebuild import spools_of
from flows.results import s3_of
from flows.settings import Settings
from flows.status import OrganisationStatus
from moderation.admission import EVERY_ENDPOINT, Adjustment
from moderation.budget import hours_to_ms, month_of
from moderation.endpoints import ENDPOINTS
from moderation.errors import ConfigurationError, SoundcheckError
from moderation.identity import lake_id, session_id
from tasks.publish import Publisher, settle_expired

logger = logging.getLogger("soundcheck.ledger")


async def statuses(settings: Settings, org: str | None, now: Callable[[], datetime]) -> list[OrganisationStatus]:
    """Every organisation of the ledger, or the one asked for. Raises ConfigurationError for one that it does not know."""
    month = settings.month(now())
    async with open_ledger(settings) as ledger:
        known = await ledger.organisations()
        if org is not None and org not in known:
            raise ConfigurationError(f"the ledger knows no organisation {org!r}: it has {', '.join(known) or 'none yet'}")
        return [await status_of(ledger, name, month, settings, now) for name in ([org] if org else known)]


async def status_of(ledger: Ledger, org: str, month: str, settings: Settings, now: Callable[[], datetime]) -> OrganisationStatus:
    """One organisation of the ledger; the settings are asked for the currency of its prices, the rules of breakers, and its results."""
    own = settings.of(org) if org in settings.organisations else settings
    return OrganisationStatus(
        org,
        month,
        usages=await ledger.usage(org, month),
        streaming=await ledger.streaming(org),
        waiting=await ledger.waiting(org),
        adjustments=await ledger.adjustments(org, month),
        at=now(),
        now_ms=await ledger.now_ms(),
        lease_ms=ledger.lease_ms,
        rules=settings.gate_rules().breaker,
        currency=own.currency,
        undelivered=[letter for letter in await asyncio.to_thread(letters_of(own).undelivered) if letter.org == org],
        saved_ms=await asyncio.to_thread(_saved_ms, own, org, month),
    )


def _saved_ms(settings: Settings, org: str, month: str) -> int | None:
    """What cascades leave out, which the ledger does not know. A host without a way to the results has a status all the same."""
    if not settings.results:
        return None
    url = results_of(settings)
    try:
        with connect(url, s3_of(url), only=["runs"]) as lake:
            return audio_saved_ms(lake, org, month)
    except (SoundcheckError, DuckDBError, ArrowException, OSError) as error:
        logger.warning("the results of %s cannot be read: %s", org, error)
        return None


async def pause(settings: Settings, org: str, *, paused: bool) -> None:
    """Admit nothing of an organisation, or again; what streams goes on."""
    async with open_ledger(settings) as ledger:
        await (ledger.pause(org) if paused else ledger.resume(org))


async def sweep(settings: Settings) -> int:
    """End the sessions whose workers have died, by what the spool has of them; how many those were."""
    expired = 0
    async with open_ledger(settings) as ledger:
        for spool in spools_of(settings):
            expired += len(await ledger.expired(spool.lake))
            await settle_expired(ledger, spool)
        return expired


async def give_up(settings: Settings, package: str) -> int:
    """Undo a package whose results are lost for good; how many those are. Raises ConfigurationError where there is nothing to give up."""
    results = open_store(results_of(settings), s3_client(S3Settings()))
    async with open_ledger(settings) as ledger:
        return await Publisher(ledger, open_spool(settings, results), results, lake_id(results.url)).give_up(package)


@dataclass(frozen=True, slots=True)
class Correction:
    """What a person wants corrected, in audio-hours; month "2026-11"."""

    org: str
    endpoint: str
    month: str
    spent_hours: float
    possible_hours: float
    reason: str


def _is_month(said: str) -> bool:
    """Whether this is a month as the ledger writes them: another spelling would be another budget."""
    try:
        return month_of(datetime.strptime(said, "%Y-%m").replace(tzinfo=UTC)) == said
    except ValueError:
        return False


async def adjust(settings: Settings, correction: Correction, entropy: Callable[[int], bytes], now: Callable[[], datetime]) -> None:
    """Correct what a month has cost; who did it and why stays on record."""
    if not correction.reason.strip():
        raise ConfigurationError("a correction needs a reason: it stays on record")
    if not _is_month(correction.month):
        raise ConfigurationError(f"{correction.month!r} is no month: write it as 2026-11")
    if correction.endpoint not in {*ENDPOINTS, EVERY_ENDPOINT}:
        raise ConfigurationError(f"there is no endpoint {correction.endpoint!r}: it is {', '.join(ENDPOINTS)} or {EVERY_ENDPOINT}")
    async with open_ledger(settings) as ledger:
        if correction.org not in await ledger.organisations():
            raise ConfigurationError(f"the ledger knows no organisation {correction.org!r}")
        await ledger.adjust(
            session_id(now(), entropy(10)),
            Adjustment(
                correction.org,
                correction.endpoint,
                correction.month,
                hours_to_ms(correction.spent_hours),
                hours_to_ms(correction.possible_hours),
                who(),
                correction.reason,
            ),
        )
