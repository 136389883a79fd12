"""Publishing exactly once: whatever dies, and whoever comes in between, at any call of the store, the spool or the ledger."""

import pytest

from bare_globs import seen
from copies import Copies, Sound, recover_after
from crashing import Calls, Crash

PLACES = {"folder": ("folder", False), "shared": ("folder", True), "s3": ("s3", True), "s3-state": ("s3", False)}
"""Where the lake lies, and whether the spool lies there, too."""


@pytest.fixture
def copies(request, tmp_path):
    store, shared = PLACES[request.param]
    return Copies(tmp_path, shared=shared, s3=request.getfixturevalue("s3") if store == "s3" else None)


def disturbed(copies: Copies, sound: Sound, step: int, offset: int = 1):
    """Publishers that something happens to, at every stepth call, before it and after its effect."""
    for at in range(offset, sound.calls + 1, step):
        for after in (False, True):
            place = copies.another()
            calls = Calls(at, after, watch=lambda place=place: seen(place.store, place.folder / "mirror"))
            yield place, calls
            copies.forget(place)


EVERY = [pytest.param(place, 1, id=f"{place}-every", marks=[pytest.mark.torture, pytest.mark.timeout(3600)]) for place in PLACES]
"""Every call, wherever ledger, spool and lake lie."""


@pytest.mark.fault(68)
@pytest.mark.parametrize(("copies", "step"), [("folder", 120), *EVERY], indirect=["copies"])
def test_a_crash_at_any_call_is_repaired_by_the_next_run(copies, step):
    sound = Sound(copies)
    for place, calls in disturbed(copies, sound, step, offset=min(step, 20)):
        with pytest.raises(Crash):
            place.recover(calls)
        recover_after(place)
        sound.check(place)


@pytest.mark.fault(70)
@pytest.mark.parametrize(("copies", "step"), EVERY, indirect=["copies"])
def test_another_publisher_at_any_call_changes_nothing(copies, step):
    """The second comes in between two calls of the first, and does all of it; then the first goes on."""
    sound = Sound(copies)
    for place, calls in disturbed(copies, sound, step, offset=min(step, 30)):
        calls.happens = lambda place=place: recover_after(place)
        place.recover(calls)
        sound.check(place)
