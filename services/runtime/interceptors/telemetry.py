"""One log line, one span's worth of numbers for each RPC."""

from __future__ import annotations

import asyncio
import time

from google.protobuf.message import Message
from opentelemetry import metrics

from services.runtime import log, telemetry
from services.runtime.context import CallContext
from services.runtime.contract import redact
from services.runtime.errors import Code, PlexusError
from services.runtime.interceptors.adapter import Metadata
from services.runtime.resilience.shedding import Shed

_logger = log.get("rpc")
# What a caller did wrong is the caller's to see; these are the operator's.
_SERIOUS = {Code.INTERNAL, Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED}


class Telemetry:
    """Counts and times every RPC, and logs how it ended."""

    def __init__(self) -> None:
        meter = metrics.get_meter("plexus")
        self._duration = meter.create_histogram(
            "rpc.server.duration", unit="ms", description="How long RPCs take."
        )

    def on_start(self, call: CallContext, metadata: Metadata) -> None:
        """Note the time."""
        call.started = time.perf_counter()

    def on_request(self, call: CallContext, request: Message) -> None:
        """Log it for whoever looks for a defect, without its secrets."""
        if _logger.shows("debug"):
            _logger.debug("request", method=call.method, message=redact(request))

    def on_end(self, call: CallContext, error: BaseException | None) -> None:
        """Record how it went."""
        elapsed = (time.perf_counter() - call.started) * 1000
        code = _code(error)
        if telemetry.enabled():
            self._duration.record(elapsed, {"rpc.method": call.method, "rpc.grpc.status": code})
        if isinstance(error, Shed):
            return  # counted where it was refused, and told once for all of them
        level = "info"
        if isinstance(error, PlexusError) and error.code in _SERIOUS:
            level = "warning"
        reason = error.reason if isinstance(error, PlexusError) else None
        _logger.log(
            level, "rpc", method=call.method, code=code, ms=round(elapsed, 2), reason=reason
        )


def _code(error: BaseException | None) -> str:
    if error is None:
        return "OK"
    if isinstance(error, asyncio.CancelledError):
        return "CANCELLED"
    return error.code.name if isinstance(error, PlexusError) else "INTERNAL"
