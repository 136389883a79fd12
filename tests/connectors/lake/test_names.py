"""Names in a result store: what is a dataset's, what only a run reads, and what nobody knows."""

import pytest

from connectors.lake.names import is_own_of_run, place_of

RUN = "20260601T010203Z-1a2b3c"


@pytest.mark.parametrize("name", ["alive", "chosen.parquet", "held.parquet", "listing/listing.json", "listing/0-17.parquet"])
def test_what_only_a_run_reads_is_known_and_no_dataset(name):
    assert is_own_of_run(f"_runs/{RUN}/{name}")
    assert place_of(f"_runs/{RUN}/{name}") is None


@pytest.mark.parametrize(
    "name",
    [
        f"_runs/{RUN}/dead",
        f"_runs/{RUN}/alive.parquet",
        f"_runs/{RUN}/listing/x.parquet",
        "_runs/other/alive",
        f"runs/{RUN}/alive",
        f"_runs/{RUN}/alive\n",
    ],
)
def test_what_nobody_wrote_is_foreign(name):
    assert not is_own_of_run(name)
