"""A folder of this machine as a source."""

import asyncio
import os
import stat
from collections.abc import AsyncGenerator, Iterator
from itertools import islice
from pathlib import Path

from connectors.catalogue.source import Outline, Page
from connectors.files import file_object, is_inside, key_of
from moderation.catalogue import AudioObject
from moderation.errors import AccessDeniedError, ConfigurationError
from moderation.selection import LeftOut

PAGE_FILES = 1000
_Shown = tuple[str, AudioObject | LeftOut]


class FolderListing:
    """The files below a folder in the order of their keys, hidden ones too.

    A link to a file below the same folder is one more object; links that lead out of it, and links to folders, are left out: what such
    a folder holds is listed where it lies. Raises ConfigurationError where there is no folder, AccessDeniedError for what may not be read.
    """

    def __init__(self, folder: Path) -> None:
        self._root = folder.resolve()

    def __str__(self) -> str:
        return str(self._root)

    async def outline(self) -> Outline:
        """The whole folder as one piece."""
        if not self._root.is_dir():
            raise ConfigurationError(f"there is no folder {self._root}: correct the path")
        return Outline((str(self._root),))

    async def pages(self, piece: str, cursor: str | None = None) -> AsyncGenerator[Page, None]:
        """The files, 1,000 a page."""
        shown = _below(Path(piece), os.fsencode(piece), "", cursor or "")
        while batch := await asyncio.to_thread(lambda: list(islice(shown, PAGE_FILES))):
            items = [found for _, found in batch if isinstance(found, AudioObject)]
            yield Page(items, batch[-1][0], [(key, found) for key, found in batch if isinstance(found, LeftOut)])
        yield Page([], None)


def _below(root: Path, folder: bytes, prefix: str, after: str) -> Iterator[_Shown]:
    """Everything below a folder whose key comes after one, in order: a folder stands where its name with a slash does."""
    try:
        with os.scandir(folder) as entries:
            children = sorted((prefix + key_of(entry.name) + "/" * entry.is_dir(follow_symlinks=False), entry) for entry in entries)
    except PermissionError as error:
        raise AccessDeniedError(f"the folder {os.fsdecode(folder)!r} may not be read: allow it to this user") from error
    except (FileNotFoundError, NotADirectoryError):
        return  # deleted meanwhile, as a file may be
    except OSError as error:
        raise ConfigurationError(f"the folder {os.fsdecode(folder)!r} cannot be listed: {error.strerror}") from error
    for key, entry in children:
        if key.endswith("/"):
            if key > after or after.startswith(key):
                yield from _below(root, entry.path, key, after)
        elif key > after and (found := _found(root, key, entry)) is not None:
            yield key, found


def _found(root: Path, key: str, entry: "os.DirEntry[bytes]") -> AudioObject | LeftOut | None:
    """What an entry that is no folder shows; None for one that is gone meanwhile."""
    if entry.is_symlink() and (entry.is_dir() or not is_inside(root, entry.path)):
        return LeftOut.LINK
    try:
        facts = entry.stat()
    except OSError:  # a link that leads nowhere, or a file that is gone
        return LeftOut.LINK if entry.is_symlink() else None
    return file_object(root, key, facts) if stat.S_ISREG(facts.st_mode) else LeftOut.NO_FILE
