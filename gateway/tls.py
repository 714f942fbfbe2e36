"""How the gateway and modules on TCP know each other: certificates of one authority, both ways."""

from __future__ import annotations

from pathlib import Path

from gateway.config import GatewayConfig
from gateway.shapes import Json, extension

# The one name in every process's certificate.
PEER_NAME = "plexus"
_CERTIFICATE, _AUTHORITY = "certificate", "authority"


def transport(config: GatewayConfig) -> Json:
    """A cluster's part: TLS where there are certificates."""
    if config.tls_dir is None:
        return {}
    certificate = _followed(_CERTIFICATE, config.certificate_file, config.run_dir)
    authority = _followed(_AUTHORITY, config.authority_file, config.run_dir)
    context: Json = {
        # gRPC speaks HTTP/2 and wants to hear so.
        "alpn_protocols": ["h2"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificate_sds_secret_configs": [certificate],
        "validation_context_sds_secret_config": authority,
    }
    made = extension(
        "transport_sockets.tls",
        "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        sni=PEER_NAME,
        common_tls_context=context,
    )
    return {"transport_socket": made}


def secrets(config: GatewayConfig) -> dict[Path, Json]:
    """What Envoy reads to find the certificates, by the file that it reads it from.

    Envoy follows the folder of certificates only when it is told of them this way.
    """
    if config.tls_dir is None:
        return {}
    folder = {"path": str(config.tls_dir)}
    certificate = {
        "certificate_chain": {"filename": str(config.tls_dir / "cert.pem")},
        "private_key": {"filename": str(config.tls_dir / "key.pem")},
        "watched_directory": folder,
    }
    name = {"san_type": "DNS", "matcher": {"exact": PEER_NAME}}
    authority = {
        "trusted_ca": {"filename": str(config.tls_dir / "ca.pem")},
        "match_typed_subject_alt_names": [name],
        "watched_directory": folder,
    }
    return {
        config.certificate_file: _secret(_CERTIFICATE, "tls_certificate", certificate),
        config.authority_file: _secret(_AUTHORITY, "validation_context", authority),
    }


def _followed(name: str, file: Path, folder: Path) -> Json:
    source = {"path": str(file), "watched_directory": {"path": str(folder)}}
    return {
        "name": name,
        "sds_config": {"path_config_source": source, "resource_api_version": "V3"},
    }


def _secret(name: str, kind: str, content: Json) -> Json:
    made = {"name": name, kind: content}
    made["@type"] = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    return {"resources": [made]}
