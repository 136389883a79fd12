"""The sounds of the sample catalogue: talk, music, noise and silence, all synthesised with numpy, none recorded.

A Sound is mono, float64, full scale at +-1. The same generator state gives the same samples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Sound: TypeAlias = NDArray[np.float64]

PEAK = 0.7
"""Full scale that a finished sound reaches: lossy coders overshoot by a little."""

# -- talk -------------------------------------------------------------------------------------------------------------------------------

_CONTROL_HZ = 200
"""How often a second the mouth moves."""
_IMPULSE_SECONDS = 0.032
_ROOM = 0.002
"""Noise of the room against a full voice: pauses are quiet, never digital silence."""
_BANDWIDTHS_HZ = (80.0, 100.0, 140.0, 220.0)
_FOURTH_FORMANT_HZ = 3500.0
_VOWELS_HZ = (
    (730, 1090, 2440),
    (530, 1840, 2480),
    (270, 2290, 3010),
    (570, 840, 2410),
    (300, 870, 2240),
    (490, 1350, 1690),
    (660, 1720, 2410),
)
"""First three formants of seven vowels of an average speaker."""
_HISS_HZ = ((2500.0, 6000.0), (4000.0, 7800.0), (1500.0, 4500.0))
"""Bands of the noise of three consonants."""


@dataclass(frozen=True, slots=True)
class Voice:
    """Who talks: the middle of the pitch in Hz, and how long the throat is against the average (formants scale by its inverse)."""

    pitch: float
    throat: float = 1.0


LOW_VOICE = Voice(112.0, 1.0)
HIGH_VOICE = Voice(196.0, 0.87)


@dataclass(frozen=True, slots=True)
class _Mouth:
    """What the mouth does, a row for each 1 / _CONTROL_HZ: pitch and formants in Hz, loudness of the voice and of each hiss."""

    pitch: Sound
    loudness: Sound
    formants: Sound
    hiss: Sound


def talk(rng: Generator, seconds: float, rate: int, voice: Voice = LOW_VOICE) -> Sound:
    """Speech-like sound: phrases of about four syllables a second with pauses; glottal pulses through moving formants, and consonants."""
    mouth = _utter(rng, seconds, voice)
    voiced = _voiced(rng, mouth, seconds, rate)
    hissing = _hissing(rng, mouth, seconds, rate)
    room = rng.normal(0, _ROOM, len(voiced))
    return _finish(_scaled(voiced + hissing) + room)


def _utter(rng: Generator, seconds: float, voice: Voice) -> _Mouth:
    """The movements of a mouth that talks for so long, phrase by phrase."""
    steps = round(seconds * _CONTROL_HZ)
    pitch, loudness = np.full(steps, voice.pitch), np.zeros(steps)
    formants, hiss = np.tile(_vowel(rng, voice), (steps, 1)), np.zeros((steps, len(_HISS_HZ)))
    at = round(0.15 * _CONTROL_HZ)
    while at < steps:
        start, accents = at, rng.normal(0, 0.05, 16)
        for accent in accents[: rng.integers(4, 10)]:
            at = _syllable(rng, _Mouth(pitch[at:], loudness[at:], formants[at:], hiss[at:]), voice, accent) + at
        falling = np.linspace(1.12, 0.86, at - start)[: len(pitch[start:at])]
        pitch[start:at] *= falling
        at += round(rng.uniform(0.28, 0.65) * _CONTROL_HZ)
    return _Mouth(_smooth(pitch, 0.06), _smooth(loudness, 0.02), np.stack([_smooth(f, 0.07) for f in formants.T], axis=1), hiss)


def _syllable(rng: Generator, mouth: _Mouth, voice: Voice, accent: float) -> int:
    """Writes a consonant, a vowel and sometimes a closing at the start of these rows; returns how many rows it took."""
    onset, vowel = round(rng.uniform(0.05, 0.11) * _CONTROL_HZ), round(rng.uniform(0.10, 0.20) * _CONTROL_HZ)
    end = onset + vowel
    _consonant(rng, mouth, onset)
    rows = np.arange(len(mouth.loudness[onset:end]))
    mouth.loudness[onset:end] = rng.uniform(0.6, 1.0) * np.sin(np.pi * (rows + 1) / (vowel + 1)) ** 0.5
    mouth.formants[: end + 2] = _vowel(rng, voice)
    glide = np.linspace(0, 1, vowel)[: len(rows), None]
    mouth.formants[onset:end] += glide * rng.normal(0, 0.08, 4) * mouth.formants[onset:end]
    mouth.pitch[:end] = voice.pitch * (1 + accent)
    closing = round(rng.uniform(0.01, 0.06) * _CONTROL_HZ)
    return end + closing


def _consonant(rng: Generator, mouth: _Mouth, onset: int) -> None:
    """A fricative, a plosive (closed, then a burst), or a soft voiced start."""
    kind, band = rng.choice(["fricative", "plosive", "soft"], p=[0.35, 0.35, 0.3]), rng.integers(len(_HISS_HZ))
    if kind == "fricative":
        rows = len(mouth.hiss[:onset])
        mouth.hiss[:onset, band] = rng.uniform(0.10, 0.22) * np.hanning(onset + 2)[1 : rows + 1]
    elif kind == "plosive":
        mouth.hiss[onset - 3 : onset, band] = rng.uniform(0.2, 0.35)
    else:
        mouth.loudness[:onset] = 0.22


def _vowel(rng: Generator, voice: Voice) -> Sound:
    """Four formants in Hz of a vowel, a little different each time."""
    first_three = np.array(_VOWELS_HZ[rng.integers(len(_VOWELS_HZ))], dtype=np.float64)
    return np.append(first_three, _FOURTH_FORMANT_HZ) * rng.normal(1, 0.03, 4) / voice.throat


def _voiced(rng: Generator, mouth: _Mouth, seconds: float, rate: int) -> Sound:
    """Each glottal pulse, answered by the throat as it is at that moment, and added where the pulse falls between the samples."""
    pulses = _pulse_times(rng, mouth.pitch, seconds)
    rows = np.minimum((pulses * _CONTROL_HZ).astype(int), len(mouth.pitch) - 1)
    size = 1 << int(np.ceil(np.log2(_IMPULSE_SECONDS * rate)))
    frequencies: Sound = np.fft.rfftfreq(size, 1 / rate).astype(np.float64)
    first = (pulses * rate).astype(int)
    delay = np.exp(-2j * np.pi * frequencies * (pulses - first / rate)[:, None])
    loudness = mouth.loudness[rows] * rng.normal(1, 0.04, len(rows))
    answers = np.fft.irfft(_throat(frequencies, mouth.formants[rows]) * delay, size) * loudness[:, None]
    answers[:, size // 2 :] *= np.hanning(size)[size // 2 :]
    sound = np.zeros(round(seconds * rate) + size)
    for start, answer in zip(first, answers, strict=True):
        sound[start : start + size] += answer
    return _scaled(sound[: round(seconds * rate)])


def _pulse_times(rng: Generator, pitch: Sound, seconds: float) -> Sound:
    """Seconds at which the glottis closes: where the running phase of the pitch passes whole turns, with half a per cent of jitter."""
    phase = np.concatenate([[0.0], np.cumsum(pitch / _CONTROL_HZ)])
    times = np.interp(np.arange(1, int(phase[-1])), phase, np.arange(len(phase)) / _CONTROL_HZ)
    shaken: Sound = times + rng.normal(0, 0.005, len(times)) / pitch.mean()
    return shaken.clip(0, seconds - 1 / _CONTROL_HZ)


def _throat(frequencies: Sound, formants: Sound) -> NDArray[np.complex128]:
    """Spectrum of one pulse for each row of formants: resonances behind a source that falls by 6 dB an octave, lips included."""
    source = 1 / (1 + 1j * frequencies / 300.0)
    answer = np.tile(source, (len(formants), 1)).astype(np.complex128)
    for resonance, bandwidth in zip(formants.T, _BANDWIDTHS_HZ, strict=True):
        square = resonance[:, None] ** 2
        answer *= square / (square - frequencies**2 + 1j * frequencies * bandwidth)
    answer[:, 0] = 0
    return answer


def _hissing(rng: Generator, mouth: _Mouth, seconds: float, rate: int) -> Sound:
    """The noise of the consonants, and a breath of it under the voice."""
    samples = round(seconds * rate)
    times, moments = np.arange(samples) / rate, np.arange(len(mouth.pitch)) / _CONTROL_HZ
    bands = [_scaled(band_noise(rng, samples, rate, low, high)) for low, high in _HISS_HZ]
    loudness = mouth.hiss + 0.006 * mouth.loudness[:, None]
    sound = np.zeros(samples)
    for band, row in zip(bands, loudness.T, strict=True):
        sound += band * np.interp(times, moments, row)
    return sound


# -- music ------------------------------------------------------------------------------------------------------------------------------

_MAJOR, _MINOR = (0, 4, 7), (0, 3, 7)
_PROGRESSIONS = (
    ((0, _MAJOR), (9, _MINOR), (5, _MAJOR), (7, _MAJOR)),
    ((0, _MINOR), (8, _MAJOR), (3, _MAJOR), (10, _MAJOR)),
    ((0, _MAJOR), (7, _MAJOR), (9, _MINOR), (5, _MAJOR)),
)
"""Semitones of each bar's chord above the key, and its triad."""
_BEATS = 4


