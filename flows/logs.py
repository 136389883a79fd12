"""The log of soundcheck: a file in the state folder, for the morning after; of what workers of Prefect run, standard error.

The terminal shows progress, not logs.
"""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

from flows.setting_types import LogFormat
from moderation.errors import ResultsNotWritable
from moderation.printable import printable
from tasks.about import known

FILE_NAME = "soundcheck.log"
FILE_BYTES = 20 * 1024 * 1024
FILES = 5
FORMAT = "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"
OURS = "soundcheck"
"""The logger above all of ours."""


class _OneLine(logging.Formatter):
    """Messages on one line each, whatever a key or a service says: nobody writes lines of ours."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = printable(record.message)
        return super().formatMessage(record)


class _Json(logging.Formatter):
    """A JSON object a line: when, how bad, who says what, and what it is about as far as that is known (tasks.about)."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            **known(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _formatter(form: LogFormat) -> logging.Formatter:
    return _Json() if form is LogFormat.JSON else _OneLine(FORMAT)


@contextmanager
def logging_to(folder: Path, level: str, form: LogFormat = LogFormat.TEXT) -> Iterator[Path]:
    """Write what every library logs at `level` and above to a file in the folder while the block runs, and give the file's path."""
    path = folder / FILE_NAME
    try:
        handler = RotatingFileHandler(path, maxBytes=FILE_BYTES, backupCount=FILES, encoding="utf-8")
    except OSError as error:
        raise ResultsNotWritable(f"the log {path} cannot be written ({error.strerror}): mend that, or set state_dir") from error
    if level != "DEBUG":  # it has a line for every look into Prefect
        handler.addFilter(lambda record: record.name != "httpx" or record.levelno > logging.INFO)
    with _handled(logging.getLogger(), handler, level, form):
        yield path


@contextmanager
def logging_to_stderr(level: str, form: LogFormat) -> Iterator[None]:
    """Write what soundcheck itself logs to standard error while the block runs, where a worker's or a container's log is made of it."""
    ours = logging.getLogger(OURS)
    propagated, ours.propagate = ours.propagate, False  # Prefect's own handler would say it again
    try:
        with _handled(ours, logging.StreamHandler(sys.stderr), level, form):
            yield
    finally:
        ours.propagate = propagated


@contextmanager
def _handled(logger: logging.Logger, handler: logging.Handler, level: str, form: LogFormat) -> Iterator[None]:
    handler.setFormatter(_formatter(form))
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)
        handler.close()
