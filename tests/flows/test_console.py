"""What people read: nobody else's text reaches a terminal or a log as it pleases."""

import asyncio
import contextlib
import logging

import pytest

from flows import terminal
from flows.console import shown
from flows.logs import logging_to
from flows.watch import Watch
from moderation.printable import printable
from tasks.progress import Progress

ODD = "a\n\x1b[31mred\u202etxt.wav [/b]\r"
SAFE = r"a\n\x1b[31mred\u202etxt.wav [/b]\r"


def test_what_is_not_printable_is_escaped_and_the_rest_stays():
    assert printable(ODD) == SAFE == shown(ODD).plain
    assert printable("Ä 'x' \"y\" \\ 音.mp3") == "Ä 'x' \"y\" \\ 音.mp3"


def test_a_message_is_one_line_of_the_log(tmp_path):
    with logging_to(tmp_path, "INFO") as path:
        logging.getLogger("soundcheck.test").info("reading s3://b/%s", ODD)
        logging.getLogger("soundcheck.test").error("failed", exc_info=ValueError("on purpose"))
    first, second, *trace = path.read_text().splitlines()
    assert first.endswith(f"soundcheck.test: reading s3://b/{SAFE}")
    assert second.endswith("soundcheck.test: failed")
    assert trace[-1] == "ValueError: on purpose"


@pytest.mark.parametrize("show", ["_plain", "_live"])
async def test_progress_goes_on_whatever_the_source_is_called(monkeypatch, capsys, show):
    watch = Watch(Progress())
    watch.progress.step = f"listing s3://b/{ODD}/[/x]"
    monkeypatch.setattr(terminal, "PLAIN_SECONDS", 0.01)
    monkeypatch.setattr(terminal, "REFRESH_SECONDS", 0.01)
    showing = asyncio.create_task(getattr(terminal, show)(watch))
    with contextlib.suppress(asyncio.TimeoutError):
        async with asyncio.timeout(5):
            while show == "_plain" and SAFE not in capsys.readouterr().err.replace("\n", ""):
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
    assert not showing.done(), showing.exception()
    showing.cancel()
