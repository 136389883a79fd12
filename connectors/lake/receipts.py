"""Receipts of what was erased by request: one for each key or version, hidden from query engines, without the key itself."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from datetime import datetime
from enum import StrEnum

import msgspec

from connectors.lake.store import ResultStore
from moderation.errors import ConfigurationError

FOLDER = "_erased"
_NAME = re.compile(rf"{FOLDER}/[0-9a-f]{{32}}\.json", re.ASCII)


class Scope(StrEnum):
    """How much is erased."""

    KEY = "key"
    """Every version of a key, those to come, too."""
    VERSION = "version"
    """One version of an object."""


class Receipt(msgspec.Struct, frozen=True):
    """What was erased from one lake, by whom, when and why; finished_at is None where that has not come to its end.

    erased_id is the object_key_id or, of one version, the object_id; object_ids are the versions of which there was anything. files and
    datasets count rows, sessions those of the ledger; spooled are the ids of those that were not published yet.
    """

    erased_id: str
    scope: Scope
    who: str
    reason: str
    begun_at: datetime
    object_ids: tuple[str, ...] = ()
    files: dict[str, int] = {}
    datasets: dict[str, int] = {}
    sessions: int = 0
    spooled: tuple[str, ...] = ()
    finished_at: datetime | None = None

    def with_found(
        self, object_ids: frozenset[str], files: Mapping[str, tuple[str, int]], sessions: int, spooled: Collection[str]
    ) -> "Receipt":
        """The same and what is to go now: (dataset, rows) by file.

        What an erasure that broke off was to take away, and still lies there, is counted once.
        """
        counted, datasets = Counter(self.files), Counter(self.datasets)
        for name, (dataset, rows) in files.items():
            before = 0 if self.finished_at else counted[name]
            more = max(0, rows - before)
            counted[name] += more
            datasets[dataset] += more
        return msgspec.structs.replace(
            self,
            object_ids=tuple(sorted(object_ids.union(self.object_ids))),
            files=dict(sorted(counted.items())),
            datasets=dict(sorted(datasets.items())),
            sessions=max(self.sessions, sessions),
            spooled=tuple(sorted({*self.spooled, *spooled})),
            finished_at=None,
        )


def receipt_name(erased_id: str) -> str:
    """Where the receipt of an id lies."""
    return f"{FOLDER}/{erased_id}.json"


def is_receipt(name: str) -> bool:
    """Whether it is the place of a receipt."""
    return _NAME.fullmatch(name) is not None


def find_receipt(store: ResultStore, erased_id: str) -> Receipt | None:
    """The receipt of an id, None where nothing of it was ever erased. Raises ConfigurationError where it cannot be read."""
    text = store.get(receipt_name(erased_id))
    try:
        return None if text is None else msgspec.json.decode(text, type=Receipt)
    except msgspec.MsgspecError as error:
        raise ConfigurationError(
            f"the receipt {receipt_name(erased_id)} cannot be read ({error}): take it away, then erase again"
        ) from error


def receipts_in(store: ResultStore) -> list[Receipt]:
    """Every receipt in a lake. Raises as `find_receipt`."""
    ids = (name.removeprefix(f"{FOLDER}/").removesuffix(".json") for name in store.list(f"{FOLDER}/") if is_receipt(name))
    return [receipt for erased_id in ids if (receipt := find_receipt(store, erased_id)) is not None]


def keep_receipt(store: ResultStore, receipt: Receipt) -> None:
    """Write a receipt in place of an earlier one. Raises what the store raises."""
    store.put(receipt_name(receipt.erased_id), msgspec.json.format(msgspec.json.encode(receipt), indent=2))
