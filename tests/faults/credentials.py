"""Every credential that somebody might try, and whom each must be taken for."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from plexus.options.v1.options_pb2 import Role

from services.runtime.crypto import MasterKey
from tests.faults.rpcs import by_name
from tests.faults.valid import valid
from tests.faults.wire import Mouth
from tests.faults.world import FaultyMesh, bearer, register, reply

ROLES = {name.removeprefix("ROLE_").lower(): number for name, number in Role.items() if number}
OWNER = Role.ROLE_OWNER
ASSERTION = "x-plexus-assertion"
# What the mesh itself may: more than any role.
MESH = max(ROLES.values()) + 1
_SEEN_SECONDS = 2.5
Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Credential:
    """Something that a caller brings.

    Attributes:
        edge: The role that it stands for through the gateway, 0 for a caller without one, None
            where it proves nothing.
        direct: The same at a module's own socket.
        ways: Where it can be tried; all if empty.
    """

    name: str
    headers: Headers
    edge: int | None = None
    direct: int | None = None
    ways: tuple[str, ...] = ()

    def role(self, way: str) -> int | None:
        """Whom it stands for on a way in."""
        return self.direct if way == "direct" else self.edge


class Mint:
    """Signs whatever it is told to with the installation's own keys."""

    def __init__(self, mesh: FaultyMesh) -> None:
        master = MasterKey.load(mesh.settings.master_key)
        rows = mesh.sql(
            "SELECT kid, sealed_private_key FROM identity_signing_keys ORDER BY generation"
        )
        self.kid, sealed = rows[-1]
        self.key = Ed25519PrivateKey.from_private_bytes(
            master.open(sealed, f"identity/signing-key/{self.kid}")
        )
        self.mesh_key = master.derive("mesh")

    def token(self, claims: dict[str, Any], key: Any = None, **headers: Any) -> str:
        """A token with these claims, those that are None left out."""
        kept = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(
            kept, key or self.key, algorithm="EdDSA", headers={"kid": self.kid, **headers}
        )

    def assertion(self, user: Mapping[str, Any]) -> str:
        """What the mesh shows itself on behalf of a user, but good for as long as this may take."""
        return self.almost(user, exp=time.time() + 86_400)

    def almost(self, user: Mapping[str, Any], key: bytes | None = None, **changes: Any) -> str:
        """Something close to an assertion."""
        claims = {
            "aud": "plexus-mesh",
            "exp": time.time() + 60,
            "tid": user["tid"],
            "sub": user["sub"],
            "jti": "mesh",
            "roles": ["owner"],
            **changes,
        }
        return jwt.encode(claims, self.mesh_key if key is None else key, algorithm="HS256")

    def public(self) -> Iterator[tuple[str, bytes]]:
        """The public key in the forms that somebody might take for a shared secret."""
        public = self.key.public_key()
        raw = public.public_bytes_raw()
        x = base64.urlsafe_b64encode(raw).rstrip(b"=")
        yield "raw", raw
        yield "x", x
        yield "pem", public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        yield "jwk", json.dumps({"kty": "OKP", "crv": "Ed25519", "x": x.decode()}).encode()


async def credentials(mesh: FaultyMesh, mouth: Mouth) -> list[Credential]:
    """Make everything that is to be tried, and wait until what is revoked is known to be."""
    user, tokens = await register(mouth, "owner@example.com")
    mint = Mint(mesh)
    claims = jwt.decode(tokens.access_token, options={"verify_signature": False})
    assert claims["sub"] == user.user_id
    good = await _good(mouth, mint, claims, tokens.access_token)
    revoked = await _revoked(mouth, tokens.access_token)
    by_role = {each.name: each for each in good}
    found = [Credential("none", ()), *good, *revoked]
    found += [
        Credential(name, (("authorization", text),))
        for name, text in _defective(mint, claims, tokens)
    ]
    owner = by_role["user owner"].headers
    found += _misplaced(mint, tokens.access_token, owner)
    for name in ("none", "user viewer"):
        base = next(each for each in found if each.name == name)
        found += [_with(base, *forged) for forged in _forged(mint, claims, tokens.access_token)]
    return found


