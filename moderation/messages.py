"""The wire messages of the Velma-2 streaming endpoints (seed pages, 'Protocol'; service.md for the newer window shape).

Measurements are nullable everywhere: a missing or null one is kept as None and flagged, never turned into 0 (service.md, decision 9).
"""

from typing import Any, TypeAlias

import msgspec

Millis: TypeAlias = int
"""Milliseconds of audio."""


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """192 ms of music and speech detection; probabilities 0 to 1."""

    start_time_ms: Millis
    end_time_ms: Millis
    music_prob: float | None = None
    speech_prob: float | None = None


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """4 s of AI-music detection; percentages 0 to 100, confidence and probabilities 0 to 1.

    The newer shape carries vocal_ai_probability (null: nothing to evaluate) instead of vocal_ai_percentage.
    """

    start_time_ms: Millis
    end_time_ms: Millis
    vocal_percentage: float | None = None
    vocal_ai_percentage: float | None = None
    vocal_ai_confidence: float | None = None
    instrumental_percentage: float | None = None
    silence_percentage: float | None = None
    vocal_ai_probability: float | None = None
    instrumental_ai_probability: float | None = None


class MusicDone(msgspec.Struct, frozen=True, kw_only=True):
    """The summary of a music session; percentages 0 to 100."""

    duration_ms: Millis | None = None
    frame_count: int | None = None
    music_pct: float | None = None
    speech_pct: float | None = None
    primary_label: str | None = None


class AiMusicDone(msgspec.Struct, frozen=True, kw_only=True):
    """The summary of an AI-music session; percentages 0 to 100, confidences 0 to 1."""

    duration_ms: Millis | None = None
    window_count: int | None = None
    primary_verdict: str | None = None
    vocal_percentage: float | None = None
    vocal_ai_percentage: float | None = None
    vocal_ai_confidence: float | None = None
    instrumental_percentage: float | None = None
    instrumental_ai_percentage: float | None = None
    instrumental_ai_confidence: float | None = None
    silence_percentage: float | None = None


Item: TypeAlias = Frame | Window
Done: TypeAlias = MusicDone | AiMusicDone


class ErrorMessage(msgspec.Struct, frozen=True):
    """The service's reason before it closes (codes 1003, 4002, 4003, 4029)."""

    error: str


class UnknownMessage(msgspec.Struct, frozen=True):
    """A message of a type that nobody has told us about: counted, with one sample kept."""

    type: str
    sample: str


Message: TypeAlias = Item | Done | ErrorMessage | UnknownMessage


def encode(message: Item | Done | ErrorMessage) -> str:
    """The JSON text that a server sends for this message; what is None is null, but left out of a window: its shapes differ in fields."""
    match message:
        case Frame():
            envelope: dict[str, Any] = {"type": "frame", "frame": message}
        case Window():
            envelope = {"type": "window", "window": {k: v for k, v in msgspec.to_builtins(message).items() if v is not None}}
        case ErrorMessage():
            envelope = {"type": "error", "error": message.error}
        case _:
            envelope = {"type": "done", **msgspec.to_builtins(message)}
    return msgspec.json.encode(envelope).decode()


class Violation(Exception):
    """A message that breaks the protocol: `name` is one of a closed list, `sample` the first 512 characters of what came."""

    def __init__(self, name: str, message: str | bytes) -> None:
        sample = message if isinstance(message, str) else message.decode("utf-8", "backslashreplace")
        super().__init__(name)
        self.name = name
        self.sample = sample[:SAMPLE_CHARACTERS]


SAMPLE_CHARACTERS = 512
_MAX_MILLIS = 366 * 24 * 3600 * 1000
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
        raise Violation("binary_message", text)
    try:
        envelope = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        raise Violation("not_json", text) from None
    if not isinstance(envelope, dict) or not isinstance(kind := envelope.pop("type", None), str):
        raise Violation("no_type", text)
    if kind == item_name:
        body = envelope.pop(item_name, None)
        if not isinstance(body, dict):
            raise Violation("no_item", text)
        item, present = _fill(item_type, body, text)
        _check_item(item, text)
        return Decoded(item, present, body | envelope)
    if kind == "done":
        absurd = {name: envelope.pop(name) for name in _WHOLE & envelope.keys() if _is_absurd(envelope[name])}
        done, present = _fill(done_type, envelope, text)
        return Decoded(done, present, envelope | absurd)
    if kind == "error":
        return Decoded(ErrorMessage(str(envelope.get("error") or "")))
    return Decoded(UnknownMessage(kind, text[:SAMPLE_CHARACTERS]))


def _fill(struct_type: type[Any], body: dict[str, Any], text: str) -> tuple[Any, frozenset[str]]:
    """A struct of the known fields, which are taken out of `body`, and their names; integral floats count as integers."""
    known: dict[str, Any] = {}
    for name in struct_type.__struct_fields__:
        if name in body:
            value = body.pop(name)
            known[name] = int(value) if isinstance(value, float) and value.is_integer() and name in _WHOLE else value
    try:
        return msgspec.convert(known, struct_type), frozenset(known)
    except (msgspec.ValidationError, OverflowError):
        raise Violation("wrong_type", text) from None


_WHOLE = frozenset({"start_time_ms", "end_time_ms", "duration_ms", "frame_count", "window_count"})


def _is_absurd(value: object) -> bool:
    """Whether a duration or count is negative or beyond a year: booked, it would eat a budget, and past 64 bits no column holds it."""
    return isinstance(value, int | float) and not 0 <= value <= _MAX_MILLIS


def upper_bound(field: str) -> float:
    """The most that a measurement can be: 100 for percentages, 1 for probabilities and confidences (seed pages)."""
    return 100.0 if field.endswith(("_percentage", "_pct")) else 1.0


def out_of_range(message: Item | Done) -> list[str]:
    """The names of measurements outside their range; nulls are none."""
    measures = ((name, getattr(message, name)) for name in message.__struct_fields__ if name not in _WHOLE)
    return [name for name, value in measures if isinstance(value, float) and not 0.0 <= value <= upper_bound(name)]


def _check_item(item: Item, text: str) -> None:
    if not 0 <= item.start_time_ms < item.end_time_ms <= _MAX_MILLIS:
        raise Violation("bad_times", text)
    if out_of_range(item):
        raise Violation("out_of_range", text)
    if all(getattr(item, name) is None for name in item.__struct_fields__ if name not in _WHOLE):
        raise Violation("no_measurement", text)
