"""identity's domain as the contract has it, and back."""

from __future__ import annotations

from typing import cast

from plexus.identity.v1 import api_key_pb2, audit_pb2, user_pb2
from plexus.identity.v1 import identity_service_pb2 as pb
from plexus.options.v1.options_pb2 import Role

from services.identity.domain import ApiKey, AuditEntry, Revocation, SigningKey, User
from services.runtime import clock


def to_user(user: User) -> user_pb2.User:
    """A user."""
    return user_pb2.User(
        user_id=user.user_id,
        tenant_id=user.tenant_id,
        email=user.email,
        display_name=user.display_name,
        roles=to_roles(user.roles),
        create_time=clock.to_timestamp(user.create_time),
        etag=user.etag,
    )


def to_api_key(key: ApiKey) -> api_key_pb2.ApiKey:
    """An API key, without its token."""
    return api_key_pb2.ApiKey(
        api_key_id=key.api_key_id,
        display_name=key.display_name,
        roles=to_roles(key.roles),
        user_id=key.user_id,
        create_time=clock.to_timestamp(key.create_time),
        expire_time=clock.to_timestamp(key.expire_time),
    )


def to_audit_entry(entry: AuditEntry) -> audit_pb2.AuditEntry:
    """An entry of the audit log."""
    return audit_pb2.AuditEntry(
        audit_entry_id=entry.audit_entry_id,
        time=clock.to_timestamp(entry.time),
        action=entry.action,
        actor_id=entry.actor_id,
        subject_id=entry.subject_id,
        request_id=entry.request_id,
    )


def to_jwk(key: SigningKey) -> user_pb2.Jwk:
    """The public part of a signing key."""
    return user_pb2.Jwk(
        kty="OKP", crv="Ed25519", kid=key.kid, x=key.public_key, alg="EdDSA", use="sig"
    )


def to_revocation(revocation: Revocation) -> pb.Revocation:
    """A revoked credential."""
    return pb.Revocation(
        credential_id=revocation.credential_id,
        expire_time=clock.to_timestamp(revocation.expire_time),
    )


def to_roles(roles: frozenset[int]) -> list[Role.ValueType]:
    """Roles, the least first."""
    return [cast(Role.ValueType, role) for role in sorted(roles)]


def expire_time(request: pb.CreateApiKeyRequest) -> int | None:
    """When a new API key is to expire, where the caller says."""
    if not request.HasField("expire_time"):
        return None
    return clock.from_timestamp(request.expire_time)
