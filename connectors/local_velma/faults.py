"""The faults that the local server can be told to have: one table, and values parsed from short specs (faults.toml, hints `srv:`).

A spec is a name with, where it takes them, a value and a place: `dup`, `close=4003@items=5`, `stall@bytes=65536`, `null=all@done`.
`a+b` is a session with both. What they put on the wire is in faulty_messages.py, how a session has them in faulty_session.py.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, TypeAlias

from moderation.errors import ConfigurationError


class Moment(StrEnum):
    """A kind of place in a session."""

    UPGRADE = "upgrade"
    """The connection was accepted; nothing was read or said."""
    BYTES = "bytes"
    """So many bytes of audio were received; the last of them are not analysed yet."""
    ITEMS = "items"
    """So many items were sent."""
    END = "end"
    """The client has ended the stream."""
    DONE = "done"
    """Done is about to be sent."""


COUNTED = frozenset({Moment.BYTES, Moment.ITEMS})
ANYWHERE = frozenset(Moment)
BEFORE_DONE = ANYWHERE - {Moment.DONE}
DONE_ALONE = frozenset({Moment.DONE})


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a session a fault happens: at the first such moment that has at least this count."""

    moment: Moment
    count: int = 0

    def __str__(self) -> str:
        return f"{self.moment}={self.count}" if self.moment in COUNTED else self.moment.value


ON_UPGRADE, FIRST_ITEM, AT_DONE = Place(Moment.UPGRADE), Place(Moment.ITEMS, 1), Place(Moment.DONE)


class Role(Enum):
    """What a fault does to the session that has it."""

    HTTP = "refuses the upgrade"
    END = "ends it, or changes how it is refused"
    SAY = "says something more"
    CHANGE = "changes the next item, or done"
    MOVE = "moves the next item"
    WAIT = "does nothing, for a while or for ever"
    REVOKE = "has its key revoked"
    THROUGHOUT = "holds all the time"


