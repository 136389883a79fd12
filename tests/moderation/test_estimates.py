"""How long an object is, and how wrong that may be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.estimates import (
    ERROR_SHARES,
    NOMINAL_BYTES_PER_SECOND,
    Estimate,
    EstimateSource,
    default_estimate,
    is_plausible,
    raw_estimate,
)
from moderation.formats import CONTAINERS, RAW_FORMATS, SAMPLE_RATES, AudioFormat, StreamParameters
from moderation.sniffing import UNSUPPORTED_AUDIO
from moderation.transcoding import SourceFormat


@given(st.sampled_from(sorted(RAW_FORMATS)), st.sampled_from(SAMPLE_RATES), st.integers(1, 8), st.integers(0, 36_000))
def test_the_duration_of_raw_audio_is_exact(audio_format, rate, channels, seconds):
    parameters = StreamParameters(audio_format, rate, channels)
    found = raw_estimate(parameters.bytes_per_second * seconds, SourceFormat.like(parameters))
    assert found == Estimate(seconds * 1000, EstimateSource.BYTES)
    assert (found.is_exact, found.error_ms) == (True, 0)


@pytest.mark.parametrize("kind", sorted(CONTAINERS | UNSUPPORTED_AUDIO))
def test_the_duration_of_a_container_by_its_size_is_a_guess_that_says_so(kind):
    found = default_estimate(NOMINAL_BYTES_PER_SECOND[kind] * 60, kind)
    assert found == Estimate(60_000, EstimateSource.DEFAULT)
    assert (found.is_exact, found.error_ms) == (False, 60_000)


def test_every_way_of_knowing_has_an_error():
    assert ERROR_SHARES.keys() == set(EstimateSource)
    assert Estimate(100_000, EstimateSource.HEADER).error_ms == 100
    assert Estimate(100_000, EstimateSource.BITRATE).error_ms == 5000


def test_an_object_that_lacks_bytes_counts_for_those_it_has():
    whole = Estimate(90_000, EstimateSource.HEADER)
    assert whole.cut_to(300, 300) is whole
    assert whole.cut_to(400, 300) is whole
    assert whole.cut_to(100, 300) == Estimate(30_000, EstimateSource.BITRATE, truncated=True)
    assert whole.cut_to(-5, 300).ms == 0
    assert not whole.cut_to(100, 300).is_exact


def test_a_duration_that_no_bytes_could_hold_is_not_believed():
    assert is_plausible(Estimate(80_000, EstimateSource.HEADER), 1000)
    assert not is_plausible(Estimate(80_001, EstimateSource.HEADER), 1000)
    assert not is_plausible(Estimate(-1, EstimateSource.HEADER), 1000)
    assert AudioFormat.WAV in NOMINAL_BYTES_PER_SECOND
