"""OpenTelemetry: traces and metrics go out by OTLP when an endpoint is set, else nowhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from services.runtime.settings import Settings

_enabled = False


def configure(settings: Settings, service: str) -> Callable[[], None]:
    """Start exporting if an endpoint is set; returns what flushes and stops it."""
    global _enabled  # noqa: PLW0603 - OpenTelemetry's own state is global too
    if not settings.otlp_endpoint:
        return lambda: None
    from opentelemetry import metrics, trace
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    endpoint = settings.otlp_endpoint
    insecure = not endpoint.startswith("https://")
    resource = Resource.create({"service.name": service, "service.namespace": "plexus"})
    tracer = TracerProvider(
        resource=resource, sampler=ParentBased(TraceIdRatioBased(settings.otlp_sample_ratio))
    )
    tracer.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint, insecure)))
    trace.set_tracer_provider(tracer)
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint, insecure))
    meter = MeterProvider(resource=resource, metric_readers=[reader])
    metrics.set_meter_provider(meter)
    _enabled = True

    def stop() -> None:
        tracer.shutdown()
        meter.shutdown()

    return stop


def enabled() -> bool:
    """Whether traces go out."""
    return _enabled


def current_trace_id() -> str:
    """The id of the trace that is being recorded here: 32 hexadecimal digits, or nothing."""
    if not _enabled:
        return ""
    from opentelemetry import trace

    found = trace.get_current_span().get_span_context().trace_id
    return f"{found:032x}" if found else ""


def server_interceptors() -> Sequence[Any]:
    """The packaged gRPC server interceptor where tracing is on; it costs a third of throughput."""
    if not _enabled:
        return ()
    from opentelemetry.instrumentation.grpc import aio_server_interceptor

    return (aio_server_interceptor(),)  # type: ignore[no-untyped-call]


def client_interceptors() -> Sequence[Any]:
    """The packaged gRPC client interceptors where tracing is on."""
    if not _enabled:
        return ()
    from opentelemetry.instrumentation.grpc import aio_client_interceptors

    return tuple(aio_client_interceptors())  # type: ignore[no-untyped-call]
