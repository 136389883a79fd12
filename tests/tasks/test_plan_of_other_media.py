"""Plans of what the service does not take: decoded here, refused, or done already, and what a change of the setting makes of each."""

import json

import pytest

from audio_files import tone
from connectors.lake.store import FolderStore
from moderation.endpoints import ENDPOINTS
from moderation.formats import AudioFormat, StreamParameters
from moderation.outcomes import Reason
from moderation.sniffing import Content
from moderation.transcoding import SourceFormat, Transcode
from other_media import MEDIA, MP4, media_bytes
from planning import Bench
from tasks.plan import PlanRules
from tasks.progress import Standing
from tasks.shards import PlannedShards

MUSIC = (ENDPOINTS["music"],)
AUTO, ALWAYS, NEVER = (PlanRules(transcode=mode) for mode in Transcode)
SONG = media_bytes(tone(2.0, 16_000), 16_000, MP4)
WAV = media_bytes(tone(1.0, 8000), 8000, next(medium for medium in MEDIA if medium.muxer == "w64"))


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "audio", FolderStore(tmp_path / "results"))


def put_raw(bench, key, rate, channels, audio_format="s16le"):
    bench.put(key, b"\1\2" * 24_000)
    bench.put(f"{key}.json", json.dumps({"audio_format": audio_format, "sample_rate": rate, "num_channels": channels}).encode())


def loaded(bench, planned):
    run_id = max(path.name for path in (bench.results.root / "_runs").iterdir())
    shards = PlannedShards(bench.results, run_id)
    return {item.item.key: item for shard in planned.plan.shards for item in shards.objects(shard.number)}


async def test_what_the_service_does_not_take_is_planned_as_what_it_goes_out_as(bench):
    bench.put("song.mp3", SONG)
    bench.put("film.mkv", media_bytes(tone(2.0, 16_000), 16_000, next(m for m in MEDIA if m.muxer == "matroska"), pictures=5))
    put_raw(bench, "a.raw", 12_000, 2)
    put_raw(bench, "b.raw", 16_000, 1)
    planned = await bench.plan(AUTO, MUSIC)
    columns = ("decision", "audio_format", "sample_rate", "num_channels", "transcoded_from", "estimate_ms", "estimate_source")
    rows = {key: tuple(planned.of(key)[name] for name in columns) for key in planned.streamed()}
    assert rows == {
        "a.raw": ("stream", "s16le", 16_000, 2, "s16le:12000:2", 1000, "bytes"),
        "b.raw": ("stream", "s16le", 16_000, 1, None, 1500, "bytes"),
        "film.mkv": ("stream", "s16le", None, None, "matroska", 2064, "header"),
        "song.mp3": ("stream", "s16le", None, None, "mp4", 2064, "header"),
    }
    found = {key: (item.parameters, item.transcoded_from, item.expected_ms) for key, item in loaded(bench, planned).items()}
    assert found == {
        "a.raw": (StreamParameters(AudioFormat.S16LE, 16_000, 2), SourceFormat(AudioFormat.S16LE, 12_000, 2), 1000),
        "b.raw": (StreamParameters(AudioFormat.S16LE, 16_000, 1), None, 1500),
        "film.mkv": (None, SourceFormat(Content.MATROSKA), 2064),
        "song.mp3": (None, SourceFormat(Content.MP4), 2064),
    }
    [music] = planned.plan.forecast.endpoints
    assert (music.ms, music.decoded_ms, music.decodable_ms) == (6628, 5128, 0)
    assert {place.key for place in planned.plan.forecast.disagreements} == {"song.mp3"}


async def test_never_gives_the_same_up_with_their_reasons(bench):
    bench.put("song.m4a", SONG)
    put_raw(bench, "a.raw", 12_000, 2)
    put_raw(bench, "b.raw", 16_000, 9)
    planned = await bench.plan(NEVER, MUSIC)
    reasons = {key: (planned.of(key)["decision"], planned.of(key)["reason"]) for key in ("song.m4a", "a.raw", "b.raw")}
    assert reasons == {
        "song.m4a": ("quarantined", "unsupported_format"),
        "a.raw": ("quarantined", "unsupported_rate"),
        "b.raw": ("quarantined", "unsupported_rate"),
    }
    [music] = planned.plan.forecast.endpoints
    assert (music.ms, music.decoded_ms) == (0, 0)
    assert music.decodable_ms == 2064 + 1000 + planned.of("b.raw")["estimate_ms"]


