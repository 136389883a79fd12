"""One audio stream analysed: what runs in a media child of the local server, audio bytes in, wire messages out, one a line.

The analysis is a reference detector's, not Modulate's model.
"""

from collections.abc import Iterator
from io import BufferedReader
from typing import BinaryIO

from connectors.local_velma.analysts import ANALYSTS, Analyst, Listening
from connectors.local_velma.detection import DETECTORS
from connectors.local_velma.framing import Framer
from connectors.media.decoding import DecodeFailed, decode
from connectors.media.source import Read
from moderation.formats import StreamParameters
from moderation.messages import Done, ErrorMessage, Item, encode

MISMATCH = ErrorMessage("Audio data does not match the declared audio_format.")
CORRUPTED = ErrorMessage("The audio could not be processed. It may be corrupted or in an unsupported format.")
"""The two texts that are published for close code 4002."""
DRAIN_BYTES = 1 << 16


def run(
    source: BufferedReader,
    sink: BinaryIO,
    *,
    endpoint: str,
    audio_format: str,
    sample_rate: int | None = None,
    num_channels: int | None = None,
    detector: str = "signal",
    threshold: float = 0.5,
    short_windows: bool = False,
) -> None:
    """Write every item of an endpoint (by name) as soon as its audio is there, then done; or an error as the last line.

    source is the audio as it arrives, in any pieces, none of which changes the outcome. Done is written only after the last byte was
    read, also where the audio itself ended before. detector is a name of DETECTORS, threshold the probability from which a frame counts.
    Raises BadParameters and KeyError for options that the caller should have refused.
    """
    analyst = ANALYSTS[endpoint](Listening(DETECTORS[detector](), threshold, short_windows))
    for message in messages(source.read1, StreamParameters.of(audio_format, sample_rate, num_channels), analyst):
        sink.write(encode(message).encode() + b"\n")
        sink.flush()


def messages(read: Read, parameters: StreamParameters, analyst: Analyst) -> Iterator[Item | Done | ErrorMessage]:
    """What the endpoint says about a stream, in order."""
    framer = Framer()
    try:
        for block in decode(read, parameters):
            for frame in framer.push(block):
                yield from analyst.hear(frame)
    except DecodeFailed as failure:
        yield MISMATCH if failure.mismatch else CORRUPTED
        return
    frames, rest = framer.finish()
    for frame in frames:
        yield from analyst.hear(frame)
    yield from analyst.end(len(rest))
    while read(DRAIN_BYTES):
        pass
    yield analyst.done(framer.duration_ms)
