"""The sample catalogue of `soundcheck demo`: a few minutes of audio in many formats, made here, byte for byte the same on every run."""

import io
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from numpy.random import Generator
from numpy.typing import NDArray

from moderation.outcomes import Reason
from tasks.sample_sounds import HIGH_VOICE, LOW_VOICE, Piece, Sound, Voice, music, over, silence, talk, white_noise

Truth = Literal["speech", "music", "mixed", "neither", "unknown", "none"]

DONE: Final = "done"
_SEED = 20261004


@dataclass(frozen=True, slots=True)
class Sample:
    """One object of the catalogue, with what a scan should make of it.

    metadata is the object's S3 user metadata. truth is the label that a scan should give ("mixed": music or speech; "unknown": too short
    for one frame; "none": nothing to label). expected is "done", or the Reason why the object is not streamed to a result.
    """

    key: str
    body: bytes
    metadata: dict[str, str]
    truth: Truth
    expected: str


def sample_catalogue() -> list[Sample]:
    """Every object of the catalogue, sorted by key, as a listing would give them."""
    samples = [recording.sample() for recording in _RECORDINGS] + _odd_objects()
    return sorted(samples, key=lambda sample: sample.key)


# -- recordings -------------------------------------------------------------------------------------------------------------------------

_Synthesis = Callable[[Generator, float, int], Sound]


@dataclass(frozen=True, slots=True)
class _Encoding:
    """How samples become bytes: the FFmpeg names of muxer and codec, sample rate in Hz, and channels."""

    muxer: str
    codec: str
    rate: int
    channels: int = 1
    bitrate: int | None = None


@dataclass(frozen=True, slots=True)
class _Recording:
    """An object that is real audio of so many seconds."""

    key: str
    truth: Truth
    seconds: float
    synthesis: _Synthesis
    encoding: _Encoding
    metadata: dict[str, str] = field(default_factory=dict)
    expected: str = DONE

    def sample(self) -> Sample:
        """The object; its sound depends on its own key alone, so that another object can come or go."""
        sound = self.synthesis(_generator(self.key), self.seconds, self.encoding.rate)
        return Sample(self.key, _encode(sound, self.encoding), dict(self.metadata), self.truth, self.expected)


def _generator(key: str) -> Generator:
    return np.random.default_rng([_SEED, zlib.crc32(key.encode())])


def _talk(voice: Voice) -> _Synthesis:
    return lambda rng, seconds, rate: talk(rng, seconds, rate, voice)


def _music(piece: Piece) -> _Synthesis:
    return lambda rng, seconds, rate: music(rng, seconds, rate, piece)


def _talk_over_music(voice: Voice, piece: Piece, intro: float, ducked: float) -> _Synthesis:
    return lambda rng, seconds, rate: over(
        talk(rng, seconds, rate, voice), music(rng, seconds, rate, piece), rate, intro=intro, ducked=ducked
    )


def _silence(_: Generator, seconds: float, rate: int) -> Sound:
    return silence(seconds, rate)


_BALLAD = Piece(tempo=84, key=57, progression=2, drums=0.3)
_DANCE = Piece(tempo=124, key=53, progression=1, melody=0.25, drums=0.8)
_FOLK = Piece(tempo=100, key=60, progression=0, drums=0.0)
_BED = Piece(tempo=92, key=55, progression=0, melody=0.2, drums=0.2)

