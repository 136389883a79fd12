"""Progressive decoding of all 27 audio formats from a stream that cannot be rewound. For child processes: it reads untrusted bytes."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import av
import av.error
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard
from numpy.typing import DTypeLike

from connectors.media.flac import flac_frames, read_flac_header
from connectors.media.headers import CodedOtherwise, NotThisFormat, read_aiff_header, read_wav_header
from connectors.media.ogg import OggChain
from connectors.media.pcm import MAX_CHANNELS, MAX_RATE, MIN_RATE, PcmBlock, PcmLayout, Samples, bounded, decode_pcm, normalised
from connectors.media.source import ByteSource, Read
from moderation.errors import Scope, SoundcheckError
from moderation.formats import AudioFormat, StreamParameters
from moderation.sniffing import sniff

DEMUXERS = {
    AudioFormat.WAV: "wav",
    AudioFormat.AIFF: "aiff",
    AudioFormat.MP3: "mp3",
    AudioFormat.WEBM: "matroska",
    AudioFormat.AAC: "aac",
}
"""FFmpeg's names. The declared format is taken at its word, never guessed."""
OPEN_OPTIONS = {"probesize": "32", "analyzeduration": "0"}
"""Open from headers alone: the default reads 5 s of audio first (measurements.md), and 4 KiB are 4 s at 8 kbit/s."""
IO_BYTES = 128
"""What FFmpeg asks for at a time: 32 ms at 32 kbit/s, which bounds how late a packet can be. It costs no more than 1 KiB at a time."""
PATIENCE = 64
"""Bad packets that a stream may begin with; from there on most of its packets must be good."""
MAX_ERRORS = 10_000
"""Of FFmpeg, between two packets: some hundred kilobytes of garbage, after which nobody waits for audio."""

AudioPacket: TypeAlias = "Packet[Any]"
"""Quoted here and below: the class is generic for type checkers alone."""


class DecodeFailed(SoundcheckError):
    """These bytes are not decodable audio of the declared format (service.md, decision 15).

    mismatch tells that they are something else; else they are corrupted.
    """

    scope = Scope.OBJECT

    def __init__(self, text: str, *, mismatch: bool = False) -> None:
        super().__init__(text)
        self.mismatch = mismatch


class BeyondCaps(DecodeFailed):
    """There is more audio than there may be; what is within the caps has been given."""


class NoAudioStream(NotThisFormat):
    """The container is sound, and has nothing to hear."""


@dataclass(frozen=True, slots=True)
class Caps:
    """What a stream may become, however few bytes it has: seconds of audio, and bytes of decoded samples (four for each).

    A week is longer than anything that is one object; a tebibyte is a day of 8 channels at 192 kHz, twice over.
    """

    seconds: float = 7 * 24 * 3600
    decoded_bytes: int = 1 << 40


DEFAULT_CAPS = Caps()


def decode(read: Read, parameters: StreamParameters, caps: Caps = DEFAULT_CAPS) -> Iterator[PcmBlock]:
    """The samples of a stream as soon as their bytes are there; nothing for a stream of no bytes.

    read(n) gives up to n bytes and none only at the end. The samples do not depend on how it cuts them, but blocks do. A stream that
    ends in the middle is fine. Raises DecodeFailed when it cannot be opened, has no audio stream, has mostly bad packets, has bytes
    but not one sample, or goes beyond the caps, after the samples that are within them.
    """
    source = ByteSource(read)
    if source.at_end():
        return
    heard = False
    try:
        for block in capped(_blocks(source, parameters), caps):
            heard = heard or len(block.samples) > 0
            yield block
    except (NotThisFormat, av.error.FFmpegError) as error:
        raise DecodeFailed(str(error), mismatch=_is_something_else(source.head, parameters.audio_format)) from error
    if not heard:
        raise DecodeFailed("not one sample", mismatch=_is_something_else(source.head, parameters.audio_format))


def capped(blocks: Iterator[PcmBlock], caps: Caps) -> Iterator[PcmBlock]:
    """The samples that are within the caps. Raises BeyondCaps after them, and NotThisFormat for rates and channels of no audio."""
    taken: Counter[int] = Counter()  # samples by their rate: what is within the caps must not depend on blocks
    size = 0
    for block in blocks:
        samples, channels = block.samples.shape
        if not (MIN_RATE <= block.rate <= MAX_RATE and 0 < channels <= MAX_CHANNELS):
            raise NotThisFormat(f"{block.rate} Hz, {channels} channels")
        earlier = sum(count / rate for rate, count in taken.items() if rate != block.rate)
        by_time = int((caps.seconds - earlier) * block.rate) - taken[block.rate]
        by_size = (caps.decoded_bytes - size) // (block.samples.itemsize * channels)
        if samples > (allowed := max(0, min(by_time, by_size))):
            yield PcmBlock(block.rate, block.samples[:allowed])
            raise BeyondCaps(f"more than {caps.seconds} seconds, or {caps.decoded_bytes} bytes of samples")
        taken[block.rate] += samples
        size += block.samples.nbytes
        yield block


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
    if audio_format is AudioFormat.FLAC:
        yield from decode_flac(source)
    elif audio_format is AudioFormat.OGG:
        yield from decode_ogg(source)
    else:
        yield from decode_packets(source.exactly, DEMUXERS[audio_format])


