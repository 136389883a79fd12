"""What frames cost on disk, and what it costs to find one object's among all: the figures of issue and measurements.md."""

import time
from datetime import date

import duckdb
import pytest

from connectors.lake.packages import write_package
from connectors.lake.store import FolderStore
from smooth_frames import RUN, packages_of, smooth_session

DAY = date(2026, 3, 1)
BYTES_A_ROW = 4.2
LOOKUP_CPU_MS = 60
PACKAGE_SESSIONS = 250
MANY = [pytest.param(rows, marks=pytest.mark.torture, id=f"{rows:.0e}") for rows in (10**7, 10**8)]


@pytest.fixture(scope="module", params=[pytest.param(10**6, id="1e+06"), *MANY])
def frames(request, tmp_path_factory):
    """A glob over that many rows, in files as publishing makes them; their number, and an object among them."""
    store = FolderStore(tmp_path_factory.mktemp("frames"))
    for number, sessions in enumerate(packages_of(request.param, PACKAGE_SESSIONS), 1):
        write_package(store, f"{RUN}-p{number:04d}", RUN, DAY, sessions)
    return store, request.param


def test_a_row_takes_no_more_than_it_may(frames, record_property):
    store, rows = frames
    taken = sum(store.size(name) for name in store.list("music_frames/"))
    record_property("bytes_a_row", taken / rows)
    assert taken / rows <= BYTES_A_ROW


def test_the_frames_of_an_object_are_found_quickly_by_a_bare_glob(frames, record_property):
    store, rows = frames
    wanted = smooth_session(rows // 40_000)
    spent = []
    with duckdb.connect() as connection:
        connection.execute("SET threads = 2")
        for _ in range(5):
            before = time.process_time()
            found = connection.execute(
                f"SELECT music_prob, speech_prob FROM '{store.root}/music_frames/*/*.parquet' WHERE object_id = ?", [wanted.object_id]
            ).fetchnumpy()
            spent.append(1000 * (time.process_time() - before))
    assert found["music_prob"].tobytes() == wanted.items["music_prob"]
    assert found["speech_prob"].tobytes() == wanted.items["speech_prob"]
    record_property("cpu_ms", min(spent))
    assert min(spent) <= LOOKUP_CPU_MS, spent
