"""IdentityService over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from plexus.identity.v1 import identity_service_pb2 as pb
from plexus.identity.v1.identity_service_pb2_grpc import IdentityServiceServicer

from services.identity import convert
from services.identity.service.accounts import Accounts
from services.identity.service.api_keys import ApiKeys
from services.identity.service.audit import AuditLog
from services.identity.service.logins import Logins
from services.identity.service.revocations import RevocationWatch
from services.identity.service.signing import SigningKeys
from services.runtime import paging
from services.runtime.context import principal
from services.runtime.interceptors.adapter import Servicing
from services.runtime.replies import Repeatable

_TOKEN_TYPE = "Bearer"  # noqa: S105 - RFC 6750's name of the scheme


class IdentityServicer(IdentityServiceServicer):
    """Decodes, calls, encodes."""

    def __init__(
        self,
        accounts: Accounts,
        logins: Logins,
        api_keys: ApiKeys,
        signing: SigningKeys,
        revocations: RevocationWatch,
        audit: AuditLog,
    ) -> None:
        self._accounts = accounts
        self._logins = logins
        self._api_keys = api_keys
        self._signing = signing
        self._revocations = revocations
        self._audit = audit

    async def RegisterUser(
        self, request: pb.RegisterUserRequest, context: Servicing
    ) -> pb.RegisterUserResponse:
        """See the contract."""
        user = await self._accounts.register(request.email, request.password, request.display_name)
        return pb.RegisterUserResponse(user=convert.to_user(user))

    async def AuthenticateUser(
        self, request: pb.AuthenticateUserRequest, context: Servicing
    ) -> pb.AuthenticateUserResponse:
        """See the contract."""
        tokens = await self._logins.authenticate(request.email, request.password)
        return pb.AuthenticateUserResponse(
            access_token=tokens.access_token,
            refresh_token=tokens.refresh_token,
            token_type=_TOKEN_TYPE,
            expires_in=tokens.expires_in,
        )

    async def RefreshToken(
        self, request: pb.RefreshTokenRequest, context: Servicing
    ) -> pb.RefreshTokenResponse:
        """See the contract."""
        tokens = await self._logins.refresh(request.refresh_token)
        return pb.RefreshTokenResponse(
            access_token=tokens.access_token,
            refresh_token=tokens.refresh_token,
            token_type=_TOKEN_TYPE,
            expires_in=tokens.expires_in,
        )

    async def GetProfile(
        self, request: pb.GetProfileRequest, context: Servicing
    ) -> pb.GetProfileResponse:
        """See the contract."""
        return pb.GetProfileResponse(
            user=convert.to_user(await self._accounts.profile(principal()))
        )

    async def UpdateProfile(
        self, request: pb.UpdateProfileRequest, context: Servicing
    ) -> pb.UpdateProfileResponse:
        """See the contract."""
        display_name = request.display_name if request.HasField("display_name") else None
        user = await self._accounts.update_profile(principal(), display_name, request.etag)
        return pb.UpdateProfileResponse(user=convert.to_user(user))

    async def CreateApiKey(
        self, request: pb.CreateApiKeyRequest, context: Servicing
    ) -> pb.CreateApiKeyResponse:
        """See the contract."""
        key, token = await self._api_keys.create(
            principal(),
            request.display_name,
            frozenset(request.roles),
            convert.expire_time(request),
            Repeatable.of(request, request.idempotency_key),
        )
        return pb.CreateApiKeyResponse(api_key=convert.to_api_key(key), token=token)

    async def ListApiKeys(
        self, request: pb.ListApiKeysRequest, context: Servicing
    ) -> pb.ListApiKeysResponse:
        """See the contract."""
        size = paging.page_size(request.page_size)
        after = paging.decode(request.page_token, int, str)
        found = await self._api_keys.page(principal(), size + 1, after)
        page, token = paging.cut(found, size, lambda each: (each.create_time, each.api_key_id))
        return pb.ListApiKeysResponse(api_keys=map(convert.to_api_key, page), next_page_token=token)

    async def DeleteApiKey(
        self, request: pb.DeleteApiKeyRequest, context: Servicing
    ) -> pb.DeleteApiKeyResponse:
        """See the contract."""
        await self._api_keys.delete(principal(), request.api_key_id)
        return pb.DeleteApiKeyResponse()

    async def ListAuditEntries(
        self, request: pb.ListAuditEntriesRequest, context: Servicing
    ) -> pb.ListAuditEntriesResponse:
        """See the contract."""
        size = paging.page_size(request.page_size)
        after = paging.decode(request.page_token, int, str)
        found = await self._audit.page(principal(), size + 1, after)
        page, token = paging.cut(found, size, lambda each: (each.time, each.audit_entry_id))
        return pb.ListAuditEntriesResponse(
            audit_entries=map(convert.to_audit_entry, page), next_page_token=token
        )

    async def GetJwks(self, request: pb.GetJwksRequest, context: Servicing) -> pb.GetJwksResponse:
        """See the contract."""
        return pb.GetJwksResponse(keys=map(convert.to_jwk, await self._signing.published()))

    async def WatchRevocations(
        self, request: pb.WatchRevocationsRequest, context: Servicing
    ) -> AsyncIterator[pb.WatchRevocationsResponse]:
        """See the contract."""
        complete = True
        async with aclosing(self._revocations.changes()) as changes:
            async for found in changes:
                yield pb.WatchRevocationsResponse(
                    complete=complete, revocations=map(convert.to_revocation, found)
                )
                complete = False
