"""What is decoded here before it is streamed, and what it goes out as."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.errors import BadParameters
from moderation.formats import MAX_CHANNELS, SAMPLE_RATES, AudioFormat, StreamParameters
from moderation.identity import params_hash
from moderation.outcomes import Reason
from moderation.sniffing import UNSUPPORTED_AUDIO, Content
from moderation.transcoding import Delivery, SourceFormat, Transcode, decoded_parameters, delivery

AUTO, ALWAYS, NEVER = Transcode.AUTO, Transcode.ALWAYS, Transcode.NEVER
TAKEN = [
    StreamParameters(AudioFormat.MP3),
    StreamParameters(AudioFormat.WEBM),
    StreamParameters(AudioFormat.F32BE, 22_050, 2),
    StreamParameters(AudioFormat.S16LE, 8000, 1),
]
NOT_TAKEN = [
    *((SourceFormat(kind), Reason.UNSUPPORTED_FORMAT) for kind in sorted(UNSUPPORTED_AUDIO)),
    (SourceFormat(AudioFormat.S16LE, 12_000, 1), Reason.UNSUPPORTED_RATE),
    (SourceFormat(AudioFormat.U8, 16_000, 9), Reason.UNSUPPORTED_RATE),
]


@pytest.mark.parametrize("parameters", TAKEN, ids=str)
@pytest.mark.parametrize("transcode", [AUTO, NEVER])
def test_what_the_service_takes_goes_out_as_it_is(parameters, transcode):
    assert delivery(SourceFormat.like(parameters), transcode) == Delivery(parameters)


@pytest.mark.parametrize(("source", "reason"), NOT_TAKEN, ids=str)
def test_what_it_does_not_take_is_decoded_here_or_refused_with_its_reason(source, reason):
    for transcode in (AUTO, ALWAYS):
        found = delivery(source, transcode)
        assert found.transcoded_from == source
        assert (found.parameters is None) == (source.sample_rate is None), "only decoding tells the rate of what has a header"
    with pytest.raises(BadParameters) as refused:
        delivery(source, NEVER)
    assert refused.value.reason is reason


@pytest.mark.parametrize("parameters", TAKEN, ids=str)
def test_always_decodes_all_but_what_would_be_the_same_again(parameters):
    source = SourceFormat.like(parameters)
    is_same = parameters.audio_format is AudioFormat.S16LE
    assert delivery(source, ALWAYS).transcoded_from == (None if is_same else source)


@pytest.mark.parametrize(
    ("rate", "channels", "expected"),
    [
        (44_100, 2, (44_100, 2)),
        (8000, 8, (8000, 8)),
        (12_000, 1, (16_000, 1)),
        (24_000, 1, (32_000, 1)),
        (88_200, 2, (96_000, 2)),
        (192_000, 2, (96_000, 2)),
        (1000, 1, (8000, 1)),
        (48_000, 9, (48_000, 1)),
    ],
)
def test_the_source_rate_and_channels_are_kept_where_the_service_takes_them(rate, channels, expected):
    assert decoded_parameters(rate, channels) == StreamParameters(AudioFormat.S16LE, *expected)


@given(st.integers(1000, 768_000), st.integers(1, 64))
def test_whatever_is_decoded_goes_out_as_something_that_the_service_takes(rate, channels):
    found = decoded_parameters(rate, channels)
    assert found.sample_rate >= min(rate, SAMPLE_RATES[-1])
    assert found.num_channels == channels or (channels > MAX_CHANNELS and found.num_channels == 1)


@pytest.mark.parametrize(
    ("source", "text"),
    [(SourceFormat(Content.MP4), "mp4"), (SourceFormat(AudioFormat.FLAC), "flac"), (SourceFormat(AudioFormat.U8, 12_000, 9), "u8:12000:9")],
)
def test_a_source_reads_back_as_it_is_written(source, text):
    assert str(source) == text
    assert SourceFormat.parse(text) == source


def test_the_default_makes_nothing_another_result_and_always_makes_all_of_it_another():
    """The hash of before there was a choice (tests/moderation/test_identity.py) is that of auto and never."""
    hashes = {mode: params_hash(sidecar=None, rule=None, transcode=mode.identity) for mode in Transcode}
    assert hashes[AUTO] == hashes[NEVER] == "071df13b2ebdf573"
    assert hashes[ALWAYS] != hashes[AUTO]
