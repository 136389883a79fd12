"""A file system of its own that is small enough to be filled."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """A tmpfs at this folder for as long as the block runs. Raises LookupError where nothing can be mounted."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)]
    try:
        subprocess.run(["mount", *options], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise LookupError("no file system can be mounted here") from error
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


def fill(ballast: Path, free_bytes: int) -> None:
    """Let a file grow until its disk has no more than so much left."""
    with ballast.open("ab", buffering=0) as file:
        while (room := shutil.disk_usage(ballast.parent).free) > free_bytes:
            file.write(b"\0" * min(1024 * 1024, room - free_bytes))
