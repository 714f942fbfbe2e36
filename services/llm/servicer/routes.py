"""RouteService over gRPC."""

from __future__ import annotations

from plexus.llm.v1 import route_service_pb2 as pb
from plexus.llm.v1.route_service_pb2_grpc import RouteServiceServicer

from services.llm.convert import configuration as convert
from services.llm.service.routes import Routes
from services.runtime import paging
from services.runtime.context import principal
from services.runtime.interceptors.adapter import Servicing
from services.runtime.replies import Repeatable


class RouteServicer(RouteServiceServicer):
    """Decodes, calls, encodes."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes

    async def GetRoute(
        self, request: pb.GetRouteRequest, context: Servicing
    ) -> pb.GetRouteResponse:
        """See the contract."""
        found = await self._routes.get(principal(), request.route_id)
        return pb.GetRouteResponse(route=convert.from_route(found))

    async def ListRoutes(
        self, request: pb.ListRoutesRequest, context: Servicing
    ) -> pb.ListRoutesResponse:
        """See the contract."""
        size = paging.page_size(request.page_size)
        before = paging.decode(request.page_token, str)
        found = await self._routes.page(principal(), size + 1, before[0] if before else None)
        page, token = paging.cut(found, size, lambda each: (each.route_id,))
        return pb.ListRoutesResponse(routes=map(convert.from_route, page), next_page_token=token)

    async def CreateRoute(
        self, request: pb.CreateRouteRequest, context: Servicing
    ) -> pb.CreateRouteResponse:
        """See the contract."""
        made = await self._routes.create(
            principal(),
            request.name,
            tuple(request.spec.task_classes),
            convert.to_plan(request.spec),
            Repeatable.of(request, request.idempotency_key),
        )
        return pb.CreateRouteResponse(route=convert.from_route(made))

    async def UpdateRoute(
        self, request: pb.UpdateRouteRequest, context: Servicing
    ) -> pb.UpdateRouteResponse:
        """See the contract."""
        changed = await self._routes.update(
            principal(),
            request.route_id,
            tuple(request.spec.task_classes),
            convert.to_plan(request.spec),
            request.etag,
        )
        return pb.UpdateRouteResponse(route=convert.from_route(changed))

    async def DeleteRoute(
        self, request: pb.DeleteRouteRequest, context: Servicing
    ) -> pb.DeleteRouteResponse:
        """See the contract."""
        await self._routes.delete(principal(), request.route_id)
        return pb.DeleteRouteResponse()
