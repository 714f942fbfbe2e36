"""What the command line takes from the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

_DEFAULT_PORT = "8080"


def _default_url() -> str:
    port = os.environ.get("PLEXUS_PORT", _DEFAULT_PORT)
    return os.environ.get("PLEXUS_URL") or f"http://127.0.0.1:{port}"


def _config_dir() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME", "")
    # The specification tells to pass over a path that is not absolute.
    root = Path(base) if base.startswith("/") else Path.home() / ".config"
    return root / "plexus"


@dataclass(frozen=True)
class CliSettings:
    """Read once, when a command starts.

    Attributes:
        url: `PLEXUS_URL`: the installation to speak to, unless `--url` names one. Without it, the
            one that `plexus up` starts on this machine (`PLEXUS_PORT` says on which port).
        token: `PLEXUS_TOKEN`: an API key or an access token, used instead of a login.
        config_dir: Where logins are kept: `plexus` in `XDG_CONFIG_HOME` or in `~/.config`.
    """

    url: str = field(default_factory=_default_url)
    token: str = field(default_factory=lambda: os.environ.get("PLEXUS_TOKEN", ""), repr=False)
    config_dir: Path = field(default_factory=_config_dir)


def quiet_grpc() -> None:
    """Keep gRPC's own log off the terminal, unless somebody asked for it; call before importing it.

    What matters to a person is in the error that the call ends with.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def no_color() -> bool:
    """Whether colours are unwanted (no-color.org), or the terminal has none."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
