"""Progressive decoding of all 27 audio formats from a stream that cannot be rewound. For child processes: it reads untrusted bytes."""

from collections.abc import Iterator
from typing import Any

import av
import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer

from connectors.media.headers import CodedOtherwise, NotThisFormat, read_aiff_header, read_wav_header
from connectors.media.pcm import PcmBlock, PcmLayout, Samples, bounded, decode_pcm, normalised
from connectors.media.source import ByteSource, Read
from moderation.errors import Scope, SoundcheckError
from moderation.formats import AudioFormat, StreamParameters
from moderation.sniffing import sniff

DEMUXERS = {
    AudioFormat.WAV: "wav",
    AudioFormat.AIFF: "aiff",
    AudioFormat.MP3: "mp3",
    AudioFormat.OGG: "ogg",
    AudioFormat.FLAC: "flac",
    AudioFormat.WEBM: "matroska",
    AudioFormat.AAC: "aac",
}
"""FFmpeg's names. The declared format is taken at its word, never guessed."""
OPEN_OPTIONS = {"probesize": "4096", "analyzeduration": "0"}
"""Open after 4 KiB and from headers alone: the default reads 5 s of audio first (measurements.md)."""
IO_BYTES = 1024
"""What FFmpeg asks for at a time: an eighth of a second at 64 kbit/s, which bounds how late a packet can be."""
PATIENCE = 64
"""Bad packets that a stream may begin with; from there on most of its packets must be good."""


class DecodeFailed(SoundcheckError):
    """These bytes are not decodable audio of the declared format (service.md, decision 15).

    mismatch tells that they are something else; else they are corrupted.
    """

    scope = Scope.OBJECT

    def __init__(self, text: str, *, mismatch: bool = False) -> None:
        super().__init__(text)
        self.mismatch = mismatch


def decode(read: Read, parameters: StreamParameters) -> Iterator[PcmBlock]:
    """The samples of a stream as soon as their bytes are there; nothing for a stream of no bytes.

    read(n) gives up to n bytes and none only at the end. The samples do not depend on how it cuts them, but blocks do. A stream that
    ends in the middle is fine. Raises DecodeFailed when it cannot be opened, has no audio stream, has mostly bad packets, or has
    bytes but not one sample.
    """
    source = ByteSource(read)
    if source.at_end():
        return
    heard = False
    try:
        for block in _blocks(source, parameters):
            heard = heard or len(block.samples) > 0
            yield block
    except (NotThisFormat, av.error.FFmpegError) as error:
        raise DecodeFailed(str(error), mismatch=_is_something_else(source.head, parameters.audio_format)) from error
    if not heard:
        raise DecodeFailed("not one sample", mismatch=_is_something_else(source.head, parameters.audio_format))


def _blocks(source: ByteSource, parameters: StreamParameters) -> Iterator[PcmBlock]:
    audio_format = parameters.audio_format
    if parameters.sample_rate is not None and parameters.num_channels is not None:
        source.commit()
        yield from decode_pcm(source, PcmLayout(audio_format, parameters.sample_rate, parameters.num_channels), None)
        return
    if audio_format in {AudioFormat.WAV, AudioFormat.AIFF}:
        try:
            header = read_wav_header(source) if audio_format is AudioFormat.WAV else read_aiff_header(source)
        except CodedOtherwise:
            source.rewind()
        else:
            source.commit()
            yield from decode_pcm(source, header.layout, header.size)
            return
    source.commit()
    yield from decode_packets(source, DEMUXERS[audio_format])


def decode_packets(source: ByteSource, demuxer: str | None) -> Iterator[PcmBlock]:
    """The samples of the first audio stream of a container, by FFmpeg; demuxer is its name, None to let FFmpeg find out."""
    with av.open(_Unseekable(source), "r", format=demuxer, buffer_size=IO_BYTES, options=OPEN_OPTIONS) as container:
        if not container.streams.audio:
            raise NotThisFormat("no audio stream")
        stream = container.streams.audio[0]
        stream.codec_context.thread_count = 1  # what a child may use is bounded
        yield from _packets(container, stream)


def _packets(container: InputContainer, stream: AudioStream) -> Iterator[PcmBlock]:
    """Decode packet by packet: `container.decode()` would stop at the first bad one, where here it is counted and skipped."""
    good = bad = 0
    packets = container.demux(stream)
    while bad < PATIENCE or bad <= good:
        try:
            packet = next(packets, None)
            if packet is None:
                break
            frames = packet.decode()
        except av.error.FFmpegError:
            bad += 1
            packets = container.demux(stream)  # an error ends the iterator, not the container
            continue
        good += bool(frames)
        for frame in frames:
            yield PcmBlock(frame.sample_rate, _samples(frame))
    if bad > good:
        raise NotThisFormat(f"{bad} bad packets and {good} good ones")


def _samples(frame: AudioFrame) -> Samples:
    array: np.ndarray[Any, Any] = frame.to_ndarray()
    channels = frame.layout.nb_channels
    array = array.T if frame.format.is_planar else array.reshape(-1, channels)
    if array.dtype.kind == "f":
        return bounded(array)
    return normalised(array, 8 * array.dtype.itemsize, signed=array.dtype.kind == "i")


def _is_something_else(head: bytes, audio_format: AudioFormat) -> bool:
    return sniff(head) is not audio_format


class _Unseekable:
    """A file for PyAV that can only be read on, in sizes that do not depend on how the stream was chunked."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source

    def read(self, size: int) -> bytes:
        return self._source.exactly(size)
