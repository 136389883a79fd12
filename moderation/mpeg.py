"""Frames of MPEG audio and of AAC in ADTS, from their four to seven header bytes."""

from dataclasses import dataclass

HEADER_BYTES = 7
"""The longest header: ADTS needs seven bytes, MPEG audio four."""
MIN_HEADER_BYTES = 4
ADTS, LAYER_III, LAYER_II, LAYER_I = 0, 1, 2, 3
"""The two layer bits behind the sync word; ADTS has 0."""
MPEG_1 = 3
"""The two version bits; 2 and 0 are MPEG 2 and 2.5, 1 is reserved."""
_SYNC, _SYNC_BITS, _ADTS_BITS = 0xFF, 0xE0, 0xF0
_MONO = 3

_BITRATES = {  # kbit/s by (version 1?, layer)
    (True, LAYER_I): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, LAYER_II): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, LAYER_III): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, LAYER_I): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, LAYER_II): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, LAYER_III): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_ADTS_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)


@dataclass(frozen=True, slots=True)
class MpegFrame:
    """What a frame's header says: its length in bytes with the header, its samples a channel, and their rate in Hz."""

    version: int
    layer: int
    mono: bool
    rate: int
    samples: int
    length: int

    def alike(self, other: "MpegFrame") -> bool:
        """Whether both may be of one stream: all but the length stays."""
        return (self.version, self.layer, self.rate) == (other.version, other.layer, other.rate)


def mpeg_frame(header: bytes) -> MpegFrame | None:
    """The frame that starts with these bytes; None where none does."""
    if len(header) < MIN_HEADER_BYTES or header[0] != _SYNC or header[1] & _SYNC_BITS != _SYNC_BITS:
        return None
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    if layer == ADTS:
        return _adts(header, version) if header[1] & _ADTS_BITS == _ADTS_BITS else None
    return _mpeg_audio(header, version, layer)


def _adts(header: bytes, version: int) -> MpegFrame | None:
    """ISO 13818-7, 6.2: sampling index 13 to 15 is reserved; the length is 13 bits from bit 30."""
    index = header[2] >> 2 & 15
    if index >= len(_ADTS_RATES) or len(header) < HEADER_BYTES:
        return None
    length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    channels = (header[2] & 1) << 2 | header[3] >> 6
    return (
        MpegFrame(version, ADTS, channels == 1, _ADTS_RATES[index], 1024 * (1 + (header[6] & 3)), length) if length > HEADER_BYTES else None
    )


def _mpeg_audio(header: bytes, version: int, layer: int) -> MpegFrame | None:
    """ISO 11172-3, 2.4.3: version 1 and layers 3, 2, 1 stand for MPEG-reserved, I, II, III in these bits."""
    bitrate_index, rate_index, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or bitrate_index in {0, 15} or rate_index == 3:  # noqa: PLR2004
        return None
    first_version = version == MPEG_1
    bitrate = _BITRATES[first_version, layer][bitrate_index - 1] * 1000
    rate = _RATES[version][rate_index]
    if layer == LAYER_I:
        samples, length = 384, (12 * bitrate // rate + padding) * 4
    else:
        samples = 1152 if first_version or layer == LAYER_II else 576
        length = samples // 8 * bitrate // rate + padding
    return MpegFrame(version, layer, header[3] >> 6 == _MONO, rate, samples, length)
