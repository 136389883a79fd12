"""When results of a run that streams are published."""

import pytest

from moderation.packaging import PackageRules

RULES = PackageRules(max_bytes=100, max_age_ms=1000)


@pytest.mark.parametrize(
    ("waiting_bytes", "age_ms", "due"),
    [(100, 0, True), (99, 999, False), (1, 1000, True), (0, 1000, False)],
)
def test_enough_or_old_enough_results_are_due(waiting_bytes, age_ms, due):
    assert RULES.is_due(waiting_bytes, age_ms) is due


@pytest.mark.parametrize("bound", ["max_sessions", "max_bytes", "max_age_ms"])
def test_a_package_without_room_is_none(bound):
    with pytest.raises(ValueError, match="at least one"):
        PackageRules(**{bound: 0})
