"""A policy as text (TOML): what is wrong with it is said with the line that it is in."""

import re
import tomllib
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import msgspec

from moderation.errors import ConfigurationError
from moderation.policy import Decision, Policy

_FAULT = re.compile(r"(?P<what>.+?)(?: - at `\$(?P<path>[^`]*)`)?", re.DOTALL)
_PART = re.compile(r"\.(?P<name>\w+)|\[(?P<number>\d+)\]")
_KEY = re.compile(r".*unknown field `(?P<unknown>\w+)`|(?P<first>\w+)")
_SYNTAX = re.compile(r"(?P<what>.+) \(at (?:line (?P<line>\d+), column \d+|end of document)\)", re.DOTALL)
Path = tuple[str | int, ...]
"""A place in a document: names of tables and keys, numbers of entries."""


class PolicyError(ConfigurationError):
    """A policy that cannot be used; the message says where and why."""


@dataclass(frozen=True, slots=True)
class PolicyText:
    """A policy and the text that it was read from. origin is the name of its file."""

    policy: Policy
    text: str
    origin: str

    def error(self, what: str, path: Path) -> PolicyError:
        """What is wrong with the value at a place."""
        return _error(self.origin, line_of(self.text, path), what)


def parse_policy(text: str, origin: str) -> PolicyText:
    """The policy that a text is. Raises PolicyError that names origin, line and what is wrong."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        said = _SYNTAX.fullmatch(str(error))
        line = int(said["line"] or 0) if said else 0
        raise _error(origin, line or text.rstrip("\n").count("\n") + 1, said["what"] if said else str(error)) from error
    try:
        policy = msgspec.convert(document, Policy)
    except msgspec.ValidationError as error:
        found = _FAULT.fullmatch(str(error))
        assert found is not None, "it matches anything"
        path = _path(found["path"] or "")
        raise _error(origin, line_of(text, _nearest(document, path, found["what"])), _described(document, path, found["what"])) from error
    _check_ids(policy, text, origin)
    return PolicyText(policy, text, origin)


def line_of(text: str, path: Path) -> int:
    """The line, from 1, on which the value at a place of a TOML document begins; 1 where there is none.

    It begins behind the longest part of the document that is whole without it: only a parser knows what is inside of a string.
    """
    lines = text.replace("\r\n", "\n").split("\n")

    def whole(end: int) -> tuple[int, dict[str, Any]]:
        """The greatest number of lines, up to `end`, that are a document, and that document."""
        for last in range(end, 0, -1):
            try:
                return last, tomllib.loads("\n".join(lines[:last]))
            except tomllib.TOMLDecodeError:
                continue
        return 0, {}

    end = bisect_left(range(len(lines) + 1), 1, key=lambda last: _has(whole(last)[1], path))
    return whole(end - 1)[0] + 1 if 0 < end <= len(lines) else 1


def _error(origin: str, line: int, what: str) -> PolicyError:
    return PolicyError(f"{origin}, line {line}: {what}")


def _has(document: Any, path: Path) -> bool:
    for part in path:
        try:
            document = document[part]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def _path(said: str) -> Path:
    return tuple(int(found["number"]) if found["number"] else found["name"] for found in _PART.finditer(said))


def _nearest(document: dict[str, Any], path: Path, what: str) -> Path:
    """The place of the key that the words begin with, or name as unknown; else that of its table."""
    named = _KEY.match(what)
    name = named and (named["unknown"] or named["first"])
    return (*path, name) if name and _has(document, (*path, name)) else path


def _described(document: dict[str, Any], path: Path, what: str) -> str:
    """The same words with the rule that they are about."""
    rule: Any = document
    for part in path[:2]:
        rule = rule[part] if _has(rule, (part,)) else {}
    where = path[-1] if path and isinstance(path[-1], str) else ""
    if what.startswith("Invalid enum value"):
        what = f"{what}: it is one of {', '.join(Decision)}"
    told = f"{where}: {what}" if where else what
    if len(path) > 1 and path[0] == "rules" and isinstance(rule, dict):
        return f"rule {rule.get('id', path[1])!r}: {told}"
    return told


def _check_ids(policy: Policy, text: str, origin: str) -> None:
    seen: set[str] = set()
    for number, rule in enumerate(policy.rules):
        if rule.id in seen:
            raise _error(origin, line_of(text, ("rules", number, "id")), f"rule {rule.id!r}: an earlier rule has this id")
        seen.add(rule.id)
