"""Query parameters as the service checks them: what it takes, and the text of every refusal."""

import pytest

from connectors.local_velma.parameters import parameters_of
from moderation.formats import CONTAINERS, RAW_FORMATS, SAMPLE_RATES, StreamParameters

FORMATS = (
    "['wav', 'mp3', 'ogg', 'flac', 'webm', 'aac', 'aiff', 's8', 's16le', 's16be', 's24le', 's24be', 's32le', 's32be', 'u8', "
    "'u16le', 'u16be', 'u24le', 'u24be', 'u32le', 'u32be', 'f32le', 'f32be', 'f64le', 'f64be', 'mulaw', 'alaw']"
)
RATES = "[8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000]"
RAW_NEEDS = "Raw audio formats require sample_rate and num_channels query parameters"
REQUIRED = f"audio_format query parameter is required. Valid values: {FORMATS}"

REFUSALS = [
    ("", REQUIRED),
    ("audio_format=", REQUIRED),
    ("sample_rate=16000", "sample_rate and num_channels require audio_format to be specified"),
    ("num_channels=1", "sample_rate and num_channels require audio_format to be specified"),
    ("audio_format=mp4", f"Invalid audio_format='mp4'. Valid values: {FORMATS}"),
    ("audio_format=WAV", f"Invalid audio_format='WAV'. Valid values: {FORMATS}"),
    ("audio_format=s16le", RAW_NEEDS),
    ("audio_format=s16le&sample_rate=16000", RAW_NEEDS),
    ("audio_format=s16le&num_channels=1", RAW_NEEDS),
    ("audio_format=s16le&sample_rate=&num_channels=1", RAW_NEEDS),
    ("audio_format=s16le&sample_rate=50000&num_channels=1", f"Invalid sample_rate=50000. Valid values: {RATES}"),
    ("audio_format=s16le&sample_rate=-16000&num_channels=1", f"Invalid sample_rate=-16000. Valid values: {RATES}"),
    ("audio_format=s16le&sample_rate=16e3&num_channels=1", f"Invalid sample_rate=16e3. Valid values: {RATES}"),
    ("audio_format=s16le&sample_rate=16000&num_channels=12", "Invalid num_channels=12. Must be between 1 and 8"),
    ("audio_format=s16le&sample_rate=16000&num_channels=0", "Invalid num_channels=0. Must be between 1 and 8"),
    ("audio_format=s16le&sample_rate=16000&num_channels=two", "Invalid num_channels=two. Must be between 1 and 8"),
    ("audio_format=wav&sample_rate=16000", "sample_rate and num_channels must not be specified for audio_format='wav'"),
    ("audio_format=mp3&num_channels=2", "sample_rate and num_channels must not be specified for audio_format='mp3'"),
]


def query(text: str) -> dict[str, str]:
    return dict(pair.split("=") for pair in text.split("&") if pair)


@pytest.mark.parametrize(("asked", "text"), REFUSALS)
def test_refusals(asked, text):
    assert parameters_of(query(asked)) == text


@pytest.mark.parametrize("audio_format", sorted(CONTAINERS))
def test_containers(audio_format):
    assert parameters_of({"audio_format": audio_format, "api_key": "any"}) == StreamParameters(audio_format)


@pytest.mark.parametrize("audio_format", sorted(RAW_FORMATS))
def test_raw(audio_format):
    for rate in SAMPLE_RATES:
        asked = {"audio_format": audio_format, "sample_rate": str(rate), "num_channels": "8"}
        assert parameters_of(asked) == StreamParameters(audio_format, rate, 8)


@pytest.mark.parametrize("number", ["9" * 5000, "²", "१", " 1", "1.0", "+1"])
def test_numbers_that_are_none(number):
    """The first is longer than what int() takes."""
    assert parameters_of({"audio_format": "u8", "sample_rate": "8000", "num_channels": number}).startswith("Invalid num_channels=")
    assert parameters_of({"audio_format": "u8", "sample_rate": number, "num_channels": "1"}).startswith("Invalid sample_rate=")
