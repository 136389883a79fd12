"""What our client would send and what the local server takes are the same, over the whole table of the seed pages."""

import re
from itertools import product

import pytest

from connectors.local_velma.parameters import parameters_of
from moderation.errors import BadParameters
from moderation.formats import CONTAINERS, AudioFormat, StreamParameters
from moderation.outcomes import Reason

RATES = (8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000)
OTHER_RATES = (-16000, 0, 1, 7999, 8001, 12000, 24000, 88200, 192000, 2**63)
CHANNELS = range(-1, 11)
PUBLISHED = (
    r"Raw audio formats require sample_rate and num_channels query parameters",
    r"Invalid sample_rate=-?\d+\. Valid values: \[8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000\]",
    r"Invalid num_channels=-?\d+\. Must be between 1 and 8",
    r"sample_rate and num_channels must not be specified for audio_format='\w+'",
)
"""service.md; the last one in our own words, for which no text is published."""


def ours(audio_format, rate, channels):
    try:
        return StreamParameters(audio_format, rate, channels)
    except BadParameters as refusal:
        return refusal.reason


def theirs(audio_format, rate, channels):
    asked = {"audio_format": audio_format.value, "sample_rate": rate, "num_channels": channels}
    return parameters_of({name: str(value) for name, value in asked.items() if value is not None})


def by_the_seed_pages(audio_format, rate, channels):
    if audio_format in CONTAINERS:
        return rate is None and channels is None
    return rate in RATES and channels in range(1, 9)


@pytest.mark.parametrize("audio_format", AudioFormat)
def test_every_combination_is_taken_by_both_or_refused_by_both(audio_format):
    taken = 0
    for rate, channels in product((None, *RATES, *OTHER_RATES), (None, *CHANNELS)):
        wanted, answered = ours(audio_format, rate, channels), theirs(audio_format, rate, channels)
        if by_the_seed_pages(audio_format, rate, channels):
            assert wanted == answered == parameters_of(wanted.query())
            taken += 1
        else:
            assert wanted in {Reason.BAD_PARAMETERS, Reason.UNKNOWN_PARAMETERS, Reason.UNSUPPORTED_RATE}
            assert any(re.fullmatch(text, answered) for text in PUBLISHED), answered
    assert taken == (1 if audio_format in CONTAINERS else 8 * 8)
