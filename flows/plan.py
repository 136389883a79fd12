"""A plan for a person: what a scan would stream, how long that is and takes, what it costs. It opens no session.

It writes a manifest and a plan below `_runs/`, which are its evidence and can be asked with SQL, but no row of a dataset: neither a run,
so that no view takes its listing for a scan's, nor a quarantine.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from connectors.lake.query import measured_overhead_s, measured_speed
from flows.choosing import plan_rules, source_of
from flows.plan_budget import PlanBudget, plan_budget
from flows.report import CHANGE_COUNTS, hours
from flows.request import Request
from flows.run_record import alike
from flows.settings import Settings
from flows.sources import listed_whole
from flows.wiring import WiredToPlan, wired_to_plan
from moderation.budget import MS_PER_HOUR
from moderation.forecasts import Load, eta_s
from moderation.identity import run_id
from moderation.selection import LeftOut
from moderation.usage import Usage
from tasks.cascade import SECOND
from tasks.forecast import EndpointForecast, Forecast
from tasks.list_catalogue import list_catalogue
from tasks.plan import Plan, make_plan
from tasks.progress import Progress
from tasks.records import Run

MEASURED_RUNS = 5
"""Runs whose sessions say how fast a session is: the service of last month may have been another."""


@dataclass(frozen=True, slots=True)
class PlanReport:
    """A plan and what follows from it.

    budget is what the month's caps still hold; speeds are multiples of real time of one session, None
    where no earlier run tells; eta_s is None unless all that have something to stream are known. prices are by endpoint, for an audio-hour.
    """

    run_id: str
    source: str
    results: str
    forecast: Forecast
    left_out: Mapping[str, int]
    budget: PlanBudget
    speeds: Mapping[str, float | None]
    connections: Mapping[str, int]
    eta_s: float | None
    prices: Mapping[str, Decimal]
    currency: str | None

    @property
    def ms(self) -> int:
        """Milliseconds of audio to stream, over all endpoints."""
        return sum(each.ms for each in self.forecast.endpoints)

    @property
    def error_ms(self) -> int:
        """By how many milliseconds that may be wrong either way."""
        return sum(each.error_ms for each in self.forecast.endpoints)

    @property
    def fits(self) -> bool:
        """Whether the month's caps hold all of it."""
        return self.budget.holds({each.endpoint: each.ms for each in self.forecast.endpoints})

    @property
    def price(self) -> Decimal | None:
        """What it would cost; None unless every endpoint with something to stream has a price."""
        streaming = [each for each in self.forecast.endpoints if each.ms]
        if not self.prices or any(each.endpoint not in self.prices for each in streaming):
            return None
        return sum((Decimal(each.ms) * self.prices[each.endpoint] / MS_PER_HOUR for each in streaming), Decimal(0))

    def counts(self) -> dict[str, Any]:
        """The figures as JSON has them."""
        forecast = self.forecast
        return {
            "run_id": self.run_id,
            "source": self.source,
            "results": self.results,
            "objects": forecast.listed,
            "left_out": dict(self.left_out),
            "endpoints": {each.endpoint: self._endpoint(each) for each in forecast.endpoints},
            "audio_hours": hours(self.ms),
            "audio_hours_error": hours(self.error_ms),
            "left_hours": _hours(self.budget.left),
            "fits": self.fits,
            "eta_seconds": None if self.eta_s is None else round(self.eta_s, 1),
            "price": None if self.price is None else float(round(self.price, 2)),
            "currency": self.currency if self.price is not None else None,
            "truncated": forecast.truncated,
            "truncated_objects": [place.key for place in forecast.truncated_places],
            "misnamed": forecast.misnamed,
            "misnamed_objects": {place.key: place.detail for place in forecast.disagreements},
            "exit_code": 0,
        }

    def _endpoint(self, each: EndpointForecast) -> dict[str, Any]:
        return {
            "objects": each.objects,
            **{name: getattr(each.changes, name) for name in CHANGE_COUNTS},
            "sessions": each.sessions,
            "audio_hours": hours(each.ms),
            "audio_hours_error": hours(each.error_ms),
            "hours_known_by": {
                source.value: {"objects": known.objects, "audio_hours": hours(known.ms), "audio_hours_error": hours(known.error_ms)}
                for source, known in each.hours.items()
            },
            "unsupported_hours": hours(each.decodable_ms),
            "undecided": each.undecided.objects,
            "undecided_hours": hours(each.undecided.ms),
            "decoded_hours": hours(each.decoded_ms),
            "bytes_to_read": each.size_bytes,
            "shards": each.shards,
            "left_hours": _hours(self.budget.left_of(each.endpoint)),
            "connections": self.connections[each.endpoint],
            "speed": self.speeds[each.endpoint],
        }