@dataclass(frozen=True, slots=True)
class Piece:
    """What is played: beats a minute, the key note as a MIDI number, which progression, and how loud each part is (0 leaves it out)."""

    tempo: float = 108.0
    key: int = 57
    progression: int = 0
    pad: float = 0.5
    melody: float = 0.4
    bass: float = 0.5
    drums: float = 0.5


@dataclass(frozen=True, slots=True)
class _String:
    """How fast a plucked string dies away (nepers a second), and how strong each harmonic is against the one below it."""

    decay: float
    brightness: float


_BASS_STRING = _String(1.5, 0.5)
_MELODY_STRING = _String(3.0, 0.7)
_Pluck: TypeAlias = Callable[[int, float, _String], Sound]


def music(rng: Generator, seconds: float, rate: int, piece: Piece) -> Sound:
    """A band: sustained chords, a plucked melody, a bass line and drums, in bars of four beats."""
    beat = 60 / piece.tempo
    bars = int(np.ceil(seconds / (beat * _BEATS)))
    sound = np.zeros(round((bars * _BEATS + 2) * beat * rate))
    chords = [tuple(piece.key + above + tone for tone in triad) for above, triad in _PROGRESSIONS[piece.progression]]
    pads = [_chord(chord, beat * (_BEATS + 0.25), rate) for chord in chords]
    # the same few notes come back in every bar
    pluck: _Pluck = cache(lambda note, seconds, string: _pluck(note, seconds, rate, string))
    for bar in range(bars):
        rest, chord = sound[round(bar * _BEATS * beat * rate) :], chords[bar % len(chords)]
        _add(rest, 0.0, rate, piece.pad * pads[bar % len(pads)])
        for start, length in ((0.0, 1.5), (1.5, 0.5), (2.0, 1.5), (3.5, 0.5)):
            _add(rest, start * beat, rate, piece.bass * pluck(_octave(chord[0], 36), length * beat, _BASS_STRING))
        for eighth in range(2 * _BEATS):
            note = int(rng.choice(chord)) + 12 + 12 * (eighth % 3 == 0)
            _add(rest, eighth * beat / 2, rate, piece.melody * pluck(note, 1.2 * beat, _MELODY_STRING))
        if piece.drums:
            _play_drums(rng, rest, rate, beat, piece.drums)
    return _finish(sound[: round(seconds * rate)])


