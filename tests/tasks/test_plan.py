"""Plans against what earlier runs left, as rows of the lake, without S3 or a service."""

import json
import os
import struct
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from audio_files import pcm_fmt, wav
from connectors.lake.store import FolderStore
from moderation.catalogue import ParameterRule, ShardRules
from moderation.endpoints import ENDPOINTS
from moderation.errors import AccessDeniedError
from moderation.outcomes import Reason
from planning import START, Bench, CountingStore
from tasks.cut import Cut
from tasks.frames import read_frame
from tasks.plan import PlanRules
from tasks.progress import Changes, Standing
from tasks.shards import PlannedShards

ROOT = Path(__file__).parents[2]
MUSIC = (ENDPOINTS["music"],)
RAW = json.dumps({"audio_format": "s16le", "sample_rate": 8000, "num_channels": 1}).encode()
KEPT = ["key", "endpoint", "decision", "reason", "audio_format", "estimate_ms", "estimate_source", "shard"]


def sound(seconds, *, cut=0):
    """A wav of 8 kHz in 16 bits; the last bytes may be missing."""
    data = wav(pcm_fmt(1, 16), b"\1\0" * round(8000 * seconds))
    return data[: len(data) - cut]


def box(kind, body):
    """A box of MP4."""
    return struct.pack(">I4s", len(body) + 8, kind) + body


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "audio", FolderStore(tmp_path / "results"))


@pytest.mark.fault(9, 10)
async def test_a_plan_says_of_every_object_what_becomes_of_it_and_why(bench):
    bench.put("a.wav", sound(3))
    bench.put("b/raw.pcm", b"\0\0" * 16_000)
    bench.put("b/raw.pcm.json", RAW)
    bench.put("c.s16le", b"\1\2\3\4" * 100)
    bench.put("d.txt", b"words")
    bench.put("e.wav", b"")
    bench.put("f.wav", sound(1))
    bench.list_only("f.wav", storage_class="DEEP_ARCHIVE")
    bench.put("g.json", b"{}")
    planned = await bench.plan()
    of_music = planned.rows.filter(pl.col("endpoint") == "music").select("key", "decision", "reason", "estimate_ms", "estimate_source")
    assert of_music.rows() == [
        ("a.wav", "stream", None, 3000, "header"),
        ("b/raw.pcm", "stream", None, 2000, "bytes"),
        ("b/raw.pcm.json", "skip", "sidecar", 0, "none"),
        ("c.s16le", "quarantined", "unknown_parameters", 0, "none"),
        ("d.txt", "skip", "not_audio", 0, "none"),
        ("e.wav", "skip", "empty", 0, "none"),
        ("f.wav", "skip", "archived", 0, "none"),
        ("g.json", "skip", "not_audio", 0, "none"),
    ]
    assert planned.rows["endpoint"].to_list() == ["music", "ai_music"] * 8
    assert planned.progress.objects() == {
        Standing.DONE: 0,
        Standing.QUARANTINED: 1,
        Standing.SKIPPED: 5,
        Standing.PENDING: 2,
    }
    assert bench.ask("SELECT key, endpoint, reason FROM quarantined_now ORDER BY endpoint DESC") == [
        ("c.s16le", "music", "unknown_parameters"),
        ("c.s16le", "ai_music", "unknown_parameters"),
    ]
    assert planned.plan.forecast.endpoints[0].objects == {
        "stream": 2,
        "sidecar": 1,
        "unknown_parameters": 1,
        "not_audio": 2,
        "empty": 1,
        "archived": 1,
    }


async def test_what_is_done_is_known_by_identity_and_parameters_never_by_date(bench):
    for name in ("same", "changed", "described", "deleted", "touched"):
        bench.put(f"{name}.wav", sound(1 + len(name)))
    first = await bench.plan(endpoints=MUSIC)
    assert len(first.streamed()) == 5
    bench.publish(first, "same.wav", "changed.wav", "described.wav", "deleted.wav", "touched.wav")
    unchanged = await bench.plan(endpoints=MUSIC)
    assert (unchanged.streamed(), unchanged.plan.shards) == ([], [])
    bench.put("new.wav", sound(1))
    bench.put("changed.wav", sound(9))
    bench.put("described.wav.json", RAW)
    bench.list_only("touched.wav", last_modified=START - timedelta(days=900))
    (bench.folder / "deleted.wav").unlink()
    bench.store.bytes_read.clear()
    after = await bench.plan(endpoints=MUSIC)
    assert after.streamed() == ["changed.wav", "described.wav", "new.wav"]
    [found] = after.plan.forecast.endpoints
    changes = found.changes
    assert (changes.new, changes.changed, changes.unchanged, changes.deleted) == (1, 2, 2, 1)
    assert [shard.objects for shard in after.plan.shards] == [1, 2]
    assert set(bench.store.bytes_read) == {"changed.wav", "described.wav", "new.wav"}


