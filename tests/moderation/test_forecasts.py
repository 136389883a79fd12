"""How long planned audio takes, by a measured speed."""

import pytest

from moderation.forecasts import Load, eta_s


def test_endpoints_go_beside_each_other_unless_connections_are_shared():
    slow, fast = Load(400_000, 20_000, 10.0, 4), Load(400_000, 20_000, 20.0, 4)
    assert slow.wall_s == pytest.approx(10)
    assert eta_s([slow, fast]) == slow.wall_s
    assert eta_s([slow, fast], total_connections=1) == pytest.approx(60)
    assert Load(20_000, 20_000, 10.0, 4).wall_s == 2
    assert Load(80_000, 60_000, 10.0, 4).wall_s == 6
    assert eta_s([]) == 0
