"""The settings of soundcheck, parsed once: flags > SOUNDCHECK_* in the environment > .env > soundcheck.toml > defaults."""

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError, TomlConfigSettingsSource

from moderation.breaker import BreakerRules
from moderation.catalogue import ParameterRule
from moderation.endpoints import ENDPOINTS
from moderation.errors import BadParameters, ConfigurationError
from moderation.gate import GateRules
from moderation.limits import LimitRules
from moderation.pacing import Deadlines
from moderation.retry import RetryRules

PREFIX = "SOUNDCHECK_"
TOML_FILE = "soundcheck.toml"
ENV_FILE = ".env"
_NESTING = "__"


class RawRule(BaseModel):
    """Raw PCM parameters for keys that match a glob; the first rule that matches counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    glob: str
    audio_format: str
    sample_rate: int
    num_channels: int

    def rule(self) -> ParameterRule:
        """The same for the core. Raises BadParameters for what the service does not take."""
        rule = ParameterRule(self.glob, self.audio_format, self.sample_rate, self.num_channels)
        rule.parameters()
        return rule


class Settings(BaseSettings):
    """Everything that can be set. Hours are audio-hours; times are in seconds."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=_NESTING,
        env_file=ENV_FILE,
        toml_file=TOML_FILE,
        extra="ignore",
        frozen=True,
        validate_default=True,
    )

    org: str = "default"
    """The organisation whose key, connections and hours are used; a name of yours."""
    api_key: SecretStr | None = None
    api_key_file: Path | None = None
    api_key_block: str | None = None
    """The name of a Prefect Secret block."""
    connections: Annotated[int, Field(ge=1, le=1000)] = 4
    """The most sessions at once on each endpoint."""
    total_connections: Annotated[int, Field(ge=1)] | None = None
    """The most sessions at once over all endpoints."""
    monthly_hours: Annotated[float, Field(ge=0)] | None = None
    """The most audio-hours a calendar month (UTC) over all endpoints; none means unlimited."""
    results: str | None = None
    """A folder, or s3://bucket/prefix."""
    state_dir: Path | None = None
    """Ledger, spool and logs; by default beside a results folder, else in the user's state directory."""
    endpoints: list[str] = list(ENDPOINTS)
    velma_url: str | None = None
    """One host for every endpoint, in place of those of the seed pages."""
    hosts: dict[str, str] = {}
    """A host for an endpoint, by its name."""
    proxy: str | None = None
    """http://host:port or https://host:port for the way to the service; what the environment says of proxies is not heard."""
    pace: Annotated[float, Field(gt=0)] | None = None
    """Raw audio at so many times real time; none is as fast as it is accepted."""
    max_session_hours: Annotated[float, Field(gt=0)] = 6.0
    raw_rules: list[RawRule] = []
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Of soundcheck.log in the state folder, and of Prefect's log beside it."""
    deadlines: Deadlines = Deadlines()
    retries: RetryRules = RetryRules()
    transcripts: Path | None = None
    """A folder where every session leaves what was said in it, a JSON line each, without audio or key: to find out why one fails."""
    grace_seconds: Annotated[float, Field(ge=0)] = 30.0
    """How long running sessions may go on after SIGTERM or Ctrl-C."""
    ledger_url: SecretStr | None = None
    """postgresql://user:password@host/database where several hosts share an organisation; none is a file in the state folder."""
    lease_seconds: Annotated[float, Field(ge=1)] = 60.0
    """How long a session of a dead worker keeps its slot. All processes of a ledger must use the same."""
    limit: LimitRules = LimitRules()
    """How the connection limit is found, in milliseconds and sessions."""
    breaker: BreakerRules = BreakerRules()
    """When nothing more starts, and when that is tried again, in milliseconds."""
    priority: int = 0
    """Of two runs that wait for a slot, that of the higher priority gets it."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The order of precedence."""
        del file_secret_settings
        return init_settings, env_settings, dotenv_settings, TomlConfigSettingsSource(settings_cls)

    def gate_rules(self) -> GateRules:
        """The figures of admission."""
        return GateRules(limit=self.limit, breaker=self.breaker)


class _FixedSettings(Settings):
    """Settings that nothing outside this process can change."""

    model_config = SettingsConfigDict(toml_file=None)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments alone."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


def fixed_settings(**values: Any) -> Settings:
    """Settings of these values and defaults: for the demo, which must not depend on what is set for the real thing."""
    return _FixedSettings(**values)


def load_settings(**flags: Any) -> Settings:
    """The settings, with flags that are not None on top. Raises ConfigurationError that names the setting and what is wrong with it."""
    given = {name: value for name, value in flags.items() if value is not None}
    problem: str
    try:
        unknown = sorted(_unknown_names())
        if not unknown:
            settings = Settings(**given)
            _check(settings)
            return settings
        problem = f"unknown setting {', '.join(unknown)}: the known ones are {', '.join(sorted(Settings.model_fields))}"
    except ValidationError as error:
        problem = "; ".join(_problems(error))
    except SettingsError as error:
        problem = f'{error}: lists and tables are written as JSON there, such as ["music"]'
    except tomllib.TOMLDecodeError as error:
        problem = f"{TOML_FILE} is no TOML: {error}"
    except (OSError, UnicodeDecodeError) as error:
        problem = f"{TOML_FILE} or {ENV_FILE} cannot be read as text: {error}"
    raise ConfigurationError(problem)


def _check(settings: Settings) -> None:
    for name in (*settings.endpoints, *settings.hosts):
        if name not in ENDPOINTS:
            raise ConfigurationError(f"unknown endpoint {name!r}: the known ones are {', '.join(ENDPOINTS)}")
    for raw in settings.raw_rules:
        try:
            raw.rule()
        except BadParameters as error:
            raise ConfigurationError(f"setting raw_rules, {raw.glob!r}: {error}") from error


def _problems(error: ValidationError) -> Iterator[str]:
    """One clause a wrong setting, without its value: that may be a secret."""
    for fault in error.errors(include_input=False, include_url=False):
        place = ".".join(str(part) for part in fault["loc"])
        yield f"setting {place}: {fault['msg']}"


def _unknown_names() -> Iterator[str]:
    """Names that nobody reads: a misspelt setting would otherwise silently be a default."""
    known = set(Settings.model_fields)
    sources: tuple[Mapping[str, object], ...] = (os.environ, dotenv_values(ENV_FILE))
    for name in {name for source in sources for name in source if name.upper().startswith(PREFIX)}:
        field = name[len(PREFIX) :].lower().partition(_NESTING)[0]
        if field not in known:
            yield name
    path = Path(TOML_FILE)
    if path.is_file():
        yield from (f"{name} in {TOML_FILE}" for name in tomllib.loads(path.read_text(encoding="utf-8")) if name not in known)
