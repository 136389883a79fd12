"""Where to cut a bucket's keys into ranges that can be listed side by side, found by looking at few pages of its list."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

DELIMITER = "/"
LAST = "\U0010fffd"
"""The last character of Unicode that is one: prefix + LAST is behind everything that people put below a prefix."""
PROBES = 400
"""Pages that may be looked at: what an hour of listing is worth, and less than a second of it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look shows, in order: keys and folders mixed; whether there is more behind them."""

    names: Sequence[str]
    folders: Sequence[str]
    more: bool


Look = Callable[[str, str, str, int], Awaitable[Seen]]
"""Looks below a prefix, behind a key, with a delimiter or none, at so many names at most."""


async def split_points(look: Look, prefix: str, wanted: int) -> list[str]:
    """At most wanted - 1 texts, ascending, that cut the keys below a prefix: similar ranges, as far as folders and first letters tell.

    None where one page holds all keys. Where a cut lies matters only for speed: any text is a cut.
    """
    if wanted <= 1 or not (await look(prefix, "", "", _PAGE)).more:
        return []
    probing = _Probing(look)
    points: set[str] = set()
    level = [prefix]
    while level and len(points) < wanted - 1:
        branches = await asyncio.gather(*(probing.branches(branch) for branch in level))
        level = sorted({branch for found in branches for branch in found} - points)
        points.update(level)
    return _thinned(sorted(points), wanted - 1)


_PAGE = 1000


class _Probing:
    def __init__(self, look: Look) -> None:
        self._look = look
        self._left = PROBES

    async def branches(self, prefix: str) -> list[str]:
        """What the keys below a prefix begin with: its folders, or the next letters where there are no folders or too many to see."""
        seen = await self._at(prefix, "", DELIMITER, _PAGE)
        if not seen.more:
            return list(seen.folders)
        names = list(seen.names)
        while found := (await self._at(prefix, names[-1][: _shared(names) + 1] + LAST, "", 1)).names:
            names += found
        shared = _shared(names)
        return sorted({name[: shared + 1] for name in names})

    async def _at(self, prefix: str, after: str, delimiter: str, names: int) -> Seen:
        if self._left == 0:
            return Seen((), (), more=False)
        self._left -= 1
        return await self._look(prefix, after, delimiter, names)


def _shared(names: Sequence[str]) -> int:
    """How many characters names in order all begin with: as many as the first and the last do."""
    first, last = names[0], names[-1]
    return next((place for place, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), min(len(first), len(last)))


def _thinned(points: Sequence[str], wanted: int) -> list[str]:
    """So many of the points, evenly."""
    if len(points) <= wanted:
        return list(points)
    return [points[number * len(points) // wanted] for number in range(wanted)]
