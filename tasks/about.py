"""What work is about: run, shard, object and session, where they are known. Lines of the log say it, and nobody hands it on for that."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

_ABOUT: ContextVar[Mapping[str, str | int]] = ContextVar("about", default=MappingProxyType({}))


@contextmanager
def about(**ids: str | int) -> Iterator[None]:
    """What the block does, and every task and thread of asyncio's that begins in it, is about these, besides what it is about already."""
    token = _ABOUT.set({**_ABOUT.get(), **ids})
    try:
        yield
    finally:
        _ABOUT.reset(token)


def known() -> Mapping[str, str | int]:
    """The ids of what is done here, by name."""
    return _ABOUT.get()
