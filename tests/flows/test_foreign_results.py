"""Files of other people in the results folder."""

import pytest

from moderation.errors import ConfigurationError
from moderation.outcomes import ExitCode


async def test_a_foreign_file_in_the_lake_is_named_before_anything_is_paid(world, make_wav):
    world.put("one.wav", make_wav(1.0))
    folder = world.results / "v1" / "music_summaries" / "scan_date=2026-01-01"
    folder.mkdir(parents=True)
    (folder / "notes.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(ConfigurationError, match=r"notes\.parquet"):
        await world.scan()
    assert world.velma.journal.counts["connect"] == 0
    (folder / "notes.parquet").unlink()
    assert (await world.scan()).exit_code is ExitCode.OK