async def _good(mouth: Mouth, mint: Mint, claims: dict[str, Any], owner: str) -> list[Credential]:
    found = []
    for name, role in ROLES.items():
        token = mint.token({**claims, "roles": [name]})
        found.append(Credential(f"user {name}", tuple(bearer(token)), role, role))
        made = await reply(mouth, "CreateApiKey", owner, display_name=name, roles=[role])
        found.append(Credential(f"key {name}", tuple(bearer(made.token)), role, role))
    nobody = tuple(bearer(mint.token({**claims, "roles": []})))
    other = tuple(bearer(mint.token({**claims, "roles": ["god", 4, None]})))
    return [
        *found,
        Credential("user without a role", nobody, 0, 0),
        Credential("user with roles unheard of", other, 0, 0),
        Credential("scheme in lower case", (("authorization", f"bearer {owner}"),), OWNER, OWNER),
    ]


async def _revoked(mouth: Mouth, owner: str) -> list[Credential]:
    made = await reply(mouth, "CreateApiKey", owner, display_name="revoked")
    await reply(mouth, "DeleteApiKey", owner, api_key_id=made.api_key.api_key_id)
    _, tokens = await register(mouth, "robbed@example.com")
    await reply(mouth, "RefreshToken", refresh_token=tokens.refresh_token)
    again = by_name("RefreshToken")
    request = valid(again.request, {"refresh_token": tokens.refresh_token})
    reused = await mouth.call("grpc", again, request)
    assert reused.reason == "BAD_REFRESH_TOKEN", reused
    found = [
        Credential("revoked key", tuple(bearer(made.token))),
        Credential("login at an end", tuple(bearer(tokens.access_token))),
    ]
    profile = by_name("GetProfile")
    # The contract gives it a second; a mesh that never hears of it shows in the matrix.
    until = time.monotonic() + _SEEN_SECONDS
    for each in found:
        while time.monotonic() < until:
            answer = await mouth.call("direct", profile, valid(profile.request), each.headers)
            if not answer.ok:
                break
            await asyncio.sleep(0.05)
    return found


def _defective(mint: Mint, claims: dict[str, Any], tokens: Any) -> Iterator[tuple[str, str]]:
    for name, text in _tokens(mint, claims, tokens):
        yield name, f"Bearer {text}"
    yield "empty", ""
    yield "no token", "Bearer "
    yield "scheme alone", "Bearer"
    yield "no scheme", tokens.access_token
    yield "basic", f"Basic {tokens.access_token}"
    yield "token twice in one", f"Bearer {tokens.access_token},Bearer {tokens.access_token}"
    yield "something behind", f"Bearer {tokens.access_token} x"


def _tokens(mint: Mint, claims: dict[str, Any], tokens: Any) -> Iterator[tuple[str, str]]:
    now = int(time.time())
    header, payload, signature = tokens.access_token.split(".")
    edited = {**claims, "tid": "ten_0000000000000000000000000"}
    stranger = Ed25519PrivateKey.generate()
    yield "expired", mint.token({**claims, "exp": now - 3600, "iat": now - 7200})
    yield "not yet valid", mint.token({**claims, "nbf": now + 3600})
    for claim in ("exp", "sub", "tid", "jti", "iss", "aud"):
        yield f"without {claim}", mint.token({**claims, claim: None})
    yield "other issuer", mint.token({**claims, "iss": "https://other.example"})
    yield "other audience", mint.token({**claims, "aud": "other"})
    yield "other signature", mint.token(claims, stranger)
    yield "unknown key", mint.token(claims, stranger, kid="kid_unknown")
    yield "unknown key id", mint.token(claims, kid="kid_unknown")
    yield "key brought along", mint.token(claims, stranger, kid="own", jwk=_jwk(stranger))
    yield "key elsewhere", mint.token(claims, stranger, kid="own", jku="http://127.0.0.1:1/")
    yield "edited tenant", f"{header}.{_part(edited)}.{signature}"
    yield "edited roles", f"{header}.{_part({**claims, 'roles': ['owner', 'x']})}.{signature}"
    yield "cut signature", f"{header}.{payload}.{signature[:-10]}"
    yield "no signature", f"{header}.{payload}."
    for none in ("none", "None", "nOnE"):
        yield f"alg {none}", f"{_part({'alg': none, 'typ': 'JWT', 'kid': mint.kid})}.{payload}."
    for form, secret in mint.public():
        text = f"{_part({'alg': 'HS256', 'typ': 'JWT', 'kid': mint.kid})}.{payload}"
        digest = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
        signed = jwt.utils.base64url_encode(digest.sign(text.encode(), secret)).decode()
        yield f"HS256 by the public key as {form}", f"{text}.{signed}"
    yield "refresh token", tokens.refresh_token
    yield "assertion of the mesh", mint.assertion(claims)
    yield "garbage", "x.y.z"
    yield "letters", "a" * 300
    yield "unpadded braces", f"{_part({})}.{_part({})}."


