"""Scans whose disk fills: admission stops before, what is paid for is kept, and the next run goes on."""

import shutil
from asyncio import gather

import pytest

from moderation.outcomes import ExitCode
from scanning import scanning
from small_disk import fill, small_disk


@pytest.mark.fault(65)
@pytest.mark.torture
async def test_nothing_starts_on_a_disk_without_room_and_a_run_goes_on_when_there_is(put, tmp_path):
    put("one.ulaw", 0.5)
    async with scanning(tmp_path, connections=1) as world:
        full = await world.scan(min_free_mb=1e9)
        assert (full.state, full.exit_code) == ("ResultsNotWritable", ExitCode.CANNOT_WRITE)
        assert "min_free_mb" in full.message
        assert "make room" in full.message
        assert world.seen.events("connect") == []
        assert full.counts()["pending"] == 1
        rest = await world.scan()
        assert (rest.exit_code, rest.counts()["done"]) == (ExitCode.OK, 1)


@pytest.mark.torture
@pytest.mark.fault(65)
async def test_a_disk_that_fills_in_mid_run_ends_it_without_a_loss(put, tmp_path):
    """Somebody else fills the disk of ledger and spool; what is there by then is published, and nothing is paid for twice."""
    objects = 8
    for number in range(objects):
        put(f"{number}.ulaw", 2.0)
    try:
        with small_disk(tmp_path / "state", 32) as state:
            async with scanning(tmp_path, connections=2, speed=2, lease_seconds=2, state_dir=state, min_free_mb=8) as world:

                async def fill_soon():
                    await world.until_done(2)
                    fill(state / "ballast", 6 * 1024 * 1024)

                report, _ = await gather(world.scan(), fill_soon())
                assert report.exit_code == ExitCode.CANNOT_WRITE
                assert world.ask("SELECT count(*) FROM music_summaries") == [(report.counts()["done"],)]
                assert shutil.disk_usage(state).free < 8 * 1024 * 1024
                (state / "ballast").unlink()
                rest = await world.scan()
                assert (rest.exit_code, rest.counts()["done"]) == (ExitCode.OK, objects)
                assert world.ask("SELECT count(*), count(DISTINCT object_id) FROM music_summaries") == [(objects, objects)]
                assert len(world.seen.events("connect")) == objects
    except LookupError as absent:
        pytest.skip(str(absent))
