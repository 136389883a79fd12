"""Resampling and framing: exact counts, the right sound, and nothing that depends on blocks."""

import numpy as np
import pytest

from connectors.local_velma.framing import FRAME_SAMPLES, Framer
from connectors.media.pcm import PcmBlock
from moderation.formats import SAMPLE_RATES


def framed(samples: np.ndarray, rate: int, step: int) -> tuple[np.ndarray, int]:
    framer = Framer()
    frames = [frame for at in range(0, len(samples), step) for frame in framer.push(PcmBlock(rate, samples[at : at + step]))]
    last, rest = framer.finish()
    frames += last
    assert {len(frame) for frame in frames} <= {FRAME_SAMPLES}
    assert len(rest) < FRAME_SAMPLES
    return np.concatenate([*frames, rest]), framer.duration_ms


@pytest.mark.parametrize("rate", [*SAMPLE_RATES, 12345])
def test_four_seconds_are_64000_samples_of_the_same_tone(rate):
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(4 * rate) / rate).astype(np.float32)
    result, duration_ms = framed(np.stack((tone, tone), axis=1), rate, 4096)
    assert (len(result), duration_ms) == (64000, 4000)
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(64000) / 16000)
    np.testing.assert_allclose(result[100:-100], expected[100:-100], atol=1e-3)


@pytest.mark.parametrize("rate", [44100, 48000, 96000])
def test_what_lies_above_the_new_rate_is_gone(rate):
    tone = np.sin(2 * np.pi * 9500 * np.arange(rate) / rate).astype(np.float32)
    result, _ = framed(tone[:, None], rate, 4096)
    assert np.abs(result[200:-200]).max() < 0.01


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100])
@pytest.mark.parametrize("channels", [1, 8])
def test_blocks_change_no_bit(rate, channels):
    noise = np.random.default_rng(0).uniform(-1, 1, (rate // 2, channels)).astype(np.float32)
    whole, duration_ms = framed(noise, rate, 1 << 20)
    for step in (1, 7, 997):
        pieces, pieces_ms = framed(noise, rate, step)
        np.testing.assert_array_equal(pieces, whole)
        assert pieces_ms == duration_ms


def test_a_stream_may_change_its_rate():
    framer = Framer()
    for rate in (8000, 48000):
        list(framer.push(PcmBlock(rate, np.zeros((rate, 1), np.float32))))
    frames, rest = framer.finish()
    assert framer.duration_ms == 2000
    assert len(frames) <= 1
    assert len(rest) == 32000 % FRAME_SAMPLES


def test_no_audio_is_no_frame():
    assert framed(np.zeros((0, 1), np.float32), 8000, 1)[1] == 0
