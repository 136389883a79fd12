"""The script of a server's faults: which session gets which, now and from now on. It may change while the server runs, from any thread."""

from collections import deque
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from connectors.local_velma.faults import Fault, parse_faults
from moderation.endpoints import ENDPOINTS
from moderation.errors import ConfigurationError

EVERY = "*"
"""Stands for all endpoints."""


class Scene(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A script as it is written: specs of faults, "" for none.

    next is for the sessions to come, in order. After them each has what stands for its endpoint (by its name, else `*`), and what
    chance deals it from the mix: the probability of each spec. Raises ConfigurationError for an unknown fault or endpoint, and for
    probabilities that are none.
    """

    next: tuple[str, ...] = ()
    standing: dict[str, str] = {}
    mix: dict[str, float] = {}
    seed: int = 0

    def __post_init__(self) -> None:
        for specs in (*self.next, *self.standing.values(), *self.mix):
            parse_faults(specs)
        if unknown := self.standing.keys() - ENDPOINTS.keys() - {EVERY}:
            raise ConfigurationError(f"{min(unknown)!r} is no endpoint: known are {', '.join((*ENDPOINTS, EVERY))}")
        if not all(chance >= 0 for chance in self.mix.values()) or sum(self.mix.values()) > 1 + 1e-9:
            raise ConfigurationError("the probabilities of a mix are 0 or more each, and 1 at most together")

    @classmethod
    def of(cls, written: Any) -> "Scene":
        """A script from JSON's own types. Raises ConfigurationError."""
        try:
            return msgspec.convert(written, cls)
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"this is no script of faults: {error}") from error


def chosen(mix: Mapping[str, float], seed: int, session: int) -> str:
    """The spec that a mix has for a session (by its number), "" where chance spares it: the same for the same arguments, always."""
    drawn = int.from_bytes(blake2b(f"{seed}/{session}".encode(), digest_size=8).digest()) / 2**64
    for specs, chance in mix.items():
        if drawn < chance:
            return specs
        drawn -= chance
    return ""


class FaultScript:
    """Who gets which faults. `play` begins another script at once; each session asks once, with `take`."""

    def __init__(self, scene: Scene | None = None) -> None:
        self.play(scene or Scene())

    def play(self, scene: Scene) -> None:
        """Follow this script from now on, and forget the one before."""
        self._next = deque(scene.next)
        self._scene = scene

    def queue(self, *specs: str) -> None:
        """Let the next sessions that nothing is queued for yet have these, one each. Raises ConfigurationError."""
        self._next.extend(Scene(next=specs).next)

    def take(self, endpoint: str, session: int) -> tuple[Fault, ...]:
        """The faults of a session that begins now."""
        if self._next:
            return parse_faults(self._next.popleft())
        scene = self._scene
        standing = scene.standing.get(endpoint, scene.standing.get(EVERY, ""))
        return parse_faults(standing) + parse_faults(chosen(scene.mix, scene.seed, session))

    @property
    def scene(self) -> Scene:
        """What is left of the script."""
        return msgspec.structs.replace(self._scene, next=tuple(self._next))
