"""Spans of OpenTelemetry: what a run, a shard and a session took, for who wants to see that beside other traces. Off by default."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar

from opentelemetry.trace import NonRecordingSpan, NoOpTracer, SpanContext, TraceFlags, Tracer, get_current_span, set_span_in_context

from moderation.errors import ConfigurationError
from tasks.about import known

MISSING = (
    "traces need opentelemetry-sdk and opentelemetry-exporter-otlp-proto-http, of which {} is not installed: "
    "install the extra traces (pip install .[traces]), or leave the setting traces out"
)
_TRACER: ContextVar[Tracer] = ContextVar("tracer", default=NoOpTracer())  # noqa: B039 - it has no state


@contextmanager
def span(kind: str, **more: str | int) -> Iterator[None]:
    """What the block takes as a span, with what it is about (tasks.about) and more; an error that leaves it is its status.

    All spans of a run are of one trace, on whichever workers: its id is made of the run's.
    """
    ids = {f"soundcheck.{name}": value for name, value in {**known(), **more}.items()}
    run_id = str(known().get("run", ""))
    parent = None if get_current_span().get_span_context().is_valid else set_span_in_context(_root(run_id))
    with _TRACER.get().start_as_current_span(f"soundcheck.{kind}", parent, attributes=ids, record_exception=False):
        yield


def _root(run_id: str) -> NonRecordingSpan:
    """The parent of what a process does for a run, which nobody records."""
    digest = hashlib.blake2b(run_id.encode(), digest_size=24).digest()
    trace_id, span_id = int.from_bytes(digest[:16]), int.from_bytes(digest[16:])
    return NonRecordingSpan(SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)))


@asynccontextmanager
async def traced(*, wanted: bool) -> AsyncIterator[None]:
    """While the block runs, send its spans where OTEL_EXPORTER_OTLP_ENDPOINT and the other variables of OpenTelemetry say.

    The provider is our own: what else is traced in this process stays as it is. Raises ConfigurationError where a package is missing.
    """
    if not wanted:
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - most do without
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(MISSING.format(error.name)) from error
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: "soundcheck"}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    token = _TRACER.set(provider.get_tracer("soundcheck"))
    try:
        yield
    finally:
        _TRACER.reset(token)
        await asyncio.to_thread(provider.shutdown)
