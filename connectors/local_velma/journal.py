"""The journal of the local server: one JSON line for everything that it saw, the judge of tests about money and limits."""

import itertools
import json
from collections import Counter, deque
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from connectors.local_velma.switches import REFERENCE

REMEMBERED_LINES = 10_000
"""Some 3 MB: what can be read back without a file."""


class Journal:
    """What the server saw, as JSON lines in a file (none without one), the latest of them also in memory. It never holds a key.

    Events are connect, first_audio, fault, refused, done and close, and peak where an endpoint has more connections at once than ever.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._file = path.open("a", encoding="utf-8") if path else None
        self._positions = itertools.count(1)
        self._latest: deque[tuple[int, str]] = deque(maxlen=REMEMBERED_LINES)
        self.detector = REFERENCE
        """What every line says of the findings in it."""
        self.counts: Counter[str] = Counter()
        """Of the events of sessions, by their name."""
        self.peak: Counter[str] = Counter()
        """The most connections at once, by endpoint."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file:
            self._file.close()

    def note(self, event: str, session: int, endpoint: str, **facts: Any) -> None:
        """Write one event of a session (numbered from 1 since the start)."""
        self.counts[event] += 1
        self._write(event, session=session, endpoint=endpoint, **facts)

    def live(self, endpoint: str, connections: int) -> None:
        """Remember the most connections at once, and write a line when there were never so many."""
        if connections > self.peak[endpoint]:
            self.peak[endpoint] = connections
            self._write("peak", endpoint=endpoint, connections=connections)

    def since(self, position: int) -> Iterator[str]:
        """The lines after this position that are remembered, without their ends; a line's own `position` tells whether some are missing."""
        return (line for at, line in list(self._latest) if at > position)

    def _write(self, event: str, **facts: Any) -> None:
        position = next(self._positions)
        seen = {"position": position, "at": datetime.now(UTC).isoformat(), "event": event, **facts, "detector": self.detector}
        line = json.dumps(seen)
        self._latest.append((position, line))
        if self._file:
            self._file.write(line + "\n")
            self._file.flush()
