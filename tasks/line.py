"""The line at an endpoint: which of the sessions of this process asks the ledger next, so that a hundred that wait are one that asks."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from moderation.admission import Claim


class Line:
    """The sessions of this process that wait for a slot at one endpoint: the first of them asks, the others wait for the line to move.

    In order of arrival; the shortest is first while a breaker is open, since it is the one to probe with (rules.md), and while a cap
    does not hold another: it may still hold that one.
    """

    def __init__(self) -> None:
        self._waiting: list[Claim] = []
        self._shortest_first = False
        self._moved = asyncio.Event()

    @contextmanager
    def place(self, claim: Claim) -> Iterator[None]:
        """Stand in line."""
        self._waiting.append(claim)
        try:
            yield
        finally:
            self._waiting.remove(claim)
            self.move()

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits."""
        return not self._waiting

    def is_first(self, claim: Claim) -> bool:
        """Whether this one asks."""
        first = min(self._waiting, key=lambda waiting: waiting.estimate_ms) if self._shortest_first else self._waiting[0]
        return first is claim

    def prefer_shortest(self, shortest_first: bool) -> None:  # noqa: FBT001 - it is the fact itself
        """Note whether the shortest goes first."""
        if shortest_first != self._shortest_first:
            self._shortest_first = shortest_first
            self.move()

    def move(self) -> None:
        """Let everybody look again: somebody left, or a slot has become free."""
        self._moved.set()
        self._moved = asyncio.Event()

    @property
    def moved(self) -> asyncio.Event:
        """Set when the line moves next."""
        return self._moved
