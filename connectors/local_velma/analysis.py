"""One audio stream analysed: what runs in a media child of the local server, audio bytes in, wire messages out, one a line.

The analysis is a reference detector's, not Modulate's model.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from io import BufferedReader
from typing import BinaryIO

from connectors.local_velma.analysts import ANALYSTS, Analyst, Listening
from connectors.local_velma.detectors import DetectorName, new_detector
from connectors.local_velma.framing import FRAME_MS, Framer
from connectors.local_velma.scripted import ScriptedAiMusicAnalyst
from connectors.local_velma.switches import HEAD_BYTES, Verdict, digest_of
from connectors.media.decoding import DEFAULT_CAPS, Caps, DecodeFailed, decode
from connectors.media.source import ByteSource, Read
from moderation.formats import StreamParameters
from moderation.messages import Done, ErrorMessage, Item, encode

MISMATCH = ErrorMessage("Audio data does not match the declared audio_format.")
CORRUPTED = ErrorMessage("The audio could not be processed. It may be corrupted or in an unsupported format.")
"""The two texts that are published for close code 4002."""
DRAIN_BYTES = 1 << 16
SECONDS_PER_HOUR = 3600
SCRIPTED_ENDPOINT = "ai_music"
"""Scripts are about AI verdicts alone."""


def run(
    source: BufferedReader,
    sink: BinaryIO,
    *,
    endpoint: str,
    audio_format: str,
    sample_rate: int | None = None,
    num_channels: int | None = None,
    detector: str = DetectorName.SIGNAL,
    threshold: float = 0.5,
    short_windows: bool = False,
    newer_windows: bool = False,
    source_duration: bool = False,
    max_session_hours: float | None = None,
    speed: float | None = None,
    verdict: str | None = None,
    verdicts: Mapping[str, str] | None = None,
) -> None:
    """Write every item of an endpoint (by name) as soon as its audio is there, then done; or an error as the last line.

    source is the audio as it arrives, in any pieces, none of which changes the outcome. The last line is followed by the end of the
    source, also where the audio itself ended before: who still writes to it is not cut off, and can read that line.
    detector is a DetectorName; the others are those of switches.py, but for the script: verdict is the one that was asked for, and
    verdicts are those of the script by the digests of objects, for which it waits for HEAD_BYTES of an object.
    Raises BadParameters, KeyError and ValueError for options that the caller should have refused.
    """
    read: Read = source.read1
    if endpoint != SCRIPTED_ENDPOINT:
        verdict = verdicts = None
    if verdict is None and verdicts:
        head, read = _peeked(read)
        verdict = verdicts.get(digest_of(head))
    listening = Listening(new_detector(detector), threshold, short_windows, newer_windows, source_duration)
    analyst: Analyst = ANALYSTS[endpoint](listening) if verdict is None else ScriptedAiMusicAnalyst(listening, Verdict(verdict))
    caps = DEFAULT_CAPS if max_session_hours is None else Caps(seconds=max_session_hours * SECONDS_PER_HOUR)
    pace = Pace(speed or math.inf)
    for message in messages(read, StreamParameters.of(audio_format, sample_rate, num_channels), analyst, caps, pace):
        sink.write(encode(message).encode() + b"\n")
        sink.flush()
    _drain(read)


class Pace:
    """Keeps audio from passing faster than so many times real time, on average since it began; idle time may be made up for."""

    def __init__(self, speed: float, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep) -> None:
        self._speed = speed
        self._clock = clock
        self._sleep = sleep
        self._began: float | None = None

    def reach(self, audio_ms: int) -> None:
        """Wait until so much audio may have passed."""
        if self._began is None:
            self._began = self._clock()
        early = self._began + audio_ms / 1000 / self._speed - self._clock()
        if early > 0:
            self._sleep(early)


NO_PACE = Pace(math.inf)


def messages(
    read: Read, parameters: StreamParameters, analyst: Analyst, caps: Caps = DEFAULT_CAPS, pace: Pace = NO_PACE
) -> Iterator[Item | Done | ErrorMessage]:
    """What the endpoint says about a stream, in order; done only after its last byte."""
    framer = Framer()
    heard = 0
    try:
        for block in decode(read, parameters, caps):
            for frame in framer.push(block):
                heard += 1
                pace.reach(heard * FRAME_MS)
                yield from analyst.hear(frame)
    except DecodeFailed as failure:
        yield MISMATCH if failure.mismatch else CORRUPTED
        return
    frames, rest = framer.finish()
    for frame in frames:
        yield from analyst.hear(frame)
    yield from analyst.end(len(rest))
    _drain(read)
    yield analyst.done(framer.duration_ms)


def _peeked(read: Read) -> tuple[bytes, Read]:
    """The first HEAD_BYTES of a stream, and how to read it from the beginning all the same."""
    source = ByteSource(read)
    head = source.exactly(HEAD_BYTES)
    source.rewind()
    source.commit()
    return head, source.some


def _drain(read: Read) -> None:
    while read(DRAIN_BYTES):
        pass
