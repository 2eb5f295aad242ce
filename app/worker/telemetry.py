"""What `app.worker.tracing` switches on: the SDK, an exporter, and the libraries' own instrumentations.

Prepared envelopes bypass Celery's publish signals, so the header that its instrumentation reads when a
run starts is written by `app.worker.publisher`, from what `app.scheduling.tracing` kept in the run's row.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes

from app.errors import ConfigurationError
from app.scheduling import tracing
from app.settings import get_settings

FLUSH_MILLISECONDS = 2000

_EXPORTERS: dict[str, type[SpanExporter]] = {"otlp": OTLPSpanExporter, "console": ConsoleSpanExporter}


class Asked(Sampler):
    """What nobody asked for is not traced: a beat's or a consumer's own calls would fill the store with roots."""

    def __init__(self, inner: Sampler) -> None:
        self._inner = inner

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """As the sampler that the variables name, for all but calls outside of any request or run."""
        parent = trace.get_current_span(parent_context).get_span_context()
        if kind is SpanKind.CLIENT and not parent.is_valid:
            return SamplingResult(Decision.DROP)
        return self._inner.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """As the SDK shows it."""
        return f"Asked({self._inner.get_description()})"


@lru_cache(maxsize=1)
def _provider(service: str) -> TracerProvider:
    chosen = get_settings().tracing.traces_exporter or "otlp"
    if chosen not in _EXPORTERS:
        raise ConfigurationError(f"OTEL_TRACES_EXPORTER may be {', '.join(_EXPORTERS)} or none.")
    named = Resource({SERVICE_NAME: service}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=Resource.create().merge(named))
    provider.sampler = Asked(provider.sampler)
    provider.add_span_processor(BatchSpanProcessor(_EXPORTERS[chosen]()))
    return provider


def set_up(service: str) -> None:
    """Once a process."""
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    trace.set_tracer_provider(_provider(service))
    # Its declared range ends before our SQLAlchemy; a test shows that it works.
    SQLAlchemyInstrumentor().instrument(skip_dep_check=True)
    RedisInstrumentor().instrument()
    HTTPXClientInstrumentor().instrument()
    tracing.use(tracing.Tracer(_traceparent, _resumed))


def instrument_runs() -> None:
    """A span for each run, whose parent is what asked for it."""
    CeleryInstrumentor().instrument()  # type: ignore[no-untyped-call]


def flush() -> None:
    """Send what waits."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.force_flush(FLUSH_MILLISECONDS)


def _traceparent() -> str | None:
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


@contextmanager
def _resumed(traceparent: str) -> Iterator[None]:
    token = attach(TraceContextTextMapPropagator().extract({"traceparent": traceparent}))
    try:
        yield
    finally:
        detach(token)
