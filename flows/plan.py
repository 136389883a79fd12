"""A plan for a person: what a scan would stream, how long that is and takes, what it costs. It opens no session.

It writes a manifest and a plan below `_runs/`, which are its evidence and can be asked with SQL, but no row of a dataset: neither a run,
so that no view takes its listing for a scan's, nor a quarantine.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from connectors.lake.query import measured_speed
from connectors.s3 import S3Uri
from flows.report import hours
from flows.setting_types import hours_ms
from flows.settings import Settings
from flows.wiring import WiredToPlan, wired_to_plan
from moderation.admission import EVERY_ENDPOINT
from moderation.budget import MS_PER_HOUR, Allowance, month_of
from moderation.forecasts import Load, eta_s
from moderation.identity import run_id
from moderation.usage import Usage
from tasks.cut import Cut
from tasks.forecast import EndpointForecast, Forecast
from tasks.list_catalogue import list_catalogue
from tasks.plan import Plan, PlanRules, make_plan
from tasks.progress import Progress
from tasks.records import Run
from tasks.shards import Shard

MEASURED_RUNS = 5
"""Runs whose sessions say how fast a session is: the service of last month may have been another."""


@dataclass(frozen=True, slots=True)
class PlanReport:
    """A plan and what follows from it.

    left_ms is the month's audio that may still be reserved, None without a cap; speeds are multiples of real time of one session, None
    where no earlier run tells; eta_s is None unless all that have something to stream are known. prices are by endpoint, for an audio-hour.
    """

    run_id: str
    source: str
    results: str
    forecast: Forecast
    left_ms: int | None
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
            "endpoints": {each.endpoint: self._endpoint(each) for each in forecast.endpoints},
            "audio_hours": hours(self.ms),
            "audio_hours_error": hours(self.error_ms),
            "left_hours": None if self.left_ms is None else hours(self.left_ms),
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
        changes = each.changes
        return {
            "objects": each.objects,
            "new": changes.new,
            "changed": changes.changed,
            "unchanged": changes.unchanged,
            "deleted": changes.deleted,
            "sessions": each.sessions,
            "audio_hours": hours(each.ms),
            "audio_hours_error": hours(each.error_ms),
            "hours_known_by": {
                source.value: {"objects": known.objects, "audio_hours": hours(known.ms), "audio_hours_error": hours(known.error_ms)}
                for source, known in each.hours.items()
            },
            "unsupported_hours": hours(each.decodable_ms),
            "decoded_hours": hours(each.decoded_ms),
            "bytes_to_read": each.size_bytes,
            "shards": each.shards,
            "connections": self.connections[each.endpoint],
            "speed": self.speeds[each.endpoint],
        }


async def plan_scan(settings: Settings, source: str, cut: Cut | None = None) -> PlanReport:
    """Plan a scan of everything below a prefix, without a key and without a session."""
    uri = S3Uri.parse(source)
    async with wired_to_plan(settings) as wired:
        started_at = wired.now()
        run = Run(run_id(started_at, wired.entropy(3)), settings.org, started_at)
        progress = Progress()
        await list_catalogue(wired.source(uri), wired.results, run, progress)
        rules = PlanRules(
            [raw.rule() for raw in settings.raw_rules], settings.max_session_hours, cut=cut or Cut(), transcode=settings.transcode
        )
        plan = await make_plan(wired.audio, wired.results, wired.open_lake, run, wired.endpoints, rules, progress, sources=[uri], dry=True)
        return await _reported(wired, run, uri, plan)


async def _reported(wired: WiredToPlan, run: Run, uri: S3Uri, plan: Plan) -> PlanReport:
    settings = wired.settings
    usages = {usage.endpoint: usage for usage in await wired.ledger.usage(run.org, month_of(run.started_at))}
    speeds = await asyncio.to_thread(_speeds, wired)
    connections = {each.name: _connections(settings, usages.get(each.name)) for each in wired.endpoints}
    return PlanReport(
        run.run_id,
        str(uri),
        wired.results.url,
        plan.forecast,
        _left_ms(settings, usages.get(EVERY_ENDPOINT)),
        speeds,
        connections,
        _eta_s(plan, speeds, connections, settings.total_connections),
        settings.prices,
        settings.currency,
    )


def _speeds(wired: WiredToPlan) -> dict[str, float | None]:
    with wired.open_lake() as lake:
        return {each.name: measured_speed(lake, each.name, runs=MEASURED_RUNS) for each in wired.endpoints}


def _connections(settings: Settings, usage: Usage | None) -> int:
    """How many sessions there will be at once: the ceiling, or what the service was seen to admit."""
    learned = usage.gate.limit.learned if usage else None
    return settings.connections if learned is None else min(settings.connections, learned)


def _left_ms(settings: Settings, usage: Usage | None) -> int | None:
    """What the month's cap still holds: the settings', else the one that the ledger keeps."""
    kept = usage.gate.cap_ms if usage else None
    cap = kept if settings.monthly_hours is None else hours_ms(settings.monthly_hours)
    return Allowance(cap, usage.hours.taken if usage else 0).left


def _eta_s(plan: Plan, speeds: Mapping[str, float | None], connections: Mapping[str, int], total_connections: int | None) -> float | None:
    loads = []
    for each in plan.forecast.endpoints:
        speed = speeds[each.endpoint]
        if each.ms and not speed:
            return None
        if speed:
            first_ms = _first_ms(plan.shards, each.endpoint)
            loads.append(Load(each.ms, each.longest_ms, first_ms, speed, connections[each.endpoint]))
    return eta_s(loads, total_connections)


def _first_ms(shards: Sequence[Shard], endpoint: str) -> int:
    return sum(shard.estimate_ms for shard in shards if shard.first and shard.endpoint == endpoint)
