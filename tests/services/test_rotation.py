"""The master key, replaced step by step on an installation that works."""

from __future__ import annotations

from pathlib import Path

import pytest
from plexus.identity.v1 import identity_service_pb2 as identity
from plexus.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from plexus.ingest.v1 import source_pb2, source_service_pb2
from plexus.ingest.v1.source_service_pb2_grpc import SourceServiceStub
from plexus.llm.v1 import generation_pb2, model_pb2, provider_pb2, provider_service_pb2
from plexus.llm.v1.llm_service_pb2_grpc import LlmServiceStub
from plexus.llm.v1.provider_service_pb2_grpc import ProviderServiceStub
from plexus.options.v1.options_pb2 import Role

from services import rotation
from services.llm.store import answers
from services.runtime.context import Principal, acting_as
from services.runtime.credentials import MeshSigner
from services.runtime.crypto import MasterKey, MasterKeyError
from services.runtime.db import EVERYONE, open_database
from services.runtime.settings import Settings
from tests.services.llm.scripted_openai import ScriptedOpenAi
from tests.support import served, settings_in

ADMIN = Principal("ten_1", "usr_1", "tok_1", frozenset({Role.ROLE_ADMIN}))
KEY = "sk-0123456789abcdef"
# With a secret in it.
SOURCE = source_service_pb2.NewSource(
    display_name="list",
    rest=source_pb2.RestList(url="http://127.0.0.1:9/", item_id="/id", headers={"x-key": KEY}),
)


async def ask(settings: Settings, *, create: str = "") -> str:
    """The key that the model's server is called with, through an installation that is started."""
    async with served(settings, ["identity", "llm", "ingest", "memory"]) as mesh:
        with acting_as(ADMIN):
            channel = mesh.clients.channel("llm")
            if create:
                spec = provider_pb2.ProviderSpec(
                    base_url=create, api_key=KEY, models=[provider_pb2.ProviderModel(name="tiny")]
                )
                await ProviderServiceStub(channel).CreateProvider(
                    provider_service_pb2.CreateProviderRequest(name="mine", spec=spec)
                )
                await SourceServiceStub(mesh.clients.channel("ingest")).CreateSource(
                    source_service_pb2.CreateSourceRequest(source=SOURCE)
                )
            said = model_pb2.ModelMessage(role=model_pb2.MESSAGE_ROLE_USER, text="Hello")
            request = generation_pb2.GenerateRequest(
                model="mine/tiny", messages=[said], idempotency_key="once"
            )
            replies = [each async for each in LlmServiceStub(channel).Generate(request)]
            jwks = IdentityServiceStub(mesh.clients.channel("identity"))
            keys = await jwks.GetJwks(identity.GetJwksRequest())
        assert replies[-1].HasField("finished")
        return str(keys.keys[0].kid)


async def test_a_key_is_replaced_and_nothing_is_lost(tmp_path: Path) -> None:
    told: list[str] = []
    async with ScriptedOpenAi() as upstream:
        settings = settings_in(tmp_path, egress_allow="127.0.0.1")
        kid = await ask(settings, create=upstream.url)
        (old,) = MasterKey.keys_in(settings.master_key)
        with pytest.raises(MasterKeyError, match="add another first"):
            await rotation.step(settings, "use", told.append)
        await rotation.step(settings, "add", told.append)
        assert await ask(settings) == kid
        await rotation.step(settings, "use", told.append)
        keys = MasterKey.keys_in(settings.master_key)
        assert keys[1] == old
        assert keys[0] != old
        with pytest.raises(MasterKeyError, match="still opens"):
            await rotation.step(settings, "forget", told.append)
        needed = await rotation._needed(settings, keys[:1])
        assert [each for each in needed if each.startswith("ingest/source/")]
        assert await ask(settings) == kid
        # The answer that is kept for a day is what holds the old one still.
        with pytest.raises(MasterKeyError, match="llm/answer"):
            await rotation.step(settings, "forget", told.append)
        database = open_database(settings)
        async with database.of("llm").transaction(EVERYONE) as connection:
            await answers.purge(connection, 1 << 62)
        await database.close()
        await rotation.step(settings, "forget", told.append)
        assert MasterKey.keys_in(settings.master_key) == [keys[0]]
        assert settings.master_key.stat().st_mode & 0o777 == 0o600
        assert await ask(settings) == kid
        # Once for each answer that was not kept.
        assert [each.headers["authorization"] for each in upstream.requests] == [
            f"Bearer {KEY}"
        ] * 2
    assert len(told) == 3


def test_services_believe_each_other_while_they_know_both_keys() -> None:
    one, two = b"1" * 32, b"2" * 32
    before, between, after = MeshSigner(one), MeshSigner(one, two), MeshSigner(two, one)
    assert between.verify(before.sign(ADMIN)).tenant_id == "ten_1"
    assert between.verify(after.sign(ADMIN)).tenant_id == "ten_1"
    assert after.verify(between.sign(ADMIN)).tenant_id == "ten_1"


def test_a_file_of_keys_is_whole_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    MasterKey.replace(path, [b"1" * 32])
    for bad in ([], [b"1"], [b"1" * 32] * 5):
        with pytest.raises(MasterKeyError):
            MasterKey.replace(path, bad)
    assert MasterKey.keys_in(path) == [b"1" * 32]
    assert [each.name for each in tmp_path.iterdir()] == ["master.key"]