async def test_what_was_given_up_or_is_no_audio_is_nothing_new(bench):
    bench.put("lonely.s16le", b"\1\2\3\4" * 100)
    bench.put("notes.txt", b"words")
    first = (await bench.plan(endpoints=MUSIC)).plan.forecast.endpoints[0].changes
    assert (first.new, first.changed, first.unchanged) == (1, 0, 0)
    second = (await bench.plan(endpoints=MUSIC)).plan.forecast.endpoints[0].changes
    assert (second.new, second.changed, second.unchanged) == (0, 0, 1)


async def test_nothing_counts_as_deleted_that_the_listing_did_not_look_for(bench):
    bench.put("one.wav", sound(1))
    first = await bench.plan(endpoints=MUSIC)
    bench.publish(first, "one.wav")
    (bench.folder / "one.wav").unlink()
    bench.put("two.wav", sound(1))
    assert (await bench.plan(endpoints=MUSIC)).plan.forecast.endpoints[0].changes.deleted == 1
    assert (await bench.plan(endpoints=MUSIC, sources=[])).plan.forecast.endpoints[0].changes.deleted is None


async def test_what_is_planned_again_by_force_is_not_new(bench):
    for name in ("same", "changed", "new"):
        bench.put(f"{name}.wav", sound(1))
    bench.publish(await bench.plan(endpoints=MUSIC), "same.wav", "changed.wav")
    bench.put("changed.wav", sound(2))
    planned = await bench.plan(PlanRules(force=True), endpoints=MUSIC)
    assert planned.streamed() == ["changed.wav", "new.wav", "same.wav"]
    assert planned.plan.forecast.endpoints[0].changes == Changes(new=1, changed=1, unchanged=1, deleted=0)


async def test_an_unchanged_catalogue_is_planned_without_reading_one_byte_of_it(bench):
    for number in range(30):
        bench.put(f"{number}.wav", sound(1 + number / 10))
    first = await bench.plan()
    for endpoint in ("music", "ai_music"):
        bench.publish(first, *(f"{number}.wav" for number in range(30)), endpoint=endpoint)
    bench.store.bytes_read.clear()
    again = await bench.plan()
    assert bench.store.bytes_read == {}
    assert again.progress.objects()[Standing.DONE] == 30
    assert again.progress.outcomes == []
    assert again.rows["decision"].unique().to_list() == ["done"]


async def test_an_object_done_at_one_endpoint_is_planned_for_the_other_alone(bench):
    bench.put("one.wav", sound(2))
    bench.publish(await bench.plan(), "one.wav")
    second = await bench.plan()
    assert [(row["endpoint"], row["decision"]) for row in second.rows.iter_rows(named=True)] == [("music", "done"), ("ai_music", "stream")]
    assert second.progress.objects()[Standing.PENDING] == 1


async def test_a_quarantine_lasts_and_is_no_news(bench):
    bench.put("lonely.s16le", b"\1\2\3\4" * 100)
    assert (await bench.plan()).progress.newly_quarantined == 1
    bench.store.bytes_read.clear()
    second = await bench.plan()
    assert second.progress.newly_quarantined == 0
    assert second.progress.objects()[Standing.QUARANTINED] == 1
    assert (second.of("lonely.s16le")["decision"], second.of("lonely.s16le")["reason"]) == ("quarantined", "unknown_parameters")
    assert bench.store.bytes_read == {}
    assert bench.ask("SELECT count(*) FROM quarantine") == [(2,)]


