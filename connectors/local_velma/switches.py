"""The switches of the local server: what the published pages leave open, all off by default (service.md, 'Decisions').

They hold for sessions that begin after they were set.
"""

from collections.abc import Mapping
from enum import StrEnum
from fnmatch import fnmatchcase
from hashlib import blake2b
from typing import Annotated, Any

import msgspec

REFERENCE = "reference detector, not Modulate's model"
SCRIPTED = f"scripted AI verdicts and {REFERENCE}"
"""What every response, line and page says of the findings."""
HEAD_BYTES = 4096
"""What an object is known by on a wire that carries no names."""
MIN_SPEED = 0.1
"""Times real time. Slower, a window would take as long as a child of the media host may be silent."""


class Verdict(StrEnum):
    """The three values of `primary_verdict` (seed page)."""

    AI_VOCAL_MUSIC = "ai-vocal-music"
    AI_INSTRUMENTAL = "ai-instrumental"
    NOT_AI_MUSIC = "not-ai-music"


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The verdict on objects whose name matches a glob (`*`, `?`, `[...]`; a slash is a letter like others)."""

    pattern: str
    verdict: Verdict


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Chosen AI verdicts, for tests and demonstrations: with a script, the query parameter `scripted_verdict` is honoured, then the rules.

    The first rule that matches wins. digests says which name an object has: `digest_of` its first bytes, by name.
    """

    rules: tuple[Rule, ...] = ()
    digests: dict[str, str] = {}

    def verdicts(self) -> dict[str, Verdict]:
        """The verdicts that the rules give, by the digests of the objects."""
        matches = {name: next((rule.verdict for rule in self.rules if fnmatchcase(name, rule.pattern)), None) for name in self.digests}
        return {self.digests[name]: verdict for name, verdict in matches.items() if verdict is not None}


class Switches(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How this server is where nobody knows how the service is."""

    short_windows: bool = False
    """Send a last window of less than 4 s (decision 20)."""
    newer_windows: bool = False
    """Send windows in the newer shape, with probabilities that may be null."""
    source_duration: bool = False
    """Let `duration_ms` of the music endpoint be that of the source, not that of its frames (decision 19)."""
    ignore_container_rate: bool = False
    """Ignore sample_rate and num_channels with a container, instead of refusing them (decision 16)."""
    max_session_hours: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Audio-hours from which an object cannot be processed (decision 27)."""
    speed: Annotated[float, msgspec.Meta(ge=MIN_SPEED)] | None = None
    """Analyse at most so many times as fast as real time (decision 26b), and so take audio only that fast."""
    threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5
    """The probability from which a frame counts as music or speech (decision 23)."""
    script: Script | None = None

    @property
    def detector(self) -> str:
        """Whose findings a server with these switches sends."""
        return SCRIPTED if self.script is not None else REFERENCE

    def changed(self, changes: Mapping[str, Any]) -> "Switches":
        """These switches but for the changes, which may be JSON's own types. Raises msgspec.ValidationError, with the reason."""
        return msgspec.convert(msgspec.to_builtins(self) | dict(changes), Switches)

    def asked_verdict(self, query: Mapping[str, str]) -> str | None:
        """The verdict that a connection URL asks for, as it is written there; None without a script."""
        return query.get("scripted_verdict") if self.script is not None else None

    def options(self) -> dict[str, Any]:
        """What the analysis of a session is told."""
        return {
            "short_windows": self.short_windows,
            "newer_windows": self.newer_windows,
            "source_duration": self.source_duration,
            "max_session_hours": self.max_session_hours,
            "speed": self.speed,
            "threshold": self.threshold,
            "verdicts": self.script.verdicts() if self.script is not None else {},
        }


NO_SWITCHES = Switches()


def digest_of(head: bytes) -> str:
    """What an object is known by in a script: the digest of its first HEAD_BYTES, or of all of it when it is shorter."""
    return blake2b(head[:HEAD_BYTES], digest_size=16).hexdigest()
