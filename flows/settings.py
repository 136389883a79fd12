"""The settings of soundcheck, parsed once: flags > SOUNDCHECK_* in the environment > .env > soundcheck.toml > defaults."""

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError, TomlConfigSettingsSource

from connectors.s3.links import LONGEST_HOURS
from flows.organisation import ITS_OWN, Organisation, without_details
from flows.setting_checks import check
from flows.setting_types import (
    Condition,
    Connections,
    Currency,
    EndpointName,
    FanOutTo,
    Hours,
    LogFormat,
    Money,
    OnQuota,
    OrganisationName,
    PrivateUrl,
    RawRule,
    RefusalText,
    Root,
    Share,
    SpoolPlace,
    TotalConnections,
    VariableName,
    ZoneName,
)
from moderation.breaker import BreakerRules
from moderation.budget import MS_PER_HOUR, month_of
from moderation.catalogue import ShardRules
from moderation.endpoints import ENDPOINTS
from moderation.errors import ConfigurationError
from moderation.gate import GateRules
from moderation.limits import LimitRules
from moderation.outcomes import StopCause
from moderation.pacing import Deadlines
from moderation.packaging import PackageRules
from moderation.results import SPOOLED_BYTES_PER_ITEM
from moderation.retry import RetryRules
from moderation.segments import SegmentRules
from moderation.transcoding import Transcode

