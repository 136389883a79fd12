"""The benchmarks of whole runs: their arithmetic on known answers, and the smallest run of each, so that they go on running."""

import asyncio
import importlib
import io
import sys
import wave
from pathlib import Path
from types import SimpleNamespace

import pytest

from connectors.local_velma.organisation import Organisation
from connectors.local_velma.server import local_velma
from list_api import ListApi, list_api

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
RUNS = ("end_to_end", "growth", "slots", "start_up")
MODULES = (*RUNS, "listing", "measuring", "one_afternoon", "published", "sample_in_a_loop", "services")


@pytest.fixture
def benchmark_of(monkeypatch):
    """Imports a benchmark, which is forgotten again: none is a module of the project."""
    monkeypatch.syspath_prepend(str(BENCHMARKS / "rivals"))
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(name, None)


def test_a_spread_is_told_with_its_ends(benchmark_of):
    measuring = benchmark_of("measuring")
    assert measuring.spread([3.0, 1.0, 2.5]) == {"median": 2.5, "min": 1.0, "max": 3.0}
    assert measuring.told(measuring.spread([3.0, 1.0, 2.5])) == "2.50 (1.00 to 3.00)"
    assert measuring.told(measuring.spread([2.0])) == "2.00"


def event(number: int, name: str, second: float, **facts) -> dict:
    return {"session": number, "event": name, "at": f"2026-11-21T12:00:{second:06.3f}+00:00", **facts}


def test_slot_use_counts_from_the_limit_until_the_queue_is_empty(benchmark_of):
    slots = benchmark_of("slots")
    events = []
    for number, (begin, end) in enumerate([(0, 20), (0, 20), (0, 20), (0, 20), (10, 20), (20, 30)]):
        events += [event(number, "connect", begin), event(number, "first_audio", begin), event(number, "done", end)]
        events += [event(number, "close", end, audio_ms=(end - begin) * 1000)]
    found = slots.use(events, wall_s=30.0, speed=1.0)
    assert (found.filled, found.open_share, found.peak) == (1.0, 1.0, 5)
    assert found.overall == pytest.approx(100 / 150)
    assert (found.reached_after_s, found.filled_s) == (10.0, 10.0)


def test_lengths_are_skewed_and_last_as_long_as_asked(benchmark_of):
    lengths = benchmark_of("slots").LENGTHS
    seconds = lengths.drawn(20)
    assert sum(seconds) >= 20 * 3600 > sum(seconds[:-1])
    assert 10 <= min(seconds) < max(seconds) <= 7200
    assert sorted(seconds)[len(seconds) // 2] < sum(seconds) / len(seconds)
    assert lengths.drawn(20) == seconds != lengths.drawn(20, draw=1)


def test_what_scans_of_several_catalogues_cost_is_told_of_each_object(benchmark_of):
    end_to_end = benchmark_of("end_to_end")
    costs = [
        end_to_end.Cost("soundcheck", 2.0, 9.0, 1.0, 1.0, 18_750, objects=20),
        end_to_end.Cost("soundcheck", 1.0, 9.0, 1.0, 1.0, 18_750, objects=5),
    ]
    rows = []
    end_to_end.show(SimpleNamespace(table=lambda *cells: rows.append(cells), figures={}), "long", costs)
    (title, _, [row]) = rows[0]
    assert title == "long: 5 to 20 objects, 1.00 audio-hours, limit 5"
    assert row[2:4] == ("1.50 (1.00 to 2.00)", "150.0 (100.0 to 200.0)")


def test_clients_take_turns_and_none_may_lose_a_row(benchmark_of):
    end_to_end = benchmark_of("end_to_end")
    rows = {"a": 5, "b": 5}
    ground = SimpleNamespace(cost=lambda client, batch: end_to_end.Cost(client, 1.0, 1.0, 1.0, 1.0, rows[client], batch.objects))
    batch = end_to_end.Batch("long/0/", 3)
    turns = [end_to_end.taken_turn(ground, ("a", "b"), batch, turn) for turn in range(2)]
    assert [[cost.client for cost in costs] for costs in turns] == [["a", "b"], ["b", "a"]]
    rows["b"] = 4
    with pytest.raises(SystemExit, match="a 5, b 4 of the same 3 objects"):
        end_to_end.taken_turn(ground, ("a", "b"), batch, 0)


def test_sizes_take_turns_up_to_the_largest_and_back(benchmark_of):
    turns = benchmark_of("growth").turns
    assert turns(10_000) == [100, 100, 1_000, 1_000, 10_000, 1_000, 1_000, 100, 100]
    assert turns(1_000) == [100, 100, 1_000, 1_000]


@pytest.mark.net
def test_all_stages_of_a_run_are_measured(benchmark_of, monkeypatch):
    growth = benchmark_of("growth")
    for name, value in {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": ""}.items():
        monkeypatch.setenv(name, value)
    with list_api(ListApi({growth.BUCKET: ["a", "b", "c"]})) as url:
        spent = asyncio.run(growth._scan(url, 3))
    assert tuple(spent) == growth.STAGES
    assert all(each.cpu_s > 0 and each.wall_s > 0 for each in spent.values())


@pytest.mark.net
async def test_rivals_hear_what_there_is(benchmark_of):
    audio = io.BytesIO()
    with wave.open(audio, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(16_000))
    async with local_velma(Organisation(frozenset({"a-key-of-tests"})), detector="stub") as velma:
        frames, done = await benchmark_of("one_afternoon").analyse(velma.url, "a-key-of-tests", "wav", audio.getvalue())
        audio.seek(0)
        same = await benchmark_of("sample_in_a_loop").analyse(velma.url, "a-key-of-tests", "wav", audio)
    assert frames == same
    assert done["frame_count"] == len(frames) == 5


@pytest.mark.parametrize("name", RUNS)
def test_every_benchmark_of_runs_can_be_imported(benchmark_of, name):
    assert callable(benchmark_of(name).main)
