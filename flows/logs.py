"""The log of soundcheck: a file in the state folder, for the morning after. The terminal shows progress, not logs."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path

from moderation.errors import ResultsNotWritable
from moderation.printable import printable

FILE_NAME = "soundcheck.log"
FILE_BYTES = 20 * 1024 * 1024
FILES = 5
FORMAT = "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"


class _OneLine(logging.Formatter):
    """Messages on one line each, whatever a key or a service says: nobody writes lines of ours."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = printable(record.message)
        return super().formatMessage(record)


@contextmanager
def logging_to(folder: Path, level: str) -> Iterator[Path]:
    """Write what every library logs at `level` and above to a file in the folder while the block runs, and give the file's path."""
    path = folder / FILE_NAME
    try:
        handler = RotatingFileHandler(path, maxBytes=FILE_BYTES, backupCount=FILES, encoding="utf-8")
    except OSError as error:
        raise ResultsNotWritable(f"the log {path} cannot be written ({error.strerror}): mend that, or set state_dir") from error
    handler.setFormatter(_OneLine(FORMAT))
    if level != "DEBUG":  # it has a line for every look into Prefect
        handler.addFilter(lambda record: record.name != "httpx" or record.levelno > logging.INFO)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(level)
    try:
        yield path
    finally:
        root.setLevel(before)
        root.removeHandler(handler)
        handler.close()