PREFIX = "SOUNDCHECK_"
TOML_FILE = "soundcheck.toml"
ENV_FILE = ".env"
_NESTING = "__"
_MIB = 1024 * 1024
_LEDGER_MIB = 64
"""For ledger and logs, which mostly lie on the spool's disk."""


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
    """The organisation whose key, connections and hours are used: a name of yours, or one of `organisations`."""
    organisations: dict[OrganisationName, Organisation] = {}
    """Several of them by name. What one leaves out is as set here, except its key and its roots."""
    api_key: SecretStr | None = None
    api_key_file: Path | None = None
    api_key_block: str | None = None
    """The name of a Prefect Secret block."""
    api_key_env: VariableName | None = None
    """The name of an environment variable, or of one in .env."""
    roots: list[Root] = []
    """The parts of S3 that are this organisation's catalogue; none means all that is no other's."""
    connections: Connections = 4
    """The most sessions at once on each endpoint."""
    endpoint_connections: dict[EndpointName, Connections] = {}
    """Another number for an endpoint, by its name."""
    total_connections: TotalConnections | None = None
    """The most sessions at once over all endpoints."""
    monthly_hours: Hours | None = None
    """The most audio-hours a calendar month over all endpoints; none means unlimited."""
    endpoint_hours: dict[EndpointName, Hours] = {}
    """The same for an endpoint, by its name."""
    currency: Currency | None = None
    """The word for the money that prices and costs are in, such as USD."""
    prices: dict[EndpointName, Money] = {}
    """Money an audio-hour of an endpoint. Nothing is known of prices but this."""
    monthly_cost: Money | None = None
    """The most money a calendar month over all endpoints; none means unlimited."""
    endpoint_costs: dict[EndpointName, Money] = {}
    """The same for an endpoint, by its name."""
    month_zone: ZoneName = "UTC"
    """The time zone whose calendar months caps are for. All processes of a ledger must use the same."""
    warn_share: Share = 0.8
    """The share of a cap from which on it is warned of."""
    alarm_share: Share = 0.2
    """A run that newly quarantines more than this share of what it has listed ends with 65: something general is wrong."""
    on_quota: OnQuota = OnQuota.END
    """What follows when the service says that credits or hours are used up."""
    results: str | None = None
    """A folder, or s3://bucket/prefix."""
    state_dir: Path | None = None
    """Ledger, spool and logs; by default beside a results folder, else in the user's state directory."""
    spool: SpoolPlace | None = None
    """Where ended sessions wait until they are published; none is the results where there is a ledger_url, else the state."""
    min_free_mb: Annotated[float, Field(ge=0)] | None = None
    """How much of the spool's disk stays free: nothing starts below that. None is what the sessions leave at worst that may be live."""
    endpoints: list[EndpointName] = list(ENDPOINTS)
    velma_url: str | None = None
    """One host for every endpoint, in place of those of the seed pages."""
    hosts: dict[EndpointName, str] = {}
    """A host for an endpoint, by its name."""
    proxy: str | None = None
    """http://host:port or https://host:port for the way to the service; what the environment says of proxies is not heard."""
    pace: Annotated[float, Field(gt=0)] | None = None
    """Raw audio at so many times real time; none is as fast as it is accepted."""
    max_session_hours: Annotated[float, Field(gt=0)] = 6.0
    raw_rules: list[RawRule] = []
    policy: Path | None = None
    """The file by which a scan decides at its end, and `soundcheck decide` where it is given no other; none decides nothing."""
    cascade: Condition = None
    """What a music result must say for the AI-music endpoint to be asked, as SQL such as "music_pct >= 10"; none means always."""
    transcode: Transcode = Transcode.AUTO
    """What is decoded on this side and streamed as s16le; never is what the service takes alone."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Of soundcheck.log in the state folder, and of Prefect's log beside it."""
    log_format: LogFormat = LogFormat.TEXT
    """Of soundcheck.log, and of what runs on workers of Prefect write to standard error."""
    traces: bool = False
    """Whether runs send spans of runs, shards and sessions to the collector that OTEL_EXPORTER_OTLP_ENDPOINT names."""
    metrics_port: Annotated[int, Field(ge=1, le=65_000)] | None = None
    """Where runs say their figures to Prometheus while they run; processes beside each other take this port and those behind it."""
    metrics_host: str = "127.0.0.1"
    """The address of that port; 0.0.0.0 lets everybody ask who reaches this host."""
    deadlines: Deadlines = Deadlines()
    retries: RetryRules = RetryRules()
    segments: SegmentRules = SegmentRules()
    """From which probability on something is there, below which it no longer is, and how long a segment lasts at least, in ms."""
    transcripts: Path | None = None
    """A folder where every session leaves what was said in it, a JSON line each, without audio or key: to find out why one fails."""
    fan_out: FanOutTo = FanOutTo.PROCESS
    """Where flow runs stream their shards; commands with --direct always do in their own process."""
    shard_deployment: str = "stream-shard/stream-shard"
    """The deployment whose runs stream a shard each on workers."""
    shards: ShardRules = ShardRules()
    """The bounds of a shard, which one task streams, or one worker: objects, and milliseconds of audio."""
    packages: PackageRules = PackageRules()
    """When what has ended is published while a run still streams, and how many sessions a package has at most."""
    shards_in_flight: Annotated[int, Field(ge=1, le=200)] = 8
    """How many shards are submitted to workers at once."""
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
    kept_slots: Annotated[int, Field(ge=0)] = 0
    """Slots that only runs of a priority above 0 get, where the limit is higher."""
    notify_url: PrivateUrl | None = None
    """Where the cause of a stop is sent to, once for each."""
    notify_secret: SecretStr | None = None
    """Signs what is sent to notify_url (HMAC-SHA256)."""
    notify_people: list[SecretStr] = []
    """Addresses of apprise (mail, chat, pager) that are told the same in a sentence."""
    report: bool = True
    """Whether a scan leaves a report in its results."""
    report_items: Annotated[int, Field(ge=0, le=5000)] = 200
    """How many flagged objects a report shows; CSV and Parquet beside it have all."""
    link_hours: Annotated[float, Field(gt=0, le=LONGEST_HOURS)] | None = None
    """For how long links to audio in reports open without a password; none makes no links."""
    refusal_texts: list[RefusalText] = []
    """Texts of the service that the built-in table does not know; they are asked before it."""

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

    def month(self, instant: datetime) -> str:
        """The budget month of an instant."""
        return month_of(instant, ZoneInfo(self.month_zone))

    def gate_rules(self) -> GateRules:
        """The figures of admission."""
        breaker = _suspending(self.breaker) if self.on_quota is OnQuota.SUSPEND else self.breaker
        return GateRules(limit=self.limit, breaker=breaker, kept_slots=self.kept_slots)

    def of(self, organisation: str) -> Self:
        """The same for one of the organisations alone: its own values over those of all, and nothing of the others."""
        shared = {"org": organisation, "organisations": {}, "state_dir": self.state_folder()}
        return self.model_copy(update=self.organisations[organisation].values() | shared)

    def spool_place(self) -> SpoolPlace:
        """Where ended sessions wait."""
        return self.spool or (SpoolPlace.RESULTS if self.ledger_url else SpoolPlace.STATE)

    def min_free_bytes(self) -> int:
        """What of the spool's disk stays free: for every session that may be live, and for ledger and logs."""
        if self.min_free_mb is not None:
            return round(self.min_free_mb * _MIB)
        hour_bytes = sum(
            self.endpoint_connections.get(name, self.connections) * MS_PER_HOUR / endpoint.item_ms * SPOOLED_BYTES_PER_ITEM
            for name, endpoint in ENDPOINTS.items()
        )
        return _LEDGER_MIB * _MIB + round(hour_bytes * self.max_session_hours)

    def state_folder(self) -> Path:
        """The folder of ledger, spool and logs, one for all organisations, whatever results folder each has."""
        if self.state_dir is not None:
            return self.state_dir.expanduser().absolute()
        if self.results and "://" not in self.results:
            return Path(self.results).absolute() / "_state"
        home = os.environ.get("XDG_STATE_HOME")
        return (Path(home) if home else Path.home() / ".local" / "state").absolute() / "soundcheck"


