"""The reference detector: music and speech from seven spectral features. It is ours, explainable and modest, not Modulate's model.

It lets tests and demos run with plausible results on real audio; nobody should take a decision about a track from it.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from connectors.local_velma.features import Array, Features
from connectors.local_velma.framing import FRAME_SAMPLES, RATE, Mono

SILENCE_POWER = 1e-6
"""Mean power of -60 dB of full scale: a frame below is neither music nor speech, whatever came before."""
SPEECH_WEIGHTS = (2.9, 3.3, 2.9, 31.6, -5.8, 0.35, -3.1)
SPEECH_BIAS = -5.5
MUSIC_WEIGHTS = (-3.2, 1.9, -7.3, 8.1, 15.7, 0.7, 4.8)
MUSIC_BIAS = -2.8
"""In the order of features.NAMES: two logistic regressions over 26,000 frames of telephone prompts in French and Russian, game dialogues
in Dutch and English, game music (both also band-limited to a telephone's 3.7 kHz), speech over music, and noise. Of these very frames
92 % of speech alone and 90 % of music alone pass one half. With packages kept apart the area under the curve is .89 to .98 for telling
the two from each other, and as low as .77 for music under speech: that is often missed."""
ACCUSING = 0.5
"""The confidence from which a track would be called AI-made."""
AI_CONFIDENCE_CAP = 0.45
"""Below ACCUSING on purpose: evenly spaced spectral lines also mark much electronic music made by people (measurements.md), so the
reference detector never accuses a track on its own evidence."""


@dataclass(frozen=True, slots=True)
class Probabilities:
    """Of music, of speech and of singing in a frame, 0 to 1 with four decimals; all can be high.

    A detector that cannot tell singing leaves it 0.
    """

    music: float
    speech: float
    singing: float = 0.0

    @property
    def vocal(self) -> float:
        """Of any voice, which is what the AI-music endpoint looks for."""
        return max(self.speech, self.singing)


SILENCE = Probabilities(music=0.0, speech=0.0)


class Detector(Protocol):
    """Something that hears the frames of one stream in order."""

    def hear(self, frame: Mono) -> Probabilities:
        """The probabilities of the next FRAME_SAMPLES samples, which may depend on those before."""
        ...


class SignalDetector:
    """The detector that listens: see features.py for what to."""

    def __init__(self) -> None:
        self._features = Features()

    def hear(self, frame: Mono) -> Probabilities:
        """The probabilities of this frame, judged from the three seconds that end with it."""
        features = self._features.of(frame)
        if is_silent(frame):
            return SILENCE
        return Probabilities(
            music=_probability(features, MUSIC_WEIGHTS, MUSIC_BIAS), speech=_probability(features, SPEECH_WEIGHTS, SPEECH_BIAS)
        )


class StubDetector:
    """A detector that hears nothing and costs nothing, for load tests: music and speech take turns by the number of the frame."""

    TURN = 25
    """Frames: 4.8 s, so that a window has mostly one of the two."""

    def __init__(self) -> None:
        self._heard = 0

    def hear(self, frame: Mono) -> Probabilities:  # noqa: ARG002 - any frame is as good as another
        """The probabilities of the frame of this number."""
        music = self._heard // self.TURN % 2 == 0
        self._heard += 1
        return Probabilities(music=0.9, speech=0.1) if music else Probabilities(music=0.1, speech=0.9)


def is_silent(frame: Mono) -> bool:
    """Whether nothing can be heard in a frame."""
    return float(np.square(frame, dtype=np.float64).mean()) < SILENCE_POWER


class Regularity:
    """How evenly spaced the lines of a mean spectrum are, as some decoders of generated audio leave them: 0 to AI_CONFIDENCE_CAP.

    The cap is the point: this is a plausible number for a demo, not evidence.
    """

    LOW_HZ, HIGH_HZ = 2000, 7500
    """Above most fundamentals, below the edge of the resampler."""
    SPACING_HZ = (60, 1000)
    SMOOTHING_HZ = 200
    """The spectrum's shape is what is wider than this; lines are what is narrower."""

    def __init__(self) -> None:
        self._sum = np.zeros(self._bin(self.HIGH_HZ) - self._bin(self.LOW_HZ))
        self._frames = 0

    def hear(self, frame: Mono) -> None:
        """Add a frame to the mean."""
        spectrum = np.fft.rfft(frame * _WINDOW)[self._bin(self.LOW_HZ) : self._bin(self.HIGH_HZ)]
        self._sum += np.log10(np.square(np.abs(spectrum)) + 1e-9)
        self._frames += 1

    def confidence(self) -> float:
        """The highest autocorrelation of the lines over their possible spacings, with four decimals; 0 without audio."""
        if not self._frames:
            return 0.0
        width = self._bin(self.SMOOTHING_HZ)
        mean = self._sum / self._frames
        lines = (mean - np.convolve(mean, np.full(width, 1 / width), "same"))[width:-width]
        spectrum = np.fft.rfft(lines, 2 * len(lines))
        correlation = np.fft.irfft(np.square(np.abs(spectrum)))
        if correlation[0] <= 0:
            return 0.0
        highest = correlation[self._bin(self.SPACING_HZ[0]) : self._bin(self.SPACING_HZ[1])].max() / correlation[0]
        return round(AI_CONFIDENCE_CAP * float(np.clip(highest, 0, 1)), 4)

    @staticmethod
    def _bin(hertz: int) -> int:
        return hertz * FRAME_SAMPLES // RATE


_WINDOW = np.hanning(FRAME_SAMPLES)


def _probability(features: Array, weights: tuple[float, ...], bias: float) -> float:
    return round(float(1 / (1 + np.exp(-(features @ np.array(weights) + bias)))), 4)
