"""Media that the service does not take, made by FFmpeg: sounds in other containers, with pictures, or pictures alone."""

import io
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from audio_files import Samples, _frame
from moderation.sniffing import Content


@dataclass(frozen=True)
class Medium:
    """A codec in a container, as FFmpeg makes it."""

    kind: Content
    codec: str
    muxer: str
    rate: int = 16_000
    """Hz, that the codec takes."""
    lossless: bool = False

    def __str__(self) -> str:
        return f"{self.kind}-{self.codec}"


MEDIA = (
    Medium(Content.MP4, "aac", "mp4"),
    Medium(Content.MP4, "alac", "ipod", lossless=True),
    Medium(Content.MP4, "pcm_s16le", "mov", lossless=True),
    Medium(Content.WMA, "wmav2", "asf", 22_050),
    Medium(Content.MATROSKA, "aac", "matroska"),
    Medium(Content.CAF, "pcm_s16le", "caf", lossless=True),
    Medium(Content.CAF, "alac", "caf"),
    Medium(Content.AMR, "libopencore_amrnb", "amr", 8_000),
    Medium(Content.MPEG_VIDEO, "mp2", "mpeg"),
    Medium(Content.AVI, "pcm_s16le", "avi", lossless=True),
    Medium(Content.WAVE64, "pcm_s16le", "w64", lossless=True),
    Medium(Content.MP2, "mp2", "mp2"),
)
"""One of every kind at least. FFmpeg writes the index of an mp4, and the packet table of a caf, behind the samples."""
MP4 = MEDIA[0]
_LAYOUTS = {1: "mono", 2: "stereo"}


def media_bytes(samples: Samples | None, rate: int, medium: Medium, *, pictures: int = 0, **options: str) -> bytes:
    """A sound (None: none at all) as a file, beside so many pictures of noise at 10 a second; options are the muxer's."""
    sink = io.BytesIO()
    with av.open(sink, "w", format=medium.muxer, options={"fflags": "bitexact"} | options) as out:
        _write(out, samples, rate, medium, pictures)
    return sink.getvalue()


def with_index_in_front(folder: Path, samples: Samples, rate: int) -> bytes:
    """The same as an mp4 for the web, for which FFmpeg needs a file that it can go back in."""
    path = folder / "web.mp4"
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as out:
        _write(out, samples, rate, MP4, 0)
    return path.read_bytes()


def _write(out: av.container.OutputContainer, samples: Samples | None, rate: int, medium: Medium, pictures: int) -> None:
    sound = video = None
    if pictures:
        video = out.add_stream("mpeg4", rate=10, width=160, height=120, pix_fmt="yuv420p")
    if samples is not None:
        layout = _LAYOUTS[samples.shape[1]]
        sound = out.add_stream(medium.codec, rate=rate, layout=layout)
        if medium.kind is Content.WMA:
            sound.bit_rate = 48_000  # it knows no other way to choose its tables
    out.start_encoding()
    if video is not None:
        noise = np.random.default_rng(5)
        for _ in range(pictures):
            picture = av.VideoFrame.from_ndarray(noise.integers(0, 256, (180, 160), np.uint8), format="yuv420p")
            out.mux(video.encode(picture))
        out.mux(video.encode(None))
    if sound is not None and samples is not None:
        resampler = av.AudioResampler(sound.format, layout, rate, frame_size=sound.codec_context.frame_size or 4096)
        for frame in [*resampler.resample(_frame(samples, rate, layout)), *resampler.resample(None), None]:
            out.mux(sound.encode(frame))
