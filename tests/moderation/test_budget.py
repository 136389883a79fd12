"""Months, units and what fits under a cap."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.budget import MS_PER_HOUR, fits, hours_to_ms, left_ms, month_of, ms_to_hours

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


@given(amounts, amounts, amounts, amounts)
def test_without_a_cap_everything_fits(settled, at_risk, reserved, estimate):
    assert fits(None, settled, at_risk, reserved, estimate)
    assert left_ms(None, settled, at_risk, reserved) is None


@given(amounts, amounts, amounts, amounts, amounts)
def test_what_fits_keeps_the_sum_at_or_under_the_cap(cap, settled, at_risk, reserved, estimate):
    assert fits(cap, settled, at_risk, reserved, estimate) == (settled + at_risk + reserved + estimate <= cap)


def test_a_cap_is_reached_exactly():
    assert fits(100, 40, 20, 30, 10)
    assert not fits(100, 40, 20, 30, 11)
    assert left_ms(100, 80, 20, 30) == -30