def _chord(notes: tuple[int, ...], seconds: float, rate: int) -> Sound:
    """A triad and its octave, sustained."""
    sound = _pad(notes[0] + 12, seconds, rate)
    for note in notes:
        sound += _pad(note, seconds, rate)
    return 0.35 * sound


def _play_drums(rng: Generator, sound: Sound, rate: int, beat: float, loudness: float) -> None:
    for quarter in range(_BEATS):
        drum = _kick(rate) if quarter % 2 == 0 else 0.6 * _snare(rng, rate)
        _add(sound, quarter * beat, rate, loudness * drum)
        for half in (0.0, 0.5):
            _add(sound, (quarter + half) * beat, rate, 0.18 * loudness * _hat(rng, rate))


def _pad(note: int, seconds: float, rate: int) -> Sound:
    """A sustained string-like tone: two slightly detuned rows of harmonics that fade in and out."""
    times = np.arange(round(seconds * rate)) / rate
    tone = np.zeros(len(times))
    for detune in (0.9985, 1.0015):
        tone += _harmonics(_hertz(note) * detune, times, rate, [1 / n**1.3 for n in range(1, 9)])
    return 0.5 * tone * np.minimum(1, np.minimum(times / 0.12, (seconds - times) / 0.25))


def _pluck(note: int, seconds: float, rate: int, string: _String) -> Sound:
    """A struck or plucked string: harmonics that die away, with a soft end."""
    times = np.arange(round(seconds * rate)) / rate
    tone = _harmonics(_hertz(note), times, rate, [string.brightness ** (n - 1) for n in range(1, 7)])
    return tone * np.exp(-string.decay * times) * np.minimum(1, np.minimum(times / 0.005, (seconds - times) / 0.03))


