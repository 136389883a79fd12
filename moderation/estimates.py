"""How much audio an object holds, how that is known, and how wrong it may be."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

from moderation.formats import AudioFormat
from moderation.sniffing import Content
from moderation.transcoding import SourceFormat


class EstimateSource(StrEnum):
    """How a duration is known."""

    BYTES = "bytes"
    """Raw PCM: exact."""
    HEADER = "header"
    """The object's own header, or the last of its time stamps."""
    BITRATE = "bitrate"
    """Its bytes, and the bitrate of frames that were looked at."""
    DEFAULT = "default"
    """Its bytes, and a usual bitrate of its format."""
    NONE = "none"
    """Nobody asked: it is not streamed."""


ERROR_SHARES = {
    EstimateSource.BYTES: 0.0,
    EstimateSource.HEADER: 0.001,  # within 0.01 s (measurements.md): a thousandth of ten seconds
    EstimateSource.BITRATE: 0.05,  # ADTS +3.6 %, VBR mp3 -1.6 % (measurements.md)
    EstimateSource.DEFAULT: 1.0,  # mp3 is 64 to 320 kbit/s: half or double what is assumed
    EstimateSource.NONE: 0.0,
}
"""By how much of itself a duration may be wrong either way. Objects of one encoder err alike, so the errors of many add up."""
MIN_BITS_PER_SECOND = 100
"""Less is no audio, only a header that lies: digital silence in FLAC at 8 kHz still is 200."""

NOMINAL_BYTES_PER_SECOND: dict[AudioFormat | Content, int] = {
    AudioFormat.WAV: 88_200,
    AudioFormat.AIFF: 88_200,
    AudioFormat.FLAC: 55_000,
    AudioFormat.MP3: 16_000,
    AudioFormat.AAC: 16_000,
    AudioFormat.OGG: 12_000,
    AudioFormat.WEBM: 12_000,
    Content.MP4: 16_000,
    Content.MATROSKA: 16_000,
    Content.WMA: 16_000,
    Content.MP2: 24_000,
    Content.AMR: 1_600,
    Content.CAF: 88_200,
    Content.WAVE64: 88_200,
    Content.AVI: 160_000,
    Content.MPEG_VIDEO: 160_000,
}
"""Bytes of a second of audio as catalogues usually have it: the estimate where a header tells nothing. Sessions reserve more as they go."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The audio of an object in milliseconds, as far as it is there; truncated where its bytes fall short of what its header declares."""

    ms: int
    source: EstimateSource
    truncated: bool = False

    @property
    def error_ms(self) -> int:
        """By how many milliseconds it may be wrong either way."""
        return round(self.ms * ERROR_SHARES[self.source])

    @property
    def is_exact(self) -> bool:
        """Whether results may be held against it."""
        return self.source in {EstimateSource.BYTES, EstimateSource.HEADER}

    def cut_to(self, there: int, declared: int) -> Self:
        """The same of an object that has only so many of its declared bytes."""
        if there >= declared:
            return self
        return replace(self, ms=self.ms * max(there, 0) // declared, source=EstimateSource.BITRATE, truncated=True)


def raw_estimate(size_bytes: int, source: SourceFormat) -> Estimate:
    """Of raw PCM."""
    assert source.bytes_per_second, "only raw audio has a fixed rate"
    return Estimate(size_bytes * 1000 // source.bytes_per_second, EstimateSource.BYTES)


def default_estimate(size_bytes: int, kind: AudioFormat | Content) -> Estimate:
    """Of a container by its size alone."""
    return Estimate(size_bytes * 1000 // NOMINAL_BYTES_PER_SECOND[kind], EstimateSource.DEFAULT)


def is_plausible(estimate: Estimate, size_bytes: int) -> bool:
    """Whether so many bytes can hold so much audio."""
    return 0 <= estimate.ms * MIN_BITS_PER_SECOND <= size_bytes * 8 * 1000
