"""What no single setting shows: values that need one another, or that only the core can judge."""

from typing import TYPE_CHECKING

from flows.setting_types import text_patterns
from moderation.errors import ConfigurationError

if TYPE_CHECKING:
    from flows.settings import Settings


def check(settings: "Settings") -> None:
    """Raise ConfigurationError for what cannot stand together, of any organisation."""
    for raw in settings.raw_rules:
        raw.rule(settings.transcode)
    text_patterns(settings.refusal_texts)
    if settings.cascade is not None:
        from tasks.cascade import cascade_predicate  # noqa: PLC0415 - DuckDB and polars, for who has one

        cascade_predicate(settings.cascade).check()
    for name, organisation in settings.organisations.items():
        if len(organisation.key_references) > 1:
            raise ConfigurationError(f"organisation {name} has its key in two places: {', '.join(organisation.key_references)}")
        _check_money(settings.of(name), f"organisation {name}: ")
    if not settings.organisations:
        _check_money(settings)


def _check_money(settings: "Settings", whose: str = "") -> None:
    if settings.prices and settings.currency is None:
        raise ConfigurationError(f'{whose}prices are in no currency: set currency to its word, such as "USD"')
    capped = set(settings.endpoint_costs) | (set() if settings.monthly_cost is None else set(settings.endpoints))
    if unpriced := sorted(capped - set(settings.prices)):
        raise ConfigurationError(
            f"{whose}monthly_cost and endpoint_costs need the price of each endpoint that they cover: set prices for {', '.join(unpriced)}"
        )