def _misplaced(mint: Mint, token: str, owner: Headers) -> list[Credential]:
    """Good credentials where they do not count, or more than one."""
    bad = (("authorization", "Bearer bad"),)
    edges = ("grpc", "rest", "web")
    return [
        Credential("in a cookie", (("cookie", f"token={token}; authorization=Bearer {token}"),)),
        Credential("in another header", (("x-authorization", f"Bearer {token}"),)),
        Credential("for a proxy", (("proxy-authorization", f"Bearer {token}"),)),
        # At its own socket gRPC keeps the last of two; the gateway is where callers come in.
        Credential("two headers, the first bad", (*bad, *owner), ways=edges),
        Credential("two headers, the last bad", (*owner, *bad), ways=edges),
        Credential("two headers, the same", (*owner, *owner), ways=edges),
    ]


def _forged(
    mint: Mint, claims: Mapping[str, Any], token: str
) -> Iterator[tuple[str, Headers, int | None, bool]]:
    """A name, headers, whom they stand for at a module's socket, and whether they count there."""
    _, raw = next(mint.public())
    unsigned = f"{_part({'alg': 'none'})}.{_part({'aud': 'plexus-mesh', 'exp': 9e9})}."
    for name, value in (
        ("garbage", "anything"),
        ("a guessed key", mint.almost(claims, b"secret" * 8)),
        ("the public key", mint.almost(claims, raw)),
        ("no algorithm", unsigned),
        ("expired", mint.almost(claims, exp=time.time() - 10)),
        ("another audience", mint.almost(claims, aud="plexus")),
        ("a token of a user", token),
    ):
        yield f"assertion: {name}", ((ASSERTION, value),), None, True
    # Nobody outside has one. If somebody did, the gateway would still take it away.
    yield "assertion: a true one", ((ASSERTION, mint.assertion(claims)),), MESH, True
    yield "assertion: twice", ((ASSERTION, "x"), (ASSERTION, mint.assertion(claims))), MESH, True
    for header, value in (
        ("x-plexus-tenant", "ten_x"),
        ("x-plexus-roles", "owner"),
        ("x-plexus-internal", "true"),
        ("x-envoy-internal", "true"),
        ("x-envoy-original-path", "/.well-known/jwks.json"),
        ("x-envoy-decorator-operation", "x"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-client-cert", "Subject=plexus"),
        ("x-original-url", "/.well-known/jwks.json"),
        ("x-user-id", "usr_x"),
        ("x-request-id", "00000000-0000-4000-8000-000000000000"),
    ):
        yield f"{header}", ((header, value),), None, False


def _with(
    base: Credential, name: str, headers: Headers, direct: int | None, counts: bool
) -> Credential:
    return Credential(
        f"{base.name} and {name}",
        (*base.headers, *headers),
        base.edge,
        direct if counts else base.direct,
    )


def _part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _jwk(key: Ed25519PrivateKey) -> dict[str, str]:
    x = base64.urlsafe_b64encode(key.public_key().public_bytes_raw()).decode().rstrip("=")
    return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "own", "alg": "EdDSA"}
