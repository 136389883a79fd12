"""Random mutations of good transcripts, byte by byte and field by field, and a reading of them by hand that says which rows may come out.

`attack` is a whole run from a seed: it raises AssertionError, naming seed and session, when a session raises what it should not or gives a
row that did not come in.
"""

import json
import random
from collections.abc import Callable
from functools import cache

from moderation.errors import SessionError
from moderation.messages import TIMES
from moderation.transcript import Closed, Ended, Received, replay
from transcripts import AI_MUSIC, ERROR, HEARTBEAT, MUSIC, NOISE, assert_in_order, good, rows_of

COUNT = 6
"""Items of an attacked transcript."""
MAX_DAMAGE = 3
"""Mutated messages of one session."""
NUMBERS = (0, -1, 1, 0.5, 1.0000001, 100.1, -0.0, 1e-300, 1e300, 2**63, -(2**63), 10**30, 192.5, 5760.0)
OTHERS = (None, True, False, "", "0.5", "NaN", [], {}, [1], {"a": 1}, "\x00", "\u2028", "x" * 600)
FRAGMENTS = (
    '"',
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "null",
    "NaN",
    "-Infinity",
    "1e999",
    "\\",
    "\\ud800",
    "\x00",
    "\ufeff",
    "é",
    "🎵",
    "true",
    "0" * 30,
)


def attack(seed: str, messages: int) -> dict[str, int]:
    """Mutate so many messages; how the sessions ended, counted."""
    ends = {"clean": 0, "flagged": 0, "failed": 0, "messages": 0}
    session = 0
    while ends["messages"] < messages:
        name = f"{seed}/{session}"
        chance = random.Random(name)
        try:
            end, damaged = attacked(chance)
        except Exception as error:
            raise AssertionError(f"session {name!r} of the attack: {error!r}") from error
        ends[end] += 1
        ends["messages"] += damaged
        session += 1
    return ends


def attacked(chance: random.Random) -> tuple[str, int]:
    """One session with some messages mutated: how it ended, and how many those were."""
    endpoint = chance.choice((MUSIC, AI_MUSIC))
    transcript = list(unharmed(endpoint, chance.random() < 0.5))
    damage = chance.randint(1, MAX_DAMAGE)
    for _ in range(damage):
        chance.choice(MUTATIONS)(chance, transcript)
    session = replay(transcript)
    try:
        result = session.result()
    except SessionError as failure:
        str(failure)
        return "failed", damage
    rows, came = rows_of(result.columns), read_by_hand(endpoint, transcript)
    assert is_subsequence(rows, came), f"{rows} out of {came}"
    json.dumps(result.extra)
    result.columns.packed()
    if result.flags:
        return "flagged", damage
    assert rows == came, f"{rows}, not {came}"
    assert_in_order(endpoint, list(result.columns.spans()))
    assert getattr(result.done, endpoint.count_field) == len(came)
    return "clean", damage


@cache
def unharmed(endpoint, expected):
    return tuple(good(endpoint, COUNT, expected=expected))


def read_by_hand(endpoint, transcript):
    """The rows of all item messages, as another JSON reader sees them; times first, as rows_of has them."""
    names = sorted(endpoint.item_type.__struct_fields__)
    rows = []
    for entry in transcript:
        if isinstance(entry, Received):
            try:
                envelope = json.loads(entry.text, strict=False)
            except (ValueError, RecursionError):
                continue
            if (
                isinstance(envelope, dict)
                and envelope.get("type") == endpoint.item_name
                and isinstance(envelope.get(endpoint.item_name), dict)
            ):
                rows.append(tuple(envelope[endpoint.item_name].get(name) for name in names))
    return rows


def is_subsequence(rows, came):
    rest = iter(came)
    return all(row in rest for row in rows)


# ------------------------------------------------------------------------------------------------------------------------ the mutations


def some_message(chance, transcript):
    """The place of a message, if there is still one."""
    places = [place for place, entry in enumerate(transcript) if isinstance(entry, Received)]
    return chance.choice(places) if places else None


def on_text(edit: Callable[[random.Random, str], str]):
    def mutate(chance, transcript):
        if (place := some_message(chance, transcript)) is not None:
            transcript[place] = Received(edit(chance, transcript[place].text))

    mutate.__name__ = edit.__name__
    return mutate


def on_fields(edit: Callable[[random.Random, dict], None]):
    """Edits the object that holds the fields, where the message still is JSON."""

    def change(chance, text):
        try:
            envelope = json.loads(text)
        except (ValueError, RecursionError):
            return text
        if not isinstance(envelope, dict):
            return text
        bodies = [envelope, *(value for value in envelope.values() if isinstance(value, dict))]
        body = bodies[-1] if chance.random() < 0.8 else envelope
        if body:
            edit(chance, body)
        return json.dumps(envelope)

    change.__name__ = edit.__name__
    return on_text(change)


@on_text
def flips_a_bit(chance, text):
    octets = bytearray(text.encode("utf-8", "surrogatepass"))
    if octets:
        octets[chance.randrange(len(octets))] ^= 1 << chance.randrange(8)
    return octets.decode("utf-8", "replace")


