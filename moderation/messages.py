"""The wire messages of the Velma-2 streaming endpoints (seed pages, 'Protocol'; service.md for the newer window shape).

Measurements are nullable everywhere: a missing or null one is kept as None and flagged, never turned into 0 (service.md, decision 9).
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, TypeAlias, get_args

import msgspec

from moderation.violations import SAMPLE_CHARACTERS, Breach, Violation

Millis: TypeAlias = int
"""Milliseconds of audio."""


class Item(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an endpoint found in one stretch of audio. A subclass adds its measurements, floats or words, all of them nullable."""

    wire_name: ClassVar[str]
    """The type of the message, and the name of its field that holds the item."""

    start_time_ms: Millis
    end_time_ms: Millis


TIMES = Item.__struct_fields__
"""The fields that every item has; the others are its measurements."""


class Frame(Item, frozen=True, kw_only=True):
    """192 ms of music and speech detection; probabilities 0 to 1."""

    wire_name = "frame"

    music_prob: float | None = None
    speech_prob: float | None = None


class Window(Item, frozen=True, kw_only=True):
    """4 s of AI-music detection; percentages 0 to 100, confidence and probabilities 0 to 1.

    The newer shape carries vocal_ai_probability (null: nothing to evaluate) instead of vocal_ai_percentage.
    """

    wire_name = "window"

    vocal_percentage: float | None = None
    vocal_ai_percentage: float | None = None
    vocal_ai_confidence: float | None = None
    instrumental_percentage: float | None = None
    silence_percentage: float | None = None
    vocal_ai_probability: float | None = None
    instrumental_ai_probability: float | None = None


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """The summary of a session. A subclass adds the count of its items, its label and its figures, all of them nullable."""

    duration_ms: Millis | None = None


class MusicDone(Done, frozen=True, kw_only=True):
    """The summary of a music session; percentages 0 to 100."""

    frame_count: int | None = None
    music_pct: float | None = None
    speech_pct: float | None = None
    primary_label: str | None = None


class AiMusicDone(Done, frozen=True, kw_only=True):
    """The summary of an AI-music session; percentages 0 to 100, confidences 0 to 1."""

    window_count: int | None = None
    primary_verdict: str | None = None
    vocal_percentage: float | None = None
    vocal_ai_percentage: float | None = None
    vocal_ai_confidence: float | None = None
    instrumental_percentage: float | None = None
    instrumental_ai_percentage: float | None = None
    instrumental_ai_confidence: float | None = None
    silence_percentage: float | None = None


class ErrorMessage(msgspec.Struct, frozen=True):
    """The service's reason before it closes (codes 1003, 4002, 4003, 4029)."""

    error: str


class UnknownMessage(msgspec.Struct, frozen=True):
    """A message of a type that nobody has told us about: counted, with one sample kept."""

    type: str
    sample: str


Message: TypeAlias = Item | Done | ErrorMessage | UnknownMessage


@dataclass(frozen=True, slots=True)
class Shape:
    """One published form of an endpoint's items: the measurements it carries, and which of them may be null by its own words."""

    name: str
    measures: frozenset[str]
    nullable: frozenset[str] = frozenset()


def encode(message: Item | Done | ErrorMessage, shape: Shape | None = None) -> str:
    """The JSON text that a server sends for this message. A measurement that is None is null where the shape has it, else left out."""
    match message:
        case Item():
            sent = shape.measures if shape else frozenset()
            body = {name: value for name, value in msgspec.to_builtins(message).items() if value is not None or name in sent}
            envelope: dict[str, Any] = {"type": message.wire_name, message.wire_name: body}
        case ErrorMessage():
            envelope = {"type": "error", "error": message.error}
        case _:
            envelope = {"type": "done", **msgspec.to_builtins(message)}
    return msgspec.json.encode(envelope).decode()


MAX_DEPTH = 32
"""Of what nobody has told us about: as deep as any JSON that people read, and far from what recursion cannot take."""
MAX_MILLIS = 366 * 24 * 3600 * 1000
"""A year of audio: times beyond it are no times."""


class Decoded(msgspec.Struct, frozen=True):
    """A message, the names of the known fields that it had, and the fields beyond those."""

    message: Message
    present: frozenset[str] = frozenset()
    extra: dict[str, Any] = {}


