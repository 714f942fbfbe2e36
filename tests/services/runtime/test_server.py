"""A server has its address to itself."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from services.runtime.topology import AddressTaken
from tests.support import served, settings_in


async def test_a_socket_that_is_served_from_is_left_alone(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with served(settings, ("history",)):
        with pytest.raises(AddressTaken, match="stop it first"):
            async with served(settings, ("history",)):
                pass
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(settings.socket))
    # What the dead leave is no hindrance.
    settings.socket.touch()
    async with served(settings, ("history",)):
        assert settings.socket.is_socket()


@pytest.mark.parametrize("setting", ["listen", "health_listen"])
async def test_a_port_that_others_have_is_named(tmp_path: Path, setting: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        where = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(AddressTaken, match=where):
            async with served(settings_in(tmp_path, **{setting: where}), ("history",)):
                pass
