"""What every process must know to believe a credential, kept current by asking identity."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import grpc
import jwt
from plexus.identity.v1 import identity_service_pb2 as pb
from plexus.identity.v1.identity_service_pb2_grpc import IdentityServiceStub

from services.runtime import clock
from services.runtime.clients import Clients
from services.runtime.errors import Unavailable

_REFETCH_SECONDS = 1.0
_REFRESH_SECONDS = 60.0
# Identity sends something every two seconds; after this long its silence means it is not there.
_STALE_SECONDS = 30.0
_SILENCE_SECONDS = 10.0


class IdentityTrust:
    """Public keys and revocations, from the identity module wherever it runs."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched = 0.0
        self._fetching = asyncio.Lock()
        self._revoked: dict[str, float] = {}
        self._heard: float | None = None

    async def key(self, kid: str) -> jwt.PyJWK | None:
        """The public key with this id; an unknown one is asked for, at most once a second."""
        age = time.monotonic() - self._fetched
        if age > _REFRESH_SECONDS or (kid not in self._keys and age > _REFETCH_SECONDS):
            async with self._fetching:
                if time.monotonic() - self._fetched > _REFETCH_SECONDS:
                    try:
                        await self._fetch()
                    except grpc.aio.AioRpcError:
                        # Identity is away for a moment: a key that was good still is.
                        if kid not in self._keys:
                            raise
        return self._keys.get(kid)

    async def _fetch(self) -> None:
        reply = await IdentityServiceStub(self._clients.channel("identity")).GetJwks(
            pb.GetJwksRequest()
        )
        self._keys = {
            key.kid: jwt.PyJWK(
                {"kty": key.kty, "crv": key.crv, "kid": key.kid, "x": key.x, "alg": key.alg}
            )
            for key in reply.keys
        }
        self._fetched = time.monotonic()

    def revoked(self, credential_ids: Sequence[str]) -> bool:
        """Whether one of these is revoked.

        Raises:
            Unavailable: Identity has not been heard of for too long to know.
        """
        if self._heard is None or time.monotonic() - self._heard > _STALE_SECONDS:
            raise Unavailable("Credentials cannot be checked now. Try again.", retry_after=1)
        return not self._revoked.keys().isdisjoint(credential_ids)

    async def check(self) -> None:
        """Whether credentials can be checked.

        Raises:
            Unavailable: They cannot.
        """
        self.revoked(())

    async def watch(self) -> None:
        """Follow identity's revocations until the stream ends; the caller starts it again."""
        stub = IdentityServiceStub(self._clients.channel("identity"))
        call = stub.WatchRevocations(pb.WatchRevocationsRequest(), wait_for_ready=True)
        while True:
            # A connection that is half open says nothing for ever; one that lives speaks up.
            async with asyncio.timeout(_SILENCE_SECONDS):
                message = await call.read()
            if not isinstance(message, pb.WatchRevocationsResponse):
                return  # the end of the stream
            if message.complete:
                self._revoked = {}
            for each in message.revocations:
                self._revoked[each.credential_id] = clock.from_timestamp(each.expire_time)
            self._heard = time.monotonic()
            now = clock.now()
            for credential_id in [key for key, end in self._revoked.items() if end < now]:
                del self._revoked[credential_id]
