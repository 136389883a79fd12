"""Plain items are read in a short way: it must say exactly what the long one says, about anything."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moderation import plain_items
from moderation.endpoints import ENDPOINTS
from moderation.messages import Decoded, Frame, Item, MusicDone, decode
from moderation.plain_items import reader
from moderation.violations import Violation


class Words(Item, frozen=True, kw_only=True):
    wire_name = "section"

    certainty: float | None = None
    language: str | None = None


MUSIC, AI_MUSIC = ENDPOINTS["music"], ENDPOINTS["ai_music"]
THIRD = replace(MUSIC, name="sections", item_type=Words)
WORDS = {"sections": {"language": "it"}}
ENDPOINTS_ = [MUSIC, AI_MUSIC, THIRD]
SCALARS = (None, True, "", "0.5", 0, 1, -1, 192, 5760, 5760.0, 192.5, 0.0, -0.0, 0.25, 1.0, 1.0000001, 100.0, 1e300, 10**30, 2**63)
NESTED = ([], {}, [0.5], {"start_time_ms": 0})
values = st.sampled_from(SCALARS + NESTED) | st.floats(0, 1) | st.integers(0, 10_000)


def said(read: Callable[[str], Decoded], text: str) -> Decoded | tuple[str, str]:
    try:
        return read(text)
    except Violation as violation:
        return violation.name, violation.sample


def long_way(endpoint) -> Callable[[str], Decoded]:
    return partial(decode, item_name=endpoint.item_name, item_type=endpoint.item_type, done_type=endpoint.done_type)


def body_of(endpoint) -> dict[str, float]:
    return {
        "start_time_ms": 0,
        "end_time_ms": endpoint.item_ms,
        **dict.fromkeys(endpoint.item_type.__struct_fields__[2:], 0.5),
    } | WORDS.get(endpoint.name, {})


def plain(endpoint, body=None, **around) -> str:
    return json.dumps({"type": endpoint.item_name, endpoint.item_name: body_of(endpoint) | (body or {})} | around)


@st.composite
def texts(draw, endpoint):
    """Messages that are items, or nearly: some fields have other values, some are missing, some are unknown or come twice."""
    body = body_of(endpoint)
    pairs = [(name, draw(values) if draw(st.integers(0, 5)) == 0 else value) for name, value in body.items() if draw(st.integers(0, 9))]
    pairs += draw(st.lists(st.tuples(st.sampled_from([*body, "tempo"]), values), max_size=1))
    item = "{" + ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in draw(st.permutations(pairs))) + "}"
    around = [("type", json.dumps(endpoint.item_name)), (endpoint.item_name, item)]
    around += draw(st.lists(st.sampled_from([("type", '"done"'), ("type", "1"), ("note", "[[]]"), (endpoint.item_name, "{}")]), max_size=1))
    text = "{" + ", ".join(f'"{name}": {value}' for name, value in draw(st.permutations(around))) + "}"
    cut = draw(st.none() | st.integers(0, len(text)))
    return text if cut is None else text[:cut] + draw(st.sampled_from(["", "}", "\ud800", "NaN"]))


@pytest.mark.parametrize("endpoint", ENDPOINTS_, ids=lambda endpoint: endpoint.name)
def test_the_short_way_says_what_the_long_one_says(endpoint):
    @settings(max_examples=200)
    @given(texts(endpoint))
    @example(plain(endpoint, type="done"))
    @example(plain(endpoint, note=1))
    @example(plain(endpoint, {"tempo": 1}))
    @example(plain(endpoint, {"end_time_ms": 0}))
    def same(text):
        assert said(reader(endpoint.item_type, endpoint.done_type), text) == said(long_way(endpoint), text)

    same()


@pytest.mark.parametrize("endpoint", ENDPOINTS_, ids=lambda endpoint: endpoint.name)
def test_an_item_with_all_fields_takes_the_short_way(endpoint, monkeypatch):
    monkeypatch.setattr(plain_items, "decode", lambda *_: pytest.fail("the long way"))
    read = reader(endpoint.item_type, endpoint.done_type)
    assert read(plain(endpoint)) == Decoded(endpoint.item_type(**body_of(endpoint)), frozenset(body_of(endpoint)))


def test_bytes_are_no_message():
    assert said(reader(Frame, MusicDone), plain(MUSIC).encode())[0] == "binary_message"
