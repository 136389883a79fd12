"""What is still to be told: a note for each file of decisions or answers, from before the file is there until its events are on their way.

A process that dies in between leaves the note, and whoever decides next tells what the file has changed. A note names no object.
"""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta

import msgspec

from connectors.lake.store import ResultStore

FOLDER = "_untold"
ABANDONED = timedelta(days=1)
"""After so long a note without a file is one of a process that died before it had written any."""
_NAME = re.compile(rf"{FOLDER}/\d{{8}}T\d{{6}}Z-[0-9a-f]{{6}}-[ad]\d{{4,}}\.json", re.ASCII)


class Untold(msgspec.Struct, frozen=True):
    """A file of decisions or answers by its name in the lake: whose, of which run, and when. policy is None for answers of people."""

    file: str
    org: str
    run_id: str
    at: datetime
    policy: str | None = None
    policy_hash: str | None = None

    @property
    def name(self) -> str:
        """The name of the note."""
        return note_name(self.file)


def note_name(file: str) -> str:
    """The name of the note for a file."""
    return f"{FOLDER}/{file.rpartition('/')[2].removesuffix('.parquet')}.json"


def is_note(name: str) -> bool:
    """Whether it is a note, in its place."""
    return _NAME.fullmatch(name) is not None


def note(store: ResultStore, untold: Untold) -> None:
    """Put down that a file which is about to be written is to be told. Raises what the store raises."""
    store.put(untold.name, msgspec.json.encode(untold))


def told(store: ResultStore, untold: Untold) -> None:
    """Its events are on their way. Raises what the store raises."""
    store.delete(untold.name)


def notes(store: ResultStore) -> Iterator[str]:
    """The names of all notes. Raises what the store raises."""
    yield from (name for name in store.list(f"{FOLDER}/") if is_note(name))


def still_untold(store: ResultStore, org: str, now: datetime) -> list[Untold]:
    """What an organisation has written and nobody was told of, the oldest first. Raises what the store raises."""
    found = []
    for name in list(notes(store)):
        each = _read(store, name)
        if each is None or each.org != org:
            continue
        if store.exists(each.file):
            found.append(each)
        elif each.at < now - ABANDONED:
            told(store, each)
    return sorted(found, key=lambda each: (each.at, each.file))


def _read(store: ResultStore, name: str) -> Untold | None:
    """A note; None for one that has gone meanwhile, or was never written to its end."""
    text = store.get(name)
    try:
        return None if text is None else msgspec.json.decode(text, type=Untold)
    except msgspec.MsgspecError:
        return None
