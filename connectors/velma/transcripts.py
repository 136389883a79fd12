"""Transcripts of sessions as files: what a person reads, or replays, to find out why a session failed."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from moderation.transcript import Entry, to_line

logger = logging.getLogger("soundcheck.velma")


@contextmanager
def written(folder: Path, name: str) -> Iterator[Callable[[Entry], None]]:
    """What takes the entries of one session into `<folder>/<name>.jsonl`, for as long as the block runs.

    A disk that refuses ends the transcript, with a warning, and never the session.
    """
    transcript = _Transcript(folder / f"{name}.jsonl")
    try:
        yield transcript.take
    finally:
        transcript.close()


class _Transcript:
    """A file of JSON lines that is opened with its first entry and given up at the first refusal."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._given_up = False

    def take(self, entry: Entry) -> None:
        if self._given_up:
            return
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open("wb")
            self._file.write(to_line(entry))
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        if self._file is None:
            return
        try:
            self._file.close()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        logger.warning("no transcript %s: %s", self._path, error.strerror)
        self._given_up = True
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None
