"""The journal of the local server: one JSON line for everything that it saw, the judge of tests about money and limits."""

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Journal:
    """What the server saw, as JSON lines in a file (none without one), and counts of the same since the start. It never holds a key."""

    def __init__(self, path: Path | None = None) -> None:
        self._file = path.open("a", encoding="utf-8") if path else None
        self.counts: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file:
            self._file.close()

    def note(self, event: str, session: int, endpoint: str, **facts: Any) -> None:
        """Write one event of a session (numbered from 1 since the start)."""
        self.counts[event] += 1
        if self._file:
            line = {"at": datetime.now(UTC).isoformat(), "event": event, "session": session, "endpoint": endpoint, **facts}
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def live(self, endpoint: str, connections: int) -> None:
        """Remember the most connections at once."""
        self.peak[endpoint] = max(self.peak[endpoint], connections)
