"""Scans of what has to be decoded here first, over sockets: what the service is sent, and what is left where that fails."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

import flows.wiring
from audio_files import raw_bytes, tone
from connectors.lake.query import connect
from connectors.local_velma.fault_script import Scene
from connectors.media import Limits
from connectors.media.local_decoder import LocalDecoder
from moderation.formats import AudioFormat
from moderation.outcomes import ExitCode
from moderation.pacing import Deadlines
from moderation.transcoding import Transcode
from other_media import MEDIA, MP4, media_bytes, with_index_in_front

pytestmark = pytest.mark.torture

ROOT = Path(__file__).parents[2]
AUDIO = ROOT.parent / "shared" / "audio"
MUSIC = {"endpoints": ["music"], "connections": 4}


def connects(world):
    lines = map(json.loads, world.journal.read_text().splitlines())
    return [(line["audio_format"], line["sample_rate"], line["num_channels"]) for line in lines if line["event"] == "connect"]


def wide_raw(rate, channels):
    return raw_bytes(tone(2.0, rate).repeat(channels, axis=1), AudioFormat.S24BE), {
        "audio_format": "s24be",
        "sample_rate": str(rate),
        "num_channels": str(channels),
    }


async def test_everything_that_can_be_decoded_is_streamed_as_it_sounds_and_the_rest_has_its_reason(world, tmp_path):
    for medium in MEDIA:
        world.put(f"good/{medium}.mp3", media_bytes(tone(2.0, medium.rate), medium.rate, medium))
    world.put("good/web.ogg", with_index_in_front(tmp_path, tone(2.0, 16_000), 16_000))
    world.put("good/film.wav", media_bytes(tone(2.0, 16_000), 16_000, MP4, pictures=20))
    for name, (rate, channels) in {"studio.raw": (192_000, 1), "table.raw": (16_000, 10)}.items():
        body, words = wide_raw(rate, channels)
        world.put(f"good/{name}", body, **words)
    world.put("bad/silent.mp4", media_bytes(None, 16_000, MP4, pictures=5))
    world.put("bad/silent.mpg", media_bytes(None, 16_000, next(m for m in MEDIA if m.muxer == "mpeg"), pictures=5))
    world.put("bad/song.m4a", b"\0\0\0\x20ftypM4A " + os.urandom(4000))
    report = await world.scan(**MUSIC)
    good = len(MEDIA) + 4
    counts = report.counts()
    assert (counts["objects"], counts["done"], counts["quarantined"], counts["exit_code"]) == (good + 3, good, 3, ExitCode.QUARANTINED)
    assert world.ask("SELECT key, reason FROM quarantined_now ORDER BY key") == [
        ("bad/silent.mp4", "no_audio_track"),
        ("bad/silent.mpg", "no_audio_track"),
        ("bad/song.m4a", "undecodable"),
    ]
    rows = world.ask("SELECT key, audio_format, sample_rate, num_channels, transcoded_from FROM music_latest ORDER BY key")
    streamed = {key: tuple(rest) for key, *rest in rows}
    assert streamed == {
        **{f"good/{medium}.mp3": ("s16le", medium.rate, 1, medium.kind.value) for medium in MEDIA},
        "good/web.ogg": ("s16le", 16_000, 1, "mp4"),
        "good/film.wav": ("s16le", 16_000, 1, "mp4"),
        "good/studio.raw": ("s16le", 96_000, 1, "s24be:192000:1"),
        "good/table.raw": ("s16le", 16_000, 1, "s24be:16000:10"),
    }
    assert sorted(connects(world)) == sorted(parameters[:3] for parameters in streamed.values())
    frames = world.ask("SELECT key, frame_count, quality_flags FROM music_latest")
    assert {(count in {10, 11}, flags) for _, count, flags in frames} == {(True, "")}, "two seconds, as their headers say"
    again = await world.scan(**MUSIC)
    assert (again.progress.sessions, again.exit_code) == (0, ExitCode.OK)


async def test_never_streams_none_of_them_and_what_it_gave_up_is_done_when_that_changes(world):
    world.put("song.m4a", media_bytes(tone(1.0, 16_000), 16_000, MP4))
    world.put("plain.wav", media_bytes(tone(1.0, 16_000), 16_000, next(m for m in MEDIA if m.muxer == "w64")))
    report = await world.scan(**MUSIC, transcode=Transcode.NEVER)
    assert (report.progress.sessions, report.exit_code) == (0, ExitCode.QUARANTINED)
    held = "SELECT DISTINCT key, reason FROM quarantined_now ORDER BY key"
    assert world.ask(held) == [("plain.wav", "unsupported_format"), ("song.m4a", "unsupported_format")]
    assert (await world.scan(**MUSIC)).progress.sessions == 2
    assert world.ask(held) == []


@pytest.mark.fault(30)
async def test_what_the_service_could_not_decode_goes_out_once_more_as_decoded_here(world, make_wav):
    world.put("one.wav", make_wav(2.0))
    world.velma.faults.play(Scene(next=("close=4002@items=3",)))
    report = await world.scan(**MUSIC)
    assert (report.counts()["done"], report.exit_code) == (1, ExitCode.OK)
    assert connects(world) == [("wav", None, None), ("s16le", 16_000, 1)]
    assert world.ask("SELECT audio_format, transcoded_from, attempt, frame_count FROM music_latest") == [("s16le", "wav", 2, 10)]
    assert world.ask("SELECT outcome, cause FROM attempts ORDER BY attempt") == [("refused", "undecodable"), ("done", None)]
    assert world.ask("SELECT count(*) FROM quarantine") == [(0,)]


@pytest.mark.fault(30)
async def test_what_it_cannot_decode_then_either_is_given_up(world, make_wav):
    world.put("one.wav", make_wav(1.0))
    world.velma.faults.play(Scene(standing={"*": "close=4002@items=3"}))
    report = await world.scan(**MUSIC)
    assert report.exit_code is ExitCode.QUARANTINED
    assert [audio_format for audio_format, *_ in connects(world)] == ["wav", "s16le"]
    assert world.ask("SELECT key, reason FROM quarantined_now") == [("one.wav", "undecodable")]


@pytest.mark.fault(12, 13)
async def test_an_object_whose_decoder_dies_is_tried_twice_and_the_others_are_done(world, make_wav, monkeypatch):
    """No decoder answers within a hundred-thousandth of a second: each is ended, and neither session ever connects."""
    monkeypatch.setattr(flows.wiring, "LocalDecoder", partial(LocalDecoder, Limits(wall_seconds=1e-5)))
    world.put("bomb.m4a", media_bytes(tone(1.0, 16_000), 16_000, MP4))
    for name in ("one.wav", "two.wav"):
        world.put(name, make_wav(1.0))
    report = await world.scan(**MUSIC)
    assert (report.counts()["done"], report.exit_code) == (2, ExitCode.QUARANTINED)
    assert world.ask("SELECT key, reason FROM quarantined_now") == [("bomb.m4a", "hostile")]
    [(detail,)] = world.ask("SELECT detail FROM quarantined_now")
    assert "no sign of life" in detail
    assert world.ask("SELECT count(*), sum(bytes_sent) FROM attempts WHERE cause = 'decoder_died'") == [(2, 0)]
    assert [audio_format for audio_format, *_ in connects(world)] == ["wav", "wav"]


async def test_a_scan_that_is_broken_off_leaves_no_decoder(world, monkeypatch):
    decoders = []

    def noted():
        decoders.append(LocalDecoder())
        return decoders[-1]

    monkeypatch.setattr(flows.wiring, "LocalDecoder", noted)
    world.put("long.m4a", media_bytes(tone(120.0, 16_000), 16_000, MP4))
    world.velma.faults.play(Scene(standing={"*": "stall@items=20"}))
    task = asyncio.create_task(world.scan(**MUSIC, deadlines=Deadlines(close_s=0.2)))
    async with asyncio.timeout(60):
        while not (decoders and decoders[0].pid and world.velma.journal.counts["connect"]):
            await asyncio.sleep(0.01)
    pid = decoders[0].pid
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ProcessLookupError):
        os.killpg(pid, signal.SIGCONT)


# -- real audio -------------------------------------------------------------------------------------------------------------------------

LIES = [".mp3", ".wav", ".flac", ".m4a", ".ogg", ".txt", "", ".aac", ".f32le", ".mulaw"]
RESULTS = """
    SELECT m.etag, m.primary_label, m.frame_count, m.music_pct, m.speech_pct, m.transcoded_from, a.primary_verdict, a.window_count
    FROM music_latest AS m JOIN ai_music_latest AS a USING (object_id) ORDER BY m.etag
