"""What the reference detector listens to: seven features of the last three seconds, each with a reason, none of them Modulate's.

Everything is measured between 150 and 3600 Hz, where telephone speech lives too, and on scales that do not change with loudness.
All state is kept in whole 192 ms frames, so that features depend on the audio alone.
"""

import numpy as np
from numpy.typing import NDArray

from connectors.local_velma.framing import FRAME_SAMPLES, RATE, Mono

Array = NDArray[np.float64]

HOP = 256
"""16 ms: syllables (4 a second) and the gaps between words are many hops long."""
SHORT = 512
"""32 ms of sound at a time, for what changes quickly."""
LONG = 2048
"""128 ms of sound at a time: 7.8 Hz apart, so that harmonics and notes are lines of their own."""
LONG_HOP = 1024
CONTEXT_FRAMES = 16
"""3.1 s of past: ten syllables, a few notes."""
LOW_HZ, HIGH_HZ = 150, 3600
BANDS = 12
FLOOR = 1e-16
"""Power of a bin, 160 dB under full scale: nothing divides by zero, and nothing that can be heard is changed."""
DEEPEST = 1e-4
"""How far under the loudest hop a gap counts: 40 dB, so that digital silence is no different from a quiet room."""
FAINTEST = 1e-6
"""How far under the mean a spectrum is looked into: 60 dB, about what eight bits or a good codec keep."""
HEARD = 0.1
"""A hop with less than a tenth of the mean power is a gap, whose spectrum says nothing."""
SYLLABLES_HZ = (2.5, 7.0)
"""Where the loudness of speech swings, in every language."""
SWINGS_HZ = (0.5, 20.0)
LONG_LAG = 3
"""Long hops: 192 ms, longer than a phoneme keeps its pitch, shorter than most notes."""

NAMES = ("spread", "syllabic", "flux", "flux_spread", "persistence", "tonality", "brightness_spread")
"""spread: standard deviation of the level, in units of 10 dB; speech goes up and down, and has gaps.
syllabic: part of the swings of the bands' levels at the rate of syllables.
flux: how much the short spectrum changes from hop to hop; little within a note.
flux_spread: how unevenly it does; speech alternates vowels and consonants.
persistence: part of the spectral peaks' energy that is still at the same frequency 192 ms later; notes stay, voices glide.
tonality: how far lines stand above what is between them; noise has none.
brightness_spread: how far the centre of the spectrum moves; speech alternates voiced and unvoiced sounds.
"""

