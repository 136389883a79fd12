"""`soundcheck erase`: an object out of every result lake of the settings, the ledger's claims and the spool of this host."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from connectors.lake.receipts import Scope, receipt_name
from connectors.s3 import S3Uri
from flows.notifying import letters_of
from flows.person import who
from flows.places import open_ledger
from flows.rebuild import lakes_of, spools_of
from flows.settings import Settings
from flows.teller import Teller
from moderation.errors import ConfigurationError
from moderation.identity import object_key_id
from moderation.outcomes import ExitCode
from tasks.erase import Erased, Erasure, Wish

_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class ErasureReport:
    """What was erased from each lake, or, where it is dry, would be."""

    lakes: tuple[Erased, ...]
    dry: bool

    def as_json(self) -> dict[str, Any]:
        """The same as one JSON object: the receipts, without the key."""
        return {
            "dry_run": self.dry,
            "lakes": [
                {"results": each.results, **msgspec.to_builtins(each.receipt), "runs_at_work": list(each.at_work)} for each in self.lakes
            ],
            "exit_code": int(ExitCode.OK),
        }

    def lines(self) -> Iterator[str]:
        """The same for people."""
        for each in self.lakes:
            receipt = each.receipt
            verb = "would be erased" if self.dry else "are erased"
            counted = f"{sum(receipt.files.values()):,} rows of {len(receipt.object_ids):,} versions in {len(receipt.files):,} files"
            yield f"{counted}, and {len(receipt.spooled):,} sessions in the spool, {verb} from {each.results}."
            if not self.dry:
                yield f"The receipt is {receipt_name(receipt.erased_id)}. It is never streamed again; what it cost stays in the figures."
            if each.at_work:
                runs = ", ".join(each.at_work)
                yield f"Runs are at work ({runs}): what they have planned they may still write down. Erase it again when they have ended."


async def erase(
    settings: Settings, now: Callable[[], datetime], what: str, bucket: str | None, reason: str, *, dry: bool = False
) -> ErasureReport:
    """Erase what an address or an id says, as `Erasure.run`. Raises ConfigurationError for neither, and without a reason."""
    if not dry and not reason.strip():
        raise ConfigurationError("an erasure needs a --reason: it stays on record in the receipt")
    wish = _wish(what, bucket, reason)
    async with open_ledger(settings) as ledger:
        erasure = Erasure(lakes_of(settings), ledger, spools_of(settings), wish, now(), Teller("files looked at"))
        done = ErasureReport(tuple(await erasure.run(dry=dry)), dry)
    if not dry:
        letters_of(settings).forget({version for each in done.lakes for version in each.receipt.object_ids})
    return done


def print_erasure(done: ErasureReport, console: Console) -> None:
    """A table of rows by dataset, and sentences."""
    table = Table("results", "dataset", "rows")
    table.columns[2].justify = "right"
    for each in done.lakes:
        for dataset, rows in each.receipt.datasets.items():
            table.add_row(each.results, dataset, f"{rows:,}")
    if table.row_count:
        console.print(table)
    for line in done.lines():
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _wish(what: str, bucket: str | None, reason: str) -> Wish:
    if bucket is not None:
        place = str(Path(bucket).resolve()) if "/" in bucket else bucket
        return Wish(object_key_id(place, what), Scope.KEY, who(), reason)
    if _ID.fullmatch(what):
        return Wish(what, None, who(), reason)
    uri = S3Uri.parse(what)
    if not uri.prefix:
        raise ConfigurationError(f"{uri} is a bucket: give the address of one object")
    return Wish(object_key_id(uri.bucket, uri.prefix), Scope.KEY, who(), reason)
