"""The wire: what the seed pages show is understood, what is no message is named, and nothing is invented."""

import json
import math
from contextlib import suppress
from itertools import product

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.endpoints import ENDPOINTS
from moderation.messages import (
    AiMusicDone,
    Decoded,
    ErrorMessage,
    Frame,
    MusicDone,
    UnknownMessage,
    Violation,
    Window,
    decode,
    encode,
    out_of_range,
    upper_bound,
)

MUSIC, AI_MUSIC = ENDPOINTS["music"], ENDPOINTS["ai_music"]
YEAR_MS = 366 * 24 * 3600 * 1000
SEED_FRAME = {"start_time_ms": 0, "end_time_ms": 192, "music_prob": 0.9134, "speech_prob": 0.0412}
SEED_WINDOW = {
    "start_time_ms": 0,
    "end_time_ms": 4000,
    "vocal_percentage": 60.0,
    "vocal_ai_percentage": 100.0,
    "vocal_ai_confidence": 0.87,
    "instrumental_percentage": 90.0,
    "silence_percentage": 2.5,
}
SEED_MUSIC_DONE = {"duration_ms": 5760, "frame_count": 30, "music_pct": 93.3, "speech_pct": 0.0, "primary_label": "music"}
SEED_AI_DONE = {
    "duration_ms": 8000,
    "window_count": 2,
    "primary_verdict": "ai-vocal-music",
    "vocal_percentage": 60.0,
    "vocal_ai_percentage": 50.0,
    "vocal_ai_confidence": 0.87,
    "instrumental_percentage": 90.0,
    "instrumental_ai_percentage": 12.0,
    "instrumental_ai_confidence": 0.4,
    "silence_percentage": 2.5,
}

probabilities = st.none() | st.floats(0, 1)
percentages = st.none() | st.floats(0, 100)
times = st.tuples(st.integers(0, YEAR_MS - 1), st.integers(1, 10**6)).map(lambda t: (t[0], min(YEAR_MS, t[0] + t[1])))


def strategy_of(name):
    if name.endswith(("_ms", "_count")):
        return st.none() | st.integers(0, YEAR_MS)
    if name.startswith("primary_"):
        return st.none() | st.text(max_size=20)
    return percentages if upper_bound(name) == 100 else probabilities


def structs(kind):
    known = {name: strategy_of(name) for name in kind.__struct_fields__ if name not in {"start_time_ms", "end_time_ms"}}
    if not {"start_time_ms", "end_time_ms"} & set(kind.__struct_fields__):
        return st.builds(kind, **known)
    return st.builds(lambda span, **rest: kind(start_time_ms=span[0], end_time_ms=span[1], **rest), times, **known)


def has_measurement(item):
    return any(getattr(item, name) is not None for name in item.__struct_fields__ if not name.endswith("_time_ms"))


def read(text, endpoint=MUSIC):
    return decode(text, endpoint.item_name, endpoint.item_type, endpoint.done_type)


def frame(**changes):
    return json.dumps({"type": "frame", "frame": SEED_FRAME | changes})


def done(**changes):
    return json.dumps({"type": "done", **SEED_MUSIC_DONE, **changes})


def assert_violates(name, text, endpoint=MUSIC):
    with pytest.raises(Violation) as caught:
        read(text, endpoint)
    assert caught.value.name == name


@pytest.mark.parametrize(
    ("endpoint", "envelope", "expected"),
    [
        (MUSIC, {"type": "frame", "frame": SEED_FRAME}, Frame(**SEED_FRAME)),
        (MUSIC, {"type": "done", **SEED_MUSIC_DONE}, MusicDone(**SEED_MUSIC_DONE)),
        (AI_MUSIC, {"type": "window", "window": SEED_WINDOW}, Window(**SEED_WINDOW)),
        (AI_MUSIC, {"type": "done", **SEED_AI_DONE}, AiMusicDone(**SEED_AI_DONE)),
        (MUSIC, {"type": "error", "error": "Insufficient credits."}, ErrorMessage("Insufficient credits.")),
    ],
    ids=["frame", "music done", "window", "ai done", "error"],
)
def test_messages_of_the_seed_pages_are_understood_without_anything_left_over(endpoint, envelope, expected):
    decoded = read(json.dumps(envelope), endpoint)
    assert decoded.message == expected
    assert decoded.extra == {}


