"""What a process of a measurement needs to believe a token, without identity."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import jwt


class FixedTrust:
    """Keys from a file; some credentials were revoked, others than ours."""

    def __init__(self, jwks: Path) -> None:
        self._keys = {key["kid"]: jwt.PyJWK(key) for key in json.loads(jwks.read_text())["keys"]}
        self._revoked = {f"tok_revoked_{number}": 0.0 for number in range(100)}

    async def key(self, kid: str) -> jwt.PyJWK | None:
        """See Trust."""
        return self._keys.get(kid)

    def revoked(self, credential_ids: Sequence[str]) -> bool:
        """See Trust."""
        return not self._revoked.keys().isdisjoint(credential_ids)
