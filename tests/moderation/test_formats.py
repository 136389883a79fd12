"""Which combinations of format, rate and channels the endpoints take, and what a sample frame of each weighs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.errors import BadParameters, Scope
from moderation.formats import CONTAINERS, RAW_FORMATS, SAMPLE_RATES, AudioFormat, StreamParameters
from moderation.outcomes import Reason

SEED_CONTAINERS = "wav, mp3, ogg, flac, webm, aac, aiff"
SEED_RAW = (
    "s8, s16le, s16be, s24le, s24be, s32le, s32be, u8, u16le, u16be, u24le, u24be, u32le, u32be, f32le, f32be, f64le, f64be, mulaw, alaw"
)
SAMPLE_BYTES = {
    1: "s8 u8 mulaw alaw",
    2: "s16le s16be u16le u16be",
    3: "s24le s24be u24le u24be",
    4: "s32le s32be u32le u32be f32le f32be",
    8: "f64le f64be",
}
RATES = (8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000)
CHANNELS = (1, 2, 8)

raw_parameters = st.builds(StreamParameters, st.sampled_from(sorted(RAW_FORMATS)), st.sampled_from(RATES), st.integers(1, 8))
any_parameters = raw_parameters | st.builds(StreamParameters, st.sampled_from(sorted(CONTAINERS)))


def assert_refused(reason, *words):
    with pytest.raises(BadParameters) as caught:
        StreamParameters.of(*words)
    assert caught.value.reason is reason
    assert caught.value.scope is Scope.OBJECT


def test_formats_and_rates_are_those_of_the_seed_pages():
    assert {str(known) for known in CONTAINERS} == set(SEED_CONTAINERS.split(", "))
    assert {str(known) for known in RAW_FORMATS} == set(SEED_RAW.split(", "))
    assert len(AudioFormat) == 27
    assert SAMPLE_RATES == RATES


@pytest.mark.parametrize(("size", "names"), SAMPLE_BYTES.items())
def test_a_sample_weighs_what_its_name_says(size, names):
    assert {AudioFormat(name).sample_bytes for name in names.split()} == {size}


def test_every_raw_format_has_a_weight():
    assert {name for names in SAMPLE_BYTES.values() for name in names.split()} == RAW_FORMATS


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("audio_format", sorted(RAW_FORMATS))
def test_raw_audio_is_taken_at_every_rate_with_one_to_eight_channels(audio_format, rate, channels):
    parameters = StreamParameters.of(audio_format.value, rate, channels)

    assert audio_format.is_raw
    assert parameters.frame_bytes == audio_format.sample_bytes * channels
    assert parameters.bytes_per_second == audio_format.sample_bytes * channels * rate
    assert parameters.query() == {"audio_format": audio_format.value, "sample_rate": str(rate), "num_channels": str(channels)}


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("audio_format", sorted(CONTAINERS))
def test_containers_are_never_sent_with_a_rate_or_channels(audio_format, rate, channels):
    assert not audio_format.is_raw
    assert_refused(Reason.BAD_PARAMETERS, audio_format.value, rate, channels)
    assert_refused(Reason.BAD_PARAMETERS, audio_format.value, rate, None)
    assert_refused(Reason.BAD_PARAMETERS, audio_format.value, None, channels)


@pytest.mark.parametrize("audio_format", sorted(CONTAINERS))
def test_containers_go_alone_and_have_no_known_weight(audio_format):
    parameters = StreamParameters.of(audio_format.value)

    assert parameters.query() == {"audio_format": audio_format.value}
    assert parameters.frame_bytes is None
    assert parameters.bytes_per_second is None


@given(any_parameters)
def test_parameters_survive_their_own_query_string(parameters):
    assert StreamParameters.of(**parameters.query()) == parameters


@pytest.mark.parametrize("audio_format", sorted(RAW_FORMATS))
def test_raw_audio_without_rate_or_channels_is_unknown(audio_format):
    assert_refused(Reason.UNKNOWN_PARAMETERS, audio_format.value)
    assert_refused(Reason.UNKNOWN_PARAMETERS, audio_format.value, 16000, None)
    assert_refused(Reason.UNKNOWN_PARAMETERS, audio_format.value, None, 1)
    assert_refused(Reason.UNKNOWN_PARAMETERS, audio_format.value, "", "")


@given(st.integers(-1_000_000, 1_000_000).filter(lambda rate: rate not in RATES))
def test_other_rates_are_unsupported(rate):
    assert_refused(Reason.UNSUPPORTED_RATE, "s16le", rate, 1)


@given(st.integers(max_value=0) | st.integers(min_value=9))
def test_other_channels_are_unsupported(channels):
    assert_refused(Reason.UNSUPPORTED_RATE, "s16le", 16000, channels)


@pytest.mark.parametrize("name", ["mp4", "m4a", "pcm", "s16", "WAV", " wav", "", "None", "s8le"])
def test_unknown_formats_are_refused_by_name(name):
    with pytest.raises(BadParameters, match="unknown audio_format") as caught:
        StreamParameters.of(name, 16000, 1)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("rate", [16000, 16000.0, "16000", "16000.0", " 16000 "])
def test_rates_are_read_from_numbers_and_words(rate):
    assert StreamParameters.of("s16le", rate, "1") == StreamParameters(AudioFormat.S16LE, 16000, 1)


@pytest.mark.parametrize("rate", ["fast", "16 kHz", 16000.5, "0.5", "nan", "inf", "1e999", True, [], {}])
def test_what_is_no_whole_number_is_refused_with_its_name(rate):
    with pytest.raises(BadParameters, match=r"sample_rate .* is not a"):
        StreamParameters.of("s16le", rate, 1)
    with pytest.raises(BadParameters, match=r"num_channels .* is not a"):
        StreamParameters.of("s16le", 16000, rate)


@given(raw_parameters, st.integers(0, 3600))
def test_seconds_of_raw_audio_are_whole_sample_frames(parameters, seconds):
    assert parameters.bytes_per_second * seconds % parameters.frame_bytes == 0
