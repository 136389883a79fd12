"""A good transcript broken in every way that we know, each by its name, and what must come of it."""

import json

import pytest

from moderation.messages import encode, upper_bound
from moderation.results import Flag
from moderation.transcript import Closed, Garbled, Received, Sent, Stalled
from moderation.violations import Breach
from transcripts import (
    BINARY,
    CLOSE,
    COUNT,
    DONE,
    END,
    ERROR,
    FIRST,
    HEARTBEAT,
    LAST,
    MIDDLE,
    NOISE,
    SENT,
    done,
    good,
    item,
    item_of,
    measure,
    measures_of,
)


def mutated(endpoint, mutate):
    """A good transcript after a mutation. Only its first close happens: what stands behind it never comes."""
    transcript = good(endpoint)
    mutate(transcript, endpoint)
    ends = next((place for place, entry in enumerate(transcript) if isinstance(entry, Closed)), len(transcript))
    return transcript[: ends + 1]


def named(cases):
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), id=name) for name, case in cases.items()]


def edited(place, edit):
    """Change the decoded JSON of one message; edit gets the envelope and what it holds."""

    def mutate(transcript, endpoint):
        envelope = json.loads(transcript[place].text)
        edit(envelope, envelope.get(endpoint.item_name, envelope))
        transcript[place] = Received(json.dumps(envelope))

    return mutate


def setting(place, **values):
    """Set fields of an item, or of done; MEASURE, COUNT_FIELD and LABEL stand for the endpoint's names."""

    def mutate(transcript, endpoint):
        names = {"MEASURE": measure(endpoint), "COUNT_FIELD": endpoint.count_field, "LABEL": endpoint.label_field}
        edited(place, lambda _, body: body.update({names.get(name, name): value for name, value in values.items()}))(transcript, endpoint)

    return mutate


def shifting(place, start, end):
    """Move the start and the end of an item."""

    def edit(_, body):
        body["start_time_ms"] += start
        body["end_time_ms"] += end

    return edited(place, edit)


def without_field(transcript, endpoint):
    edited(MIDDLE, lambda _, body: body.pop(measure(endpoint)))(transcript, endpoint)


def replaced(place, *steps):
    def mutate(transcript, endpoint):
        transcript[place : place + 1] = [step(endpoint) if callable(step) else step for step in steps]

    return mutate


def inserted(place, *steps):
    def mutate(transcript, endpoint):
        transcript[place:place] = [step(endpoint) if callable(step) else step for step in steps]

    return mutate


def removed(start, end=None):
    def mutate(transcript, _):
        del transcript[start : end or start + 1]

    return mutate


def swapped(one, other):
    def mutate(transcript, _):
        transcript[one], transcript[other] = transcript[other], transcript[one]

    return mutate


def copied(source, place):
    def mutate(transcript, _):
        transcript.insert(place, transcript[source])

    return mutate


def moved(source, place):
    def mutate(transcript, _):
        transcript.insert(place, transcript.pop(source))

    return mutate


def recounted(*mutations, lost):
    """The mutations, and a done that agrees with what is left."""

    def mutate(transcript, endpoint):
        for mutation in mutations:
            mutation(transcript, endpoint)
        place = next(i for i, entry in enumerate(transcript) if isinstance(entry, Received) and '"done"' in entry.text)
        edited(place, lambda _, body: body.update({endpoint.count_field: COUNT - lost}))(transcript, endpoint)

    return mutate


def spaced(transcript, _):
    """Other white space and order of fields, the same meaning."""
    for place, entry in enumerate(transcript):
        if isinstance(entry, Received):
            transcript[place] = Received(json.dumps(dict(reversed(json.loads(entry.text).items())), indent=2))


def emptied(transcript, endpoint):
    edited(DONE, lambda _, body: body.update(dict.fromkeys(endpoint.done_type.__struct_fields__)))(transcript, endpoint)


def unmeasured(transcript, endpoint):
    edited(MIDDLE, lambda _, body: body.update(dict.fromkeys(measures_of(endpoint))))(transcript, endpoint)


