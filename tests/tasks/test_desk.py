"""What passes the filters of a desk, and where an object lies among that."""

import polars as pl
import pytest

from tasks.desk import Desk, Filters, Place, Show

ROWS = pl.DataFrame(
    [
        ("a", "review", None, "voices", "songs/A.mp3", "AI vocals"),
        ("b", "block", None, "voices", "songs/b.mp3", "sure"),
        ("c", "review", None, "music", "talks/100%.mp3", "music (a.b)"),
        ("d", "block", "ada", "music", "songs/d.mp3", "music"),
        ("e", "allow", "bob", "rest", "e", "nothing"),
        ("f", "review", None, "music", "songs/f.mp3", "music"),
    ],
    ["object_id", "decision", "reviewer", "rule_id", "key", "reason"],
    orient="row",
)


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        (Filters(), "acf"),
        (Filters(Show.BLOCKED), "b"),
        (Filters(Show.ANSWERED), "de"),
        (Filters(Show.ALL), "abcdef"),
        (Filters(Show.ALL, rule="music"), "cdf"),
        (Filters(Show.ALL, rule="mus"), ""),
        (Filters(words="SONGS"), "af"),
        (Filters(words="ai VOCALS"), "a"),
        (Filters(words="0%"), "c"),
        (Filters(words="(a.b)"), "c"),
        (Filters(words=".*"), ""),
        (Filters(Show.ALL, "voices", "b.mp3"), "b"),
    ],
)
def test_what_passes(filters, ids):
    assert "".join(filters.apply(ROWS)["object_id"]) == ids


@pytest.mark.parametrize(
    ("object_id", "place"),
    [
        ("a", Place(1, 3, None, "c")),
        ("c", Place(2, 3, "a", "f")),
        ("f", Place(3, 3, "c", None)),
        ("b", Place(None, 3, "a", "c")),
        ("gone", Place(None, 3, "f", None)),
    ],
)
def test_where_an_object_lies_also_where_it_no_longer_passes(object_id, place):
    desk = Desk(None, None, "default")
    desk.rows = ROWS
    assert desk.place(object_id, Filters()) == place
