"""The sample catalogue: what is in it, that it is what it says, and that it is the same bytes every time."""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from audio_files import pcm_fmt, wav
from connectors.local_velma import analysis
from moderation.formats import CONTAINERS, AudioFormat, StreamParameters
from moderation.outcomes import Reason
from moderation.sniffing import Content, sniff
from tasks.sample_catalogue import DONE, Sample, sample_catalogue

ROOT = Path(__file__).parents[2]
RAW = {"calls/2026-10-03/line-07.pcm": ("s16le", 16000), "calls/2026-10-03/line-08.ulaw": ("mulaw", 8000)}


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return sample_catalogue()


@pytest.fixture(scope="module")
def catalogue(samples) -> dict[str, Sample]:
    return {sample.key: sample for sample in samples}


@pytest.fixture(scope="module")
def streamed(catalogue):
    return [sample for sample in catalogue.values() if sample.expected == DONE]


def digest(sample: Sample) -> str:
    return hashlib.sha256(repr(sample).encode()).hexdigest()


def seconds(sample: Sample) -> float:
    kind, rate = RAW.get(sample.key, (None, None))
    options = {"sample_rate": str(rate)} if rate else {}
    with av.open(io.BytesIO(sample.body), format=kind, options=options) as container:
        return sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))


IN_ANOTHER_PROCESS = """
import hashlib
from tasks.sample_catalogue import sample_catalogue
for sample in sample_catalogue():
    print(sample.key, hashlib.sha256(repr(sample).encode()).hexdigest())
"""


@pytest.mark.torture
def test_the_same_bytes_in_another_process(catalogue):
    environment = os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    said = subprocess.run([sys.executable, "-c", IN_ANOTHER_PROCESS], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.splitlines() == [f"{key} {digest(sample)}" for key, sample in catalogue.items()]


def test_no_encoder_signs_with_its_version(catalogue):
    signed = [key for key, sample in catalogue.items() if re.search(rb"Lav[cf]\d", sample.body)]
    assert signed == []


def test_size_and_variety(catalogue, streamed):
    assert len(catalogue) >= 16
    assert {sniff(sample.body[:4096]) for sample in streamed if sample.key not in RAW} == CONTAINERS | {Content.MP4}
    assert 180 <= sum(seconds(sample) for sample in streamed) <= 300
    assert {sample.truth for sample in streamed} == {"speech", "music", "mixed", "neither", "unknown"}


def test_keys_are_unique_and_sorted(samples):
    keys = [sample.key for sample in samples]
    assert keys == sorted(set(keys))


def test_expected_is_an_outcome_word(catalogue):
    for sample in catalogue.values():
        assert sample.expected == DONE or Reason(sample.expected)
        assert (sample.truth == "none") == (sample.expected != DONE)


def test_each_recording_lasts_from_8_to_25_seconds(streamed):
    lengths = {sample.key: seconds(sample) for sample in streamed}
    short = lengths.pop("ambience/door-click.wav")
    assert 0 < short < 0.192
    assert {key: length for key, length in lengths.items() if not 7.9 <= length <= 25} == {}


@pytest.mark.parametrize(
    ("key", "content"),
    [
        ("music/singles/harbour-lights.m4a", Content.MP4),
        ("music/singles/long-way-round.mp3", AudioFormat.OGG),
        ("music/singles/night-bus.mp3", AudioFormat.MP3),
        ("music/loops/four-on-the-floor.aac", AudioFormat.AAC),
        ("music/loops/upright-piano.aiff", AudioFormat.AIFF),
        ("music/archive/rip-0031.flac", AudioFormat.FLAC),
        ("podcasts/season-3/trailer.webm", AudioFormat.WEBM),
        ("podcasts/season-3/episode-41.wav", AudioFormat.WAV),
        ("podcasts/season-3/episode-43.wav", Content.EMPTY),
        ("podcasts/season-3/README.txt", Content.TEXT),
    ],
)
def test_first_bytes(catalogue, key, content):
    assert sniff(catalogue[key].body[:4096]) is content


def test_the_damaged_flac_has_nothing_to_decode(catalogue):
    body = catalogue["music/archive/rip-0031.flac"].body
    with pytest.raises(av.FFmpegError), av.open(io.BytesIO(body)) as container:
        next(container.decode(audio=0))


def test_raw_audio_says_elsewhere_how_to_read_it(catalogue):
    sidecar = json.loads(catalogue["calls/2026-10-03/line-07.pcm.json"].body)
    metadata = catalogue["calls/2026-10-03/line-08.ulaw"].metadata
    assert StreamParameters.of(**sidecar) == StreamParameters(AudioFormat.S16LE, 16000, 1)
    assert StreamParameters.of(*(metadata[name] for name in ("audio-format", "sample-rate", "num-channels"))).bytes_per_second == 8000


def last_message(sample: Sample) -> dict:
    """What the local server's music endpoint would say last, of what it does not take as a wav of the same."""
    kind, rate = RAW.get(sample.key, (sniff(sample.body[:4096]).value, None))
    said = io.BytesIO()
    body = sample.body
    if kind == Content.MP4:
        kind, body = AudioFormat.WAV, _as_wav(body)
    source = io.BufferedReader(io.BytesIO(body))
    analysis.run(source, said, endpoint="music", audio_format=kind, sample_rate=rate, num_channels=rate and 1)
    return json.loads(said.getvalue().splitlines()[-1])


def _as_wav(body: bytes) -> bytes:
    with av.open(io.BytesIO(body)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
        rate, channels = container.streams.audio[0].rate, container.streams.audio[0].channels
    samples = (np.concatenate(frames, axis=1).T * 32767).clip(-32767, 32767).astype("<i2")
    return wav(pcm_fmt(1, 16, channels, rate), samples.tobytes())


@pytest.mark.slow
@pytest.mark.torture
def test_the_reference_detector_hears_what_is_there(streamed):
    heard = {sample.key: last_message(sample) for sample in streamed}
    wrong = {
        sample.key: heard[sample.key]
        for sample in streamed
        if heard[sample.key]["primary_label"] not in ({"music", "speech"} if sample.truth == "mixed" else {sample.truth})
    }
    assert wrong == {}
    mixed = [heard[sample.key] for sample in streamed if sample.truth == "mixed"]
    assert min(min(done["music_pct"], done["speech_pct"]) for done in mixed) > 25


def test_the_local_server_refuses_the_damaged_flac(catalogue):
    assert last_message(catalogue["music/archive/rip-0031.flac"])["type"] == "error"


def test_nothing_clips_and_only_silence_is_silent(catalogue):
    body = catalogue["calls/2026-10-03/line-07.pcm"].body
    loudest = np.abs(np.frombuffer(body, "<i2").astype(int)).max()
    assert 20_000 < loudest < 26_000
    assert not any(catalogue["ambience/room-tone.wav"].body[44:])
