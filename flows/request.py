"""What a run is asked for: where to look and what to take of it. Flags of commands and parameters of deployments alike."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self

import msgspec
from annotated_types import Ge
from cyclopts import Parameter
from cyclopts.validators import Number

from flows.flags import Flag, Several
from moderation.errors import ConfigurationError
from moderation.selection import Selection
from tasks.cut import Cut

Count = Annotated[int | None, Parameter(validator=Number(gte=0)), Ge(0)]
Hours = Annotated[float | None, Parameter(validator=Number(gte=0)), Ge(0)]


_NO_FILTERS = {"bucket", "sample", "limit", "max_hours"}
"""Parameters of a portion that leave the listing as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Portion:
    """Which objects of its sources a run takes. What is not given takes all; what is left out is counted by reason."""

    __pydantic_config__: ClassVar[dict[str, bool]] = {"use_attribute_docstrings": True}
    """Prefect's forms say of each field what stands below it here."""

    include: Annotated[tuple[str, ...], Several] = ()
    """Only keys that match this glob (of the whole key; * also matches slashes); may be given several times."""
    exclude: Annotated[tuple[str, ...], Several] = ()
    """No keys that match this glob; may be given several times."""
    min_bytes: Count = None
    """Only objects of at least so many bytes."""
    max_bytes: Count = None
    """Only objects of at most so many bytes."""
    modified_from: datetime | None = None
    """Only objects written at this instant or later (UTC, such as 2026-11-01)."""
    modified_until: datetime | None = None
    """Only objects written before this instant."""
    storage_class: Annotated[tuple[str, ...], Several] = ()
    """Only objects of this storage class; may be given several times."""
    all_versions: Flag = False
    """Also old versions, where an inventory shows them."""
    bucket: str | None = None
    """The bucket of keys whose list names none."""
    sample: Count = None
    """Only so many objects, some of every format and size."""
    limit: Count = None
    """Only the first so many objects that can be streamed."""
    max_hours: Hours = None
    """Only the first objects, up to so many audio-hours over all endpoints."""

    def selection(self, belongs: Callable[[str, str], bool] | None = None) -> Selection:
        """The filters; belongs tells whether an object is the organisation's own."""
        return Selection(
            include=tuple(self.include),
            exclude=tuple(self.exclude),
            min_bytes=self.min_bytes,
            max_bytes=self.max_bytes,
            modified_from=_utc(self.modified_from),
            modified_until=_utc(self.modified_until),
            storage_classes=frozenset(self.storage_class),
            all_versions=self.all_versions,
            belongs=belongs,
        )

    def filters(self) -> list[str]:
        """The filters that were given, in words: a filtered listing is another source than a whole one."""
        given = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in _NO_FILTERS}
        return [f"{name} {_word(value)}" for name, value in given.items() if value != getattr(WHOLE, name)]

    @property
    def cut(self) -> Cut:
        """The bounds of the plan."""
        return Cut(self.sample, self.limit, self.max_hours)

    @property
    def is_filtered(self) -> bool:
        """Whether a listing may leave out what its source shows."""
        return self.selection() != Selection(all_versions=self.all_versions)


WHOLE = Portion()


class FlowName(StrEnum):
    """The kinds of runs, as the dataset `runs` names them."""

    SCAN = "scan"
    BACKFILL = "backfill"
    RETRY = "retry"

    @property
    def urgency(self) -> int:
        """What it adds to the priority of the settings: what somebody asked for by name goes ahead of what is scheduled."""
        return 0 if self is FlowName.SCAN else 1


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that is taken up again: its name, its start, and the fingerprint that it began with. anyway goes on under another one.

    endpoints and cascade are what it planned for, and go on to count.
    """

    run_id: str
    started_at: datetime
    fingerprint: str
    endpoints: tuple[str, ...]
    cascade: str | None
    anyway: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One run as somebody wants it. sources are addresses as `flows.sources` reads them.

    where chooses objects by a predicate: of a backfill over earlier results, of a retry over what is quarantined; sources then are the
    prefixes that they must lie in. force streams again what is done. begun is the run that this one goes on with.
    """

    sources: tuple[str, ...] = ()
    portion: Portion = field(default=WHOLE)
    flow: FlowName = FlowName.SCAN
    where: str | None = None
    force: bool = False
    begun: Begun | None = None

    def __post_init__(self) -> None:
        if not self.sources and self.where is None:
            raise ConfigurationError("no source: give s3://bucket/prefix, inventory:s3://..., keys:FILE or a folder")
        if self.where is not None and not all(source.startswith("s3://") for source in self.sources):
            raise ConfigurationError("--where chooses among earlier results: besides it, only s3://bucket/prefix can be given")

    @classmethod
    def of(cls, wanted: "str | Request") -> Self:
        """The request for all of one source, or the request that it is."""
        return wanted if isinstance(wanted, cls) else cls((str(wanted),))

    def __str__(self) -> str:
        chosen = () if self.where is None else (f"where {self.where}",)
        return ", ".join((*self.sources, *chosen, *self.portion.filters()))

    def as_json(self) -> dict[str, Any]:
        """What was asked for, for the record; `from_json` reads it."""
        told: dict[str, Any] = msgspec.to_builtins(replace(self, begun=None))
        return told

    @classmethod
    def from_json(cls, told: dict[str, Any], begun: Begun) -> Self:
        """The same again, as the continuation of a run."""
        return replace(msgspec.convert(told, cls), begun=begun)


def _word(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _utc(instant: datetime | None) -> datetime | None:
    return instant.replace(tzinfo=UTC) if instant is not None and instant.tzinfo is None else instant
