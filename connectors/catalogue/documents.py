"""Files that say what is in a catalogue: lists and inventories, on this machine or in S3, fetched whole and known by their MD5."""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from connectors.s3 import S3Caller, S3Uri
from moderation.errors import AccessDeniedError, ConfigurationError, SourceGone

READ_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Document:
    """A file that is open for reading, from its start, and the MD5 of what is in it as hex digits."""

    file: BinaryIO
    md5: str


def is_in_s3(address: str) -> bool:
    """Whether an address is that of S3; everything else is a path or a file URL."""
    return address.startswith("s3://")


def local_path(address: str) -> Path:
    """The path in `file:///path`, or the path itself. Raises ConfigurationError for a URL of another kind or another host."""
    if "://" not in address:
        return Path(address).expanduser()
    parts = urlsplit(address)
    if parts.scheme != "file" or parts.netloc not in {"", "localhost"}:
        raise ConfigurationError(f"{address} is neither an S3 address nor a file of this machine: write s3://..., file:///... or a path")
    return Path(unquote(parts.path))


@asynccontextmanager
async def fetched(caller: S3Caller, address: str) -> AsyncIterator[Document]:
    """The document at an address, in an unnamed temporary file; whoever writes it meanwhile changes nothing.

    Raises ConfigurationError where there is none, AccessDeniedError or UnreachableError.
    """
    with tempfile.TemporaryFile() as file:
        try:
            if is_in_s3(address):
                uri = S3Uri.parse(address)
                await caller.call(f"reading {address}", lambda: caller.client.download_fileobj(uri.bucket, uri.prefix, file))
            else:
                await asyncio.to_thread(_copy, local_path(address), file)
        except SourceGone as error:
            raise ConfigurationError(f"there is no {address}: correct the address") from error
        yield Document(file, await asyncio.to_thread(_md5, file))


def _copy(path: Path, out: BinaryIO) -> None:
    try:
        with path.open("rb") as file:
            while piece := file.read(READ_BYTES):
                out.write(piece)
    except PermissionError as error:
        raise AccessDeniedError(f"{path} may not be read: allow it to this user") from error
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error


def _md5(file: BinaryIO) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    file.seek(0)
    while piece := file.read(READ_BYTES):
        digest.update(piece)
    file.seek(0)
    return digest.hexdigest()
