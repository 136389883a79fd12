"""The query parameters of a connection as the service checks them, with its published texts for close code 1003 (service.md)."""

import itertools
from collections.abc import Iterator, Mapping

from connectors.local_velma.switches import NO_SWITCHES, Switches, Verdict
from moderation.formats import CONTAINERS, MAX_CHANNELS, SAMPLE_RATES, AudioFormat, StreamParameters


def parameters_of(query: Mapping[str, str], switches: Switches = NO_SWITCHES) -> StreamParameters | str:
    """The stream parameters of a connection URL, or the text of the refusal."""
    audio_format, rate, channels = (query.get(name) or None for name in ("audio_format", "sample_rate", "num_channels"))
    if switches.ignore_container_rate and audio_format in CONTAINERS:
        rate = channels = None
    problems = itertools.chain(_problems(audio_format, rate, channels), _verdict_problems(switches.asked_verdict(query)))
    return next(problems, None) or StreamParameters.of(str(audio_format), rate, channels)


def _problems(audio_format: str | None, rate: str | None, channels: str | None) -> Iterator[str]:
    formats = [known.value for known in AudioFormat]
    if audio_format is None:
        if rate or channels:
            yield "sample_rate and num_channels require audio_format to be specified"
        yield f"audio_format query parameter is required. Valid values: {formats}"
    elif audio_format not in formats:
        yield f"Invalid audio_format={audio_format!r}. Valid values: {formats}"
    elif AudioFormat(audio_format).is_raw:
        yield from _raw_problems(rate, channels)
    elif rate or channels:
        yield f"sample_rate and num_channels must not be specified for audio_format={audio_format!r}"


def _verdict_problems(asked: str | None) -> Iterator[str]:
    valid = [verdict.value for verdict in Verdict]
    if asked is not None and asked not in valid:
        yield f"Invalid scripted_verdict={asked!r}. Valid values: {valid}"


def _raw_problems(rate: str | None, channels: str | None) -> Iterator[str]:
    if not rate or not channels:
        yield "Raw audio formats require sample_rate and num_channels query parameters"
    elif rate not in map(str, SAMPLE_RATES):
        yield f"Invalid sample_rate={rate}. Valid values: {list(SAMPLE_RATES)}"
    elif channels not in map(str, range(1, MAX_CHANNELS + 1)):
        yield f"Invalid num_channels={channels}. Must be between 1 and {MAX_CHANNELS}"