def decode(text: str | bytes, item_name: str, item_type: type[Item], done_type: type[Done]) -> Decoded:
    """The message that `text` is. Raises Violation for what is no message at all (service.md, decisions 8 to 10).

    A done is paid for: a duration or count in it that cannot be is left in the extra fields, and missing.
    item_name, item_type and done_type are the endpoint's: the name of the item message and of its field, and what they hold.
    """
    if isinstance(text, bytes):
        raise Violation(Breach.BINARY_MESSAGE, text)
    try:
        envelope = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        raise Violation(Breach.NOT_JSON, text) from None
    if not isinstance(envelope, dict) or not isinstance(kind := envelope.pop("type", None), str):
        raise Violation(Breach.NO_TYPE, text)
    if kind == item_name:
        body = envelope.pop(item_name, None)
        if not isinstance(body, dict):
            raise Violation(Breach.NO_ITEM, text)
        item, present = _fill(item_type, body, text)
        _check_item(item, text)
        return Decoded(item, present, _readable(body | envelope, text))
    if kind == "done":
        absurd = {name: envelope.pop(name) for name in whole_of(done_type) & envelope.keys() if _is_absurd(envelope[name])}
        done, present = _fill(done_type, envelope, text)
        return Decoded(done, present, _readable(envelope | absurd, text))
    if kind == "error":
        reason = str(_readable(envelope, text).get("error") or "")
        return Decoded(ErrorMessage(reason[:SAMPLE_CHARACTERS]))
    return Decoded(UnknownMessage(kind[:SAMPLE_CHARACTERS], text[:SAMPLE_CHARACTERS]))


def _readable(fields: dict[str, Any], text: str) -> dict[str, Any]:
    """The fields themselves. Raises Violation where they nest so deep that whoever shows or stores them could fail."""
    if not _is_shallow(fields, MAX_DEPTH):
        raise Violation(Breach.TOO_DEEP, text)
    return fields


def _is_shallow(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    return levels > 0 and all(_is_shallow(inner, levels - 1) for inner in (value.values() if isinstance(value, dict) else value))


def _fill(struct_type: type[Item | Done], body: dict[str, Any], text: str) -> tuple[Any, frozenset[str]]:
    """A struct of the known fields, which are taken out of `body`, and their names; integral floats count as integers."""
    known: dict[str, Any] = {}
    for name in struct_type.__struct_fields__:
        if name in body:
            value = body.pop(name)
            known[name] = int(value) if isinstance(value, float) and value.is_integer() and name in whole_of(struct_type) else value
    try:
        return msgspec.convert(known, struct_type), frozenset(known)
    except (msgspec.ValidationError, OverflowError):
        raise Violation(Breach.WRONG_TYPE, text) from None


@cache
def whole_of(struct_type: type[Item | Done]) -> frozenset[str]:
    """The fields of an item or a summary that are whole numbers: times and counts."""
    return frozenset(field.name for field in msgspec.structs.fields(struct_type) if field.type is int or int in get_args(field.type))


def _is_absurd(value: object) -> bool:
    """Whether a duration or count is negative or beyond a year: booked, it would eat a budget, and past 64 bits no column holds it."""
    return isinstance(value, int | float) and not 0 <= value <= MAX_MILLIS


@cache
def words_of(struct_type: type[Item | Done]) -> frozenset[str]:
    """The fields of an item or a summary that are words, not numbers."""
    return frozenset(field.name for field in msgspec.structs.fields(struct_type) if str in get_args(field.type))


def upper_bound(field: str) -> float:
    """The most that a measurement can be: 100 for percentages, 1 for probabilities and confidences (seed pages)."""
    return 100.0 if field.endswith(("_percentage", "_pct")) else 1.0


def out_of_range(message: Item | Done) -> list[str]:
    """The names of measurements outside their range; nulls are none."""
    fields = ((name, getattr(message, name)) for name in message.__struct_fields__)
    return [name for name, value in fields if isinstance(value, float) and not 0.0 <= value <= upper_bound(name)]


def _check_item(item: Item, text: str) -> None:
    if not 0 <= item.start_time_ms < item.end_time_ms <= MAX_MILLIS:
        raise Violation(Breach.BAD_TIMES, text)
    if out_of_range(item):
        raise Violation(Breach.OUT_OF_RANGE, text)
    if all(getattr(item, name) is None for name in item.__struct_fields__ if name not in TIMES):
        raise Violation(Breach.NO_MEASUREMENT, text)
