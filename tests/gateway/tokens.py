"""Keys and tokens for tests: what identity makes, without identity."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

ISSUER, AUDIENCE = "https://plexus.test", "plexus"


class Keys:
    """One signing key, by its id."""

    def __init__(self, kid: str) -> None:
        self.kid = kid
        self._private = Ed25519PrivateKey.generate()

    def jwk(self) -> dict[str, Any]:
        """The public half, as a key set lists it."""
        made: dict[str, Any] = OKPAlgorithm.to_jwk(self._private.public_key(), as_dict=True)
        return {**made, "kid": self.kid, "alg": "EdDSA", "use": "sig"}

    def token(self, *, lifetime: float = 60, **claims: Any) -> str:
        """A signed token; a claim that is None is left out."""
        now = time.time()
        payload = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "usr_1",
            "tid": "tnt_1",
            "iat": int(now - 120),
            "exp": int(now + lifetime),
            **claims,
        }
        payload = {name: value for name, value in payload.items() if value is not None}
        return jwt.encode(payload, self._private, algorithm="EdDSA", headers={"kid": self.kid})


def write_jwks(target: Path, *keys: Keys) -> None:
    """Replace the key set by a rename, as Envoy's watch asks."""
    made = target.with_suffix(".new")
    made.write_text(json.dumps({"keys": [key.jwk() for key in keys]}))
    made.replace(target)