def decode_packets(read: Read, demuxer: str) -> Iterator[PcmBlock]:
    """The samples of the first audio stream of a container, by FFmpeg, whose name for the container is demuxer.

    read(n) gives n bytes, fewer only at the end.
    """
    yield from decode_container(Unseekable(read), demuxer, buffer_size=IO_BYTES, options=OPEN_OPTIONS)


def decode_container(file: object, demuxer: str, **opening: Any) -> Iterator[PcmBlock]:
    """The same of a file object, with FFmpeg's own ways of opening it unless others are named."""
    # tags of old files are in any encoding, and no reason not to listen
    with av.open(file, "r", format=demuxer, metadata_errors="replace", **opening) as container:
        stream = next(iter(container.streams.audio), None)
        if stream is None and len(container.streams):
            raise NoAudioStream("no audio stream among those that it has")
        if stream is None or stream.codec_context is None:
            raise NotThisFormat("no audio stream, or none that can be decoded")
        for other in container.streams:
            if other.index != stream.index:
                other.discard = Discard.all  # pictures are not even read where the container lets them be passed over
        stream.codec_context.thread_count = 1  # what a child may use is bounded
        yield from _decoded(_demuxed(container, stream), stream.decode)


def decode_ogg(source: ByteSource) -> Iterator[PcmBlock]:
    """The samples of each link of a chained stream; of a last one that was cut off, what there is."""
    chain = OggChain(source)
    first = True
    while chain.next_link():
        try:
            yield from decode_packets(chain.exactly, "ogg")
        except (NotThisFormat, av.error.FFmpegError):
            if first or not source.at_end():
                raise
        first = False


def decode_flac(source: ByteSource) -> Iterator[PcmBlock]:
    """The samples of a FLAC stream, frame by frame. Raises NotThisFormat."""
    codec = AudioCodecContext.create("flac", "r")
    codec.thread_count = 1
    codec.extradata = read_flac_header(source)
    yield from _decoded((Packet(frame) for frame in flac_frames(source)), codec.decode)


def _demuxed(container: InputContainer, stream: AudioStream) -> "Iterator[AudioPacket | None]":
    """The packets of a stream; None stands for bytes that are none, however many: FFmpeg stumbles over zeros a few dozen at a time."""
    packets = container.demux(stream)
    errors = 0
    while errors < MAX_ERRORS:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:
            packets = container.demux(stream)  # an error ends PyAV's iterator, not the container
            errors += 1
            if errors == 1:
                yield None
        else:
            if packet is None:
                return
            errors = 0
            yield packet


def _decoded(packets: "Iterable[AudioPacket | None]", decode: "Callable[[AudioPacket], Sequence[AudioFrame]]") -> Iterator[PcmBlock]:
    """Decode packet by packet: `container.decode()` would stop at the first bad one, where here it is counted and skipped."""
    good = bad = 0
    for packet in packets:
        try:
            frames = decode(packet) if packet is not None else None
        except av.error.FFmpegError:
            frames = None
        bad += frames is None
        if bad >= PATIENCE and bad > good:
            break
        good += bool(frames)
        for frame in frames or ():
            yield PcmBlock(frame.sample_rate, _samples(frame))
    if bad > good:
        raise NotThisFormat(f"{bad} bad packets and {good} good ones")


def _samples(frame: AudioFrame) -> Samples:
    """The samples of a frame. PyAV's own `to_ndarray` reads past the last of eight or more planes, and knows no 64-bit integers."""
    channels, dtype = frame.layout.nb_channels, _DTYPES[frame.format.packed.name]
    array: np.ndarray[Any, Any]
    if frame.format.is_planar:
        array = np.stack([np.frombuffer(memoryview(plane), dtype, frame.samples) for plane in frame.planes[:channels]], axis=1)
    else:
        array = np.frombuffer(memoryview(frame.planes[0]), dtype, frame.samples * channels).reshape(-1, channels)
    if array.dtype.kind == "f":
        return bounded(array)
    return normalised(array, 8 * array.dtype.itemsize, signed=array.dtype.kind == "i")


_DTYPES: dict[str, DTypeLike] = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}
"""By FFmpeg's names for packed sample formats: all that its decoders put out."""


def _is_something_else(head: bytes, audio_format: AudioFormat) -> bool:
    return sniff(head) is not audio_format


class Unseekable:
    """A file for PyAV that can only be read on, in sizes that do not depend on how the stream was chunked."""

    def __init__(self, read: Read) -> None:
        self.read = read