"""


@pytest.mark.fault(11)
@pytest.mark.torture
@pytest.mark.timeout(900)
@pytest.mark.skipif(not (AUDIO / "catalogue.csv").is_file(), reason="the folder of real audio is not part of the project")
def test_under_names_that_lie_the_results_are_the_same_and_every_unsupported_file_is_done(tmp_path):
    honest, lying = tmp_path / "honest", tmp_path / "lying"
    for folder in (honest, lying):
        folder.mkdir()
    files = sorted(path for path in AUDIO.iterdir() if path.suffix not in {".csv", ".json"})
    for number, path in enumerate(files):
        body, sidecar = path.read_bytes(), AUDIO / f"{path.name}.json"
        for name, folder in ((path.name, honest), (f"{number:02}{LIES[number % len(LIES)]}", lying)):
            (folder / name).write_bytes(body)
            if sidecar.is_file():
                (folder / f"{name}.json").write_bytes(sidecar.read_bytes())
    found = {}
    for folder in (honest, lying):
        out = tmp_path / f"{folder.name}-results"
        demo = [sys.executable, "-c", "from flows.cli import main; main()", "demo", "--catalogue", str(folder), "--results", str(out)]
        done = subprocess.run([*demo, "--direct", "--json"], capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == 3, done.stderr
        with connect(str(out)) as lake:
            found[folder] = lake.execute(RESULTS).fetchall()
    assert found[honest] == found[lying]
    assert len(found[honest]) == len(files) - 3, "all but the empty one, the garbage and the notes"
    assert [row[5] for row in found[honest] if row[5]] == ["mp4"]
