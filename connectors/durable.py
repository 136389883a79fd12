"""Files that are there whole or not at all, and stay there: temporary file, fsync, rename, fsync of the folder."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from moderation.errors import ResultsNotWritable

TEMPORARY_PREFIX = "."
"""What an unfinished file's name begins with: query engines pass it over, and so do our listings."""
_WRITE_FAULTS = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.EEXIST,
        errno.EFBIG,
        errno.EIO,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOSPC,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)
"""What a disk says; other OSErrors (a lost connection is one) belong to whoever fills the file."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes its place at `path` when the block ends well, and vanishes when it does not.

    Missing folders are made. Raises ResultsNotWritable, naming the folder.
    """
    unfinished = path.with_name(f"{TEMPORARY_PREFIX}{path.name}.{secrets.token_hex(8)}.tmp")
    with writing_to(path.parent):
        make_folder(path.parent)
        try:
            with unfinished.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, each durably."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable: a renamed or deleted name is otherwise only in memory."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Turn what the disk says inside the block into ResultsNotWritable with one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno not in _WRITE_FAULTS:
            raise
        raise ResultsNotWritable(f"Cannot write to {folder}: {error.strerror}.") from error
