"""What the month's caps still hold of a plan: hours and money of each endpoint, and of the organisation as a whole."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from flows.setting_types import hours_ms, micros
from flows.settings import Settings
from moderation.admission import EVERY_ENDPOINT
from moderation.gate import Gate
from moderation.usage import Usage


@dataclass(frozen=True, slots=True)
class PlanBudget:
    """The month as a plan finds it: the organisation's usage, and that of each endpoint that is planned, by its name."""

    whole: Usage
    endpoints: Mapping[str, Usage]

    def left_of(self, endpoint: str) -> int | None:
        """Milliseconds of audio that may still be reserved at an endpoint: the least of its caps and the organisation's; None without."""
        usage = self.endpoints[endpoint]
        return _least(usage.hours.left, _audio(usage.money.left, usage), self.whole.hours.left, _audio(self.whole.money.left, usage))

    @property
    def left(self) -> int | None:
        """The same over all endpoints that are planned, at most: as if the organisation's money went to the one that costs least."""
        planned = self.endpoints.values()
        own = [_least(usage.hours.left, _audio(usage.money.left, usage)) for usage in planned]
        bought = [_audio(self.whole.money.left, usage) for usage in planned]
        return _least(self.whole.hours.left, _all(own, sum), _all(bought, max))

    def holds(self, wanted: Mapping[str, int]) -> bool:
        """Whether every cap holds so many milliseconds at each endpoint."""
        money = sum(self.endpoints[name].parts(ms) for name, ms in wanted.items())
        within = all(left is None or ms <= left for name, ms in wanted.items() for left in [self.left_of(name)])
        return within and self.whole.hours.fits(sum(wanted.values())) and self.whole.money.fits(money)


def _least(*lefts: int | None) -> int | None:
    return min((left for left in lefts if left is not None), default=None)


def _all(lefts: Sequence[int | None], of: Callable[[list[int]], int]) -> int | None:
    """A figure of bounds that holds only where there are all of them."""
    known = [left for left in lefts if left is not None]
    return of(known) if known and len(known) == len(lefts) else None


def _audio(money: int | None, usage: Usage) -> int | None:
    """Milliseconds of audio that parts of money pay for at an endpoint; None where there is no bound, or no price."""
    price = usage.gate.price_micros
    return money // price if money is not None and price else None


def plan_budget(settings: Settings, usages: Iterable[Usage], org: str, month: str, planned: Iterable[str]) -> PlanBudget:
    """The budget of a month: the caps and prices of the settings, else those that the ledger keeps."""
    kept = {usage.endpoint: usage for usage in usages}

    def of(endpoint: str, hours: int | None, cost: int | None, price: int | None) -> Usage:
        usage = kept.get(endpoint) or Usage(org, endpoint, month, Gate(), 0, 0, 0, 0, 0)
        gate = usage.gate
        gate = replace(gate, cap_ms=_first(hours, gate.cap_ms), cap_micros=_first(cost, gate.cap_micros))
        return replace(usage, gate=replace(gate, price_micros=_first(price, gate.price_micros)))

    endpoints = {
        name: of(
            name, hours_ms(settings.endpoint_hours.get(name)), micros(settings.endpoint_costs.get(name)), micros(settings.prices.get(name))
        )
        for name in dict.fromkeys((*planned, *settings.prices, *(kept.keys() - {EVERY_ENDPOINT})))
    }
    whole = of(EVERY_ENDPOINT, hours_ms(settings.monthly_hours), micros(settings.monthly_cost), None)
    return PlanBudget(replace(whole, endpoints=tuple(endpoints.values())), {name: endpoints[name] for name in planned})


def _first(told: int | None, kept: int | None) -> int | None:
    return kept if told is None else told
