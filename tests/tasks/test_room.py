"""Room for what sessions leave: kept free before one starts, waited for when it ends."""

import resource
from contextlib import ExitStack, contextmanager

import pytest

from connectors.lake.store import S3Store
from connectors.s3 import S3Uri
from connectors.spool import SharedSpool, Spool
from ended_sessions import a_session
from flows.settings import fixed_settings
from moderation.errors import ResultsNotWritable
from moderation.outcomes import StopCause
from moderation.results import SPOOLED_BYTES_PER_ITEM
from tasks.admission import Stop
from tasks.room import PATIENCE_S, Room, keep

MIB = 1024 * 1024


@contextmanager
def files_of_at_most(size):
    """A disk that takes no more of a file: EFBIG in place of ENOSPC, wherever tests run."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


@pytest.mark.fault(65)
def test_a_disk_with_less_than_must_stay_free_is_full(spool):
    assert Room(spool, 0).full() is None
    told = Room(spool, 2**60).full()
    assert str(spool) in told
    assert "1099511627776 MiB (min_free_mb)" in told
    assert "make room" in told


def test_a_bucket_is_never_full():
    assert Room(SharedSpool(S3Store(S3Uri("bucket"), None), "_spool", "lake"), 2**60).full() is None


def test_what_stays_free_is_what_may_be_live_for_as_long_as_a_session_may_be():
    least = fixed_settings(connections=1, max_session_hours=1).min_free_bytes()
    assert least == 64 * MIB + (18_750 + 900) * SPOOLED_BYTES_PER_ITEM
    assert fixed_settings(connections=10, max_session_hours=2).min_free_bytes() - 64 * MIB == 20 * (least - 64 * MIB)
    assert fixed_settings(min_free_mb=1.5).min_free_bytes() == 1.5 * MIB


@pytest.mark.parametrize("endpoint", ["music", "ai_music"])
def test_no_session_leaves_more_than_is_kept_for_it(spool, endpoint):
    """Here most items are a segment of their own."""
    items = 2_000
    session = a_session(items=items, endpoint=endpoint)
    spool.put(session)
    size = (spool.folder / session.session_id).stat().st_size
    assert size < items * SPOOLED_BYTES_PER_ITEM
    assert endpoint != "music" or len(session.segments) > items / 4


@pytest.mark.fault(65)
async def test_a_result_without_room_waits_in_memory_until_there_is(spool):
    stop, session, waited = Stop(), a_session(), []
    with ExitStack() as full:
        full.enter_context(files_of_at_most(100))

        async def sleep(seconds):
            waited.append(seconds)
            if len(waited) == 3:
                full.close()

        await keep(spool, session, stop, sleep, patient=True)
    assert len(waited) == 3
    assert stop.cause is StopCause.RESULTS_NOT_WRITABLE
    assert "make room" in stop.message
    kept = spool.get(session.session_id)
    assert (kept.items, kept.attempt) == (session.items, session.attempt)


@pytest.mark.fault(65)
@pytest.mark.parametrize(("patient", "least_s"), [(True, PATIENCE_S), (False, 0.0)])
async def test_nobody_waits_for_ever(spool, patient, least_s):
    waited = [0.0]

    async def sleep(seconds):
        waited.append(seconds)

    with files_of_at_most(100), pytest.raises(ResultsNotWritable, match="Cannot write to"):
        await keep(spool, a_session(), Stop(), sleep, patient=patient)
    assert sum(waited) == least_s