async def test_an_object_given_up_at_one_endpoint_and_new_at_the_other_counts_once(bench):
    bench.put("lonely.s16le", b"\1\2\3\4" * 100)
    await bench.plan(endpoints=MUSIC)
    both = await bench.plan()
    assert both.progress.objects() == {Standing.DONE: 0, Standing.QUARANTINED: 1, Standing.SKIPPED: 0, Standing.PENDING: 0}
    assert {counts.standings.total() for counts in both.progress.endpoints.values()} == {1}
    assert [(outcome.endpoint, outcome.new, outcome.example) for outcome in both.progress.outcomes] == [
        ("music", False, False),
        ("ai_music", True, False),
    ]


async def test_a_dry_plan_quarantines_nothing(bench):
    bench.put("lonely.s16le", b"\1\2\3\4" * 100)
    planned = await bench.plan(dry=True)
    assert planned.of("lonely.s16le")["reason"] == "unknown_parameters"
    assert bench.ask("SELECT count(*) FROM quarantine") == [(0,)]


async def test_what_is_known_is_counted_and_only_some_of_it_is_named(bench, monkeypatch):
    monkeypatch.setattr("tasks.plan_counts.EXAMPLES", 3)
    for number in range(10):
        bench.put(f"{number}.wav", b"")
    planned = await bench.plan(endpoints=MUSIC)
    assert [outcome.key for outcome in planned.progress.outcomes] == ["0.wav", "1.wav", "2.wav"]
    assert planned.progress.objects()[Standing.SKIPPED] == 10
    assert planned.progress.of("music").reasons == {Reason.EMPTY: 10}


async def test_the_same_listing_gives_the_same_plan(bench):
    for number in range(40):
        bench.put(f"{number}.wav", sound(1 + number % 3))
    rules = PlanRules(shards=ShardRules(max_objects=7))
    plans = [await bench.plan(rules) for _ in range(2)]
    assert plans[0].rows.select(KEPT).equals(plans[1].rows.select(KEPT))
    assert plans[0].plan.shards == plans[1].plan.shards


async def test_of_every_endpoint_the_shortest_goes_alone_and_before_all_others(bench):
    for number in range(5):
        bench.put(f"{number}.wav", sound(5 - number))
    planned = await bench.plan(PlanRules(shards=ShardRules(max_objects=2)))
    assert [(shard.number, shard.endpoint, shard.objects, shard.estimate_ms, shard.first) for shard in planned.plan.shards] == [
        (0, "music", 1, 1000, True),
        (3, "ai_music", 1, 1000, True),
        (1, "music", 2, 9000, False),
        (2, "music", 2, 5000, False),
        (4, "ai_music", 2, 9000, False),
        (5, "ai_music", 2, 5000, False),
    ]
    shards = PlannedShards(bench.results, "20261121T080000Z-abcdef")
    loaded = {shard.number: shards.objects(shard.number) for shard in planned.plan.shards}
    assert [item.item.key for item in loaded[1]] == ["0.wav", "1.wav"]
    assert [(item.endpoint.name, item.estimate_ms, item.expected_ms) for item in loaded[5]] == [
        ("ai_music", 3000, 3000),
        ("ai_music", 2000, 2000),
    ]


async def test_a_shard_is_streamed_in_the_order_in_which_the_plan_was_cut(bench):
    for number, seconds in enumerate((3, 4.2, 4.5, 4.3, 1)):
        bench.put(f"{number}.wav", sound(seconds))
    planned = await bench.plan(PlanRules(shards=ShardRules(max_objects=3)), endpoints=MUSIC)
    shards = PlannedShards(bench.results, "20261121T080000Z-abcdef")
    order = [[item.item.key for item in shards.objects(shard.number)] for shard in planned.plan.shards]
    assert order == [["4.wav"], ["1.wav", "2.wav", "3.wav"], ["0.wav"]]


async def test_a_plan_is_read_once_for_all_its_shards(bench, monkeypatch):
    for number in range(4):
        bench.put(f"{number}.wav", sound(4 - number))
    planned = await bench.plan(PlanRules(shards=ShardRules(max_objects=2)), endpoints=MUSIC)
    read = []
    monkeypatch.setattr("tasks.shards.read_frame", lambda *place: read.append(place) or read_frame(*place))
    shards = PlannedShards(bench.results, "20261121T080000Z-abcdef")
    assert [len(shards.objects(shard.number)) for shard in planned.plan.shards] == [1, 2, 1]
    assert len(shards.names([0, 2])) == 2
    assert shards.names([7]) == []
    assert len(read) == 2, "the plan, and the manifest"