def unclosed(transcript, _):
    """An error message, and then silence."""
    transcript[DONE:] = [ERROR]


def shortened_done(transcript, endpoint):
    setting(DONE, duration_ms=(COUNT - 2) * endpoint.item_ms)(transcript, endpoint)


def lengthened_done(transcript, endpoint):
    setting(DONE, duration_ms=2 * COUNT * endpoint.item_ms)(transcript, endpoint)


def nested(levels):
    value = "bottom"
    for _ in range(levels):
        value = [value]
    return value


def remeasured(transcript, endpoint):
    """The same stretch of audio once more, with another measurement."""
    copied(MIDDLE, MIDDLE)(transcript, endpoint)
    edited(MIDDLE, lambda _, body: body.update({measure(endpoint): 0.9876}))(transcript, endpoint)


def exaggerated(transcript, endpoint):
    name = next(name for name in endpoint.done_type.__struct_fields__ if upper_bound(name) > 1)
    edited(DONE, lambda _, body: body.update({name: 130.0}))(transcript, endpoint)


def mostly_unsent(transcript, _):
    transcript[SENT] = Sent(transcript[SENT].size * 3 // 10)


HARMLESS = {
    "nothing is changed": lambda transcript, endpoint: None,
    "the fields come in another order": spaced,
    "whole numbers come as floats": shifting(MIDDLE, 0.0, 0.0),
    "a measurement is at its lower bound": setting(MIDDLE, MEASURE=0),
    "a measurement is at its upper bound": setting(MIDDLE, MEASURE=1),
    "a verdict was never seen before": setting(DONE, LABEL="waltz"),
    "done comes twice": copied(DONE, DONE + 1),
    "done, then the connection breaks": replaced(CLOSE, Closed(None)),
    "done, then another close code": replaced(CLOSE, Closed(4002)),
    "done, then going away": replaced(CLOSE, Closed(1001)),
    "done, then silence": replaced(CLOSE, Stalled()),
    "items come before the end was sent": swapped(END, FIRST),
}
"""A clean result, the same as without."""

FLAGGED = {
    "an item is lost in the middle": (removed(MIDDLE), {Flag.GAP, Flag.COUNT_MISMATCH}),
    "an item is lost and done agrees": (recounted(removed(MIDDLE), lost=1), {Flag.GAP}),
    "the first item is lost": (removed(FIRST), {Flag.GAP, Flag.COUNT_MISMATCH}),
    "the last item is lost": (removed(LAST), {Flag.COUNT_MISMATCH}),
    "a tenth of the items is lost at the end and done agrees": (recounted(removed(LAST - 5, LAST + 1), lost=6), {Flag.PARTIAL}),
    "all items are lost": (removed(FIRST, DONE), {Flag.COUNT_MISMATCH, Flag.PARTIAL}),
    "an item comes twice": (copied(MIDDLE, MIDDLE), {Flag.DUPLICATE}),
    "an item comes again later": (copied(MIDDLE, MIDDLE + 2), {Flag.DUPLICATE}),
    "an item comes again at the end": (copied(FIRST, DONE), {Flag.DUPLICATE}),
    "an item comes twice and done counts both": (recounted(copied(MIDDLE, MIDDLE), lost=-1), {Flag.DUPLICATE, Flag.COUNT_MISMATCH}),
    "an item comes again with another measurement": (remeasured, {Flag.GAP, Flag.COUNT_MISMATCH}),
    "two items are swapped": (swapped(MIDDLE, MIDDLE + 1), {Flag.GAP}),
    "an item comes late": (moved(MIDDLE, MIDDLE + 7), {Flag.GAP}),
    "an item starts early": (shifting(MIDDLE, -5, 0), {Flag.GAP}),
    "an item starts late": (shifting(MIDDLE, 5, 0), {Flag.GAP}),
    "an item ends early": (shifting(MIDDLE, 0, -5), {Flag.GAP}),
    "an item ends late": (shifting(MIDDLE, 0, 5), {Flag.GAP}),
    "an item lies elsewhere": (shifting(MIDDLE, 7, 7), {Flag.GAP}),
    "a measurement is null": (setting(MIDDLE, MEASURE=None), {Flag.MISSING}),
    "a measurement is missing": (without_field, {Flag.MISSING}),
    "an item has one more field": (setting(MIDDLE, noise=0.5), {Flag.SHAPE}),
    "a message has one more field": (edited(MIDDLE, lambda envelope, _: envelope.update(request="r7")), {Flag.SHAPE}),
    "done has one more field": (setting(DONE, request="r7"), {Flag.SHAPE}),
    "an unknown field nests": (setting(MIDDLE, more=nested(30)), {Flag.SHAPE}),
    "a message is of unknown type": (inserted(MIDDLE, HEARTBEAT), {Flag.SHAPE}),
    "done counts one more": (setting(DONE, COUNT_FIELD=COUNT + 1), {Flag.COUNT_MISMATCH}),
    "done counts one less": (setting(DONE, COUNT_FIELD=COUNT - 1), {Flag.COUNT_MISMATCH}),
    "done counts nothing": (setting(DONE, COUNT_FIELD=0), {Flag.COUNT_MISMATCH}),
    "done counts less than nothing": (setting(DONE, COUNT_FIELD=-1), {Flag.MISSING, Flag.SHAPE}),
    "done does not count": (setting(DONE, COUNT_FIELD=None), {Flag.MISSING}),
    "done ends before the last item": (shortened_done, {Flag.COUNT_MISMATCH}),
    "done says twice the audio": (lengthened_done, {Flag.PARTIAL}),
    "done has no duration": (setting(DONE, duration_ms=None), {Flag.MISSING}),
    "done has a negative duration": (setting(DONE, duration_ms=-1), {Flag.MISSING, Flag.SHAPE}),
    "done lasts longer than any column can hold": (setting(DONE, duration_ms=2**70), {Flag.MISSING, Flag.SHAPE}),
    "done has no verdict": (setting(DONE, LABEL=None), {Flag.MISSING}),
    "a figure of done is out of its range": (exaggerated, {Flag.RANGE}),
    "an item follows done": (inserted(DONE + 1, lambda endpoint: item(endpoint, COUNT)), {Flag.AFTER_DONE}),
    "another done follows done": (inserted(DONE + 1, lambda endpoint: done(endpoint, 7)), {Flag.AFTER_DONE}),
    "an error follows done": (inserted(DONE + 1, ERROR), {Flag.AFTER_DONE}),
    "garbage follows done": (inserted(DONE + 1, NOISE), {Flag.AFTER_DONE}),
    "an error comes just before done": (inserted(DONE, ERROR), {Flag.ERROR}),
    "an error comes between items, done all the same": (inserted(MIDDLE, ERROR), {Flag.ERROR}),
    "items speak of audio that was not sent": (mostly_unsent, {Flag.AHEAD}),
}
"""A paid result, kept with exactly these flags."""

VIOLATIONS = {
    "an item is no JSON": (replaced(MIDDLE, NOISE), Breach.NOT_JSON),
    "an item is cut off": (replaced(MIDDLE, lambda endpoint: Received(encode(item_of(endpoint, 30))[:-9])), Breach.NOT_JSON),
    "an item is empty": (replaced(MIDDLE, Received("")), Breach.NOT_JSON),
    "a measurement is NaN": (setting(MIDDLE, MEASURE=float("nan")), Breach.NOT_JSON),
    "a measurement is infinite": (setting(MIDDLE, MEASURE=float("inf")), Breach.NOT_JSON),
    "a message nests without end": (replaced(MIDDLE, Received("[" * 50_000)), Breach.NOT_JSON),
    "an item is half a surrogate": (replaced(MIDDLE, Received('{"type": "\ud800"}')), Breach.NOT_JSON),
    "an item is binary": (replaced(MIDDLE, BINARY), Breach.BINARY_MESSAGE),
    "a frame is garbled": (replaced(MIDDLE, Garbled("invalid opcode")), Breach.BAD_FRAME),
    "an item has no type": (edited(MIDDLE, lambda envelope, _: envelope.pop("type")), Breach.NO_TYPE),
    "a message is a list": (replaced(MIDDLE, Received("[]")), Breach.NO_TYPE),
    "an item has no body": (edited(MIDDLE, lambda envelope, _: [envelope.pop(name) for name in set(envelope) - {"type"}]), Breach.NO_ITEM),
    "an unknown field nests deep": (setting(MIDDLE, more=nested(40)), Breach.TOO_DEEP),
    "an unknown field of done nests deep": (setting(DONE, more=nested(900)), Breach.TOO_DEEP),
    "a measurement is a word": (setting(MIDDLE, MEASURE="high"), Breach.WRONG_TYPE),
    "a time is a word": (setting(MIDDLE, start_time_ms="5760"), Breach.WRONG_TYPE),
    "a time is half a millisecond": (shifting(MIDDLE, 0.5, 0), Breach.WRONG_TYPE),
    "an item has no end": (edited(MIDDLE, lambda _, body: body.pop("end_time_ms")), Breach.WRONG_TYPE),
    "a verdict is a number": (setting(DONE, LABEL=7), Breach.WRONG_TYPE),
    "an item ends where it starts": (setting(MIDDLE, start_time_ms=9, end_time_ms=9), Breach.BAD_TIMES),
    "an item ends before it starts": (setting(MIDDLE, start_time_ms=9, end_time_ms=8), Breach.BAD_TIMES),
    "an item starts before the audio": (setting(MIDDLE, start_time_ms=-1), Breach.BAD_TIMES),
    "an item lies beyond a year": (shifting(MIDDLE, 10**12, 10**12), Breach.BAD_TIMES),
    "a measurement is too high": (setting(MIDDLE, MEASURE=1.5), Breach.OUT_OF_RANGE),
    "a measurement is negative": (setting(MIDDLE, MEASURE=-0.5), Breach.OUT_OF_RANGE),
    "an item measures nothing": (unmeasured, Breach.NO_MEASUREMENT),
    "done says nothing": (emptied, Breach.EMPTY_DONE),
    "done comes before the end was sent": (swapped(END, DONE), Breach.DONE_BEFORE_END),
    "done comes first of all": (inserted(SENT, lambda endpoint: done(endpoint, 0)), Breach.DONE_BEFORE_END),
}
"""No result, and the promise that was broken."""

ENDINGS = {
    "there is no done": (removed(DONE), 1000, None),
    "there is no done and it goes away": (replaced(DONE, Closed(1001)), 1001, None),
    "there is no done and it breaks": (replaced(DONE, Closed(None)), 1006, None),
    "there is no done and no close": (removed(DONE, CLOSE + 1), None, None),
    "there is no done and nothing moves": (replaced(DONE, Stalled()), 1000, None),
    "nothing comes at all": (removed(FIRST, CLOSE + 1), None, None),
    "the end is not sent": (removed(END, CLOSE + 1), None, None),
    "done is refused instead": (replaced(DONE, ERROR, Closed(1011)), 1011, "Internal server error"),
    "an error without a close": (unclosed, None, "Internal server error"),
    "a close without an error": (replaced(DONE, Closed(4029)), 4029, None),
    "an error without words": (replaced(DONE, Received('{"type": "error"}'), Closed(4002)), 4002, ""),
    "an error, then garbage, then done": (inserted(MIDDLE, ERROR, NOISE), 1000, "Internal server error"),
    "garbage, then an error, then done": (inserted(MIDDLE, NOISE, ERROR), 1000, "Internal server error"),
    "an error while uploading, then done": (inserted(END, ERROR, lambda endpoint: done(endpoint, 0)), 1000, "Internal server error"),
}
"""No result: the close code and the service's words."""