@given(structs(Frame).filter(has_measurement) | structs(MusicDone))
def test_music_messages_survive_the_wire(message):
    decoded = read(encode(message, MUSIC.shapes[0]))
    assert decoded == Decoded(message, frozenset(message.__struct_fields__))


@given(structs(Window).filter(has_measurement) | structs(AiMusicDone))
def test_ai_music_messages_survive_the_wire(message):
    decoded = read(encode(message), AI_MUSIC)
    assert (decoded.message, decoded.extra) == (message, {})


@given(st.text(max_size=80))
def test_errors_survive_the_wire(text):
    assert read(encode(ErrorMessage(text))).message == ErrorMessage(text)


SHARES = {"vocal_percentage": 60.0, "instrumental_percentage": 90.0, "silence_percentage": 2.5}
SPAN = {"start_time_ms": 0, "end_time_ms": 4000}
OLDER, NEWER = AI_MUSIC.shapes


@pytest.mark.parametrize(
    ("measures", "shape", "more"),
    [
        (SEED_WINDOW, None, {}),
        (SEED_WINDOW, OLDER, {}),
        (SPAN | SHARES, OLDER, {"vocal_ai_percentage": None, "vocal_ai_confidence": None}),
        (SPAN | SHARES, NEWER, {"vocal_ai_probability": None}),
        (SPAN | SHARES | {"vocal_ai_probability": 0.7}, NEWER, {}),
        (SPAN | SHARES | {"vocal_ai_probability": 0.7, "instrumental_ai_probability": 0.2}, NEWER, {}),
        (SPAN | SHARES | {"vocal_ai_probability": 0.7}, None, {}),
    ],
    ids=["seed", "seed in its shape", "older, null", "newer, null", "newer", "newer, optional", "newer without a shape"],
)
def test_a_window_has_what_was_measured_and_null_for_what_its_shape_has_besides(measures, shape, more):
    assert json.loads(encode(Window(**measures), shape)) == {"type": "window", "window": measures | more}


