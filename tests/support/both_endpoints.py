"""What the local server's analysis says of a stream on both endpoints: read, decoded and framed once, in this process, and judged twice."""

import io
from collections.abc import Callable, Iterable, Iterator
from zlib import crc32

import numpy as np

from audio_files import TONE_HZ
from connectors.local_velma.analysis import messages
from connectors.local_velma.analysts import ANALYSTS, Listening
from connectors.local_velma.detection import Detector, Probabilities, SignalDetector
from connectors.local_velma.framing import FRAME_SAMPLES, RATE, Mono
from moderation.formats import StreamParameters
from moderation.messages import ErrorMessage, Item, MusicDone, encode

Texts = dict[str, list[str]]
"""The messages as they are on the wire, in order, by the name of the endpoint."""


def said(
    read: Callable[[int], bytes],
    parameters: StreamParameters,
    detector: Callable[[], Detector] = SignalDetector,
    threshold: float = 0.5,
    *,
    short_windows: bool = False,
) -> Texts:
    """All that the endpoints say of what `read` gives."""
    both = _Both({name: Listening(detector(), threshold, short_windows) for name in ANALYSTS})
    for message in messages(read, parameters, both):
        if isinstance(message, ErrorMessage):
            both.note(ANALYSTS, message)
    return both.texts


class _Both:
    """The analysts of both endpoints as one, that notes what each of them says."""

    def __init__(self, listenings: dict[str, Listening]) -> None:
        self._analysts = {name: ANALYSTS[name](listening) for name, listening in listenings.items()}
        self.texts: Texts = {name: [] for name in listenings}

    def note(self, names: Iterable[str], message) -> None:
        for name in names:
            self.texts[name].append(encode(message))

    def hear(self, frame: Mono) -> Iterator[Item]:
        for name, analyst in self._analysts.items():
            for item in analyst.hear(frame):
                self.note([name], item)
                yield item

    def end(self, rest: int) -> Iterator[Item]:
        for name, analyst in self._analysts.items():
            for item in analyst.end(rest):
                self.note([name], item)
                yield item

    def done(self, duration_ms: int) -> MusicDone:
        for name, analyst in self._analysts.items():
            self.note([name], done := analyst.done(duration_ms))
        return done


class ToneMeter:
    """A detector that knows one tone: its amplitude stands for music, its part of the frame's power for speech."""

    _BIN = TONE_HZ * FRAME_SAMPLES // RATE

    def hear(self, frame: Mono) -> Probabilities:
        power = np.square(np.abs(np.fft.rfft(frame)))
        amplitude = 2 * np.sqrt(power[self._BIN]) / FRAME_SAMPLES
        share = power[self._BIN] / power.sum() if power.any() else 0.0
        return Probabilities(round(float(amplitude), 4), round(float(share), 4))


class Digester:
    """A detector whose findings change with every bit of a frame."""

    def hear(self, frame: Mono) -> Probabilities:
        data = frame.tobytes()
        return Probabilities(round(crc32(data) / 2**32, 4), round(crc32(data, 1) / 2**32, 4))


def in_pieces(data: bytes, sizes: int | Iterable[int]) -> Callable[[int], bytes]:
    """A stream whose bytes arrive in pieces of one size, or of these sizes and the rest at once."""
    stream = io.BytesIO(data)
    if isinstance(sizes, int):
        return lambda wanted: stream.read(min(wanted, sizes))
    waiting = iter([*sizes, len(data)])
    piece = b""

    def read(wanted: int) -> bytes:
        nonlocal piece
        while not piece and stream.tell() < len(data):
            piece = stream.read(next(waiting, len(data)))
        given, piece = piece[:wanted], piece[wanted:]
        return given

    return read
