"""Shards that are submitted to whoever runs them: what is known of one, and the questions that are asked."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from moderation.outcomes import StopCause


class ShardState(StrEnum):
    """Where a submitted shard is, by whoever runs it."""

    WAITING = "waiting"
    """No worker has it yet."""
    TAKEN = "taken"
    """A worker has it, and has not begun."""
    RUNNING = "running"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a submitted shard: where it is, what it said, and the stop that it ended with, if it did."""

    state: ShardState
    message: str = ""
    stop: StopCause | None = None


UNSEEN = Seen(ShardState.WAITING)
"""Nobody has it yet."""


class ShardRuns(Protocol):
    """Who runs shards: in a deployment of Prefect, or in a test."""

    async def submit(self, run_id: str, shard: int, number: int) -> str:
        """Submit a shard for the number-th time and return an id. Repeatable: the same numbers are the same submission."""

    async def look(self, ids: Collection[str]) -> Mapping[str, Seen]:
        """What is known of these; without those of which nothing is."""

    async def end(self, ids: Collection[str], *, lost: bool) -> None:
        """Let these end: drain them, or write them off where their worker is lost."""