@on_text
def replaces_a_byte(chance, text):
    octets = bytearray(text.encode("utf-8", "surrogatepass"))
    if octets:
        octets[chance.randrange(len(octets))] = chance.randrange(256)
    return octets.decode("latin-1" if chance.random() < 0.5 else "utf-8", "replace")


@on_text
def loses_characters(chance, text):
    start = chance.randrange(len(text) + 1)
    return text[:start] + text[start + chance.randint(1, 5) :]


@on_text
def gains_a_fragment(chance, text):
    place = chance.randrange(len(text) + 1)
    return text[:place] + chance.choice(FRAGMENTS) + text[place:]


@on_text
def repeats_a_slice(chance, text):
    start, end = sorted(chance.randrange(len(text) + 1) for _ in range(2))
    return text[:end] + text[start:end] + text[end:]


@on_text
def is_cut_off(chance, text):
    return text[: chance.randrange(len(text) + 1)]


@on_text
def changes_a_digit(chance, text):
    places = [place for place, character in enumerate(text) if character.isdigit()]
    if not places:
        return text
    place = chance.choice(places)
    return text[:place] + chance.choice("0123456789-.e") + text[place + 1 :]


@on_text
def nests(chance, text):
    levels = chance.choice((1, 2, 31, 32, 33, 500, 5000))
    return chance.choice(("[" * levels + text + "]" * levels, '{"a":' * levels + text + "}" * levels, "[" * levels))


@on_text
def has_a_field_twice(chance, text):
    return text.replace("{", chance.choice(('{"type": "done", ', '{"start_time_ms": 0, ', '{"type": 7, ')), 1)


@on_fields
def loses_a_field(chance, body):
    del body[chance.choice(list(body))]


@on_fields
def sets_a_number(chance, body):
    body[chance.choice(list(body))] = chance.choice(NUMBERS)


@on_fields
def sets_something_else(chance, body):
    body[chance.choice(list(body))] = chance.choice(OTHERS)


@on_fields
def scales_a_number(chance, body):
    name = chance.choice(list(body))
    if isinstance(body[name], int | float):
        body[name] *= chance.choice((0, 1, -1, 2, 10, 0.1, 1.0000000001, 1e6))


@on_fields
def shifts_the_times(chance, body):
    by = chance.choice((1, -1, 192, -192, 4000, -4000, 10**9))
    for name in TIMES:
        if isinstance(body.get(name), int):
            body[name] += by


@on_fields
def renames_a_field(chance, body):
    name = chance.choice(list(body))
    body[name.upper() if chance.random() < 0.3 else name + "_v2"] = body.pop(name)


@on_fields
def gains_a_field(chance, body):
    deep: object = "bottom"
    for _ in range(chance.choice((0, 1, 20, 31, 40, 200))):
        deep = [deep]
    body[chance.choice(("vocal_ai_probability", "noise", "duration_ms", "", "type", "frame", "window"))] = chance.choice(
        (deep, 7, None, "x")
    )


def is_lost(chance, transcript):
    if (place := some_message(chance, transcript)) is not None:
        del transcript[place]


def comes_again(chance, transcript):
    if (place := some_message(chance, transcript)) is not None:
        transcript.insert(chance.randint(place + 1, len(transcript)), transcript[place])


def comes_elsewhere(chance, transcript):
    if (place := some_message(chance, transcript)) is not None:
        transcript.insert(chance.randint(1, len(transcript) - 1), transcript.pop(place))


def is_joined_by_another(chance, transcript):
    others = (ERROR, NOISE, HEARTBEAT, Received(""), Received("null"), Received('{"type": "done"}'), Received("\xff\x00", binary=True))
    transcript.insert(chance.randint(1, len(transcript)), chance.choice(others))


def swaps_with_the_next(chance, transcript):
    place = chance.randrange(1, len(transcript) - 1)
    transcript[place], transcript[place + 1] = transcript[place + 1], transcript[place]


def ends_otherwise(chance, transcript):
    if isinstance(transcript[-1], Closed):
        transcript.pop()
    transcript.append(Closed(chance.choice((None, 1000, 1001, 1011, 4002, 4003, 4029))))


def end_is_sent_elsewhere(chance, transcript):
    if Ended() in transcript:
        transcript.remove(Ended())
    transcript.insert(chance.randint(1, len(transcript)), Ended())


MUTATIONS = (
    flips_a_bit,
    replaces_a_byte,
    loses_characters,
    gains_a_fragment,
    repeats_a_slice,
    is_cut_off,
    changes_a_digit,
    nests,
    has_a_field_twice,
    loses_a_field,
    sets_a_number,
    sets_something_else,
    scales_a_number,
    shifts_the_times,
    renames_a_field,
    gains_a_field,
    is_lost,
    comes_again,
    comes_elsewhere,
    is_joined_by_another,
    swaps_with_the_next,
    ends_otherwise,
    end_is_sent_elsewhere,
)
