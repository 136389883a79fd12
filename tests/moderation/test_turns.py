"""Fair turns: whose a free slot is."""

import pytest

from moderation.turns import FRESH_MS, PATIENCE_MS, Waiting, yields

NOW = 100_000


def waits(worker="other", priority=0, live=0, since_ms=NOW, seen_ms=NOW):
    return Waiting(worker, priority, live, since_ms, seen_ms)


def me(**facts):
    return waits("me", **facts)


@pytest.mark.parametrize(
    ("mine", "other", "goes_first"),
    [
        (me(), waits(), False),
        (me(live=1), waits(live=1), False),
        (me(live=1), waits(live=0), True),
        (me(live=0), waits(live=1), False),
        (me(live=0), waits(live=9, priority=1), True),
        (me(live=9, priority=1), waits(live=0), False),
        (me(), waits(since_ms=NOW - PATIENCE_MS), True),
        (me(), waits(since_ms=NOW - PATIENCE_MS + 1), False),
        (me(live=1), waits(live=1, since_ms=0), False),
    ],
    ids=[
        "nobody has anything",
        "all have their share",
        "who has fewer",
        "who has more",
        "the more urgent",
        "the less urgent",
        "who starves",
        "who does not starve yet",
        "waiting long with a share",
    ],
)
def test_whose_a_free_slot_is(mine, other, goes_first):
    assert yields(mine, [other], NOW) == goes_first


def test_who_has_not_asked_lately_waits_no_more():
    assert yields(me(live=1), [waits(seen_ms=NOW - FRESH_MS + 1)], NOW)
    assert not yields(me(live=1), [waits(seen_ms=NOW - FRESH_MS)], NOW)


def test_nobody_goes_before_himself():
    assert not yields(me(live=1), [me(live=0, priority=9)], NOW)


@pytest.mark.parametrize("live", [0, 1, 5])
def test_of_two_at_most_one_yields_so_that_a_slot_is_always_taken(live):
    for other in (waits(live=other_live, priority=p, since_ms=s) for other_live in range(3) for p in (0, 1) for s in (0, NOW)):
        mine = me(live=live)
        assert not (yields(mine, [other], NOW) and yields(other, [mine], NOW))
