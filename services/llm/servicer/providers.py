"""ProviderService over gRPC."""

from __future__ import annotations

from plexus.llm.v1 import provider_service_pb2 as pb
from plexus.llm.v1.provider_service_pb2_grpc import ProviderServiceServicer

from services.llm.convert import configuration as convert
from services.llm.service.providers import Change, Providers
from services.runtime import paging
from services.runtime.context import principal
from services.runtime.interceptors.adapter import Servicing
from services.runtime.replies import Repeatable


class ProviderServicer(ProviderServiceServicer):
    """Decodes, calls, encodes."""

    def __init__(self, providers: Providers) -> None:
        self._providers = providers

    async def GetProvider(
        self, request: pb.GetProviderRequest, context: Servicing
    ) -> pb.GetProviderResponse:
        """See the contract."""
        found = await self._providers.get(principal(), request.provider_id, request.version)
        return pb.GetProviderResponse(provider=convert.from_provider(found))

    async def ListProviders(
        self, request: pb.ListProvidersRequest, context: Servicing
    ) -> pb.ListProvidersResponse:
        """See the contract."""
        size = paging.page_size(request.page_size)
        before = paging.decode(request.page_token, str)
        found = await self._providers.page(principal(), size + 1, before[0] if before else None)
        page, token = paging.cut(found, size, lambda each: (each.provider_id,))
        return pb.ListProvidersResponse(
            providers=map(convert.from_provider, page), next_page_token=token
        )

    async def CreateProvider(
        self, request: pb.CreateProviderRequest, context: Servicing
    ) -> pb.CreateProviderResponse:
        """See the contract."""
        made = await self._providers.create(
            principal(),
            request.name,
            request.spec.base_url,
            request.spec.api_key,
            tuple(map(convert.to_provider_model, request.spec.models)),
            convert.to_provider_limits(request.spec.limits),
            Repeatable.of(request, request.idempotency_key),
        )
        return pb.CreateProviderResponse(provider=convert.from_provider(made))

    async def UpdateProvider(
        self, request: pb.UpdateProviderRequest, context: Servicing
    ) -> pb.UpdateProviderResponse:
        """See the contract."""
        change = Change(
            base_url=request.base_url if request.HasField("base_url") else None,
            api_key=request.api_key if request.HasField("api_key") else None,
            models=(
                tuple(map(convert.to_provider_model, request.models.models))
                if request.HasField("models")
                else None
            ),
            limits=(
                convert.to_provider_limits(request.limits) if request.HasField("limits") else None
            ),
            enabled=request.enabled if request.HasField("enabled") else None,
            etag=request.etag,
        )
        changed = await self._providers.update(principal(), request.provider_id, change)
        return pb.UpdateProviderResponse(provider=convert.from_provider(changed))

    async def DeleteProvider(
        self, request: pb.DeleteProviderRequest, context: Servicing
    ) -> pb.DeleteProviderResponse:
        """See the contract."""
        await self._providers.delete(principal(), request.provider_id)
        return pb.DeleteProviderResponse()
