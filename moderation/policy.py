"""A policy: ordered rules that make a decision of what is known about an object, and what holds such a decision back.

The first rule whose condition is true counts; a condition without an answer (null) is not true. Whatever a rule says, an object is left to
a person where its evidence cannot be trusted, and nothing is allowed that no rule allows.
"""

import hashlib
import re
from enum import StrEnum

import msgspec

from moderation.endpoints import ENDPOINTS

NO_RULE = "no_rule"
"""Stands for the id of a rule where none holds: then a person decides."""
_WORD = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}", re.ASCII)
_COLUMN = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)
_PERCENT = 100.0
_LARGEST = 1_000_000_000
"""Of what a policy counts or ranks by: anything beyond is a slip, and might not fit where it is stored."""


class Decision(StrEnum):
    """What is to become of an object."""

    ALLOW = "allow"
    REVIEW = "review"
    BLOCK = "block"


class Answer(StrEnum):
    """What a person says of an object."""

    ALLOW = "allow"
    BLOCK = "block"
    UNSURE = "unsure"
    """It is on record, and decides nothing."""


class HeldBack(StrEnum):
    """Why an object is left to a person whatever its rule says. The first that applies counts."""

    QUARANTINED = "quarantined"
    """An endpoint has no result of it, and will have none: it is quarantined there."""
    INSUFFICIENT_EVIDENCE = "insufficient_evidence"
    """A result of it has no item."""
    QUALITY_FLAGS = "quality_flags"
    """A result of it is flagged."""
    UNKNOWN_LABEL = "unknown_label"
    """A label of it is none that says what it is."""
    TOO_LITTLE_AUDIO = "too_little_audio"
    """Its results cover less audio than its rule asks for."""
    HOLD_OUT = "hold_out"
    """It would be allowed, and is one of those that are looked at all the same: the measure of what slips through."""

    @property
    def words(self) -> str:
        """The same for people."""
        return _WORDS[self]


_WORDS = {
    HeldBack.QUARANTINED: "it is quarantined at an endpoint",
    HeldBack.INSUFFICIENT_EVIDENCE: "a result has nothing to judge by",
    HeldBack.QUALITY_FLAGS: "a result has quality flags",
    HeldBack.UNKNOWN_LABEL: "a label is unknown",
    HeldBack.TOO_LITTLE_AUDIO: "there is less audio than the rule asks for",
    HeldBack.HOLD_OUT: "held out of what is allowed, as a sample",
}


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One rule of a policy. Raises ValueError for what makes no sense.

    when is a condition in DuckDB's SQL over the columns of the view evidence_latest. priority ranks what is reviewed, the highest first.
    min_evidence is the audio in seconds that every result must cover. evidence is the kind of sound whose longest segment is shown to a
    person. hold_out is the percentage of what it allows that is reviewed all the same; None is that of the policy.
    """

    id: str
    when: str
    decide: Decision
    reason: str
    priority: int = 0
    min_evidence: float = 0.0
    evidence: str | None = None
    hold_out: float | None = None

    def __post_init__(self) -> None:
        if not _WORD.fullmatch(self.id) or self.id == NO_RULE:
            raise ValueError(f"id takes small letters, digits and -_., and not {NO_RULE!r}: {self.id!r}")
        if not self.when.strip():
            raise ValueError("when is empty: a rule for everything says true")
        if not self.reason.strip():
            raise ValueError("reason is empty: whoever meets the decision reads it")
        if not self.min_evidence >= 0:
            raise ValueError("min_evidence is negative: it is seconds of audio")
        if self.min_evidence > _LARGEST:
            raise ValueError(f"min_evidence is too large: it is seconds of audio, {_LARGEST:,} at most")
        if abs(self.priority) > _LARGEST:
            raise ValueError(f"priority is out of range: it is -{_LARGEST:,} to {_LARGEST:,}")
        if self.evidence is not None and self.evidence not in sounds():
            raise ValueError(f"evidence is one of {', '.join(sounds())}, not {self.evidence!r}")
        if self.hold_out is not None and self.decide is not Decision.ALLOW:
            raise ValueError("hold_out is for rules that allow: it is the share of that which is reviewed")
        _check_percent(self.hold_out)

    @property
    def min_evidence_ms(self) -> int:
        """min_evidence in milliseconds of audio."""
        return round(self.min_evidence * 1000)


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A policy as a team writes it. Raises ValueError for what makes no sense.

    key_pattern is a regular expression (RE2) over the key, each named group of which is a column for conditions: null where it does not
    match. hold_out is the percentage of what is allowed that is reviewed all the same.
    """

    name: str
    rules: tuple[Rule, ...]
    key_pattern: str | None = None
    hold_out: float = 0.0

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("name is empty")
        if not self.rules:
            raise ValueError("rules are missing: without any everything is reviewed")
        _check_percent(self.hold_out)
        if self.key_pattern is not None and not self.key_columns:
            raise ValueError("key_pattern has no named group such as (?P<label>[^/]+): it would give no column")
        if wrong := [name for name in self.key_columns if not _COLUMN.fullmatch(name)]:
            raise ValueError(f"key_pattern has groups that are no names of columns (small letters, digits and _): {', '.join(wrong)}")

    @property
    def key_columns(self) -> dict[str, int]:
        """The names of the groups of key_pattern, and their numbers. Raises ValueError where it is no pattern."""
        if self.key_pattern is None:
            return {}
        try:
            return dict(re.compile(self.key_pattern).groupindex)
        except re.error as error:
            raise ValueError(f"key_pattern is no regular expression: {error}") from error

    @property
    def policy_hash(self) -> str:
        """The identity of what it means, however it is written down: 16 hex digits. What is left out is as if its default were there."""
        return hashlib.blake2b(msgspec.json.encode(self), digest_size=8).hexdigest()

    def held_out(self, rule: Rule) -> float:
        """The share, 0 to 1, of what a rule allows that is reviewed all the same."""
        return (self.hold_out if rule.hold_out is None else rule.hold_out) / _PERCENT if rule.decide is Decision.ALLOW else 0.0


def sounds() -> tuple[str, ...]:
    """The kinds of sound that segments tell of, over all endpoints."""
    return tuple(sound for endpoint in ENDPOINTS.values() for sound in endpoint.sounds)


def _check_percent(percent: float | None) -> None:
    if percent is not None and not 0 <= percent <= _PERCENT:
        raise ValueError("hold_out is a percentage, 0 to 100")