async def test_of_equally_short_objects_the_first_by_identity_goes_first(bench):
    for number in range(9):
        bench.put(f"{number}.wav", sound(2))
    planned = await bench.plan(endpoints=MUSIC)
    first = planned.rows.filter(pl.col("shard") == 0)["object_id"].to_list()
    assert first == [planned.rows["object_id"].min()]


async def test_a_container_with_nothing_but_video_has_a_reason_of_its_own(bench):
    handler = box(b"hdlr", bytes(8) + b"vide" + bytes(12))
    bench.put("silent.mp4", box(b"ftyp", b"isom" + bytes(12)) + box(b"moov", box(b"trak", box(b"mdia", handler))))
    planned = await bench.plan(endpoints=MUSIC)
    assert planned.of("silent.mp4")["reason"] == "no_audio_track"
    assert bench.ask("SELECT reason, detail FROM quarantine") == [("no_audio_track", "an MP4 without a sound track")]


async def test_a_guess_is_no_reason_to_give_an_object_up(bench):
    bench.put("unknown.flac", b"fLaC" + bytes(4_000_000))
    planned = await bench.plan(PlanRules(max_session_hours=30 / 3600))
    row = planned.of("unknown.flac")
    assert (row["decision"], row["estimate_source"], row["estimate_ms"]) == ("stream", "default", 72_727)


@pytest.mark.fault(80)
async def test_a_session_that_would_be_too_long_for_sure_is_given_up(bench):
    bench.put("long.wav", sound(40))
    planned = await bench.plan(PlanRules(max_session_hours=30 / 3600))
    row = planned.of("long.wav")
    assert (row["decision"], row["reason"], row["estimate_ms"]) == ("quarantined", "too_long", 40_000)


async def test_a_file_that_lacks_what_its_header_declares_is_flagged_and_planned_by_what_is_there(bench):
    bench.put("cut.wav", sound(10, cut=80_000))
    planned = await bench.plan(endpoints=MUSIC)
    assert planned.plan.forecast.truncated == 1
    assert [place.key for place in planned.plan.forecast.truncated_places] == ["cut.wav"]
    assert planned.of("cut.wav")["estimate_ms"] == 5000
    [item] = PlannedShards(bench.results, "20261121T080000Z-abcdef").objects(0)
    assert item.expected_ms is None, "a result is not held against what is not there"


@pytest.mark.fault(10)
async def test_a_header_without_audio_is_empty_and_opens_no_session(bench):
    for name, body in (("a.wav", sound(0)), ("b.flac", b"fLaC"), ("c.wav", sound(0.1)), ("d.wav", sound(0) + bytes(100_000))):
        bench.put(name, body)
    planned = await bench.plan(endpoints=MUSIC)
    assert planned.streamed() == ["c.wav", "d.wav"], "a header may lie about what is behind it"
    assert [planned.of(name)["reason"] for name in ("a.wav", "b.flac")] == ["empty", "empty"]
    told = {outcome.key: outcome.detail for outcome in planned.progress.outcomes}
    assert told["a.wav"] == f"its {len(sound(0))} bytes are a header without audio"


@pytest.mark.fault(11)
async def test_bytes_win_over_names_and_words_and_every_disagreement_is_told(bench):
    bench.put("a.mp3", sound(1))
    bench.put("b.pcm", sound(2))
    bench.put("b.pcm.json", RAW)
    bench.put("calls/c", sound(3))
    bench.put("d.wav", sound(4))
    planned = await bench.plan(PlanRules([ParameterRule("calls/*", "s16le", 8000, 1)]), endpoints=MUSIC)
    assert {row["audio_format"] for row in planned.rows.iter_rows(named=True)} == {"wav", None}
    forecast = planned.plan.forecast
    assert forecast.misnamed == 3
    assert {place.key: place.detail for place in forecast.disagreements} == {
        "a.mp3": "named .mp3, but its bytes are wav",
        "b.pcm": "its sidecar says that it is raw audio, but its bytes are wav",
        "calls/c": "the rule for calls/* says s16le, but its bytes are wav",
    }


async def test_the_newest_sidecar_of_a_key_is_heard_and_one_in_another_bucket_is_not(bench):
    bench.put("one.pcm", b"\0\0" * 8000)
    planned = await bench.plan(endpoints=MUSIC)
    assert planned.of("one.pcm")["reason"] == "unknown_parameters"
    bench.put("one.pcm.json", RAW)
    described = await bench.plan(endpoints=MUSIC)
    assert described.streamed() == ["one.pcm"]
    assert described.of("one.pcm")["params_hash"] != planned.of("one.pcm")["params_hash"]


