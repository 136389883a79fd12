"""Audio formats: which combinations of format, rate and channels the endpoints accept (seed pages, 'Connection parameters')."""

from dataclasses import dataclass
from enum import StrEnum

from moderation.errors import BadParameters
from moderation.outcomes import Reason

SAMPLE_RATES = (8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000)
"""Hz, the ones the service takes for raw PCM."""
MAX_CHANNELS = 8


class AudioFormat(StrEnum):
    """The 27 values of the `audio_format` query parameter."""

    WAV = "wav"
    MP3 = "mp3"
    OGG = "ogg"
    FLAC = "flac"
    WEBM = "webm"
    AAC = "aac"
    AIFF = "aiff"

    S8 = "s8"
    S16LE = "s16le"
    S16BE = "s16be"
    S24LE = "s24le"
    S24BE = "s24be"
    S32LE = "s32le"
    S32BE = "s32be"
    U8 = "u8"
    U16LE = "u16le"
    U16BE = "u16be"
    U24LE = "u24le"
    U24BE = "u24be"
    U32LE = "u32le"
    U32BE = "u32be"
    F32LE = "f32le"
    F32BE = "f32be"
    F64LE = "f64le"
    F64BE = "f64be"
    MULAW = "mulaw"
    ALAW = "alaw"

    @property
    def is_raw(self) -> bool:
        """Whether this is headerless PCM, which needs sample_rate and num_channels."""
        return self not in CONTAINERS

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample of one channel of a raw format."""
        digits = "".join(c for c in self if c.isdigit())
        return int(digits) // 8 if digits else 1


CONTAINERS = frozenset(
    {
        AudioFormat.WAV,
        AudioFormat.MP3,
        AudioFormat.OGG,
        AudioFormat.FLAC,
        AudioFormat.WEBM,
        AudioFormat.AAC,
        AudioFormat.AIFF,
    }
)
RAW_FORMATS = frozenset(AudioFormat) - CONTAINERS


@dataclass(frozen=True, slots=True)
class StreamParameters:
    """The audio half of a connection URL. Making one raises BadParameters for everything that would be a close code 1003.

    sample_rate is in Hz; both it and num_channels are None for containers, whose headers carry them.
    """

    audio_format: AudioFormat
    sample_rate: int | None = None
    num_channels: int | None = None

    def __post_init__(self) -> None:
        if not self.audio_format.is_raw:
            if self.sample_rate is not None or self.num_channels is not None:
                raise BadParameters(f"{self.audio_format} carries its own sample rate and channels: leave both out")
            return
        if self.sample_rate is None or self.num_channels is None:
            raise BadParameters(f"raw {self.audio_format} needs sample_rate and num_channels", Reason.UNKNOWN_PARAMETERS)
        if self.sample_rate not in SAMPLE_RATES:
            raise BadParameters(f"sample_rate {self.sample_rate} is none of {', '.join(map(str, SAMPLE_RATES))}", Reason.UNSUPPORTED_RATE)
        if not 1 <= self.num_channels <= MAX_CHANNELS:
            raise BadParameters(f"num_channels {self.num_channels} is not between 1 and {MAX_CHANNELS}", Reason.UNSUPPORTED_RATE)

    @classmethod
    def of(cls, audio_format: str, sample_rate: object = None, num_channels: object = None) -> "StreamParameters":
        """Parameters from loosely typed words, as a sidecar or a query string has them."""
        try:
            known = AudioFormat(audio_format)
        except ValueError:
            raise BadParameters(f"unknown audio_format {audio_format!r}") from None
        return cls(known, _whole("sample_rate", sample_rate), _whole("num_channels", num_channels))

    @property
    def frame_bytes(self) -> int | None:
        """Bytes of one sample frame (all channels); None for containers."""
        return self.audio_format.sample_bytes * self.num_channels if self.num_channels else None

    @property
    def bytes_per_second(self) -> int | None:
        """Bytes of a second of raw audio; None for containers."""
        return self.frame_bytes * self.sample_rate if self.frame_bytes and self.sample_rate else None

    def query(self) -> dict[str, str]:
        """The query parameters of the connection URL, without the key."""
        pairs = {"audio_format": self.audio_format.value}
        if self.sample_rate is not None:
            pairs |= {"sample_rate": str(self.sample_rate), "num_channels": str(self.num_channels)}
        return pairs


def _whole(name: str, value: object) -> int | None:
    if value is None or value == "":
        return None
    try:
        number = float(str(value))
    except ValueError:
        raise BadParameters(f"{name} {value!r} is not a number") from None
    if not number.is_integer():
        raise BadParameters(f"{name} {value!r} is not a whole number")
    return int(number)