_RECORDINGS = (
    _Recording("ambience/room-tone.wav", "neither", 8, _silence, _Encoding("wav", "pcm_s16le", 16000)),
    _Recording("ambience/ventilation.flac", "neither", 10, white_noise, _Encoding("flac", "flac", 22050)),
    _Recording("ambience/door-click.wav", "unknown", 0.12, white_noise, _Encoding("wav", "pcm_s16le", 16000)),
    _Recording("calls/2026-10-03/line-07.pcm", "speech", 15, _talk(LOW_VOICE), _Encoding("s16le", "pcm_s16le", 16000)),
    _Recording(
        "calls/2026-10-03/line-08.ulaw",
        "speech",
        12,
        _talk(HIGH_VOICE),
        _Encoding("mulaw", "pcm_mulaw", 8000),
        metadata={"audio-format": "mulaw", "sample-rate": "8000", "num-channels": "1"},
    ),
    _Recording("music/loops/four-on-the-floor.aac", "music", 12, _music(_DANCE), _Encoding("adts", "aac", 44100, 2, 96_000)),
    _Recording("music/loops/upright-piano.aiff", "music", 10, _music(_FOLK), _Encoding("aiff", "pcm_s16be", 22050)),
    _Recording("music/singles/harbour-lights.flac", "music", 16, _music(_BALLAD), _Encoding("flac", "flac", 44100, 2)),
    # not taken by the service: decoded here first
    _Recording("music/singles/harbour-lights.m4a", "music", 8, _music(_BALLAD), _Encoding("ipod", "aac", 44100, 2, 96_000)),
    # an Ogg file under the wrong extension
    _Recording("music/singles/long-way-round.mp3", "music", 12, _music(_FOLK), _Encoding("ogg", "libopus", 48000, 2, 64_000)),
    _Recording("music/singles/night-bus.mp3", "music", 16, _music(_DANCE), _Encoding("mp3", "libmp3lame", 44100, 2, 128_000)),
    _Recording("music/singles/paper-boats.ogg", "music", 15, _music(_BED), _Encoding("ogg", "libopus", 48000, 2, 80_000)),
    _Recording("podcasts/season-3/episode-41.wav", "speech", 16, _talk(LOW_VOICE), _Encoding("wav", "pcm_s16le", 22050)),
    _Recording("podcasts/season-3/episode-42.mp3", "speech", 18, _talk(HIGH_VOICE), _Encoding("mp3", "libmp3lame", 22050, 1, 56_000)),
    _Recording(
        "podcasts/season-3/opener.flac", "mixed", 14, _talk_over_music(LOW_VOICE, _BED, 5.0, 0.12), _Encoding("flac", "flac", 32000)
    ),
    _Recording(
        "podcasts/season-3/trailer.webm",
        "mixed",
        12,
        _talk_over_music(HIGH_VOICE, _DANCE, 4.0, 0.2),
        _Encoding("webm", "libopus", 48000, 1, 48_000),
    ),
    _Recording("radio/bulletin-0600.aac", "speech", 14, _talk(HIGH_VOICE), _Encoding("adts", "aac", 32000, 1, 64_000)),
    _Recording("radio/interview.ogg", "speech", 15, _talk(LOW_VOICE), _Encoding("ogg", "libopus", 24000, 1, 32_000)),
)


_REPRODUCIBLE = {"flags": "bitexact", "threads": "1"}
_QUICK = {"aac": {"aac_coder": "fast"}, "libmp3lame": {"compression_level": "7"}, "libopus": {"compression_level": "4"}}
"""Codec options that halve the time to encode; nobody listens for the difference."""


def _encode(sound: Sound, encoding: _Encoding) -> bytes:
    """The sound as a file. bitexact keeps dates, random serial numbers and identifiers out; one thread keeps the order of the work."""
    channels = _channels(sound, encoding)
    target = io.BytesIO()
    with av.open(target, "w", format=encoding.muxer, options={"fflags": "bitexact"}) as container:
        stream = container.add_stream(
            encoding.codec, encoding.rate, options=_REPRODUCIBLE | _QUICK.get(encoding.codec, {}), layout=_layout(encoding)
        )
        assert isinstance(stream, AudioStream)
        if encoding.bitrate:
            stream.bit_rate = encoding.bitrate
        for frame in _frames(channels, encoding):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


def _channels(sound: Sound, encoding: _Encoding) -> NDArray[np.int16]:
    """16-bit sample frames, one row each; the right channel of stereo comes a third of a millisecond later, which is heard as width."""
    late = np.concatenate([np.zeros(encoding.rate // 3000), sound])[: len(sound)]
    both = np.stack([sound, late][: encoding.channels], axis=1)
    samples: NDArray[np.int16] = np.rint(both * np.iinfo(np.int16).max).astype(np.int16)
    return samples


def _frames(channels: NDArray[np.int16], encoding: _Encoding) -> Iterator[AudioFrame]:
    """The samples in pieces of a tenth of a second, each with its place in time."""
    step = encoding.rate // 10
    for start in range(0, len(channels), step):
        frame = AudioFrame.from_ndarray(channels[start : start + step].reshape(1, -1), format="s16", layout=_layout(encoding))
        frame.sample_rate = encoding.rate
        frame.pts = start
        yield frame


def _layout(encoding: _Encoding) -> str:
    return "stereo" if encoding.channels > 1 else "mono"


# -- everything else that lies about in a bucket ------------------------------------------------------------------------------------------

_README = """Season 3
========
Episodes 41 and 42 are mixed. Episode 43 is still with the editor: its upload is empty.
"""


def _odd_objects() -> list[Sample]:
    """Objects that are not streamed to a result, each for its own reason."""
    parameters = {"audio_format": "s16le", "sample_rate": 16000, "num_channels": 1}
    return [
        _odd("calls/2026-10-03/line-07.pcm.json", json.dumps(parameters).encode(), Reason.SIDECAR),
        _odd("music/archive/rip-0031.flac", _damaged_flac("music/archive/rip-0031.flac"), Reason.UNDECODABLE),
        _odd("podcasts/season-3/README.txt", _README.encode(), Reason.NOT_AUDIO),
        _odd("podcasts/season-3/episode-43.wav", b"", Reason.EMPTY),
    ]


def _odd(key: str, body: bytes, reason: Reason) -> Sample:
    return Sample(key, body, {}, "none", reason.value)


def _damaged_flac(key: str) -> bytes:
    """A FLAC marker and then 64 KiB of nothing that a decoder could make sense of: only streaming it shows that."""
    return b"fLaC" + _generator(key).bytes(64 * 1024)
