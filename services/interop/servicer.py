"""OpenAiService over gRPC; the gateway makes HTTP of it."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing

from google.api.httpbody_pb2 import HttpBody
from plexus.interop.v1 import openai_service_pb2 as pb
from plexus.interop.v1.openai_service_pb2_grpc import OpenAiServiceServicer

from services.interop.service.completions import Completions
from services.interop.service.responses import Responses
from services.interop.service.shared import Reply
from services.runtime.context import principal
from services.runtime.interceptors.adapter import Servicing

# The gateway makes the reply's status of it, and takes it away.
STATUS_KEY = "x-http-status"


class OpenAiServicer(OpenAiServiceServicer):
    """Decodes, calls, encodes."""

    def __init__(self, completions: Completions, responses: Responses) -> None:
        self._openai = completions
        self._responses = responses

    async def CreateChatCompletion(
        self, request: HttpBody, context: Servicing
    ) -> AsyncIterator[HttpBody]:
        """See the contract."""
        async with aclosing(_told(self._openai.chat(request.data), context)) as bodies:
            async for body in bodies:
                yield body

    async def CreateResponse(
        self, request: HttpBody, context: Servicing
    ) -> AsyncIterator[HttpBody]:
        """See the contract."""
        async with aclosing(
            _told(self._responses.create(principal(), request.data), context)
        ) as bodies:
            async for body in bodies:
                yield body

    async def GetResponse(
        self, request: pb.GetResponseRequest, context: Servicing
    ) -> AsyncIterator[HttpBody]:
        """See the contract."""
        after = request.starting_after if request.HasField("starting_after") else -1
        found = self._responses.get(
            principal(), request.response_id, stream=request.stream, after=after
        )
        async with aclosing(_told(found, context)) as bodies:
            async for body in bodies:
                yield body

    async def CancelResponse(
        self, request: pb.CancelResponseRequest, context: Servicing
    ) -> AsyncIterator[HttpBody]:
        """See the contract."""
        yield await _whole(self._responses.cancel(principal(), request.response_id), context)

    async def DeleteResponse(
        self, request: pb.DeleteResponseRequest, context: Servicing
    ) -> AsyncIterator[HttpBody]:
        """See the contract."""
        yield await _whole(self._responses.remove(principal(), request.response_id), context)

    async def ListResponseInputItems(
        self, request: pb.ListResponseInputItemsRequest, context: Servicing
    ) -> AsyncIterator[HttpBody]:
        """See the contract."""
        page = self._responses.input_items(
            principal(),
            request.response_id,
            request.after,
            request.limit,
            ascending=request.order == "asc",
        )
        yield await _whole(page, context)

    async def CreateEmbedding(
        self, request: HttpBody, context: Servicing
    ) -> AsyncIterator[HttpBody]:
        """See the contract."""
        yield await _whole(self._openai.vectors(request.data), context)

    async def ListOpenAiModels(
        self, request: pb.ListOpenAiModelsRequest, context: Servicing
    ) -> AsyncIterator[HttpBody]:
        """See the contract."""
        yield await _whole(self._openai.models(), context)

    async def GetOpenAiModel(
        self, request: pb.GetOpenAiModelRequest, context: Servicing
    ) -> AsyncIterator[HttpBody]:
        """See the contract."""
        yield await _whole(self._openai.model(request.model), context)


async def _told(
    replies: AsyncGenerator[Reply, None], context: Servicing
) -> AsyncGenerator[HttpBody, None]:
    first = True
    # A caller who leaves must end what is behind it at once.
    async with aclosing(replies):
        async for reply in replies:
            if first:
                await _begin(context, reply)
                first = False
            yield _body(reply)


async def _whole(replying: Awaitable[Reply], context: Servicing) -> HttpBody:
    reply = await replying
    await _begin(context, reply)
    return _body(reply)


async def _begin(context: Servicing, reply: Reply) -> None:
    metadata = [(STATUS_KEY, str(reply.status))]
    if reply.retry_after is not None:
        metadata.append(("retry-after", str(max(1, math.ceil(reply.retry_after)))))
    await context.send_initial_metadata(tuple(metadata))


def _body(reply: Reply) -> HttpBody:
    return HttpBody(content_type=reply.content_type, data=reply.data)
