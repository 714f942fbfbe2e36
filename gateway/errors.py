"""What the gateway raises."""

from __future__ import annotations


class GatewayError(Exception):
    """The gateway cannot be configured or started; the text is a sentence for an operator."""
