"""The spool: ended sessions on local disk, from their verdict until their package is published (design.md sections 3 and 7)."""

import asyncio
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from connectors.durable import replacing, sync_folder, writing_to
from moderation.errors import ConfigurationError, SoundcheckError
from moderation.results import SpooledSession

_MAGIC = b"SCspool1"
_LENGTH_BYTES = 8
_DIGEST_BYTES = 16
_HEADER_BYTES = len(_MAGIC) + _LENGTH_BYTES + _DIGEST_BYTES
_SESSION_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class SpoolDamaged(SoundcheckError):
    """A spooled session cannot be read back: truncated, changed, or not written by soundcheck. What it held is lost."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"The spooled session {path} is damaged ({why}): its result is lost; check the disk.")
        self.path = path


class Spool:
    """A folder with one file a session: a header (magic, length, blake2b) and the session as MessagePack.

    An entry is there whole or not at all, and survives a power cut once `put` has returned. Writing raises ResultsNotWritable,
    naming the folder; a session id that is no UUID, ValueError.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, session: SpooledSession) -> None:
        """Keep a session durably, in place of an earlier entry of its id. Blocks for an fsync."""
        payload = msgspec.msgpack.encode(session)
        with replacing(self._path(session.session_id)) as file:
            file.write(_MAGIC + len(payload).to_bytes(_LENGTH_BYTES, "big") + _digest(payload))
            file.write(payload)

    async def put_async(self, session: SpooledSession) -> None:
        """Keep a session durably without holding up the event loop."""
        await asyncio.to_thread(self.put, session)

    def get(self, session_id: str) -> SpooledSession | None:
        """The session, None where there is none. Raises SpoolDamaged, and ConfigurationError where the file cannot be read."""
        path = self._path(session_id)
        try:
            entry = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ConfigurationError(f"Cannot read {path}: {error.strerror}.") from error
        session = _decoded(path, entry)
        if session.session_id != session_id:
            raise SpoolDamaged(path, f"it is session {session.session_id}")
        return session

    def ids(self) -> list[str]:
        """The ids of the sessions kept, oldest first; unfinished and foreign files are passed over."""
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if _SESSION_ID.fullmatch(path.name))

    def remove(self, session_ids: Iterable[str]) -> None:
        """Forget sessions durably; one that is not there is fine."""
        paths = [self._path(session_id) for session_id in session_ids]
        if not self.folder.is_dir():
            return
        with writing_to(self.folder):
            for path in paths:
                path.unlink(missing_ok=True)
            sync_folder(self.folder)

    def _path(self, session_id: str) -> Path:
        if not _SESSION_ID.fullmatch(session_id):
            raise ValueError(f"{session_id!r} is no session id")
        return self.folder / session_id


def _decoded(path: Path, entry: bytes) -> SpooledSession:
    header, payload = entry[:_HEADER_BYTES], entry[_HEADER_BYTES:]
    if not header.startswith(_MAGIC):
        raise SpoolDamaged(path, "no header of soundcheck's")
    length = int.from_bytes(header[len(_MAGIC) : -_DIGEST_BYTES], "big")
    if len(payload) != length:
        raise SpoolDamaged(path, f"{len(payload)} of {length} bytes")
    if _digest(payload) != header[-_DIGEST_BYTES:]:
        raise SpoolDamaged(path, "its bytes have changed")
    try:
        return msgspec.msgpack.decode(payload, type=SpooledSession)
    except msgspec.MsgspecError as error:
        raise SpoolDamaged(path, f"another form of session: {error}") from error


def _digest(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=_DIGEST_BYTES).digest()
