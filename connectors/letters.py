"""Letters: events on their way to somebody, on local disk from before they are sent until they have arrived; and the dead ones.

What a process leaves behind when it dies, and what nobody took, stays until it is sent again: nothing is told less than once.
"""

import logging
from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from connectors.durable import replacing
from moderation.errors import SoundcheckError

_DEAD = "dead"
logger = logging.getLogger("soundcheck.notices")


class Letter(msgspec.Struct, frozen=True):
    """An event for one receiver: to is its name in the settings, never its address. why says what went wrong last."""

    event_id: str
    to: str
    org: str
    body: str
    text: str
    written_at: datetime
    why: str = ""

    @property
    def file_name(self) -> str:
        """The name of its file: one for each event and receiver."""
        return f"{self.event_id}-{self.to}.json"


class Letters:
    """A folder of letters. A disk that does not take one is a line in the log: it is sent all the same."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, letter: Letter) -> None:
        """Keep a letter until it has arrived."""
        self._write(self._folder / letter.file_name, letter)

    def arrived(self, letter: Letter) -> None:
        """Forget a letter that has been taken."""
        for file in self._files_of(letter):
            _drop(file)

    def take_back(self, letter: Letter) -> None:
        """Forget a letter that is not to be sent; a dead one stays."""
        alive, _ = self._files_of(letter)
        _drop(alive)

    def bury(self, letter: Letter, why: str) -> None:
        """Keep a letter that nobody took among the dead ones."""
        alive, dead = self._files_of(letter)
        self._write(dead, msgspec.structs.replace(letter, why=why))
        if dead.is_file():
            alive.unlink(missing_ok=True)

    def undelivered(self) -> list[Letter]:
        """Every letter that has not arrived, the oldest first: dead ones, and what a process left that did not end well."""
        return sorted(self._read(), key=lambda letter: (letter.written_at, letter.file_name))

    def forget(self, object_ids: Collection[str]) -> None:
        """Take objects out of all letters: what was erased is told to nobody. A letter about nothing else goes."""
        for file in self._files():
            try:
                body = file.read_text(encoding="utf-8", errors="replace")
            except FileNotFoundError:
                continue  # it has arrived meanwhile
            if any(object_id in body for object_id in object_ids):
                self._write_without(file, object_ids)

    def _write_without(self, file: Path, object_ids: Collection[str]) -> None:
        try:
            letter = msgspec.json.decode(file.read_bytes(), type=Letter)
            event = msgspec.json.decode(letter.body)
            rows = [row for row in event["decisions"] if row["object_id"] not in object_ids]
        except (msgspec.MsgspecError, LookupError, TypeError):
            rows = []  # nobody could read it
        if not rows:
            file.unlink(missing_ok=True)
            return
        with replacing(file) as out:
            out.write(msgspec.json.encode(msgspec.structs.replace(letter, body=msgspec.json.encode(event | {"decisions": rows}).decode())))

    def _files_of(self, letter: Letter) -> tuple[Path, Path]:
        return self._folder / letter.file_name, self._folder / _DEAD / letter.file_name

    def _write(self, file: Path, letter: Letter) -> None:
        try:
            with replacing(file) as out:
                out.write(msgspec.json.encode(letter))
        except SoundcheckError as error:
            logger.warning("a notice is not kept until it has arrived: %s", error)

    def _read(self) -> Iterator[Letter]:
        known: dict[str, Letter] = {}
        for file in self._files():
            try:
                known[file.name] = msgspec.json.decode(file.read_bytes(), type=Letter)
            except FileNotFoundError:
                continue  # it has arrived meanwhile
            except (OSError, msgspec.MsgspecError) as error:
                logger.warning("%s is no letter, or cannot be read: %s", file, error)
        yield from known.values()

    def _files(self) -> Iterator[Path]:
        """Those on their way, then the dead ones."""
        for folder in (self._folder, self._folder / _DEAD):
            yield from sorted(folder.glob("[0-9a-f]*.json"))


def _drop(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("%s stays, and is sent once more: %s", file, error.strerror)