@pytest.mark.parametrize(("envelope", "text"), [({}, ""), ({"error": None}, ""), ({"error": "No."}, "No."), ({"error": 7}, "7")])
def test_an_error_without_words_says_nothing(envelope, text):
    assert read(json.dumps({"type": "error", **envelope})).message == ErrorMessage(text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("binary_message", b"\x00\xff"),
        ("not_json", ""),
        ("not_json", "frame"),
        ("not_json", '{"type": "frame"'),
        ("not_json", '{"type": "frame"} trailing'),
        ("not_json", '{"type": "done", "music_pct": NaN}'),
        ("not_json", '{"type": "done", "music_pct": Infinity}'),
        ("not_json", '{"type": "done", "music_pct": 1e999}'),
        ("not_json", "[" * 100_000),
        ("not_json", '{"a":' * 5_000),
        ("not_json", '{"type": "\ud800"}'),
        ("not_json", '{"type": "\\ud800"}'),
        ("no_type", "null"),
        ("no_type", "[]"),
        ("no_type", "{}"),
        ("no_type", '{"type": null}'),
        ("no_type", '{"type": 7}'),
        ("no_item", '{"type": "frame"}'),
        ("no_item", '{"type": "frame", "frame": null}'),
        ("no_item", '{"type": "frame", "frame": [0, 192]}'),
        ("wrong_type", frame(music_prob="0.5")),
        ("wrong_type", frame(music_prob=True)),
        ("wrong_type", frame(end_time_ms=192.5)),
        ("wrong_type", frame(end_time_ms="192")),
        ("wrong_type", frame(start_time_ms=None)),
        ("wrong_type", '{"type": "frame", "frame": {"start_time_ms": 0, "music_prob": 0.5}}'),
        ("wrong_type", done(duration_ms="5760")),
        ("wrong_type", done(frame_count=1.5)),
        ("wrong_type", done(frame_count=True)),
        ("wrong_type", done(primary_label=1)),
        ("wrong_type", done(music_pct=10**400)),
        ("bad_times", frame(start_time_ms=-192, end_time_ms=0)),
        ("bad_times", frame(start_time_ms=192, end_time_ms=192)),
        ("bad_times", frame(start_time_ms=384, end_time_ms=192)),
        ("bad_times", frame(start_time_ms=YEAR_MS, end_time_ms=YEAR_MS + 192)),
        ("bad_times", frame(start_time_ms=10**40, end_time_ms=10**41)),
        ("out_of_range", frame(music_prob=1.0001)),
        ("out_of_range", frame(speech_prob=-0.0001)),
        ("out_of_range", frame(speech_prob=100)),
        ("no_measurement", frame(music_prob=None, speech_prob=None)),
        ("no_measurement", '{"type": "frame", "frame": {"start_time_ms": 0, "end_time_ms": 192}}'),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_what_is_no_message_is_named(name, text):
    assert_violates(name, text)


@pytest.mark.parametrize("name", [name for name in SEED_WINDOW if not name.endswith("_ms")])
def test_windows_have_ranges_too(name):
    window = SEED_WINDOW | {name: upper_bound(name) + 0.1}
    assert_violates("out_of_range", json.dumps({"type": "window", "window": window}), AI_MUSIC)


def test_a_violation_keeps_the_first_512_characters():
    with pytest.raises(Violation) as of_text:
        read("x" * 2000)
    with pytest.raises(Violation) as of_bytes:
        read(b"\xff" + b"y" * 2000)
    assert of_text.value.sample == "x" * 512
    assert of_bytes.value.sample == ("\\xff" + "y" * 2000)[:512]


@pytest.mark.parametrize("kind", ["window", "heartbeat", ""])
def test_messages_of_other_types_are_unknown_with_a_sample(kind):
    text = json.dumps({"type": kind, "window": SEED_WINDOW, "more": "x" * 2000})
    assert read(text).message == UnknownMessage(kind, text[:512])


def test_extra_fields_are_kept_wherever_they_stand():
    decoded = read(json.dumps({"type": "frame", "frame": SEED_FRAME | {"noise": [1]}, "request": "r7"}))
    assert decoded.message == Frame(**SEED_FRAME)
    assert decoded.extra == {"noise": [1], "request": "r7"}


def test_fields_that_were_there_are_told_from_those_that_were_not():
    assert read(frame(speech_prob=None)).present == set(SEED_FRAME)
    partial = {name: SEED_FRAME[name] for name in ("start_time_ms", "end_time_ms", "music_prob")}
    assert read(json.dumps({"type": "frame", "frame": partial})).present == set(partial)


def test_integral_floats_are_whole_numbers():
    assert read(frame(start_time_ms=0.0, end_time_ms=1.92e2)).message == Frame(**SEED_FRAME)
    assert read(done(duration_ms=5760.0, frame_count=30.0)).message == MusicDone(**SEED_MUSIC_DONE)


def test_whole_measurements_are_floats():
    message = read(frame(music_prob=1, speech_prob=0)).message
    assert [type(message.music_prob), type(message.speech_prob)] == [float, float]


@pytest.mark.parametrize(
    ("name", "value"),
    [*product(["duration_ms", "frame_count"], [-1, -5760.0, YEAR_MS + 1, 2**63, 10**30, 1e300])],
    ids=lambda v: str(v)[:12],
)
def test_a_paid_done_with_an_absurd_whole_number_keeps_it_aside(name, value):
    """Kept as a number it would eat the budget or overflow a column; the done itself is paid for."""
    decoded = read(done(**{name: value}))
    assert decoded.message == MusicDone(**SEED_MUSIC_DONE | {name: None})
    assert decoded.extra == {name: value}


@pytest.mark.parametrize(("name", "value"), [*product(["duration_ms", "frame_count"], [0, YEAR_MS])])
def test_whole_numbers_up_to_a_year_are_taken(name, value):
    decoded = read(done(**{name: value}))
    assert getattr(decoded.message, name) == value
    assert decoded.extra == {}


@given(st.text(max_size=200) | st.binary(max_size=50))
def test_anything_is_a_message_or_a_violation(text):
    for endpoint in ENDPOINTS.values():
        with suppress(Violation):
            assert isinstance(read(text, endpoint), Decoded)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(["frame", "done", "error", "other"]), st.dictionaries(st.sampled_from([*SEED_FRAME, *SEED_MUSIC_DONE]), json_values))
