"""The duration of an object of any kind, by its own header as far as that can be believed."""

import struct
from collections.abc import Callable

from connectors.media.durations.asf import asf_estimate
from connectors.media.durations.avi import avi_estimate
from connectors.media.durations.flac import flac_estimate
from connectors.media.durations.matroska import matroska_estimate
from connectors.media.durations.mp4 import mp4_estimate
from connectors.media.durations.mpeg import amr_estimate, mpeg_estimate
from connectors.media.durations.ogg import ogg_estimate
from connectors.media.durations.pcm import aiff_estimate, caf_estimate, wav_estimate, wave64_estimate
from connectors.media.durations.ranges import Ranges
from moderation.estimates import Estimate, default_estimate, is_plausible
from moderation.formats import AudioFormat
from moderation.sniffing import Content

_PARSERS: dict[AudioFormat | Content, Callable[[Ranges], Estimate | None]] = {
    AudioFormat.WAV: wav_estimate,
    AudioFormat.AIFF: aiff_estimate,
    AudioFormat.FLAC: flac_estimate,
    AudioFormat.OGG: ogg_estimate,
    AudioFormat.WEBM: matroska_estimate,
    AudioFormat.MP3: mpeg_estimate,
    AudioFormat.AAC: mpeg_estimate,
    Content.MP2: mpeg_estimate,
    Content.MATROSKA: matroska_estimate,
    Content.MP4: mp4_estimate,
    Content.WMA: asf_estimate,
    Content.CAF: caf_estimate,
    Content.WAVE64: wave64_estimate,
    Content.AMR: amr_estimate,
    Content.AVI: avi_estimate,
}


def estimate(ranges: Ranges, kind: AudioFormat | Content) -> Estimate:
    """How much audio an object of this kind holds. What its header says is a guess of last resort where it is broken or absurd.

    Raises Wanted for bytes that are to be read first, and NoAudioTrack for a container with nothing to hear.
    """
    default = default_estimate(ranges.size, kind)
    parse = _PARSERS.get(kind)
    try:
        found = parse(ranges) if parse else None
    except (ValueError, IndexError, struct.error, ArithmeticError):  # the header is cut off, broken, or further than may be read
        return default
    return found if found is not None and is_plausible(found, ranges.size) else default
