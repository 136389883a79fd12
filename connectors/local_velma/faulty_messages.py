"""What faults put on the wire: frames that no server should send, and changes of the fields of an item or of a done message."""

import json
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import msgspec

from moderation.endpoints import Endpoint
from moderation.messages import Done, encode

TEXT, BINARY, RESERVED = 1, 2, 3
"""Opcodes (RFC 6455, section 5.2)."""
DEEP = 100_000
"""Levels: far beyond any parser's limit, in fewer bytes than our client takes."""
TIMES = ("start_time_ms", "end_time_ms", "duration_ms")

Body: TypeAlias = dict[str, Any]
Change: TypeAlias = Callable[[Body, Any], None]
"""Alters the fields of an item or of done in place; the value is the fault's own."""


class Frame(msgspec.Struct, frozen=True):
    """A WebSocket frame of the server's: its opcode and its bytes."""

    opcode: int
    payload: bytes


SAYINGS: dict[str, Callable[[Endpoint], Frame]] = {
    "badframe": lambda _: Frame(RESERVED, b""),
    "bad_utf8": lambda _: Frame(TEXT, b'{"type": "\xff"}'),
    "binary": lambda _: Frame(BINARY, b"\x00\xff\x00\xff"),
    "malformed": lambda endpoint: Frame(TEXT, f'{{"type": "{endpoint.item_name}", "'.encode()),
    "deep": lambda _: Frame(TEXT, b"[" * DEEP + b"]" * DEEP),
    "unknown_type": lambda _: Frame(TEXT, b'{"type": "progress", "percent": 50}'),
    "done_early": lambda endpoint: Frame(TEXT, encode(_done_of_nothing(endpoint)).encode()),
}
"""By the name of the fault."""


def _done_of_nothing(endpoint: Endpoint) -> Done:
    fields: dict[str, Any] = {"duration_ms": 0, endpoint.count_field: 0}
    return endpoint.done_type(**fields)


def _measures(change: Callable[[Body, str], object]) -> Change:
    """Of the first measurement, or of all."""

    def on(body: Body, which: str | None) -> None:
        names = [name for name, value in body.items() if isinstance(value, float)]
        for name in names if which else names[:1]:
            change(body, name)

    return on


def _measures_are(value: object) -> Change:
    return _measures(lambda body, name: body.update({name: value}))


def _fields(belongs: Callable[[str], bool], change: Callable[[Any, Any], object]) -> Change:
    """Of every field with such a name."""
    return lambda body, value: body.update({name: change(body[name], value) for name in body if belongs(name)})


CHANGES: dict[str, Change] = {
    "extra": lambda body, _: body.update(mood="calm"),
    "missing": _measures(lambda body, name: body.pop(name)),
    "null": _measures_are(None),
    "range": _measures_are(101.5),
    "nan": _measures_are(float("nan")),
    "string": _measures_are("0.5"),
    "float_times": _fields(TIMES.__contains__, lambda ms, _: float(ms)),
    "ahead": _fields(TIMES.__contains__, lambda ms, seconds: ms + round(1000 * seconds)),
    "done_off": _fields(lambda name: name.endswith("_count"), lambda count, more: count + more),
    "duration_off": _fields(TIMES.__contains__, lambda ms, more: ms + more),
    "label": _fields(lambda name: name.startswith("primary_"), lambda _, word: word),
    "other_done": _fields(TIMES.__contains__, lambda ms, _: ms + 1000),
    "text_variant": lambda body, _: body.update(error=body["error"].upper().rstrip(".")),
}
"""By the name of the fault."""


def changed(text: str, faults: Iterable[tuple[str, Any]]) -> str:
    """A message as these faults change it, each a name and a value; the same where none does."""
    changes = [(CHANGES[name], value) for name, value in faults if name in CHANGES]
    if not changes:
        return text
    message = json.loads(text)
    item = message.get(message["type"])
    for change, value in changes:
        change(item if isinstance(item, dict) else message, value)
    return json.dumps(message)
