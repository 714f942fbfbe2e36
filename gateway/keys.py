"""The key set that verifies tokens: read from its file, and handed to Envoy as it changes.

Envoy 1.40 reads a key set's file once. What it does watch is the file of a filter's whole
configuration, so the keys are written into that.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from gateway.config import GatewayConfig
from gateway.errors import GatewayError
from gateway.filters import JWT, token_filter
from gateway.shapes import Json


def read_keys(path: Path) -> str:
    """The text of a key set that holds at least one key.

    Raises:
        GatewayError: It is not there, or not a key set.
    """
    try:
        text = path.read_text()
        keys = json.loads(text)["keys"]
    except FileNotFoundError as error:
        raise GatewayError(f"the key set {path} is not there: identity writes it first") from error
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise GatewayError(f"the key set {path} cannot be read: {error}") from error
    if not keys:
        raise GatewayError(f"the key set {path} has no key: identity writes one first")
    return text


def discovery(config: GatewayConfig, keys: str) -> Json:
    """What Envoy reads from `config.token_file`: the filter that verifies by these keys."""
    return {
        # Envoy passes over what has the version that it knows.
        "version_info": hashlib.sha256(keys.encode()).hexdigest(),
        "resources": [
            {
                "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
                "name": JWT,
                "typed_config": token_filter(config, keys),
            }
        ],
    }
