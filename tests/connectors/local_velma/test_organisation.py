"""What the local server's organisation lets in, and what it says to the others."""

import pytest

from connectors.local_velma.organisation import NO_CREDITS, NO_HOURS, TOO_MANY, WRONG_KEY, Organisation

HOUR = 3_600_000


def acme(**limits) -> Organisation:
    return Organisation(frozenset({"good", "other"}), **limits)


@pytest.mark.parametrize("key", [None, "", "bad", "Good", "good "])
def test_only_its_own_keys(key):
    organisation = acme()
    assert organisation.enter(key, "music") is WRONG_KEY
    assert not organisation.live["music"]
    assert organisation.enter("good", "music") is None
    assert organisation.enter("other", "music") is None


def test_no_limits_by_default():
    organisation = acme()
    organisation.use(10**9)
    assert [organisation.enter("good", "music") for _ in range(100)] == [None] * 100


def test_a_connection_limit_per_endpoint():
    organisation = acme(max_connections=2)
    assert [organisation.enter("good", "music") for _ in range(3)] == [None, None, TOO_MANY]
    assert organisation.enter("good", "ai_music") is None
    assert organisation.live == {"music": 2, "ai_music": 1}


def test_a_refused_connection_takes_no_place():
    organisation = acme(max_connections=1)
    assert organisation.enter("good", "music") is None
    assert organisation.enter("good", "music") is TOO_MANY
    organisation.leave("music")
    assert organisation.enter("good", "music") is None


@pytest.mark.parametrize(("limits", "refusal"), [({"credit_hours": 1.0}, NO_CREDITS), ({"monthly_hours": 1.0}, NO_HOURS)])
def test_hours_are_used_up(limits, refusal):
    organisation = acme(**limits)
    organisation.use(HOUR - 1)
    assert organisation.exhausted() is None
    assert organisation.enter("good", "music") is None
    organisation.use(1)
    assert organisation.exhausted() is refusal
    assert organisation.enter("good", "ai_music") is refusal


def test_nothing_left_from_the_start():
    assert acme(credit_hours=0).enter("good", "music") is NO_CREDITS
    assert acme(monthly_hours=0).enter("good", "music") is NO_HOURS


def test_a_wrong_key_learns_nothing_about_limits():
    assert acme(max_connections=0, credit_hours=0).enter("bad", "music") is WRONG_KEY


def test_limits_may_change_while_it_runs():
    organisation = acme(credit_hours=0)
    organisation.credit_hours = 1
    assert organisation.enter("good", "music") is None


def test_codes_and_texts_of_the_seed_pages():
    assert (WRONG_KEY.code, WRONG_KEY.text) == (4003, "This request is not permitted.")
    assert {refusal.code for refusal in (TOO_MANY, NO_HOURS, NO_CREDITS)} == {4029}
    assert NO_CREDITS.text == "Insufficient credits."
    assert NO_HOURS.text == "Monthly usage limit reached."


def test_keys_are_not_shown():
    assert "good" not in repr(acme(max_connections=3))
