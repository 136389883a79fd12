"""What people read of a run while it goes on."""

import pytest

from moderation.admission import Denial, Refusal
from moderation.breaker import OpenedBy
from tasks.progress import Progress


def test_the_line_has_the_counts():
    progress = Progress(listed=12, step="streaming")
    progress.of("music").live = 3
    progress.of("music").audio_ms = 1_800_000
    assert progress.line() == "streaming: 12 objects listed, 0 ended, 3 live, 0.50 audio-hours"


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (Refusal(Denial.PAUSED), "music is paused: soundcheck resume goes on"),
        (Refusal(Denial.BUDGET), "music waits for what running sessions leave of the cap"),
        (Refusal(Denial.BREAKER, opened_by=OpenedBy.QUOTA, probe_in_ms=42_100), "music starts nothing (quota): next probe in 42 s"),
        (Refusal(Denial.BREAKER, opened_by=OpenedBy.NETWORK), "music starts nothing (network): its probe is out"),
        (Refusal(Denial.FULL), "music waits for a slot"),
    ],
)
def test_the_line_says_what_is_waited_for(refusal, words):
    progress = Progress(refusals={"music": refusal})
    assert progress.line().endswith(f"; {words}")


def test_waiting_for_ones_own_slots_is_no_news():
    progress = Progress(refusals={"music": Refusal(Denial.FULL)})
    progress.of("music").live = 4
    assert "waits" not in progress.line()