def _suspending(rules: BreakerRules) -> BreakerRules:
    """Breakers that a spent quota never ends: it is asked after the usual pauses, then as seldom as any (rules.md, 4029)."""
    endless = {
        by: replace(plan, waits_ms=(*plan.waits_ms, rules.longest_ms), refusals=None)
        for by, plan in rules.plans.items()
        if plan.stop is StopCause.CREDITS_EXHAUSTED
    }
    return replace(rules, plans=rules.plans | endless)


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
        settings = Settings(**given)
        unknown = sorted(_unknown_names(settings))
        if not unknown:
            settings = _with_flags(settings, given)
            check(settings)
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


def _with_flags(settings: Settings, flags: Mapping[str, Any]) -> Settings:
    """The settings with what was given for this one run in every organisation, too: it is not known yet which one is named."""
    details = without_details(flags)
    over = details | {name: getattr(settings, name) for name in flags if name in Organisation.model_fields.keys() - ITS_OWN}
    organisations = {name: each.model_copy(update=over) for name, each in settings.organisations.items()}
    return settings.model_copy(update=details | {"organisations": organisations})


def _problems(error: ValidationError) -> Iterator[str]:
    """One clause a wrong setting, without its value: that may be a secret."""
    for fault in error.errors(include_input=False, include_url=False):
        place = ".".join(str(part) for part in fault["loc"])
        yield f"setting {place}: {fault['msg']}"


def _unknown_names(settings: Settings) -> Iterator[str]:
    """Names that nobody reads: a misspelt setting would otherwise silently be a default."""
    known = set(Settings.model_fields)
    keys = {settings.api_key_env, *(each.api_key_env for each in settings.organisations.values())}
    sources: tuple[Mapping[str, object], ...] = (os.environ, dotenv_values(ENV_FILE))
    for name in {name for source in sources for name in source if name.upper().startswith(PREFIX)} - keys:
        field = name[len(PREFIX) :].lower().partition(_NESTING)[0]
        if field not in known:
            yield name
    path = Path(TOML_FILE)
    if path.is_file():
        yield from (f"{name} in {TOML_FILE}" for name in tomllib.loads(path.read_text(encoding="utf-8")) if name not in known)
