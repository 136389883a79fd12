"""An organisation as the settings name it: the values of its own, and what it never takes from anybody else."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from flows.setting_types import Connections, Currency, EndpointName, Hours, Money, Root, TotalConnections, VariableName

KEY_REFERENCES = ("api_key_file", "api_key_block", "api_key_env")
ITS_OWN = frozenset({*KEY_REFERENCES, "roots"})
"""What comes from nowhere but its table."""
_DETAILS: dict[str, dict[str, Any]] = {
    "connections": {"endpoint_connections": {}},
    "velma_url": {"hosts": {}},
    "currency": {"prices": {}, "monthly_cost": None, "endpoint_costs": {}},
}
"""What only makes sense with a value that was set beside it: whoever sets that value anew starts without the other's details."""


class Organisation(BaseModel):
    """A table [organisations.NAME]; what it leaves out is as at the top level, except key and roots."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    api_key_file: Path | None = None
    api_key_block: str | None = None
    api_key_env: VariableName | None = None
    roots: list[Root] = []
    connections: Connections | None = None
    total_connections: TotalConnections | None = None
    endpoint_connections: dict[EndpointName, Connections] | None = None
    monthly_hours: Hours | None = None
    endpoint_hours: dict[EndpointName, Hours] | None = None
    currency: Currency | None = None
    prices: dict[EndpointName, Money] | None = None
    monthly_cost: Money | None = None
    endpoint_costs: dict[EndpointName, Money] | None = None
    results: str | None = None
    policy: Path | None = None
    velma_url: str | None = None
    hosts: dict[EndpointName, str] | None = None
    priority: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_a_key(cls, given: object) -> object:
        if isinstance(given, dict) and "api_key" in given:
            raise ValueError(f"a key itself is not kept here: say where it is, with one of {', '.join(KEY_REFERENCES)}")
        return given

    @property
    def key_references(self) -> list[str]:
        """The names of the settings that say where its key is: exactly one, when all is well."""
        return [name for name in KEY_REFERENCES if getattr(self, name) is not None]

    def values(self) -> dict[str, Any]:
        """What counts in place of the top-level settings."""
        own = {name: value for name in self.model_fields_set if (value := getattr(self, name)) is not None}
        return {"api_key": None, **dict.fromkeys(KEY_REFERENCES), "roots": [], **without_details(own), **own}


def without_details(names: Any) -> dict[str, Any]:
    """The values of the details that are not taken over where these settings are given."""
    return {detail: value for name in names for detail, value in _DETAILS.get(name, {}).items()}
