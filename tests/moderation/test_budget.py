"""Months, units and what fits under a cap."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.budget import MICROS, MS_PER_HOUR, Allowance, hours_to_ms, month_of, ms_to_hours, parts_of, parts_to_money

amounts = st.integers(0, 10**12)


def test_a_month_is_utc_whatever_the_zone_of_the_instant():
    assert month_of(datetime(2026, 11, 21, 12, tzinfo=UTC)) == "2026-11"
    assert month_of(datetime(2026, 12, 1, 0, 30, tzinfo=timezone(timedelta(hours=1)))) == "2026-11"
    assert month_of(datetime(2026, 12, 31, 23, 30, tzinfo=timezone(timedelta(hours=-1)))) == "2027-01"


def test_another_zone_can_be_asked_for():
    assert month_of(datetime(2026, 11, 30, 23, 30, tzinfo=UTC), timezone(timedelta(hours=1))) == "2026-12"


def test_an_instant_without_a_zone_has_no_month():
    with pytest.raises(ValueError, match="time zone"):
        month_of(datetime(2026, 11, 1))  # noqa: DTZ001 - what is tested


@given(st.integers(0, 10**7))
def test_hours_and_milliseconds_convert_without_loss(hours):
    assert hours_to_ms(hours) == hours * MS_PER_HOUR
    assert ms_to_hours(hours_to_ms(hours)) == hours


def test_parts_of_hours_are_rounded_to_the_millisecond():
    assert hours_to_ms(0.1) == 360_000
    assert hours_to_ms(2.3) == 8_280_000


@given(amounts, amounts)
def test_without_a_cap_everything_fits(taken, more):
    allowance = Allowance(None, taken)
    assert allowance.fits(more)
    assert (allowance.left, allowance.share) == (None, None)


@given(amounts, amounts, amounts)
def test_what_fits_keeps_the_sum_at_or_under_the_cap(cap, taken, more):
    assert Allowance(cap, taken).fits(more) == (taken + more <= cap)
    assert Allowance(cap, taken).fits(more) == (Allowance(cap, taken).with_more(more).left >= 0)


def test_a_cap_is_reached_exactly():
    assert Allowance(100, 90).fits(10)
    assert not Allowance(100, 90).fits(11)
    assert Allowance(100, 130).left == -30


@pytest.mark.parametrize(("cap", "taken", "share"), [(100, 80, 0.8), (100, 130, 1.3), (100, 0, 0.0), (0, 0, 1.0)])
def test_the_share_of_a_cap_that_is_taken(cap, taken, share):
    assert Allowance(cap, taken).share == share


def test_money_is_reckoned_without_rounding():
    price = 333_333
    assert parts_of(MICROS) == MICROS * MS_PER_HOUR
    assert Allowance(parts_of(price), 0).fits(MS_PER_HOUR * price)
    assert not Allowance(parts_of(price), 0).fits((MS_PER_HOUR + 1) * price)
    assert parts_to_money(parts_of(2_500_000)) == 2.5
