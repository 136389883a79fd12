"""The figures of a run for Prometheus: what its progress and the ledger say when they are asked for. None is counted a second time here."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from flows.watch import Watch
from flows.wiring import Wired
from moderation.breaker import BreakerState
from moderation.budget import ms_to_hours
from moderation.errors import SoundcheckError
from moderation.usage import Usage
from tasks.progress import EndpointProgress, Standing

LOOK_S = 10.0
"""How often the ledger is asked, whoever asks for figures, and however often."""
PORTS = 10
"""A host's processes take the port of the settings, and those behind it."""
logger = logging.getLogger("soundcheck.metrics")


@dataclass(slots=True, eq=False)
class Figures(Collector):
    """What a run has done so far, and where its organisation's gates stood at the last look."""

    watch: Watch
    org: str
    usages: list[Usage] = field(default_factory=list)

    def collect(self) -> Iterable[Metric]:
        """The figures now. Called from the server's thread: each number is read once, and the dictionaries are copied before."""
        progress = self.watch.progress
        by_endpoint = dict(progress.endpoints)
        yield InfoMetricFamily("soundcheck_run", "What the run is doing.", {"org": self.org, "step": progress.step.partition(" (")[0]})
        yield GaugeMetricFamily("soundcheck_objects_listed", "Objects that the source has shown.", progress.listed)
        yield GaugeMetricFamily(
            "soundcheck_planned_share", "How much of the planned audio has ended, 0 to 1, by estimates.", progress.share
        )
        yield _by_endpoint_and("standing", "soundcheck_objects", "Objects by where they stand.", _standings(by_endpoint))
        yield _by_endpoint_and("reason", "soundcheck_objects_not_done", "Objects that are not done, by reason.", _reasons(by_endpoint))
        waits = (((endpoint, refusal.denial.value), 1.0) for endpoint, refusal in dict(progress.refusals).items())
        yield _by_endpoint_and("cause", "soundcheck_waits", "1 for what the next session of an endpoint waits for.", waits)
        yield from self._sessions(by_endpoint)
        yield from self._gates()

    def _sessions(self, by_endpoint: dict[str, EndpointProgress]) -> Iterator[Metric]:
        live = GaugeMetricFamily("soundcheck_sessions_live", "Sessions of this run that stream.", labels=["endpoint"])
        opened = CounterMetricFamily("soundcheck_sessions", "Sessions of this run that were opened.", labels=["endpoint"])
        refused = CounterMetricFamily("soundcheck_refusals", "Sessions of this run that the service refused.", labels=["endpoint"])
        audio = CounterMetricFamily("soundcheck_audio_hours", "Audio of this run that has results.", labels=["endpoint"])
        at_risk = CounterMetricFamily("soundcheck_at_risk_hours", "Audio of failed sessions: possibly billed.", labels=["endpoint"])
        planned = GaugeMetricFamily("soundcheck_planned_hours", "Audio that is planned, an estimate.", labels=["endpoint"])
        for endpoint, counts in by_endpoint.items():
            live.add_metric([endpoint], counts.live)
            opened.add_metric([endpoint], counts.sessions)
            refused.add_metric([endpoint], counts.refusals)
            audio.add_metric([endpoint], ms_to_hours(counts.audio_ms))
            at_risk.add_metric([endpoint], ms_to_hours(counts.at_risk_ms))
            planned.add_metric([endpoint], ms_to_hours(counts.planned_ms))
        yield from (live, opened, refused, audio, at_risk, planned)

    def _gates(self) -> Iterator[Metric]:
        """Of the organisation, over all its processes; "*" is its endpoints together."""
        labels = ["org", "endpoint"]
        slots = GaugeMetricFamily("soundcheck_slots", "Connections that the service is known to admit.", labels=labels)
        taken = GaugeMetricFamily("soundcheck_slots_taken", "Sessions of the organisation that stream.", labels=labels)
        breaker = GaugeMetricFamily(
            "soundcheck_breaker_open", "1 where nothing starts but probes, by what opened it.", labels=[*labels, "cause"]
        )
        spent = GaugeMetricFamily("soundcheck_month_hours", "Audio of this month: spent, possible, reserved.", labels=[*labels, "kind"])
        cap = GaugeMetricFamily("soundcheck_month_cap_hours", "What a month may cost at most, where there is a cap.", labels=labels)
        for usage in self.usages:
            place = [self.org, usage.endpoint]
            taken.add_metric(place, usage.live)
            if usage.gate.ceiling is not None:
                slots.add_metric(place, usage.gate.limit.allowed)
            opened_by = usage.gate.breaker.opened_by
            is_open = usage.gate.breaker.state is not BreakerState.CLOSED
            breaker.add_metric([*place, opened_by.value if is_open and opened_by else ""], is_open)
            for kind, ms in (("spent", usage.settled_ms), ("possible", usage.at_risk_ms), ("reserved", usage.reserved_ms)):
                spent.add_metric([*place, kind], ms_to_hours(ms))
            if usage.gate.cap_ms is not None:
                cap.add_metric(place, ms_to_hours(usage.gate.cap_ms))
        yield from (slots, taken, breaker, spent, cap)


def _standings(by_endpoint: dict[str, EndpointProgress]) -> Iterator[tuple[tuple[str, str], float]]:
    for endpoint, counts in by_endpoint.items():
        yield from (((endpoint, standing.value), counts.standings[standing]) for standing in Standing)


def _reasons(by_endpoint: dict[str, EndpointProgress]) -> Iterator[tuple[tuple[str, str], float]]:
    for endpoint, counts in by_endpoint.items():
        yield from (((endpoint, reason.value), count) for reason, count in list(counts.reasons.items()))


def _by_endpoint_and(label: str, name: str, text: str, figures: Iterable[tuple[tuple[str, str], float]]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["endpoint", label])
    for labels, value in figures:
        family.add_metric(labels, value)
    return family


@asynccontextmanager
async def metrics_served(wired: Wired, watch: Watch) -> AsyncIterator[None]:
    """Serve the figures of a run while the block runs, where the settings have a port for that. No port to be had ends no run."""
    settings = wired.settings
    if settings.metrics_port is None:
        yield
        return
    figures = Figures(watch, settings.org)
    registry = CollectorRegistry()
    registry.register(figures)
    looking = asyncio.create_task(_look_again(figures, wired))
    try:
        with _serving(registry, settings.metrics_host, settings.metrics_port):
            yield
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


async def _look_again(figures: Figures, wired: Wired) -> None:
    settings = wired.settings
    while True:
        try:
            figures.usages = await wired.ledger.usage(settings.org, settings.month(wired.now()))
        except SoundcheckError as error:
            logger.warning("the figures of the gates are old, the ledger does not say them: %s", error)
        await asyncio.sleep(LOOK_S)


@contextmanager
def _serving(registry: CollectorRegistry, host: str, first: int) -> Iterator[None]:
    """An HTTP server, in a thread of its own, on the first free port."""
    for port in range(first, first + PORTS):
        try:
            server, thread = start_http_server(port, host, registry)
        except OSError:
            continue
        logger.info("figures for Prometheus on http://%s:%d/metrics", host, port)
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
        return
    logger.warning("no figures for Prometheus: ports %d to %d of %s are taken", first, first + PORTS - 1, host)
    yield
