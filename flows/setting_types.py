"""The kinds of values that settings have: names, money, places, and tables of their own. A wrong one is a ValueError without the value."""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, TypeAlias
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, WithJsonSchema

from connectors.s3 import S3Uri
from moderation.budget import MICROS, hours_to_ms
from moderation.catalogue import ParameterRule
from moderation.endpoints import ENDPOINTS
from moderation.errors import BadParameters, ConfigurationError
from moderation.refusals import Meaning, TextPatterns, text_pattern
from moderation.transcoding import Transcode, delivery

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def _known_endpoint(name: str) -> str:
    if name not in ENDPOINTS:
        raise ValueError(f"unknown endpoint {name!r}: the known ones are {', '.join(ENDPOINTS)}")
    return name


def _root(text: str) -> str:
    try:
        place = S3Uri.parse(text)
    except ConfigurationError as error:
        raise ValueError(str(error)) from None
    return str(place) if place.prefix.endswith("/") or not place.prefix else f"{place}/"


def _private_url(url: SecretStr) -> SecretStr:
    """Refuse a URL over which its token could be read on the way."""
    try:
        parts = urlsplit(url.get_secret_value())
        private = parts.hostname is not None and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK))
    except ValueError:
        private = False
    if not private:
        raise ValueError("give https://host/..., or http://127.0.0.1:PORT/... for one on this machine")
    return url


def _zone(name: str) -> str:
    try:
        return ZoneInfo(name).key
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"unknown time zone {name!r}: give a name such as UTC or Europe/Berlin") from None


EndpointName: TypeAlias = Annotated[str, AfterValidator(_known_endpoint), WithJsonSchema({"type": "string", "enum": list(ENDPOINTS)})]
OrganisationName: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
VariableName: TypeAlias = Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")]
"""Capitals alone: a key that is written here by mistake is refused, and not shown."""
Root: TypeAlias = Annotated[str, AfterValidator(_root)]
"""s3://bucket/prefix, where the prefix is a folder: the slash at its end is added."""
PrivateUrl: TypeAlias = Annotated[SecretStr, AfterValidator(_private_url)]
Condition: TypeAlias = Annotated[str | None, AfterValidator(lambda text: text if text and text.strip() else None)]
"""SQL; blank is none, so that a flag can take back what a file says."""
Connections: TypeAlias = Annotated[int, Field(ge=1, le=1000)]
TotalConnections: TypeAlias = Annotated[int, Field(ge=1)]
Hours: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Money: TypeAlias = Annotated[Decimal, Field(ge=0, max_digits=15, decimal_places=6)]
"""As exact as the ledger, which counts millionths."""
ZoneName: TypeAlias = Annotated[str, AfterValidator(_zone)]
Share: TypeAlias = Annotated[float, Field(gt=0, le=1)]
Currency: TypeAlias = Annotated[str, Field(pattern=r"^\w{1,16}$")]


def hours_ms(hours: float | None) -> int | None:
    """Milliseconds of audio, where there is a limit."""
    return None if hours is None else hours_to_ms(hours)


def micros(money: Decimal | None) -> int | None:
    """Millionths of the currency, where there is an amount."""
    return None if money is None else int(money * MICROS)


class OnQuota(StrEnum):
    """What a run does when credits or the service's monthly hours are used up."""

    END = "end"
    SUSPEND = "suspend"
    """It waits, and asks every quarter of an hour."""


class LogFormat(StrEnum):
    """What a line of the log is."""

    TEXT = "text"
    JSON = "json"
    """An object with the ids of run, shard, object and session."""


class FanOutTo(StrEnum):
    """Where a run streams its shards."""

    PROCESS = "process"
    """In its own process."""
    WORKERS = "workers"
    """On workers of Prefect, as runs of a deployment."""


class SpoolPlace(StrEnum):
    """Where ended sessions wait until they are published."""

    STATE = "state"
    """In the state folder of this host."""
    RESULTS = "results"
    """Below the results: any host publishes what a dead one has streamed."""


class RawRule(BaseModel):
    """Raw PCM parameters for keys that match a glob; the first rule that matches counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    glob: str
    audio_format: str
    sample_rate: int
    num_channels: int

    def rule(self, transcode: Transcode = Transcode.AUTO) -> ParameterRule:
        """The same for the core. Raises ConfigurationError for what could not be streamed, or only decoded where that may not be."""
        rule = ParameterRule(self.glob, self.audio_format, self.sample_rate, self.num_channels)
        try:
            delivery(rule.source(), transcode)
        except BadParameters as error:
            raise ConfigurationError(f"setting raw_rules, {self.glob!r}: {error}") from error
        return rule


class RefusalText(BaseModel):
    """A text of the service that the built-in table does not know, as a regular expression, and what it means."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pattern: Annotated[str, Field(min_length=1)]
    means: Meaning


def text_patterns(texts: list[RefusalText]) -> TextPatterns:
    """The same for the core. Raises ConfigurationError that names the entry."""
    try:
        return tuple(text_pattern(text.pattern, text.means) for text in texts)
    except ConfigurationError as error:
        raise ConfigurationError(f"setting refusal_texts, {error}") from None
