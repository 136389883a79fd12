"""When the results of a run that still streams become visible, and how many go together (design.md section 7)."""

from dataclasses import dataclass

MAX_SESSIONS = 2000
"""Of a minute each some 15 MB of Parquet. One transaction books them."""


@dataclass(frozen=True, slots=True)
class PackageRules:
    """The bounds of a package: what has ended is published when so much of it waits, when it has waited so long, and when its run ends."""

    max_sessions: int = MAX_SESSIONS
    max_bytes: int = 128 * 1024 * 1024
    """Of the spool."""
    max_age_ms: int = 60 * 60 * 1000

    def __post_init__(self) -> None:
        if min(self.max_sessions, self.max_bytes, self.max_age_ms) < 1:
            raise ValueError("a package has at least one session, one byte and one millisecond")

    def is_due(self, waiting_bytes: int, age_ms: int) -> bool:
        """Whether so much, of which the oldest may have waited so long, is published now."""
        return waiting_bytes > 0 and (waiting_bytes >= self.max_bytes or age_ms >= self.max_age_ms)
