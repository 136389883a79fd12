"""Retries release exactly what they stream: not what a filter or a bound leaves out, and what they were about when they began."""

import pytest

from flows.request import FlowName, Portion, Request
from flows.resuming import request_of
from moderation.errors import UnreachableError

pytestmark = pytest.mark.torture

HELD = "SELECT key FROM quarantined_now ORDER BY key"
RELEASED = "SELECT key FROM quarantine WHERE event = 'released' ORDER BY key"
UNREAD = b"fLaC" + bytes(range(256)) * 8


def retry(**portion):
    return Request((), Portion(**portion), FlowName.RETRY, "reason = 'undecodable'")


@pytest.fixture
async def held(world):
    """Three objects of which no session gave a result."""
    for number in range(3):
        world.put(f"{number}.flac", UNREAD + bytes([number]))
    await world.scan(endpoints=["music"])
    assert len(world.ask(HELD)) == 3
    return world


@pytest.mark.parametrize(
    ("portion", "released"),
    [
        ({"limit": 1}, ["0.flac"]),
        ({"include": ("2*",)}, ["2.flac"]),
        ({"max_bytes": 10}, []),
    ],
)
async def test_a_retry_releases_no_more_than_it_streams(held, portion, released):
    report = await held.scan_request(retry(**portion), endpoints=["music"])
    assert report.progress.sessions == len(released)
    assert held.ask(RELEASED) == [(key,) for key in released]
    assert len(held.ask(HELD)) == 3, "each is held still, or was tried again and is held anew"


@pytest.mark.parametrize("broken", ["flows.run.list_catalogue", "flows.run.release_retried"])
async def test_a_retry_that_is_taken_up_again_releases_what_it_was_about_at_first(held, monkeypatch, broken):
    async def breaks(*_, **__):
        raise UnreachableError("S3 did not answer")

    with monkeypatch.context() as patch:
        patch.setattr(broken, breaks)
        with pytest.raises(UnreachableError):
            await held.scan_request(retry(limit=2), endpoints=["music"])
    assert held.ask(RELEASED) == []
    [(run_id,)] = held.ask("SELECT run_id FROM runs_latest WHERE flow = 'retry'")
    held.put("00-new.flac", UNREAD)
    await held.scan(endpoints=["music"])
    settings = held.settings.model_copy(update={"endpoints": ["music"]})
    report = await held.scan_request(request_of(settings, run_id), endpoints=["music"])
    assert (report.run_id, report.progress.sessions) == (run_id, 2)
    assert held.ask(RELEASED) == [("0.flac",), ("1.flac",)]
    assert len(held.ask(HELD)) == 4
