"""One mesh for the stories, and a caller of it for each protocol."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from plexus.identity.v1 import identity_service_pb2 as identity

from tests.e2e.callers import Caller, Grpc, GrpcWeb, Rest
from tests.e2e.mesh import Mesh

PROTOCOLS = ("rest", "grpc", "grpc-web", "grpc-web-text")
PASSWORD = "a long password"
_numbers = itertools.count()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker has all stories of a shape: each would start a mesh of its own otherwise."""
    for item in items:
        parameters = getattr(item, "callspec", None)
        if parameters is not None and "mesh" in parameters.params:
            item.add_marker(pytest.mark.xdist_group(f"stories-{parameters.params['mesh']}"))


@pytest.fixture(scope="session", params=["embedded", "mesh"])
def mesh(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mesh]:
    """A running installation of each shape; every test makes users of its own in it."""
    # Tenants' providers are servers of the tests here.
    settings = {"egress_allow": "127.0.0.1"}
    if request.param == "mesh":
        settings["replicas"] = "agents:2"
    found = Mesh(tmp_path_factory.mktemp(request.param), request.param, **settings)
    with asyncio.Runner() as runner:
        runner.run(found.start())
        yield found
        assert runner.run(found.stop()) == 0


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """A test that fails leaves no mesh behind."""
    before = set(Mesh.running)
    yield
    for left in Mesh.running - before:
        os.kill(left.pid, signal.SIGKILL)
    Mesh.running.intersection_update(before)


@pytest.fixture(params=PROTOCOLS)
async def caller(request: pytest.FixtureRequest, mesh: Mesh) -> AsyncIterator[Caller]:
    """Nobody in particular, by each protocol in turn."""
    found = make_caller(request.param, mesh)
    yield found
    await found.close()


@pytest.fixture
async def rest(mesh: Mesh) -> AsyncIterator[Rest]:
    """Nobody in particular, over REST."""
    found = Rest(mesh.url)
    yield found
    await found.close()


@pytest.fixture
def tmp_mesh(tmp_path: Path) -> Mesh:
    """A mesh of a test's own, not started."""
    return Mesh(tmp_path / "data")


def make_caller(protocol: str, mesh: Mesh) -> Grpc | Rest | GrpcWeb:
    """A client that speaks a protocol."""
    match protocol:
        case "rest":
            return Rest(mesh.url)
        case "grpc":
            return Grpc(mesh.url)
        case _:
            return GrpcWeb(mesh.url, text=protocol.endswith("text"))


def new_email() -> str:
    """An e-mail that nobody has."""
    return f"user{next(_numbers)}@example.com"


async def sign_up(caller: Caller) -> identity.RegisterUserResponse:
    """Register somebody new and log in as them."""
    email = new_email()
    registered = await caller.unary(
        "identity.v1.IdentityService/RegisterUser",
        identity.RegisterUserRequest(email=email, password=PASSWORD, display_name="Ada"),
        identity.RegisterUserResponse,
    )
    tokens = await caller.unary(
        "identity.v1.IdentityService/AuthenticateUser",
        identity.AuthenticateUserRequest(email=email, password=PASSWORD),
        identity.AuthenticateUserResponse,
    )
    caller.token = tokens.access_token
    return registered
