"""CapabilityService over gRPC."""

from __future__ import annotations

from plexus.llm.v1 import capability_service_pb2 as pb
from plexus.llm.v1 import model_pb2
from plexus.llm.v1.capability_service_pb2_grpc import CapabilityServiceServicer

from services.llm.convert import generation as convert
from services.llm.service.capabilities import Capabilities
from services.runtime.interceptors.adapter import Servicing


class CapabilityServicer(CapabilityServiceServicer):
    """Decodes, calls, encodes."""

    def __init__(self, capabilities: Capabilities) -> None:
        self._capabilities = capabilities

    async def UseCapability(
        self, request: pb.UseCapabilityRequest, context: Servicing
    ) -> pb.UseCapabilityResponse:
        """See the contract."""
        match request.WhichOneof("use"):
            case "embeddings":
                found = await self._embed(request.embeddings)
                return pb.UseCapabilityResponse(embeddings=found)
            case "moderation":
                return pb.UseCapabilityResponse(moderation=await self._moderate(request.moderation))
            case "functions":
                return pb.UseCapabilityResponse(functions=await self._functions(request))
            case _:
                models = await self._capabilities.models()
                listed = [
                    convert.from_model(each, default=number == 0)
                    for number, each in enumerate(models)
                ]
                return pb.UseCapabilityResponse(list=pb.CapabilityList(models=listed))

    async def Embed(self, request: pb.EmbedRequest, context: Servicing) -> pb.EmbedResponse:
        """See the contract."""
        return await self._embed(request)

    async def _embed(self, request: pb.EmbedRequest) -> pb.EmbedResponse:
        dimensions = request.dimensions if request.HasField("dimensions") else None
        model, found, usage = await self._capabilities.embed(
            request.model, request.texts, dimensions, request.agent_id
        )
        return pb.EmbedResponse(
            model=model,
            embeddings=[pb.Embedding(values=each) for each in found.vectors],
            usage=convert.from_usage(usage),
        )

    async def _moderate(self, request: pb.Moderate) -> pb.ModerationResult:
        model, found = await self._capabilities.moderate(request.model, request.texts)
        judgements = [pb.Judgement(flagged=each.flagged, scores=each.scores) for each in found]
        return pb.ModerationResult(model=model, judgements=judgements)

    async def _functions(self, request: pb.UseCapabilityRequest) -> pb.FunctionCalls:
        found = await self._capabilities.functions(convert.to_ask(request.functions))
        return pb.FunctionCalls(
            model=found.model,
            tool_calls=[
                model_pb2.ToolCall(
                    tool_call_id=each.tool_call_id, name=each.name, arguments=each.arguments
                )
                for each in found.calls
            ],
            text=found.text,
            usage=convert.from_usage(found.usage),
        )
