"""The sample audio beside the repository: how long a plan believes it is, and what it reads to know."""

import csv
from pathlib import Path

import polars as pl
import pytest

from connectors.audio_store import FolderAudioStore
from connectors.lake.store import FolderStore
from planning import Bench, CountingStore

SAMPLES = Path(__file__).parents[3] / "shared" / "audio"
MOST_BYTES = 64 * 1024


def durations():
    with (SAMPLES / "catalogue.csv").open(encoding="utf-8", newline="") as file:
        return {row["file"]: int(row["duration_ms"]) for row in csv.DictReader(file) if row["duration_ms"]}


@pytest.fixture
async def planned(tmp_path):
    bench = Bench(tmp_path / "audio", FolderStore(tmp_path / "results"))
    bench.folder, bench.store = SAMPLES, CountingStore(SAMPLES)
    return bench, await bench.plan()


async def test_the_sample_catalogue_is_known_within_three_percent_and_object_by_object(planned):
    bench, plan = planned
    assert isinstance(bench.store, FolderAudioStore)
    estimates = dict(plan.rows.filter(pl.col("endpoint") == "music").select("key", "estimate_ms").iter_rows())
    true = durations()
    whole = [name for name in true if name != "truncated.mp3"]
    assert sum(estimates[name] for name in whole) == pytest.approx(sum(true[name] for name in whole), rel=0.005)
    for name in whole:
        assert estimates[name] == pytest.approx(true[name], rel=0.01, abs=2), name
    [music, _] = plan.plan.forecast.endpoints
    assert (music.ms, music.decodable_ms) == (sum(estimates[name] for name in true), 0)
    assert music.decoded_ms == estimates["speech-it-4.m4a"]
    assert abs(music.ms - sum(true.values())) <= music.error_ms + 100


async def test_less_than_64_kib_are_read_of_each_object(planned):
    bench, _ = planned
    assert len(bench.store.bytes_read) > 25
    assert max(bench.store.bytes_read.values()) < MOST_BYTES


async def test_the_truncated_one_and_the_misnamed_one_are_told(planned):
    _, plan = planned
    forecast = plan.plan.forecast
    assert [place.key for place in forecast.truncated_places] == ["truncated.mp3"]
    assert {place.key: place.detail for place in forecast.disagreements} == {"wrong-extension.mp3": "named .mp3, but its bytes are ogg"}
    known = {source.value: hours.objects for source, hours in forecast.endpoints[0].hours.items()}
    assert known == {"bytes": 4, "header": 19, "bitrate": 3}