@pytest.mark.parametrize("rules", [AUTO, ALWAYS, NEVER], ids=lambda rules: rules.transcode.value)
async def test_pictures_without_sound_are_given_up_as_that_whatever_may_be_decoded(bench, rules):
    bench.put("film.mp4", media_bytes(None, 16_000, MP4, pictures=5))
    planned = await bench.plan(rules, MUSIC)
    assert (planned.of("film.mp4")["decision"], planned.of("film.mp4")["reason"]) == ("quarantined", "no_audio_track")


async def test_what_is_no_audio_by_its_numbers_is_given_up_once_and_is_no_news_later(bench):
    put_raw(bench, "a.raw", 12, 1)
    first = await bench.plan(AUTO, MUSIC)
    assert (first.of("a.raw")["reason"], first.progress.newly_quarantined) == ("bad_parameters", 1)
    assert (await bench.plan(AUTO, MUSIC)).progress.newly_quarantined == 0


async def test_what_never_gave_up_is_planned_as_soon_as_it_may_be_decoded_and_is_done_for_both_then(bench):
    bench.put("song.m4a", SONG)
    bench.put("taken.w64", WAV)
    put_raw(bench, "a.raw", 12_000, 1)
    bench.put("lonely.s16le", b"\1\2\3\4" * 100)
    held = ["a.raw", "lonely.s16le", "song.m4a", "taken.w64"]
    now = "SELECT key FROM quarantined_now ORDER BY key"
    assert (await bench.plan(NEVER, MUSIC)).streamed() == []
    assert bench.ask(now) == [(key,) for key in held]
    dry = await bench.plan(AUTO, MUSIC, dry=True)
    assert dry.streamed() == ["a.raw", "song.m4a", "taken.w64"]
    assert bench.ask(now) == [(key,) for key in held], "a dry plan releases nothing"
    again = await bench.plan(NEVER, MUSIC)
    assert (again.streamed(), again.progress.newly_quarantined) == ([], 0), "never goes on as before"
    real = await bench.plan(AUTO, MUSIC)
    assert real.streamed() == ["a.raw", "song.m4a", "taken.w64"]
    assert bench.ask(now) == [("lonely.s16le",)]
    bench.publish(real, "a.raw", "song.m4a", "taken.w64")
    for rules in (AUTO, NEVER):
        later = await bench.plan(rules, MUSIC)
        assert (later.streamed(), later.progress.newly_quarantined) == ([], 0)
        assert later.progress.objects()[Standing.DONE] == 3
    released = bench.ask("SELECT DISTINCT key, event, reason FROM quarantine WHERE event = 'released' ORDER BY key")
    assert released == [
        ("a.raw", "released", "unsupported_rate"),
        ("song.m4a", "released", "unsupported_format"),
        ("taken.w64", "released", "unsupported_format"),
    ]


async def test_what_is_decoded_but_found_wanting_in_the_same_plan_is_given_up_anew(bench):
    bench.put("song.m4a", SONG)
    await bench.plan(NEVER, MUSIC)
    short = PlanRules(max_session_hours=1 / 3600)
    planned = await bench.plan(short, MUSIC)
    assert (planned.of("song.m4a")["reason"], planned.progress.newly_quarantined) == ("too_long", 1)
    assert bench.ask("SELECT key, reason FROM quarantined_now") == [("song.m4a", Reason.TOO_LONG.value)]


async def test_auto_and_never_share_what_is_done_and_always_has_results_of_its_own(bench):
    put_raw(bench, "b.raw", 16_000, 1)
    put_raw(bench, "c.raw", 16_000, 1, "u16le")
    first = await bench.plan(NEVER, MUSIC)
    bench.publish(first, "b.raw", "c.raw")
    assert (await bench.plan(AUTO, MUSIC)).streamed() == []
    of_its_own = await bench.plan(ALWAYS, MUSIC)
    assert of_its_own.streamed() == ["b.raw", "c.raw"]
    assert [of_its_own.of(key)["transcoded_from"] for key in ("b.raw", "c.raw")] == [None, "u16le:16000:1"]
    bench.publish(of_its_own, "b.raw", "c.raw")
    for rules in (ALWAYS, AUTO, NEVER):
        assert (await bench.plan(rules, MUSIC)).streamed() == []
