"""Files of a folder as audio objects: what their keys are, and what tells that one was changed.

A key is the path below the folder with `/` between its parts. A name need not be text: bytes that are no UTF-8 stand in a key as
characters of Unicode's last private area, one a byte, so that every name has one key and every key one name.
"""

import os
import re
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

from moderation.catalogue import AudioObject
from moderation.errors import AccessDeniedError, SourceError, SourceGone

_PRIVATE = 0x10FF00
_ESCAPED = re.compile(f"[{chr(_PRIVATE)}-{chr(_PRIVATE + 0xFF)}]")
_UNREADABLE = re.compile("[\udc80-\udcff]")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def key_of(name: bytes) -> str:
    """The key, or its part, for a name as the file system has it."""
    text = _ESCAPED.sub(lambda found: "".join(chr(_PRIVATE + byte) for byte in found[0].encode()), name.decode("utf-8", "surrogateescape"))
    return _UNREADABLE.sub(lambda found: chr(_PRIVATE + found[0].encode("utf-8", "surrogateescape")[0]), text)


def name_of(key: str) -> bytes:
    """The name for a key: the opposite of `key_of`."""
    parts = _ESCAPED.split(key)
    escaped = [ord(found) - _PRIVATE for found in _ESCAPED.findall(key)]
    name = parts[0].encode("utf-8", "surrogatepass")
    for byte, part in zip(escaped, parts[1:], strict=True):
        name += bytes([byte]) + part.encode("utf-8", "surrogatepass")
    return name


def etag_of(facts: os.stat_result) -> str:
    """What tells that a file was changed: its size and its time of change to the nanosecond, as hex digits.

    Hashing contents would read a whole catalogue at each scan. The inode is no part of it: restored or copied with its times, or on a
    network file system, a file has another one, and would be paid for again.
    """
    return f"{facts.st_size:x}-{facts.st_mtime_ns & (2**64 - 1):x}"


def file_object(root: Path, key: str, facts: os.stat_result) -> AudioObject:
    """A file as an audio object; the folder's absolute path is its bucket."""
    try:
        changed = _EPOCH + timedelta(microseconds=facts.st_mtime_ns // 1000)
    except OverflowError:
        changed = datetime.max.replace(tzinfo=UTC)
    return AudioObject(str(root), key, etag_of(facts), facts.st_size, changed)


def is_inside(root: Path, path: bytes) -> bool:
    """Whether a path, its links followed, lies below a folder that is itself resolved."""
    return os.path.realpath(path).startswith(os.fsencode(root).rstrip(b"/") + b"/")


def path_of(root: Path, key: str) -> bytes:
    """The path of a key. Raises SourceGone for a key that no listing of the folder shows: keys are never walked up or out."""
    name = name_of(key)
    path = os.fsencode(root) + b"/" + name
    odd = key_of(name) != key or b"\0" in name or any(part in {b"", b".", b".."} for part in name.split(b"/"))
    if odd or not is_inside(root, path):
        raise SourceGone(f"there is no {key!r} in {root}")
    return path


def open_file(root: Path, key: str) -> int:
    """A descriptor of a regular file, for reading. Raises SourceGone, AccessDeniedError or SourceError."""
    path = path_of(root, key)
    try:
        # a pipe must not be waited for
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceGone(f"there is no {key!r} in {root} (any more)") from error
    except PermissionError as error:
        raise AccessDeniedError(f"{key!r} in {root} may not be read: allow it to this user") from error
    except OSError as error:
        raise SourceError(f"{key!r} in {root} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SourceGone(f"{key!r} in {root} is no file")
    return descriptor
