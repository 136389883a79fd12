"""Frame headers of MPEG audio and ADTS, by the tables of their standards."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.mpeg import ADTS, LAYER_I, LAYER_II, LAYER_III, MpegFrame, mpeg_frame


@pytest.mark.parametrize(
    ("header", "frame"),
    [
        ("fffb9064", MpegFrame(3, LAYER_III, False, 44_100, 1152, 417)),
        ("fffb9264", MpegFrame(3, LAYER_III, False, 44_100, 1152, 418)),
        ("fffb90c4", MpegFrame(3, LAYER_III, True, 44_100, 1152, 417)),
        ("fff38064", MpegFrame(2, LAYER_III, False, 22_050, 576, 208)),
        ("ffe31864", MpegFrame(0, LAYER_III, False, 8000, 576, 72)),
        ("fffd8404", MpegFrame(3, LAYER_II, False, 48_000, 1152, 384)),
        ("ffff9404", MpegFrame(3, LAYER_I, False, 48_000, 384, 288)),
        ("fff15080203ffc", MpegFrame(2, ADTS, False, 44_100, 1024, 257)),
        ("fff15840203ffd", MpegFrame(2, ADTS, True, 24_000, 2048, 257)),
    ],
)
def test_a_header_says_how_long_its_frame_is(header, frame):
    assert mpeg_frame(bytes.fromhex(header)) == frame


@pytest.mark.parametrize(
    "header", ["", "fffb90", "fefb9064", "ffeb9064", "fffbf064", "fffb0064", "fffb9c64", "fff1508020", "fff17480203ffc", "fff1508000fffc"]
)
def test_what_is_reserved_or_too_short_is_no_frame(header):
    assert mpeg_frame(bytes.fromhex(header)) is None


def test_frames_of_one_stream_are_alike_whatever_their_bitrate():
    frame, louder = (mpeg_frame(bytes.fromhex(header)) for header in ("fffb9064", "fffbe064"))
    assert frame.alike(louder)
    assert not frame.alike(mpeg_frame(bytes.fromhex("fffb9464")))
    assert not frame.alike(mpeg_frame(bytes.fromhex("fffd9064")))


@given(st.binary(max_size=12))
def test_no_bytes_make_it_fail(data):
    frame = mpeg_frame(b"\xff" + data)
    assert frame is None or frame.length > 0
