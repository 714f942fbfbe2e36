"""Traces and metrics go to the endpoint that is set."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import (
    metrics_service_pb2,
    metrics_service_pb2_grpc,
)
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from tests.e2e.callers import Rest
from tests.e2e.conftest import sign_up
from tests.e2e.mesh import Mesh
from tests.support import PORT_OF_ITS_OWN


class Collector:
    """Takes what an OpenTelemetry collector takes, and keeps it."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.metrics: set[str] = set()

    async def export_spans(self, request: Any, context: object) -> Any:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()

    async def export_metrics(self, request: Any, context: object) -> Any:
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                self.metrics |= {metric.name for metric in scope.metrics}
        return metrics_service_pb2.ExportMetricsServiceResponse()


async def test_one_request_is_one_trace_across_modules(tmp_path: Path) -> None:
    collector = Collector()
    server = grpc.aio.server(options=PORT_OF_ITS_OWN)
    traces: Any = trace_service_pb2_grpc.TraceServiceServicer()
    traces.Export = collector.export_spans
    metrics: Any = metrics_service_pb2_grpc.MetricsServiceServicer()
    metrics.Export = collector.export_metrics
    add_traces: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add_traces(traces, server)
    add_metrics: Any = metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server
    add_metrics(metrics, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    mesh = Mesh(tmp_path / "data", otlp_endpoint=f"http://127.0.0.1:{port}", otlp_sample_ratio="1")
    await mesh.start()
    rest = Rest(mesh.url)
    await sign_up(rest)
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    async with rest.request(
        "POST", "/v1/agents/process", json={"input": "Hello"}, headers=headers
    ) as reply:
        await reply.read()
    await rest.close()
    assert await mesh.stop() == 0  # flushes
    mine = [span.name for span in collector.spans if span.trace_id.hex() == trace]
    async with asyncio.timeout(5):
        await server.stop(0)
    assert any("AgentsService/Process" in name for name in mine), mine
    assert any("LlmService/Generate" in name for name in mine), mine
    assert any("HistoryService/AppendMessage" in name for name in mine), mine
    assert "rpc.server.duration" in collector.metrics