@pytest.mark.fault(6)
async def test_too_many_objects_that_may_not_be_read_end_the_plan(bench):
    class Denying(CountingStore):
        async def head(self, item, size, offset=0):
            raise AccessDeniedError("s3:GetObject")

    for number in range(3):
        bench.put(f"{number}.wav", sound(1))
    with pytest.raises(AccessDeniedError, match="s3:GetObject"):
        await bench.plan(store=Denying(bench.folder))


# -- cutting ----------------------------------------------------------------------------------------------------------------------------


async def test_a_limit_takes_the_first_objects_and_leaves_the_others_for_later(bench):
    bench.put("00.txt", b"words")
    for number in range(1, 9):
        bench.put(f"{number:02}.wav", sound(number))
    planned = await bench.plan(PlanRules(cut=Cut(limit=3)))
    assert planned.streamed() == ["01.wav", "02.wav", "03.wav"]
    rest = planned.rows.filter(pl.col("reason") == "not_reached")
    assert rest["decision"].unique().to_list() == ["skip"]
    assert rest.height == 2 * 5
    assert planned.progress.cut == 5
    assert planned.progress.objects() == {Standing.DONE: 0, Standing.QUARANTINED: 0, Standing.SKIPPED: 1, Standing.PENDING: 8}


async def test_a_limit_looks_at_no_more_objects_than_it_needs(bench, monkeypatch):
    monkeypatch.setattr("tasks.plan.LOOKED_AT_A_TIME_TO_CUT", 4)
    for number in range(20):
        bench.put(f"{number:02}.wav", sound(1))
    await bench.plan(PlanRules(cut=Cut(limit=4)))
    assert sorted(bench.store.bytes_read) == ["00.wav", "01.wav", "02.wav", "03.wav"]


async def test_max_hours_counts_every_endpoint_that_an_object_goes_to(bench):
    for number in range(6):
        bench.put(f"{number}.wav", sound(10))
    bench.publish(await bench.plan(dry=True), "0.wav")
    planned = await bench.plan(PlanRules(cut=Cut(max_hours=55 / 3600)))
    assert (planned.streamed("music"), planned.streamed("ai_music")) == (["1.wav", "2.wav"], ["0.wav", "1.wav", "2.wav"])
    assert sum(endpoint.ms for endpoint in planned.plan.forecast.endpoints) == 50_000


async def test_a_sample_has_something_of_every_format_and_size_and_is_the_same_each_time(bench):
    for number in range(40):
        bench.put(f"short-{number}.wav", sound(0.5))
    for number in range(10):
        bench.put(f"long-{number}.wav", sound(20))
    bench.put("only.aiff", b"FORM" + struct.pack(">I", 4) + b"AIFF" + bytes(20_000))
    planned = [await bench.plan(PlanRules(cut=Cut(sample=11)), endpoints=MUSIC, dry=True) for _ in range(2)]
    assert planned[0].streamed() == planned[1].streamed()
    taken = planned[0].streamed()
    assert len(taken) == 11
    assert "only.aiff" in taken
    assert sum(key.startswith("short") for key in taken) == 8
    assert sum(key.startswith("long") for key in taken) == 2


@pytest.mark.parametrize("cut", [Cut(limit=0), Cut(sample=0), Cut(max_hours=0)])
async def test_a_plan_may_be_cut_to_nothing(bench, cut):
    bench.put("one.wav", sound(1))
    planned = await bench.plan(PlanRules(cut=cut))
    assert planned.plan.shards == []
    assert planned.of("one.wav")["reason"] == "not_reached"


@pytest.mark.torture
def test_a_million_objects_are_planned_against_a_million_done_ones(tmp_path):
    figures = tmp_path / "figures.json"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "benchmarks/planning.py", "--json", str(figures)], cwd=ROOT, check=True, env=environment)
    unchanged, *_ = costs = json.loads(figures.read_text())
    assert (unchanged["objects"], unchanged["done"], unchanged["sessions"]) == (1_000_000, 1_000_000, 0)
    assert max(cost["wall_s"] for cost in costs) < 60
    assert max(cost["peak_mib"] for cost in costs) * 1024 * 1024 < 2e9