@dataclass(frozen=True, slots=True)
class Kind:
    """A row of the table: name, form of the value, what it does in a line, and where, unless a spec says so; without `at` it has no place.

    form is a name of PARSERS, with a ? where the value may be left out.
    """

    name: str
    form: str
    does: str
    role: Role
    at: Place | None = None
    places: frozenset[Moment] = ANYWHERE

    @property
    def usage(self) -> str:
        """How it is written."""
        if not self.form:
            return self.name
        return f"{self.name}[={self.form[:-1]}]" if self.form.endswith("?") else f"{self.name}={self.form}"

    def value_of(self, said: str | None) -> Any:
        """What stands behind the `=` as a value. Raises ValueError."""
        if said is None and (not self.form or self.form.endswith("?")):
            return None
        if not said or not self.form:
            raise ValueError(said)
        return PARSERS[self.form.rstrip("?")](said)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of one session: said is what was written behind the `=`, value what that means."""

    kind: Kind
    said: str | None = None
    value: Any = None
    place: Place | None = None

    @property
    def name(self) -> str:
        """The name of its kind."""
        return self.kind.name

    @property
    def spec(self) -> str:
        """What parses to this fault."""
        return self.name + (f"={self.said}" if self.said else "") + (f"@{self.place}" if self.place else "")


def _within(numbers: range) -> Callable[[str], int]:
    return lambda said: numbers[numbers.index(int(said))]


def _with_text(number: Callable[[str], int]) -> Callable[[str], tuple[int, str | None]]:
    return lambda said: (number(said.partition(":")[0]), said.partition(":")[2] or None)


_code, _status, _millis = _within(range(1000, 5000)), _within(range(300, 600)), _within(range(86_400_000))

Parser: TypeAlias = Callable[[str], Any]
PARSERS: dict[str, Parser] = {
    "CODE": _code,
    "CODE[:TEXT]": _with_text(_code),
    "STATUS[:TEXT]": _with_text(_status),
    "COUNT": int,
    "MS": int,
    "SECONDS": lambda said: _millis(str(round(1000 * float(said)))) / 1000,
    "WORD": str,
    "all": lambda said: ("all",)[("all",).index(said)],
}
"""By the form of a value: from its text to what it means, or a ValueError. A pair has None where there is no TEXT."""


def _rows() -> Iterator[Kind]:
    for form, name, does in (
        ("STATUS[:TEXT]", "refuse", "an HTTP status instead of the upgrade; TEXT is its Retry-After, or Location for 3xx"),
    ):
        yield Kind(name, form, does, Role.HTTP)
    for form, name, does in (
        ("CODE[:TEXT]", "close", "close with CODE, after an error message with TEXT or a published one"),
        ("CODE?", "silent", "close with CODE and no error message; without CODE: so ends each real refusal"),
        ("CODE[:TEXT]?", "error_noclose", "an error message and no close; without CODE: so ends each real refusal"),
        ("CODE?", "abrupt", "a TCP reset in place of that refusal; without CODE: in place of each real one"),
    ):
        yield Kind(name, form, does, Role.END, ON_UPGRADE)
    for name, does in (
        ("badframe", "a WebSocket frame with a reserved opcode"),
        ("bad_utf8", "a text message that is not UTF-8"),
        ("binary", "a binary message"),
        ("malformed", "half a message"),
        ("deep", "JSON of 100,000 levels"),
        ("unknown_type", "a message of a type that nobody knows"),
        ("done_early", "a done message before the client has ended the stream"),
    ):
        yield Kind(name, "", does, Role.SAY, FIRST_ITEM)
    for form, name, does in (
        ("", "extra", "a field that nobody knows"),
        ("all?", "missing", "a measurement, or all, is not there"),
        ("all?", "null", "a measurement, or all, is null"),
        ("", "range", "a measurement is 101.5"),
        ("", "nan", "a measurement is NaN"),
        ("", "string", 'a measurement is "0.5"'),
        ("", "float_times", "times are written as 5760.0"),
        ("SECONDS", "ahead", "times are so much later"),
    ):
        yield Kind(name, form, does, Role.CHANGE, FIRST_ITEM)
    for name, does in (("reorder", "an item comes after the next"), ("dup", "an item comes twice"), ("drop", "an item does not come")):
        yield Kind(name, "", does, Role.MOVE, FIRST_ITEM, BEFORE_DONE)
    for form, name, does in (
        ("COUNT", "done_off", "done counts so many items more"),
        ("MS", "duration_off", "done is so much longer"),
        ("WORD", "label", "done has this label or verdict"),
    ):
        yield Kind(name, form, does, Role.CHANGE, AT_DONE, DONE_ALONE)
    for form, name, does in (
        ("", "two_done", "done comes twice"),
        ("", "other_done", "a second done says another duration"),
        ("", "after_done", "an item comes after done"),
        ("", "abrupt_done", "a TCP reset in place of the close after done"),
        ("CODE", "done_close", "another close code after done"),
        ("SECONDS", "buffer", "nothing is said until so much audio was analysed"),
        ("", "text_variant", "error texts are in capitals, without their full stop"),
    ):
        yield Kind(name, form, does, Role.THROUGHOUT)
    yield Kind("stall", "", "nothing is read or said any more", Role.WAIT, FIRST_ITEM)
    yield Kind("pause", "SECONDS", "the server waits for so long", Role.WAIT, FIRST_ITEM)
    yield Kind("revoke", "", "the organisation revokes the session's key", Role.REVOKE, FIRST_ITEM)


FAULTS: dict[str, Kind] = {kind.name: kind for kind in _rows()}
SHORTS: dict[str, tuple[str, str]] = {
    "stall_after": ("COUNT", "stall@items={}"),
    "done_delay": ("SECONDS", "pause={}@done"),
    "revoke_at": ("COUNT", "revoke@items={}"),
    "upgrade_then_limit": ("", "pause=0.15@upgrade+close=4029:Monthly usage limit reached.@upgrade"),
}
"""Second names: the form of their value, and the spec that they stand for with {} for it."""

_SPEC = re.compile(r"(?P<name>\w+)(=(?P<said>.+?))?(@(?P<moment>[a-z]+)(=(?P<count>[0-9]{1,12}))?)?", re.DOTALL)


def parse_faults(specs: str) -> tuple[Fault, ...]:
    """The faults of one session, "" for none. Raises ConfigurationError for what is no fault, and says what would be."""
    return tuple(fault for spec in specs.split("+") if spec.strip() for fault in _parse(spec.strip()))


def specs_of(faults: tuple[Fault, ...]) -> str:
    """The spec that parses to these faults."""
    return "+".join(fault.spec for fault in faults)


def faults_help() -> list[tuple[str, str]]:
    """How every fault is written, with the place where it happens by itself, and what it does."""
    kinds = [(kind.usage + (f"@{kind.at}" if kind.at else ""), kind.does) for kind in FAULTS.values()]
    return kinds + [(f"{name}={form}" if form else name, f"short for {spec.format(form)}") for name, (form, spec) in SHORTS.items()]


def _parse(spec: str) -> tuple[Fault, ...]:
    found = _SPEC.fullmatch(spec)
    name = found["name"] if found else spec
    if found is None or name not in FAULTS | SHORTS:
        raise ConfigurationError(f"{name!r} is no fault: known are {', '.join((*FAULTS, *SHORTS))}")
    if name in SHORTS:
        return _stood_for(spec, name, found["said"], placed=bool(found["moment"]))
    kind = FAULTS[name]
    try:
        value = kind.value_of(found["said"])
        place = _place(kind, value, found["moment"], found["count"])
    except ValueError:
        places = ", ".join(f"@{place}=N" if place in COUNTED else f"@{place}" for place in sorted(kind.places))
        raise ConfigurationError(f"{spec!r} is not in the form {kind.usage}{f', with {places}' if kind.at else ''}") from None
    return (Fault(kind, found["said"], value, place),)


def _stood_for(spec: str, name: str, said: str | None, *, placed: bool) -> tuple[Fault, ...]:
    form, stands_for = SHORTS[name]
    with suppress(ConfigurationError):
        if not placed and bool(form) == bool(said):
            return parse_faults(stands_for.format(said))
    raise ConfigurationError(f"{spec!r} is not in the form {f'{name}={form}' if form else name}")


def _place(kind: Kind, value: Any, said: str | None, count: str | None) -> Place | None:
    """Where it happens; a real refusal, which an ending without a code changes, has no place. Raises ValueError."""
    place = None if kind.role is Role.END and value is None else kind.at
    if said is None:
        return place
    moment = Moment(said)
    if place is None or moment not in kind.places or (moment in COUNTED) != (count is not None):
        raise ValueError(said)
    return Place(moment, int(count or 0))
