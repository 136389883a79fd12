"""One clock for all audio: the mean of the channels at 16 kHz, cut into 192 ms frames (service.md, local server definitions).

192 ms is no whole number of samples at 11025, 22050 and 44100 Hz, so framing happens after resampling. What comes out depends on the
samples alone, bit for bit, and never on the blocks in which they came: a frame is computed when all that it needs is there.
"""

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from connectors.media.pcm import PcmBlock

Mono = NDArray[np.float32]
"""Samples of one channel, -1 to 1, at RATE."""

RATE = 16_000
"""Hz: all that speech needs, and what public detectors are trained at."""
FRAME_SAMPLES = 3072
"""192 ms at RATE: the item of the music endpoint (seed page)."""
FRAME_MS = 192
WINDOW_SAMPLES = 64_000
"""4 s at RATE: the item of the AI-music endpoint (seed page)."""
WINDOW_MS = 4000
ZERO_CROSSINGS = 12
"""Of the low-pass filter's sinc, on each side: about 70 dB between what passes and what is kept out."""
PASS_BAND = 0.92
"""The part of the lower of both Nyquist frequencies that passes; the rest is the filter's slope."""
KAISER_BETA = 7.0


class Framer:
    """The 16 kHz mono frames of a stream of PCM blocks; `duration_ms` is that of the source so far."""

    def __init__(self) -> None:
        self._resampler: Resampler | None = None
        self._rate = 0
        self._waiting: list[Mono] = []
        self._taken: Counter[int] = Counter()
        """Samples by their rate: whole numbers, so that the duration does not depend on blocks either."""

    @property
    def duration_ms(self) -> int:
        """Milliseconds of audio taken in, at the source's own rate."""
        return round(sum(1000 * samples / rate for rate, samples in self._taken.items()))

    def push(self, block: PcmBlock) -> Iterator[Mono]:
        """The frames that are complete with this block, FRAME_SAMPLES each."""
        if block.rate != self._rate:  # the first block, or a chained stream that changes its rate
            yield from self._frames(self._flushed())
            self._rate, self._resampler = block.rate, Resampler(block.rate)
        assert self._resampler is not None
        self._taken[block.rate] += len(block.samples)
        for piece in self._resampler.push(downmix(block)):
            yield from self._frames(piece)

    def finish(self) -> tuple[list[Mono], Mono]:
        """The frames that the end completes, and what is left: less than one frame."""
        frames = list(self._frames(self._flushed()))
        return frames, self._joined()

    def _flushed(self) -> Mono:
        return self._resampler.finish() if self._resampler else np.zeros(0, np.float32)

    def _frames(self, piece: Mono) -> Iterator[Mono]:
        if len(piece) == FRAME_SAMPLES and not self._waiting:
            yield piece
            return
        self._waiting.append(piece)
        joined = self._joined()
        whole = len(joined) - len(joined) % FRAME_SAMPLES
        self._waiting = [joined[whole:]] if whole < len(joined) else []
        yield from joined[:whole].reshape(-1, FRAME_SAMPLES)

    def _joined(self) -> Mono:
        return np.concatenate(self._waiting) if self._waiting else np.zeros(0, np.float32)


class Resampler:
    """A band-limited interpolator from a rate in Hz to RATE: n samples become n * RATE / rate, rounded up.

    It adds no delay to the sound, but looks ahead: by nothing at RATE, by 2 ms at 8 kHz, by less than 1 ms from 22 kHz on. It works in
    pieces of FRAME_SAMPLES of output, each from the same input by the same operations however that came.
    """

    def __init__(self, rate: int) -> None:
        common = math.gcd(RATE, rate)
        self._up, self._down = RATE // common, rate // common
        self._taps = _filter(self._up, self._down)
        self._half: int = self._taps.shape[1] // 2
        self._kept: Mono = np.zeros(self._half, np.float32)
        """Input from self._first on: the silence before the first sample stands at its beginning."""
        self._first = -self._half
        self._parts: list[Mono] = []
        self._length = 0
        self._done = 0

    def push(self, samples: Mono) -> Iterator[Mono]:
        """The pieces that these samples complete, FRAME_SAMPLES each."""
        self._parts.append(samples)
        self._length += len(samples)
        if self._needed(FRAME_SAMPLES) > self._length:
            return
        self._join()
        while self._needed(FRAME_SAMPLES) <= self._length:
            yield self._piece(FRAME_SAMPLES)

    def finish(self) -> Mono:
        """The rest, as if silence followed."""
        total = -(-self._length * self._up // self._down)
        self._parts.append(np.zeros(self._half + 1, np.float32))
        self._join()
        return self._piece(total - self._done)

    def _needed(self, outputs: int) -> int:
        """How much input the next so many outputs look at."""
        return (self._done + outputs - 1) * self._down // self._up + self._half + 1

    def _join(self) -> None:
        self._kept, self._parts = np.concatenate((self._kept, *self._parts)), []

    def _piece(self, outputs: int) -> Mono:
        if outputs <= 0:
            return np.zeros(0, np.float32)
        position = np.arange(self._done, self._done + outputs) * self._down
        base = position // self._up - self._half - self._first
        if self._up == self._down:
            piece: Mono = self._kept[base]
        else:
            windows = sliding_window_view(self._kept, self._taps.shape[1])
            piece = np.einsum("ij,ij->i", windows[base], self._taps[position % self._up])
        self._done += outputs
        unused = max(0, self._done * self._down // self._up - self._half - self._first)
        self._kept, self._first = self._kept[unused:], self._first + unused
        return piece


def downmix(block: PcmBlock) -> Mono:
    """The mean of the channels, one added after the other: the same bits for any block length."""
    samples = block.samples
    mixed: Mono = samples[:, 0].copy()
    for channel in range(1, samples.shape[1]):
        mixed += samples[:, channel]
    mixed /= samples.shape[1]
    return mixed


def _filter(up: int, down: int) -> Mono:
    """Row p weighs the input samples around an output that lies p/up of a sample behind one: a sinc under a Kaiser window."""
    if up == down:
        return np.ones((1, 1), np.float32)  # nothing to filter, and nothing to wait for
    cutoff = PASS_BAND * min(1.0, up / down)
    half = math.ceil(ZERO_CROSSINGS / cutoff)
    at = np.arange(-half, half + 1)[None, :] - np.arange(up)[:, None] / up
    window = np.i0(KAISER_BETA * np.sqrt(np.clip(1 - (at / (half + 1)) ** 2, 0, 1))) / np.i0(KAISER_BETA)
    taps = np.sinc(cutoff * at) * window
    return np.asarray(taps / taps.sum(axis=1, keepdims=True), np.float32)
