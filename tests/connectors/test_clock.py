"""The wall clock: what steps and other clocks show of it. Times are set by hand."""

from datetime import UTC, datetime, timedelta

import pytest

from connectors.clock import WallClock
from connectors.local_s3 import LocalS3
from connectors.s3 import S3Settings, s3_client, tell_dates

START = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Hands:
    """A wall clock, and the time that passes."""

    def __init__(self) -> None:
        self.at, self.ms = START, 5_000
        self.clock = WallClock(lambda: self.ms, lambda: self.at)

    def pass_by(self, seconds: float, *, off: float = 0.0) -> None:
        self.at += timedelta(seconds=seconds + off)
        self.ms += round(1000 * seconds)


@pytest.fixture
def hands():
    return Hands()


@pytest.mark.fault(55)
@pytest.mark.parametrize("hour", [3600, -3600])
def test_a_clock_that_is_set_is_told_once_with_by_how_much(hands, caplog, hour):
    hands.clock()
    hands.pass_by(10_000)
    assert hands.clock() == hands.at
    assert not hands.clock.is_off
    hands.pass_by(10, off=hour)
    for _ in range(3):
        assert hands.clock() == hands.at
    assert (hands.clock.skew.total_seconds(), hands.clock.is_off) == (hour, True)
    [said] = [record.getMessage() for record in caplog.records]
    assert said.startswith("clock skew: ")
    assert f"{hour:+d} s off" in said


def test_what_goes_a_little_wrong_is_nobodys_business(hands, caplog):
    hands.clock()
    for _ in range(5):
        hands.pass_by(900, off=11)
        hands.clock()
    hands.clock.compare(hands.at + timedelta(seconds=59), "S3's")
    assert not hands.clock.is_off
    assert caplog.text == ""


@pytest.mark.fault(55)
def test_another_clock_shows_how_far_it_is_off(hands, caplog):
    for off in (50, 70, 71, 4000):
        hands.clock.compare(hands.at - timedelta(seconds=off), "S3's")
    assert hands.clock.skew == timedelta(seconds=4000)
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        f"clock skew: this host's clock is +{off} s off S3's" for off in (70, 4000)
    ]


@pytest.mark.net
def test_every_answer_of_s3_says_what_time_it_is():
    with LocalS3() as server:
        told: list[datetime] = []
        with pytest.MonkeyPatch.context() as patch:
            for name, value in server.environment().items():
                patch.setenv(name, value)
            client = s3_client(S3Settings())
        tell_dates(client, told.append)
        client.list_buckets()
        with pytest.raises(client.exceptions.NoSuchBucket):
            client.list_objects_v2(Bucket="nowhere")
        client.close()
    assert len(told) == 2
    assert all(abs(datetime.now(UTC) - each) < timedelta(minutes=1) for each in told)