_HOPS = CONTEXT_FRAMES * FRAME_SAMPLES // HOP
_LONG_HOPS = CONTEXT_FRAMES * FRAME_SAMPLES // LONG_HOP
_SHORT_BINS = slice(LOW_HZ * SHORT // RATE, HIGH_HZ * SHORT // RATE + 1)
_LONG_BINS = slice(LOW_HZ * LONG // RATE, HIGH_HZ * LONG // RATE + 1)
_PLACES = np.arange(1.0, 1 + _SHORT_BINS.stop - _SHORT_BINS.start)
_BAND_EDGES = np.linspace(0, len(_PLACES), BANDS + 1).astype(int)[:-1]
_WINDOWS = {size: np.hanning(size) for size in (SHORT, LONG)}


def _bins(bins: slice) -> int:
    return int(bins.stop - bins.start)


class Features:
    """The features of a stream, frame by frame. What each hop contributes is computed once and kept for CONTEXT_FRAMES."""

    def __init__(self) -> None:
        self._past: Mono = np.zeros(LONG - LONG_HOP, np.float32)
        self._shapes = np.zeros((0, _bins(_SHORT_BINS)))
        """Of the last two hops, none at the start: what the next two are compared with."""
        self._level = np.zeros(0)
        self._bands = np.zeros((0, BANDS))
        self._centre = np.zeros(0)
        self._change = np.zeros(0)
        self._peaks = np.zeros((0, _bins(_LONG_BINS)))
        self._peak_sum = np.zeros(0)
        self._kept = np.zeros((0, 2))
        self._contrast = np.zeros(0)

    def of(self, frame: Mono) -> Array:
        """The features of the context that ends with this frame of FRAME_SAMPLES, in the order of NAMES."""
        sound = np.concatenate((self._past, frame))
        self._past = sound[-len(self._past) :]
        self._hear_hops(_spectra(sound[len(self._past) - (SHORT - HOP) :], SHORT, HOP, _SHORT_BINS))
        self._hear_lines(_spectra(sound, LONG, LONG_HOP, _LONG_BINS))
        return np.array((self._spread(), self._syllabic(), *self._flux(), self._persistence(), self._tonality(), self._brightness_spread()))

    def _hear_hops(self, power: Array) -> None:
        level = power.sum(axis=1)
        shapes = np.concatenate((self._shapes, np.sqrt(power / level[:, None])))
        self._shapes = shapes[-2:]
        change = 1 - (shapes[2:] * shapes[:-2]).sum(axis=1)  # two hops apart: no sample in common
        centre = np.log2((power @ _PLACES) / level + 1)
        self._level = _last(self._level, level, _HOPS)
        self._bands = _last(self._bands, np.sqrt(np.add.reduceat(power, _BAND_EDGES, axis=1)), _HOPS)
        self._centre = _last(self._centre, centre, _HOPS)
        self._change = _last(self._change, change, _HOPS)

    def _hear_lines(self, lines: Array) -> None:
        peaks = _peaks(lines)
        self._peaks = np.concatenate((self._peaks, peaks))[-LONG_LAG - len(peaks) :]
        now, before = self._peaks[LONG_LAG:], self._peaks[: len(self._peaks) - LONG_LAG]
        kept = np.stack((np.minimum(now, before).sum(axis=1), np.maximum(now, before).sum(axis=1)), axis=1)
        self._kept = _last(self._kept, kept, _LONG_HOPS)
        self._peak_sum = _last(self._peak_sum, peaks.sum(axis=1), _LONG_HOPS)
        self._contrast = _last(self._contrast, _contrast(lines), _LONG_HOPS)

    def _spread(self) -> float:
        return float(np.log10(np.maximum(self._level, DEEPEST * self._level.max())).std())

    def _syllabic(self) -> float:
        bands = self._bands
        swings = np.abs(np.fft.rfft((bands - bands.mean(axis=0)) * np.hanning(len(bands))[:, None], axis=0)) ** 2
        rate = np.fft.rfftfreq(len(bands), HOP / RATE)
        total = swings[(rate >= SWINGS_HZ[0]) & (rate <= SWINGS_HZ[1])].sum()
        return float(swings[(rate >= SYLLABLES_HZ[0]) & (rate <= SYLLABLES_HZ[1])].sum() / (total + FLOOR))

    def _flux(self) -> tuple[float, float]:
        level = self._level[-len(self._change) :]
        heard = self._change[level >= HEARD * level.mean()]
        return float(heard.mean()), float(heard.std())

    def _persistence(self) -> float:
        kept, all_of_it = self._kept.sum(axis=0) if len(self._kept) else (0.0, 0.0)
        return float(kept / (all_of_it + FLOOR))

    def _tonality(self) -> float:
        weight = self._peak_sum + FLOOR
        return float((self._contrast * weight).sum() / weight.sum())

    def _brightness_spread(self) -> float:
        weight = self._level
        mean = (self._centre * weight).sum() / weight.sum()
        return float(np.sqrt((weight * (self._centre - mean) ** 2).sum() / weight.sum()))


def _spectra(sound: Mono, size: int, hop: int, bins: slice) -> Array:
    windows = np.lib.stride_tricks.sliding_window_view(sound, size)[::hop]
    spectra = np.fft.rfft(windows * _WINDOWS[size], axis=1)[:, bins]
    return (np.abs(spectra) / size) ** 2 + FLOOR


def _peaks(lines: Array) -> Array:
    """The amplitude of the bins that are higher than two neighbours on each side; elsewhere nothing."""
    amplitude = np.sqrt(lines)
    inner = amplitude[:, 2:-2]
    others = np.maximum(np.maximum(amplitude[:, :-4], amplitude[:, 1:-3]), np.maximum(amplitude[:, 3:-1], amplitude[:, 4:]))
    peaks = np.zeros_like(amplitude)
    peaks[:, 2:-2] = np.where(inner > others, inner, 0.0)
    return peaks


def _contrast(lines: Array) -> Array:
    """log10 of the arithmetic over the geometric mean of the power: 0.25 for noise."""
    mean = lines.mean(axis=1)
    return np.asarray(np.log10(mean) - np.log10(np.maximum(lines, FAINTEST * mean[:, None])).mean(axis=1))


def _last(kept: Array, new: Array, most: int) -> Array:
    return np.concatenate((kept, new))[-most:]