def _hours(ms: int | None) -> float | None:
    return None if ms is None else hours(ms)


async def plan_scan(given: Settings, wanted: str | Request) -> PlanReport:
    """Plan a scan of all of one source, or of what a request asks for, without a key and without a session."""
    request = Request.of(wanted)
    async with wired_to_plan(given, request) as wired:
        settings, started_at = wired.settings, wired.now()
        run = Run(run_id(started_at, wired.entropy(3)), wired.settings.org, started_at)
        progress = Progress()
        await list_catalogue(await source_of(wired, request, run), wired.results, run, progress, wired.selection)
        rules = plan_rules(settings, request, wired.selection, await wired.ledger.buried())
        plan = await make_plan(
            wired.audio,
            wired.results,
            wired.open_lake,
            run,
            wired.endpoints,
            rules,
            progress,
            sources=listed_whole(request),
            alike=alike(run.org, request),
            dry=True,
        )
        return await _reported(wired, run, request, plan, progress.left_out)


async def _reported(wired: WiredToPlan, run: Run, request: Request, plan: Plan, left_out: Counter[LeftOut]) -> PlanReport:
    settings = wired.settings
    month = settings.month(run.started_at)
    usages = {usage.endpoint: usage for usage in await wired.ledger.usage(run.org, month)}
    speeds, overhead_s = await asyncio.to_thread(_measured, wired)
    connections = {each.name: _connections(settings, each.name, usages.get(each.name)) for each in wired.endpoints}
    return PlanReport(
        run.run_id,
        str(request),
        wired.results.url,
        plan.forecast,
        {why.value: count for why, count in sorted(left_out.items())},
        plan_budget(settings, usages.values(), run.org, month, list(connections)),
        speeds,
        connections,
        _eta_s(plan, speeds, overhead_s, connections, settings),
        settings.prices,
        settings.currency,
    )


def _measured(wired: WiredToPlan) -> tuple[dict[str, float | None], float]:
    """What earlier runs tell: the speed at each endpoint, and the seconds that a run takes beside its sessions."""
    with wired.open_lake() as lake:
        return {each.name: measured_speed(lake, each.name, runs=MEASURED_RUNS) for each in wired.endpoints}, measured_overhead_s(lake)


def _connections(settings: Settings, endpoint: str, usage: Usage | None) -> int:
    """How many sessions there will be at once: the ceiling, or what the service was seen to admit."""
    ceiling = settings.endpoint_connections.get(endpoint, settings.connections)
    learned = usage.gate.limit.learned if usage else None
    return ceiling if learned is None else min(ceiling, learned)


def _eta_s(
    plan: Plan, speeds: Mapping[str, float | None], overhead_s: float, connections: Mapping[str, int], settings: Settings
) -> float | None:
    loads: dict[str, Load] = {}
    for each in plan.forecast.endpoints:
        speed = speeds[each.endpoint]
        if each.ms and not speed:
            return None
        if speed:
            loads[each.endpoint] = Load(each.ms, each.longest_ms, speed, connections[each.endpoint])
    second = [loads.pop(SECOND)] if settings.cascade is not None and SECOND in loads else []
    streaming_s = eta_s(loads.values(), settings.total_connections) + eta_s(second, settings.total_connections)
    return streaming_s + overhead_s if streaming_s else 0.0
