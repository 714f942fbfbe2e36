"""RPCs to which a client streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from plexus.ingest.v1 import document_service_pb2 as pb
from plexus.ingest.v1.document_service_pb2_grpc import DocumentServiceStub

from services.runtime.contract import module_methods
from services.runtime.server import Server
from services.runtime.topology import Address
from tests.services.runtime.resilience.served import SIGNER, Tokens

_PATH = "plexus.ingest.v1.DocumentService"


async def _send(requests: AsyncIterator[Any], context: Any) -> pb.SendDocumentResponse:
    count = len([each async for each in requests])
    return pb.SendDocumentResponse(unchanged=count == 1)


async def test_one_that_is_taken_is_told_before_it_has_sent_anything(tmp_path: Path) -> None:
    server = Server(module_methods("ingest"), Tokens(), SIGNER)
    handler = grpc.stream_unary_rpc_method_handler(
        _send, pb.SendDocumentRequest.FromString, pb.SendDocumentResponse.SerializeToString
    )
    generic = grpc.method_handlers_generic_handler(_PATH, {"SendDocument": handler})
    server.grpc.add_generic_rpc_handlers([generic])
    await server.start(Address(path=tmp_path / "s"), {})
    try:
        async with grpc.aio.insecure_channel(f"unix:{tmp_path}/s") as channel:
            stub: Any = DocumentServiceStub(channel)
            call = stub.SendDocument(metadata=[("authorization", "Bearer ten_1")])
            async with asyncio.timeout(5):
                await call.initial_metadata()
            await call.write(pb.SendDocumentRequest(data=b"x"))
            await call.done_writing()
            assert (await call).unchanged
            # Who may not call gets the refusal alone, with all its details.
            refused = stub.SendDocument(metadata=[])
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await refused
            assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert error.value.trailing_metadata()
    finally:
        await server.stop(0)
