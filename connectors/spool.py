"""The spool: ended sessions from their verdict until their package is published (design.md sections 3 and 7).

It lies on a local disk, or below the results, where every host can publish what a dead one has streamed.
"""

import asyncio
import hashlib
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from connectors.durable import replacing, sync_folder, writing_to
from moderation.errors import ConfigurationError, SoundcheckError
from moderation.results import SpooledSession

DAMAGED_FOLDER = "damaged"
"""Where entries lie that cannot be read back, within the spool."""
_MAGIC = b"SCspool1"
_LENGTH_BYTES = 8
_DIGEST_BYTES = 16
_HEADER_BYTES = len(_MAGIC) + _LENGTH_BYTES + _DIGEST_BYTES
_SESSION_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class SpoolDamaged(SoundcheckError):
    """A spooled session cannot be read back: truncated, changed, or not written by soundcheck. What it held is lost."""

    def __init__(self, path: Path | str, why: str) -> None:
        super().__init__(f"The spooled session {path} is damaged ({why}): its result is lost; check the disk.")
        self.path = path


class Spool:
    """A folder with one file a session: a header (magic, length, blake2b) and the session as MessagePack.

    An entry is there whole or not at all, and survives a power cut once `put` has returned. Writing raises ResultsNotWritable,
    naming the folder; a session id that is no UUID, ValueError.
    """

    lake: str | None = None
    """The only lake whose sessions it has; None: those of every lake."""

    put_bytes = 0
    """How much `put_async` has written since this was opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder)

    def put(self, session: SpooledSession) -> int:
        """Keep a session durably, in place of an earlier entry of its id, and return its bytes. Blocks for an fsync."""
        payload = msgspec.msgpack.encode(session)
        header = _MAGIC + len(payload).to_bytes(_LENGTH_BYTES, "big") + _digest(payload)
        self._write(_checked(session.session_id), header + payload)
        return len(header) + len(payload)

    async def put_async(self, session: SpooledSession) -> None:
        """Keep a session durably without holding up the event loop."""
        written = await asyncio.to_thread(self.put, session)
        self.put_bytes += written

    def get(self, session_id: str) -> SpooledSession | None:
        """The session, None where there is none. Raises SpoolDamaged, and ConfigurationError where the entry cannot be read."""
        entry = self._read(_checked(session_id))
        if entry is None:
            return None
        place = self._place(session_id)
        session = _decoded(place, entry)
        if session.session_id != session_id:
            raise SpoolDamaged(place, f"it is session {session.session_id}")
        return session

    def ids(self) -> list[str]:
        """The ids of the sessions kept, oldest first; unfinished and foreign files are passed over."""
        return sorted(name for name in self._names() if _SESSION_ID.fullmatch(name))

    def remove(self, session_ids: Iterable[str]) -> None:
        """Forget sessions durably; one that is not there is fine."""
        self._drop([_checked(session_id) for session_id in session_ids])

    def remove_aside(self, session_ids: Iterable[str]) -> None:
        """Forget what was set aside of sessions; one of which nothing was is fine."""
        self._drop([f"{DAMAGED_FOLDER}/{_checked(session_id)}" for session_id in session_ids])

    def set_aside(self, session_id: str) -> str:
        """Move an entry that cannot be read back out of the way, and say where it lies then; one that is not there is fine."""
        entry, aside = self._read(_checked(session_id)), f"{DAMAGED_FOLDER}/{session_id}"
        if entry is not None:
            self._write(aside, entry)
            self._drop([session_id])
        return str(self._place(aside))

    def free_bytes(self) -> int | None:
        """How much more its disk takes; None where nobody can tell."""
        there = next(folder for folder in (self.folder, *self.folder.parents) if folder.is_dir())
        return shutil.disk_usage(there).free

    def _place(self, name: str) -> Path | str:
        return self.folder / name

    def _write(self, name: str, entry: bytes) -> None:
        with replacing(self.folder / name) as file:
            file.write(entry)

    def _read(self, name: str) -> bytes | None:
        path = self.folder / name
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ConfigurationError(f"Cannot read {path}: {error.strerror}.") from error

    def _names(self) -> Iterator[str]:
        if self.folder.is_dir():
            yield from (path.name for path in self.folder.iterdir())

    def _drop(self, names: Iterable[str]) -> None:
        if not self.folder.is_dir():
            return
        with writing_to(self.folder):
            for name in names:
                (self.folder / name).unlink(missing_ok=True)
            sync_folder(self.folder)


class Shelf(Protocol):
    """What a shared spool needs of a result store: see `connectors.lake.store.ResultStore`."""

    def put(self, name: str, data: bytes) -> None:
        """Write a whole file durably, in place of an earlier one."""

    def get(self, name: str) -> bytes | None:
        """The bytes of a file, None where there is none."""

    def list(self, prefix: str) -> Iterator[str]:
        """The names under a folder."""

    def delete(self, name: str) -> None:
        """Remove a file; one that is not there is fine."""

    def address(self, name: str) -> str:
        """Where a file is, for people."""

    def free_bytes(self) -> int | None:
        """How much more it takes; None where nobody can tell."""


class SharedSpool(Spool):
    """The same entries in a folder of a result store, for every host that works for its lake. It raises what the store raises, too."""

    def __init__(self, shelf: Shelf, prefix: str, lake: str) -> None:
        self.shelf = shelf
        self.prefix = f"{prefix}/"
        self.lake = lake

    def __str__(self) -> str:
        return self.shelf.address(self.prefix.rstrip("/"))

    def free_bytes(self) -> int | None:
        """How much more the store takes; None where nobody can tell."""
        return self.shelf.free_bytes()

    def _place(self, name: str) -> str:
        return self.shelf.address(self.prefix + name)

    def _write(self, name: str, entry: bytes) -> None:
        self.shelf.put(self.prefix + name, entry)

    def _read(self, name: str) -> bytes | None:
        return self.shelf.get(self.prefix + name)

    def _names(self) -> Iterator[str]:
        return (name.removeprefix(self.prefix) for name in self.shelf.list(self.prefix))

    def _drop(self, names: Iterable[str]) -> None:
        for name in names:
            self.shelf.delete(self.prefix + name)


def _checked(session_id: str) -> str:
    if not _SESSION_ID.fullmatch(session_id):
        raise ValueError(f"{session_id!r} is no session id")
    return session_id


def _decoded(place: Path | str, entry: bytes) -> SpooledSession:
    header, payload = entry[:_HEADER_BYTES], entry[_HEADER_BYTES:]
    if not header.startswith(_MAGIC):
        raise SpoolDamaged(place, "no header of soundcheck's")
    length = int.from_bytes(header[len(_MAGIC) : -_DIGEST_BYTES], "big")
    if len(payload) != length:
        raise SpoolDamaged(place, f"{len(payload)} of {length} bytes")
    if _digest(payload) != header[-_DIGEST_BYTES:]:
        raise SpoolDamaged(place, "its bytes have changed")
    try:
        return msgspec.msgpack.decode(payload, type=SpooledSession)
    except msgspec.MsgspecError as error:
        raise SpoolDamaged(place, f"another form of session: {error}") from error


def _digest(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=_DIGEST_BYTES).digest()
