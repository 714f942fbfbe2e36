"""UsageService over gRPC."""

from __future__ import annotations

import time
from typing import Any

from plexus.llm.v1 import usage_pb2
from plexus.llm.v1 import usage_service_pb2 as pb
from plexus.llm.v1.usage_service_pb2_grpc import UsageServiceServicer

from services.llm.convert import configuration as convert
from services.llm.domain.configuration import Budget, Period, Spent, Subject, day_of
from services.llm.lately import Record
from services.llm.service.catalogue import Catalogue
from services.llm.service.spending import Spending
from services.llm.store.usage import Sums
from services.runtime import clock, paging
from services.runtime.context import principal
from services.runtime.errors import InvalidRequest
from services.runtime.interceptors.adapter import Servicing
from services.runtime.replies import Repeatable
from services.runtime.resilience.breaker import State

_COLUMNS = {
    usage_pb2.USAGE_DIMENSION_DAY: "day",
    usage_pb2.USAGE_DIMENSION_MODEL: "model",
    usage_pb2.USAGE_DIMENSION_AGENT: "agent_id",
    usage_pb2.USAGE_DIMENSION_USER: "user_id",
}
_CIRCUITS = {
    State.CLOSED: usage_pb2.CIRCUIT_STATE_CLOSED,
    State.OPEN: usage_pb2.CIRCUIT_STATE_OPEN,
    State.HALF_OPEN: usage_pb2.CIRCUIT_STATE_HALF_OPEN,
}


class UsageServicer(UsageServiceServicer):
    """Decodes, calls, encodes."""

    def __init__(self, spending: Spending, catalogue: Catalogue) -> None:
        self._spending = spending
        self._catalogue = catalogue

    async def ListUsage(
        self, request: pb.ListUsageRequest, context: Servicing
    ) -> pb.ListUsageResponse:
        """See the contract."""
        size = paging.page_size(request.page_size)
        columns = [_COLUMNS[each] for each in request.group_by]
        after = paging.decode(request.page_token, *[str] * len(columns)) if columns else None
        if request.page_token and not columns:
            raise InvalidRequest.field("page_token", "must be a next_page_token of this list")
        found = await self._spending.report(
            principal(), columns, (request.start_day, request.end_day), size + 1, after or ()
        )
        page, token = paging.cut(found, size, lambda each: tuple(each.by.values()))
        rows = [usage_pb2.UsageRow(**_fields(each)) for each in page]
        return pb.ListUsageResponse(rows=rows, next_page_token=token)

    async def ListModelHealth(
        self, request: pb.ListModelHealthRequest, context: Servicing
    ) -> pb.ListModelHealthResponse:
        """See the contract."""
        view = await self._catalogue.view(principal().tenant_id)
        return pb.ListModelHealthResponse(
            models=[
                _health(name, self._catalogue.record(served))
                for name, served in sorted(view.served.items())
            ]
        )

    async def ListBudgets(
        self, request: pb.ListBudgetsRequest, context: Servicing
    ) -> pb.ListBudgetsResponse:
        """See the contract."""
        size = paging.page_size(request.page_size)
        before = paging.decode(request.page_token, str)
        found = await self._spending.page(principal(), size + 1, before[0] if before else None)
        page, token = paging.cut(found, size, lambda each: (each[0].budget_id,))
        return pb.ListBudgetsResponse(budgets=map(_budget, page), next_page_token=token)

    async def CreateBudget(
        self, request: pb.CreateBudgetRequest, context: Servicing
    ) -> pb.CreateBudgetResponse:
        """See the contract."""
        made = await self._spending.create(
            principal(),
            Subject(request.subject),
            request.subject_id,
            Period(request.period),
            (request.spec.max_cost, request.spec.max_tokens),
            Repeatable.of(request, request.idempotency_key),
        )
        return pb.CreateBudgetResponse(budget=_budget(made))

    async def UpdateBudget(
        self, request: pb.UpdateBudgetRequest, context: Servicing
    ) -> pb.UpdateBudgetResponse:
        """See the contract."""
        bounds = (request.spec.max_cost, request.spec.max_tokens)
        changed = await self._spending.update(principal(), request.budget_id, bounds, request.etag)
        return pb.UpdateBudgetResponse(budget=_budget(changed))

    async def DeleteBudget(
        self, request: pb.DeleteBudgetRequest, context: Servicing
    ) -> pb.DeleteBudgetResponse:
        """See the contract."""
        await self._spending.delete(principal(), request.budget_id)
        return pb.DeleteBudgetResponse()


def _fields(sums: Sums) -> dict[str, Any]:
    return {**sums.by, **sums.counts}


def _budget(found: tuple[Budget, Spent]) -> usage_pb2.Budget:
    return convert.from_budget(*found, day_of(clock.now()))


def _health(name: str, record: Record) -> usage_pb2.ModelHealth:
    figures, blocked = record.figures(), record.breaker.blocked()
    retry = int((time.time() + blocked) * clock.SECOND)
    return usage_pb2.ModelHealth(
        model=name,
        circuit=_CIRCUITS[record.breaker.state],
        retry_time=clock.to_timestamp(retry) if blocked else None,
        calls=figures.calls,
        success_rate=figures.success_rate,
        first_token_p50_ms=(figures.first_token_p50 or 0.0) * 1000,
        first_token_p95_ms=(figures.first_token_p95 or 0.0) * 1000,
        tokens_per_second=figures.tokens_per_second,
        mean_cost=figures.mean_cost,
    )
