"""Flags that several commands have, each defined once."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

if TYPE_CHECKING:
    from flows.settings import Settings

Json = Annotated[bool, Parameter(name="--json", negative="")]
"""Print one JSON object on standard output, and nothing else there."""
Flag = Annotated[bool, Parameter(negative="")]
"""A switch without its opposite."""
Several = Parameter(negative="", negative_iterable="")
"""May be given several times."""
Flat = Parameter(name="*")
"""The fields of a dataclass as flags of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFlags:
    """What a command that plans or runs sets for this once, over the settings of the same meaning."""

    org: str | None = None
    """The organisation that pays, where the settings have several: its own key, limits, budgets and roots count."""
    results: str | None = None
    """A folder, or s3://bucket/prefix."""
    endpoint: Annotated[list[str] | None, Several] = None
    """music or ai_music; may be given twice. Both by default."""
    velma_url: str | None = None
    """One host for every endpoint, such as ws://127.0.0.1:8765 for a local server."""
    connections: int | None = None
    """The most sessions at once on each endpoint."""
    monthly_hours: Annotated[float | None, Parameter(validator=Number(gte=0))] = None
    """The most audio-hours this calendar month, over all endpoints."""

    def settings(self, cascade: str | None = None) -> "Settings":
        """The settings with these on top. Raises ConfigurationError."""
        from flows.settings import load_settings  # noqa: PLC0415 - every command imports what it alone needs

        given = asdict(self)
        return load_settings(endpoints=given.pop("endpoint"), cascade=cascade, **given)


AS_SET = RunFlags()
"""Nothing set for this once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeFlags:
    """Whose results a command is about, over the settings of the same meaning. It pays for nothing and needs no key."""

    org: str | None = None
    """The organisation, where the settings have several."""
    results: str | None = None
    """A folder, or s3://bucket/prefix."""

    def settings(self, **more: Any) -> "Settings":
        """The organisation's own settings with these, and more, on top. Raises ConfigurationError."""
        from flows.run_settings import organisation_of  # noqa: PLC0415 - every command imports what it alone needs
        from flows.settings import load_settings  # noqa: PLC0415

        return organisation_of(load_settings(**asdict(self), **more), needs_key=False)


THE_LAKE = LakeFlags()
"""The organisation and the results that are set."""
