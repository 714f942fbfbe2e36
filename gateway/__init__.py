"""The gateway: Envoy's configuration and the OpenAPI document, both made from the contracts."""