def test_any_fields_are_understood_in_range_or_a_violation(kind, fields):
    text = json.dumps({"type": kind, "frame": fields, **(fields if kind != "frame" else {})})
    try:
        message = read(text).message
    except Violation:
        return
    if isinstance(message, Frame):
        assert 0 <= message.start_time_ms < message.end_time_ms <= YEAR_MS
        assert out_of_range(message) == []
        assert has_measurement(message)
    if isinstance(message, MusicDone):
        assert all(0 <= value <= YEAR_MS for value in (message.duration_ms, message.frame_count) if value is not None)


def test_percentages_go_to_100_and_the_rest_to_1():
    bounds = {name: upper_bound(name) for kind in (Frame, Window, MusicDone, AiMusicDone) for name in kind.__struct_fields__}
    assert {name for name, bound in bounds.items() if bound == 100} == {
        name for name in bounds if "percentage" in name or name in {"music_pct", "speech_pct"}
    }


@pytest.mark.parametrize("value", [-0.1, 100.1, math.inf])
def test_figures_of_done_outside_their_range_are_named(value):
    assert out_of_range(MusicDone(**SEED_MUSIC_DONE | {"music_pct": value})) == ["music_pct"]
    assert out_of_range(MusicDone(**SEED_MUSIC_DONE | {"music_pct": None, "speech_pct": 100.0})) == []


@pytest.mark.parametrize(
    ("fields", "shape"),
    [
        (set(SEED_WINDOW), "1"),
        (set(SEED_WINDOW) - {"vocal_ai_percentage"} | {"vocal_ai_probability"}, "2"),
        (set(SEED_WINDOW) | {"vocal_ai_probability", "instrumental_ai_probability"}, "2"),
        (set(SEED_WINDOW) - {"silence_percentage"} | {"vocal_ai_probability"}, "1"),
        (set(), "1"),
    ],
)
def test_the_newest_whole_shape_of_a_window_wins(fields, shape):
    assert AI_MUSIC.shape_of(frozenset(fields)).name == shape


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=list(ENDPOINTS))
def test_the_row_of_an_endpoint_names_fields_of_its_messages(endpoint):
    assert {endpoint.count_field, endpoint.label_field, "duration_ms"} <= set(endpoint.done_type.__struct_fields__)
    assert {"start_time_ms", "end_time_ms"} <= set(endpoint.item_type.__struct_fields__)
    for shape in endpoint.shapes:
        assert shape.nullable <= shape.measures <= set(endpoint.item_type.__struct_fields__)


def test_endpoints_are_those_of_the_seed_pages():
    urls = {endpoint.default_host + endpoint.path for endpoint in ENDPOINTS.values()}
    assert urls == {
        "wss://modulate-developer-apis.com/api/velma-2-music-detection-streaming",
        "wss://platform.modulate.ai/api/velma-2-ai-music-detection-streaming",
    }
    assert (MUSIC.item_ms, AI_MUSIC.item_ms) == (192, 4000)


def test_messages_cannot_be_changed():
    with pytest.raises(AttributeError):
        Frame(**SEED_FRAME).music_prob = 1.0
    assert msgspec.structs.replace(Frame(**SEED_FRAME), music_prob=1.0).music_prob == 1.0
