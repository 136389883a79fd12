"""How much audio is in flight, how long a silence may last, and how fast audio goes out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation.pacing import BLIND_GATHERING_S, GATHERED_MS, LONGEST_GATHERING_S, AckWindow, Deadlines, Pace, Watchdog, gathering_s

RATE = 32_000
CHUNK = 64 * 1024
DEADLINES = Deadlines()

steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, CHUNK)),
        st.tuples(st.just("hear"), st.floats(0, 1)),
        st.tuples(st.just("chat"), st.just(0)),
        st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 4.9, 5.0, 30.0])),
    ),
    max_size=60,
)


class Upload:
    """A sender that keeps to the window, a service that gives results for what it got, and a clock."""

    def __init__(self, rate):
        self.rate = rate
        self.window = AckWindow(limit_ms=4000, limit_bytes=4 * RATE, bytes_per_second=rate)
        self.limit = 4 * RATE
        self.sent = self.answered = self.heard_ms = 0
        self.now = self.quiet_since = 100.0
        self.beyond = []
        self.window.start(self.now)

    @property
    def in_flight(self):
        return self.sent - self.answered

    def send(self, size):
        """Send a chunk if it may go; note how long the silence was if it goes beyond the window."""
        if self.window.wait_s(self.now) > 0:
            return False
        if self.in_flight >= self.limit:
            self.beyond.append(self.now - self.quiet_since)
            self.quiet_since = self.now
        self.window.sending(size, self.now)
        self.sent += size
        return True

    def hear(self, share):
        """A result for a share of what was not answered yet, in whole milliseconds as the wire has them."""
        reached_ms = (self.answered + int(share * self.in_flight)) * 1000 // RATE
        if reached_ms > self.heard_ms:
            self.heard_ms = reached_ms
            self.answered = reached_ms * RATE // 1000 if self.rate else self.sent
            self.quiet_since = self.now
        self.window.answered(self.heard_ms, self.now)

    def chat(self, _):
        """A message that is no result."""
        self.window.answered(self.heard_ms, self.now)

    def wait(self, seconds):
        self.now += seconds


@pytest.mark.parametrize("rate", [RATE, None], ids=["raw", "container"])
@given(script=steps)
@settings(deadline=None)
def test_never_more_in_flight_than_the_window_and_a_chunk_but_for_patience(rate, script):
    upload = Upload(rate)
    for name, value in script:
        getattr(upload, name)(value)
        assert upload.in_flight < upload.limit + CHUNK * (1 + len(upload.beyond))
    assert all(silence >= upload.window.patience_s for silence in upload.beyond)


@pytest.mark.parametrize("rate", [RATE, None], ids=["raw", "container"])
@given(script=steps)
@settings(deadline=None)
def test_after_patience_one_chunk_always_goes(rate, script):
    upload = Upload(rate)
    for name, value in script:
        getattr(upload, name)(value)
    upload.wait(upload.window.patience_s)
    assert upload.send(CHUNK)


@pytest.mark.parametrize("rate", [RATE, None], ids=["raw", "container"])
def test_a_service_that_only_chats_still_gets_its_audio(rate):
    """It may wait for more audio before its next result: its chatter must not keep the window shut for ever."""
    upload = Upload(rate)
    upload.send(CHUNK)
    upload.hear(1.0)
    while upload.send(CHUNK):
        pass
    filled = upload.sent
    for _ in range(100):
        upload.wait(1.0)
        upload.chat(0)
        upload.send(CHUNK)
    assert filled + 19 * CHUNK <= upload.sent <= filled + 20 * CHUNK


def test_patience_gives_one_chunk_at_a_time():
    upload = Upload(RATE)
    while upload.send(CHUNK):
        pass
    upload.wait(5.0)
    assert [upload.send(CHUNK), upload.send(CHUNK)] == [True, False]
    assert upload.window.wait_s(upload.now) == 5.0


@pytest.mark.parametrize(("heard_ms", "wait"), [(100, 5.0), (0, 0.5)])
def test_a_result_that_leaves_the_window_full_starts_the_patience_anew(heard_ms, wait):
    window = AckWindow(limit_ms=1000, bytes_per_second=1000)
    window.start(0.0)
    window.sending(2000, 0.0)
    window.answered(heard_ms, 4.5)
    assert window.wait_s(4.5) == wait


def test_a_minute_of_raw_audio_or_four_mebibytes_of_a_container_are_in_flight_by_default():
    raw, container = AckWindow(bytes_per_second=1000), AckWindow()
    raw.sending(59_999, 0.0)
    container.sending(4 * 1024 * 1024 - 1, 0.0)
    assert (raw.has_room, container.has_room) == (True, True)
    raw.sending(1, 0.0)
    container.sending(1, 0.0)
    assert (raw.has_room, container.has_room) == (False, False)


def test_deadlines_are_those_of_the_decisions():
    assert Deadlines(connect_s=15.0, progress_s=120.0, done_s=60.0, done_share=0.25, error_s=5.0, close_s=2.0) == DEADLINES


def test_a_full_window_says_how_long_to_wait():
    window = AckWindow(limit_bytes=10)
    window.start(1000.0)
    window.sending(10, 1001.0)
    assert not window.has_room
    assert window.wait_s(1002.0) == 3.0
    assert window.wait_s(1010.0) == 0.0
    assert window.started_at == 1000.0


def test_a_result_opens_the_window_of_a_container_for_all_that_was_sent():
    window = AckWindow(limit_bytes=10)
    window.sending(50, 0.0)
    window.answered(192, 1.0)
    assert window.has_room
    window.sending(9, 1.0)
    assert window.has_room
    window.sending(1, 1.0)
    assert not window.has_room


def test_a_result_opens_the_window_of_raw_audio_as_far_as_it_reaches():
    window = AckWindow(limit_ms=1000, bytes_per_second=1000)
    window.sending(3000, 0.0)
    window.answered(1999, 1.0)
    assert not window.has_room
    window.answered(2001, 1.0)
    assert window.has_room


def test_results_ahead_of_the_audio_do_not_open_it_wider():
    window = AckWindow(limit_ms=1000, bytes_per_second=1000)
    window.sending(500, 0.0)
    window.answered(36_000_000, 0.0)
    window.sending(1000, 0.0)
    assert not window.has_room


def test_results_out_of_order_do_not_close_it_again():
    window = AckWindow(limit_ms=1000, bytes_per_second=1000)
    window.sending(1500, 0.0)
    window.answered(1000, 0.0)
    window.answered(100, 0.0)
    assert window.has_room


@given(st.integers(1, 10**6), st.floats(0, 10**6))
def test_an_empty_window_never_waits(rate, now):
    window = AckWindow(bytes_per_second=rate)
    window.start(now)
    assert window.wait_s(now) == 0.0


def test_a_silence_of_two_minutes_is_too_long():
    watchdog = Watchdog(DEADLINES)
    watchdog.touch(50.0)
    assert watchdog.left_s(50.0) == 120.0
    watchdog.touch(160.0)
    assert watchdog.left_s(170.0) == 110.0
    assert watchdog.left_s(280.0) == 0.0
    assert watchdog.left_s(999.0) == 0.0


def test_after_the_end_only_a_bounded_time_is_left_whatever_comes():
    watchdog = Watchdog(DEADLINES)
    watchdog.touch(0.0)
    watchdog.draining(10.0, 600_000)
    watchdog.touch(200.0)
    assert watchdog.left_s(10.0) == 60.0 + 150.0
    assert watchdog.left_s(221.0) == 0.0


@pytest.mark.parametrize(("audio_ms", "seconds"), [(0, 60.0), (4000, 61.0), (3_600_000, 960.0)])
def test_the_time_for_done_grows_with_the_audio(audio_ms, seconds):
    assert DEADLINES.after_end(audio_ms) == seconds


def test_after_an_error_the_other_half_has_five_seconds():
    watchdog = Watchdog(DEADLINES)
    watchdog.touch(0.0)
    watchdog.dying(1.0)
    watchdog.touch(3.0)
    assert watchdog.left_s(3.0) == 3.0


def test_a_second_error_gives_no_more_time():
    watchdog = Watchdog(DEADLINES)
    watchdog.touch(0.0)
    watchdog.dying(1.0)
    watchdog.dying(4.0)
    assert watchdog.left_s(4.0) == 2.0


def test_an_error_shortens_the_wait_for_done():
    watchdog = Watchdog(DEADLINES)
    watchdog.draining(0.0, 600_000)
    watchdog.dying(1.0)
    assert watchdog.left_s(1.0) == 5.0


def test_an_end_of_stream_after_an_error_gives_no_more_time():
    """The last chunk may already be on its way when the service refuses: the slot is not held for the time of a done."""
    watchdog = Watchdog(DEADLINES)
    watchdog.touch(0.0)
    watchdog.dying(1.0)
    watchdog.draining(2.0, 600_000)
    assert watchdog.left_s(2.0) == 4.0


events = st.lists(st.tuples(st.sampled_from(["touch", "draining", "dying"]), st.floats(0, 30)), min_size=1, max_size=20)


@given(events)
def test_once_the_end_or_an_error_came_the_deadline_never_moves_away(script):
    watchdog, now, fixed = Watchdog(DEADLINES), 0.0, None
    watchdog.touch(now)
    for name, pause in script:
        now += pause
        getattr(watchdog, name)(*((now, 60_000) if name == "draining" else (now,)))
        deadline = now + watchdog.left_s(now)
        if fixed is not None:
            assert deadline <= max(fixed, now) + 1e-6
        if fixed is not None or name != "touch":
            fixed = deadline


def test_without_a_pace_audio_is_due_at_once():
    assert Pace().due_s(10**9, RATE) == 0.0
    assert Pace(0).due_s(10**9, RATE) == 0.0


def test_a_container_has_no_pace():
    assert Pace(1.0).due_s(10**9, None) == 0.0


@given(st.floats(0.1, 100), st.integers(0, 10**9))
def test_a_pace_is_a_multiple_of_real_time(times, sent):
    assert Pace(times).due_s(sent, RATE) == pytest.approx(sent / RATE / times)


@pytest.mark.parametrize(
    ("heard_ms", "elapsed_s", "item_ms", "end_ms", "gathering"),
    [
        pytest.param(0, 1.0, 192, 60_000, 0.0, id="nothing yet"),
        pytest.param(20_000, 0.5, 192, 60_000, 0.05, id="40 times"),
        pytest.param(20_000, 0.1, 192, 60_000, 0.01, id="200 times"),
        pytest.param(58_000, 1.45, 192, 60_000, 0.025, id="near its end"),
        pytest.param(59_616, 1.4904, 192, 60_000, 0.0048, id="two to come"),
        pytest.param(59_808, 1.4952, 192, 60_000, 0.0, id="one to come"),
        pytest.param(61_000, 1.5, 192, 60_000, 0.0, id="longer than it was said to be"),
        pytest.param(20_000, 0.5, 192, None, 0.01, id="no end known"),
        pytest.param(20_000, 20.0, 192, 60_000, 0.0, id="as fast as it sounds"),
        pytest.param(20_000, 0.5, 4_000, 60_000, 0.0, id="long windows"),
    ],
)
def test_results_gather_for_a_moment_where_several_come_in_it(heard_ms, elapsed_s, item_ms, end_ms, gathering):
    assert gathering_s(heard_ms, elapsed_s, item_ms, end_ms) == pytest.approx(gathering)


@given(
    heard_ms=st.integers(1, 10_000_000),
    elapsed_s=st.floats(0.001, 100_000),
    item_ms=st.sampled_from([192, 4_000]),
    end_ms=st.none() | st.integers(0, 10_000_000),
)
def test_who_lets_results_gather_starves_nobody_and_keeps_no_done_waiting(heard_ms, elapsed_s, item_ms, end_ms):
    gathering = gathering_s(heard_ms, elapsed_s, item_ms, end_ms)
    heard_in_it_ms = gathering * heard_ms / elapsed_s
    assert 0 <= gathering <= LONGEST_GATHERING_S
    assert heard_in_it_ms <= GATHERED_MS * 1.001
    assert gathering == 0 or heard_in_it_ms >= item_ms * 0.999
    if end_ms is None:
        assert gathering <= BLIND_GATHERING_S
    else:
        assert heard_in_it_ms <= max(0, end_ms - heard_ms) / 2 * 1.001
