"""What planned audio will take: time by a measured speed, money by a price, both with the error of the estimates that they come from."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """What one endpoint is to stream: milliseconds in all, and of its longest object.

    speed is the audio that one session has streamed in its own time in earlier runs, as a multiple; connections how many run at once.
    """

    ms: int
    longest_ms: int
    speed: float
    connections: int

    @property
    def wall_s(self) -> float:
        """Seconds by itself: all connections full, or what the longest object takes."""
        return max(self.ms / self.connections, self.longest_ms) / 1000 / self.speed


def eta_s(loads: Iterable[Load], total_connections: int | None = None) -> float:
    """Seconds for endpoints beside each other, with so many connections over all of them (None: as many as each has)."""
    found = list(loads)
    beside = max((load.wall_s for load in found), default=0.0)
    if total_connections is None:
        return beside
    return max(beside, sum(load.ms / load.speed for load in found) / 1000 / total_connections)
