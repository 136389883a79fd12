"""Caps in hours and in money: what they hold, what is left of them, and what is not known without a price."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.admission import EVERY_ENDPOINT, CapShare
from moderation.budget import MICROS, MS_PER_HOUR
from moderation.gate import Gate
from moderation.usage import Usage, Usages

HOUR = MS_PER_HOUR
amounts = st.integers(0, 10 * HOUR)
prices = st.integers(0, 20 * MICROS)


def usage_of(endpoint="music", taken=(0, 0, 0), **gate):
    return Usage("acme", endpoint, "2026-03", Gate(**gate), 0, 0, *taken)


def usages_of(music, *others, **whole):
    """The endpoint at hand with the organisation's, whose hours are the sum of its endpoints'."""
    endpoints = (music, *others)
    taken = [sum(column) for column in zip(*((e.settled_ms, e.at_risk_ms, e.reserved_ms) for e in endpoints), strict=True)]
    return Usages(music, replace(usage_of(EVERY_ENDPOINT, taken, **whole), endpoints=endpoints))


def test_settled_at_risk_and_reserved_count_alike():
    usage = usage_of(taken=(5000, 1000, 2000), cap_ms=9000, cap_micros=MICROS, price_micros=MICROS)
    assert (usage.hours.taken, usage.hours.left) == (8000, 1000)
    assert usage.money.taken == 8000 * MICROS


@pytest.mark.parametrize("limits", [{"cap_ms": HOUR}, {"cap_micros": 3 * MICROS}])
@pytest.mark.parametrize("at", ["endpoint", "whole"])
def test_hours_and_money_of_both_must_hold_an_estimate(limits, at):
    music = usage_of(taken=(HOUR // 2, 0, 0), price_micros=3 * MICROS, **(limits if at == "endpoint" else {}))
    usages = usages_of(music, **(limits if at == "whole" else {}))
    assert usages.fit(HOUR // 2)
    assert not usages.fit(HOUR // 2 + 1)


def test_the_organisations_money_is_the_sum_over_its_endpoints_at_their_own_prices():
    music = usage_of(taken=(HOUR, 0, 0), price_micros=2 * MICROS)
    ai_music = usage_of("ai_music", (0, HOUR, HOUR), price_micros=3 * MICROS)
    usages = usages_of(music, ai_music, cap_micros=10 * MICROS)
    assert usages.whole.money.taken == (2 + 6) * MICROS * HOUR
    assert usages.fit(HOUR)
    assert not usages.fit(HOUR + 1)
    assert not usages_of(ai_music, music, cap_micros=10 * MICROS).fit(HOUR)


def test_a_new_price_revalues_the_month():
    music = usage_of(taken=(HOUR, 0, 0), cap_micros=4 * MICROS, price_micros=MICROS)
    assert usages_of(music).fit(3 * HOUR)
    dearer = replace(music, gate=replace(music.gate, price_micros=4 * MICROS))
    assert usages_of(dearer).fit(0)
    assert not usages_of(dearer).fit(1)


@pytest.mark.parametrize("at", ["endpoint", "whole"])
def test_a_cap_in_money_holds_nothing_without_a_price(at):
    limits = {"cap_micros": 10**12}
    usages = usages_of(usage_of(**(limits if at == "endpoint" else {})), **(limits if at == "whole" else {}))
    assert usages.unpriced == "music"
    assert not usages.fit(0)


def test_the_organisations_money_is_not_known_while_another_endpoints_hours_have_no_price():
    music, silent, spent = usage_of(price_micros=1), usage_of("ai_music"), usage_of("ai_music", (1, 0, 0))
    assert usages_of(music, silent, cap_micros=10).unpriced is None
    assert usages_of(music, spent, cap_micros=10).unpriced == "ai_music"
    assert usages_of(music, spent).unpriced is None


def test_a_price_alone_limits_nothing():
    usages = usages_of(usage_of(taken=(10**12, 0, 0), price_micros=10**9))
    assert usages.fit(10**12)
    assert usages.spent_with(10**12) == ()
    assert (usages.endpoint.has_price, usages.whole.has_price, usage_of().has_price) == (True, True, False)


@pytest.mark.parametrize(
    ("limits", "whole", "share"),
    [
        ({"cap_ms": 10 * HOUR}, {}, {("music", "hours"): 0.3}),
        ({}, {"cap_ms": 4 * HOUR}, {("*", "hours"): 1.0}),
        (
            {"cap_ms": 100 * HOUR, "cap_micros": 10 * MICROS},
            {"cap_ms": 200 * HOUR},
            {("music", "hours"): 0.03, ("music", "money"): 0.6, ("*", "hours"): 0.02},
        ),
        ({"cap_ms": 10 * HOUR}, {"cap_micros": 10 * MICROS}, {("music", "hours"): 0.3, ("*", "money"): 0.7}),
        ({}, {}, {}),
    ],
    ids=["hours", "hours of all", "money", "money of all", "no cap"],
)
def test_the_share_of_every_cap_is_said(limits, whole, share):
    music = usage_of(taken=(HOUR, 0, 0), price_micros=2 * MICROS, **limits)
    ai_music = usage_of("ai_music", (0, 0, HOUR), price_micros=MICROS)
    assert usages_of(music, ai_music, **whole).spent_with(2 * HOUR) == tuple(CapShare(*cap, taken) for cap, taken in share.items())


@given(amounts, amounts, prices, prices, st.none() | amounts, st.none() | prices, st.none() | amounts, st.none() | prices, amounts)
def test_what_fits_takes_no_cap_over_its_end(music_ms, ai_ms, price, ai_price, cap_ms, cap_micros, whole_ms, whole_micros, more_ms):
    music = usage_of(taken=(music_ms, 0, 0), price_micros=price, cap_ms=cap_ms, cap_micros=cap_micros)
    usages = usages_of(music, usage_of("ai_music", (0, ai_ms, 0), price_micros=ai_price), cap_ms=whole_ms, cap_micros=whole_micros)
    hours, money = music_ms + more_ms, (music_ms + more_ms) * price
    holds = (
        (cap_ms is None or hours <= cap_ms)
        and (whole_ms is None or hours + ai_ms <= whole_ms)
        and (cap_micros is None or money <= cap_micros * HOUR)
        and (whole_micros is None or money + ai_ms * ai_price <= whole_micros * HOUR)
    )
    assert usages.fit(more_ms) == holds
