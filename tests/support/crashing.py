"""Something that happens at the nth call of a store, a ledger or a spool: the process dies, or somebody else comes in between."""

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

PUBLISHING = {
    "store": frozenset({"put", "get", "list", "reading", "exists", "delete"}),
    "ledger": frozenset(
        {"assign_package", "unpublished", "runs_with_unpackaged", "mark_published", "session", "expired", "recover", "confirmed", "give_up"}
    ),
    "spool": frozenset({"put", "get", "ids", "remove", "set_aside"}),
}
"""The calls that publishing makes, by whom it makes them to."""

CHANGING = frozenset({"store.put", "store.delete"})
"""Calls after which a reader may see something else, unless they are about what an underscore hides."""


class Crash(Exception):
    """A process that dies."""


def die() -> None:
    """Let the process die."""
    raise Crash


@dataclass
class Calls:
    """The calls of a publisher. happens comes before the one of number `at`, or after its effect; watch looks after every change."""

    at: int = 0
    after: bool = False
    happens: Callable[[], None] = die
    watch: Callable[[], None] = lambda: None
    made: list[str] = field(default_factory=list)

    def of(self, kind: str, thing: Any) -> Any:
        """The same thing, whose calls count."""
        return _Counted(self, kind, thing)

    def begins(self, name: str, subject: object = None) -> Callable[[], None]:
        """Note a call about something; what to do after it."""
        self.made.append(name)
        due = len(self.made) == self.at
        if due and not self.after:
            self.happens()

        def ends() -> None:
            if name in CHANGING and not str(subject).startswith("_"):
                self.watch()
            if due and self.after:
                self.happens()

        return ends


class _Counted:
    def __init__(self, calls: Calls, kind: str, thing: Any) -> None:
        self._calls, self._kind, self._thing = calls, kind, thing

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._thing, name)
        if name not in PUBLISHING[self._kind]:
            return found
        if inspect.iscoroutinefunction(found):
            return self._awaited(found, name)
        if (self._kind, name) == ("spool", "remove"):
            return self._each(found)
        return self._called(found, name)

    def _awaited(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        async def counted(*args: Any, **named: Any) -> Any:
            ends = await asyncio.to_thread(self._calls.begins, f"{self._kind}.{name}")
            answer = await call(*args, **named)
            await asyncio.to_thread(ends)
            return answer

        return counted

    def _called(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        def counted(*args: Any, **named: Any) -> Any:
            ends = self._calls.begins(f"{self._kind}.{name}", *args[:1])
            answer = call(*args, **named)
            if inspect.isgenerator(answer):  # it would do nothing until somebody looks
                answer = iter(list(answer))
            ends()
            return answer

        return counted

    def _each(self, remove: Callable[..., Any]) -> Callable[..., Any]:
        """A folder's entries go one by one, and a crash can come between them."""

        def counted(names: Any) -> None:
            for name in names:
                self._called(remove, "remove")([name])

        return counted