def _kick(rate: int) -> Sound:
    times = np.arange(round(0.22 * rate)) / rate
    return np.sin(2 * np.pi * (52 * times + 60 / 28 * (1 - np.exp(-28 * times)))) * np.exp(-11 * times)


def _snare(rng: Generator, rate: int) -> Sound:
    times = np.arange(round(0.18 * rate)) / rate
    rattle = _scaled(band_noise(rng, len(times), rate, 1200, 7500))
    return (0.6 * rattle + 0.5 * np.sin(2 * np.pi * 185 * times)) * np.exp(-22 * times)


def _hat(rng: Generator, rate: int) -> Sound:
    samples = round(0.06 * rate)
    return _scaled(band_noise(rng, samples, rate, 6000, 11000)) * np.exp(-70 * np.arange(samples) / rate)


def _harmonics(hertz: float, times: Sound, rate: int, strengths: Sequence[float]) -> Sound:
    """Harmonics of a note, those under 45 per cent of the sample rate; each follows from the two before it by the addition theorem."""
    angle = 2 * np.pi * hertz * times
    before, harmonic, twice_cosine = np.zeros(len(times)), np.sin(angle), 2 * np.cos(angle)
    tone = strengths[0] * harmonic
    for strength in strengths[1 : int(0.45 * rate / hertz)]:
        before, harmonic = harmonic, twice_cosine * harmonic - before
        tone += strength * harmonic
    return tone


def _hertz(note: int) -> float:
    """Frequency of a MIDI note in equal temperament, A4 (69) at 440 Hz."""
    return 440.0 * float(2.0 ** ((note - 69) / 12))


def _octave(note: int, lowest: int) -> int:
    """The same note in the octave that begins at `lowest`."""
    return lowest + (note - lowest) % 12


# -- the rest ---------------------------------------------------------------------------------------------------------------------------


def white_noise(rng: Generator, seconds: float, rate: int) -> Sound:
    """Steady noise over the whole band, -20 dBFS."""
    return rng.normal(0, 0.1, round(seconds * rate)).clip(-1, 1)


def silence(seconds: float, rate: int) -> Sound:
    """Nothing at all."""
    return np.zeros(round(seconds * rate))


def over(voice: Sound, bed: Sound, rate: int, *, intro: float, ducked: float) -> Sound:
    """A voice over music: the music alone for `intro` seconds, then turned down to the factor `ducked` while the voice talks."""
    start = round(intro * rate)
    fader = np.interp(np.arange(len(bed)) / rate, (intro - 0.5, intro), (1.0, ducked))
    sound = bed * fader
    sound[start:] += voice[: len(bed) - start]
    return _finish(sound)


def band_noise(rng: Generator, samples: int, rate: int, low: float, high: float) -> Sound:
    """Noise between two frequencies in Hz (as far as the rate carries them), with soft edges."""
    frequencies = np.fft.rfftfreq(samples, 1 / rate)
    edges = 1 / (1 + (low / np.maximum(frequencies, 1)) ** 8) / (1 + (frequencies / high) ** 8)
    return np.fft.irfft(np.fft.rfft(rng.normal(0, 1, samples)) * edges, samples)


def _add(sound: Sound, seconds: float, rate: int, part: Sound) -> None:
    start = round(seconds * rate)
    room = sound[start : start + len(part)]
    room += part[: len(room)]


def _scaled(sound: Sound) -> Sound:
    """The same sound with its loudest sample at full scale."""
    loudest = float(np.max(np.abs(sound)))
    return sound / loudest if loudest else sound


def _finish(sound: Sound) -> Sound:
    return PEAK * _scaled(sound)


def _smooth(track: Sound, seconds: float) -> Sound:
    """A control track through a moving average of so many seconds; its ends are held."""
    width = round(seconds * _CONTROL_HZ) | 1
    held = np.pad(track, width // 2, mode="edge")
    return np.convolve(held, np.full(width, 1 / width), mode="valid")
