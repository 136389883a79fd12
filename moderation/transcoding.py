"""What is decoded on this side before it is streamed, and what it goes out as (service.md, decisions 15, 17 and 18)."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from moderation.errors import BadParameters
from moderation.formats import MAX_CHANNELS, SAMPLE_RATES, AudioFormat, StreamParameters
from moderation.outcomes import Reason
from moderation.sniffing import Content

DECODABLE_RATES = (1000, 768_000)
"""Hz, the least and the most: beyond them there is no audio, only headers that lie; a few bytes at 1 Hz would be hours."""
DECODABLE_CHANNELS = 64
FOR_WANT_OF_DECODING = frozenset({Reason.UNSUPPORTED_FORMAT, Reason.UNSUPPORTED_RATE})
"""Why objects are quarantined that only have to be decoded here: no reason any more once that is allowed."""


class Transcode(StrEnum):
    """What a run may decode itself and stream as s16le."""

    AUTO = "auto"
    """What the service does not take, and once more what it could not decode."""
    ALWAYS = "always"
    NEVER = "never"

    @property
    def identity(self) -> str:
        """What it adds to the identity of results: of auto and never the same, since both stream what the service takes as it is."""
        return self.value if self is Transcode.ALWAYS else Transcode.NEVER.value


@dataclass(frozen=True, slots=True)
class SourceFormat:
    """What an object's bytes are, as far as a decoder has to be told: the rate in Hz and the channels are those of raw audio alone.

    In writing it is `mp4`, or `s16le:12000:1`.
    """

    kind: AudioFormat | Content
    sample_rate: int | None = None
    num_channels: int | None = None

    @classmethod
    def of(cls, audio_format: str, sample_rate: object = None, num_channels: object = None) -> Self:
        """From loosely typed words, as a sidecar has them. Raises BadParameters for what is no audio at all."""
        try:
            return cls.like(StreamParameters.of(audio_format, sample_rate, num_channels))
        except BadParameters as error:
            if error.reason is not Reason.UNSUPPORTED_RATE:
                raise
        raw = cls(AudioFormat(audio_format), int(float(str(sample_rate))), int(float(str(num_channels))))
        if not raw._is_audio:
            raise BadParameters(f"{raw.sample_rate} Hz and {raw.num_channels} channels are no audio")
        return raw

    @classmethod
    def like(cls, parameters: StreamParameters) -> Self:
        """What is streamed as it is."""
        return cls(parameters.audio_format, parameters.sample_rate, parameters.num_channels)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The reverse of `str`. Raises ValueError."""
        kind, *numbers = text.split(":")
        rate, channels = map(int, numbers or (0, 0))
        known = Content(kind) if kind in set(Content) else AudioFormat(kind)
        return cls(known, rate or None, channels or None)

    def __str__(self) -> str:
        return f"{self.kind}:{self.sample_rate}:{self.num_channels}" if self.is_raw else self.kind.value

    @property
    def is_raw(self) -> bool:
        """Whether it is headerless PCM."""
        return isinstance(self.kind, AudioFormat) and self.kind.is_raw

    @property
    def bytes_per_second(self) -> int | None:
        """Bytes of a second of raw audio; None for what has a header."""
        if self.sample_rate is None or self.num_channels is None or isinstance(self.kind, Content):
            return None
        return self.kind.sample_bytes * self.num_channels * self.sample_rate

    def parameters(self) -> StreamParameters:
        """How it is streamed as it is. Raises BadParameters, with the reason, where the service does not take it."""
        if isinstance(self.kind, Content):
            raise BadParameters(f"{self.kind} is not accepted by the service", Reason.UNSUPPORTED_FORMAT)
        return StreamParameters(self.kind, self.sample_rate, self.num_channels)

    @property
    def _is_audio(self) -> bool:
        least, most = DECODABLE_RATES
        return least <= (self.sample_rate or 0) <= most and 1 <= (self.num_channels or 0) <= DECODABLE_CHANNELS


@dataclass(frozen=True, slots=True)
class Delivery:
    """How an object is streamed: as it is, or decoded here from what it is into s16le.

    parameters are None where only its decoding tells the rate.
    """

    parameters: StreamParameters | None
    transcoded_from: SourceFormat | None = None


def delivery(source: SourceFormat, transcode: Transcode) -> Delivery:
    """How to stream what is such. Raises BadParameters where the service does not take it and nothing may be decoded here."""
    try:
        as_it_is = source.parameters()
    except BadParameters:
        if transcode is Transcode.NEVER:
            raise
    else:
        if transcode is not Transcode.ALWAYS or source.kind is AudioFormat.S16LE:
            return Delivery(as_it_is)
    return decoded(source)


def decoded(source: SourceFormat) -> Delivery:
    """The delivery of what is decoded here."""
    known = source.sample_rate is not None and source.num_channels is not None
    parameters = decoded_parameters(source.sample_rate or 0, source.num_channels or 0) if known else None
    return Delivery(parameters, source)


def decoded_parameters(rate: int, channels: int) -> StreamParameters:
    """What decoded audio of a rate in Hz goes out as.

    At its own rate, else at the next higher one that the service takes; with its own channels, or as their mean where there are more
    than it takes.
    """
    taken = next((known for known in SAMPLE_RATES if known >= rate), SAMPLE_RATES[-1])
    return StreamParameters(AudioFormat.S16LE, taken, channels if channels <= MAX_CHANNELS else 1)
