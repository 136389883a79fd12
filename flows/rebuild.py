"""`soundcheck ledger rebuild`: the ledger anew from every result lake of the settings and the spool of this host."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from connectors.lake.store import open_store
from connectors.ledger import aside, rebuilding
from connectors.s3 import S3Settings, s3_client
from connectors.spool import Spool
from flows.places import ledger_place, open_spool, results_of, spool_of
from flows.setting_types import SpoolPlace
from flows.settings import Settings
from flows.teller import Teller
from moderation.identity import lake_id
from tasks.rebuild import Lake, Rebuild, Rebuilt

NOT_RESTORED = (
    "corrections are not restored: repeat them with soundcheck ledger adjust",
    "what erased results cost is not restored: add it with soundcheck ledger adjust",
    "pauses are not restored: repeat them with soundcheck pause",
    "learned limits and breakers are not restored: the next run begins with one session and finds them again",
    "attempts that had not been published, and whose spool this host does not see, are not restored: what they cost is not in the figures",
)
"""What the lake does not know."""


@dataclass(frozen=True, slots=True)
class Rebuilding:
    """How a rebuild went: what it found, in which lakes, and where the file is that it took the place of, if it did."""

    found: Rebuilt
    lakes: tuple[str, ...]
    kept: Path | None

    def as_json(self) -> dict[str, Any]:
        """The same as one JSON object."""
        return {**asdict(self.found), "lakes": list(self.lakes), "kept": str(self.kept) if self.kept else None, "notes": list(self.notes())}

    def lines(self) -> Iterator[str]:
        """The same for people."""
        found = self.found
        yield f"{found.packages} packages in {', '.join(self.lakes)}: {found.published} results and {found.failed} failed attempts restored"
        if found.spooled:
            yield f"{found.spooled} results wait in the spool: the next run publishes them"
        if found.erased:
            yield f"{found.erased} tombstones restored from the receipts: what was erased by request stays so"
        if self.kept:
            yield f"the ledger that was there is kept as {self.kept}"
        yield from self.notes()

    def notes(self) -> Iterator[str]:
        """What is lost, and what cannot be restored."""
        found = self.found
        if found.lost:
            yield f"{found.lost} results that were paid for are in no package and not in this spool: they are lost, and streamed again"
        if found.unknown:
            yield f"{found.unknown} sessions have left items and nothing that says what they cost: they are not in the figures"
        yield from found.damaged
        yield from NOT_RESTORED


async def rebuild(settings: Settings, now: Callable[[], datetime], *, replace: bool) -> Rebuilding:
    """Make the ledger of the settings anew. Raises ConfigurationError while sessions stream, or where a database is not to be replaced."""
    at, place = now(), ledger_place(settings)
    lakes = lakes_of(settings)
    task = Rebuild(lakes, spools_of(settings), Teller("packages read"))
    async with rebuilding(place, replace=replace, now=lambda: at) as ledger:
        found = await task.run(ledger)
    await task.clear_spool()
    kept = aside(place, at) if isinstance(place, Path) else None
    return Rebuilding(found, tuple(lake.store.url for lake in lakes), kept if kept and kept.exists() else None)


def spools_of(settings: Settings) -> list[Spool]:
    """Every spool in which sessions may wait: one of this host for all, or that of each lake. ConfigurationError where no lake is named."""
    own = Spool(spool_of(settings))
    if settings.spool_place() is SpoolPlace.STATE:
        return [own]
    before = [own] if own.ids() else []  # what waits from before the setting was another
    return [*before, *(open_spool(settings, lake.store) for lake in lakes_of(settings))]


def lakes_of(settings: Settings) -> list[Lake]:
    """Every place that the settings name for results: organisations share a ledger and can have a lake each."""
    each = [settings, *(settings.of(name) for name in settings.organisations)]
    urls = dict.fromkeys(results_of(one) for one in each if one.results or len(each) == 1)
    s3 = s3_client(S3Settings())
    stores = [open_store(url, s3) for url in urls]
    return [Lake(store, lake_id(store.url), settings.month) for store in stores]
