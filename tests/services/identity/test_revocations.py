"""How verifiers learn what is revoked, through the real server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from plexus.identity.v1 import identity_service_pb2 as pb
from plexus.identity.v1.identity_service_pb2_grpc import IdentityServiceStub

from services.identity.domain import Revocation
from services.identity.service.revocations import TOPIC, RevocationWatch
from services.identity.store import revocations
from services.runtime import clock
from services.runtime.clients import Clients
from services.runtime.clock import SECOND
from services.runtime.credentials import MeshSigner
from services.runtime.crypto import MasterKey
from services.runtime.db import Database
from services.runtime.shared import MemoryShared
from tests.databases import Databases
from tests.services.identity.people import Identity, refusal, serving, until

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def revoke_one(identity: Identity) -> tuple[str, int]:
    """The id and the expiry of a key that was made and deleted."""
    person = await identity.join()
    key = (await identity.create_key(person.access_token)).api_key
    await identity.delete_key(person.access_token, key.api_key_id)
    return key.api_key_id, key.expire_time.seconds


async def test_everything_comes_first_and_then_what_is_added(identity: Identity) -> None:
    before, expires = await revoke_one(identity)
    call = identity.mesh.WatchRevocations(pb.WatchRevocationsRequest())
    first = await call.read()
    assert isinstance(first, pb.WatchRevocationsResponse)
    assert first.complete
    known = {each.credential_id: each.expire_time.seconds for each in first.revocations}
    # A verifier whose clock is slow must not forget it before the token has expired.
    assert known[before] > expires
    after, _ = await revoke_one(identity)
    added: list[str] = []
    async with asyncio.timeout(1.0):
        while not added:
            reply = await call.read()
            assert isinstance(reply, pb.WatchRevocationsResponse)
            assert not reply.complete
            added = [each.credential_id for each in reply.revocations]
    assert added == [after]
    call.cancel()


async def test_a_quiet_stream_gives_a_sign_of_life(identity: Identity) -> None:
    loop = asyncio.get_running_loop()
    call = identity.mesh.WatchRevocations(pb.WatchRevocationsRequest())
    await call.read()
    began = loop.time()
    reply = await asyncio.wait_for(call.read(), 2.0)
    assert isinstance(reply, pb.WatchRevocationsResponse)
    assert not reply.complete and not reply.revocations
    assert loop.time() - began > 1.0
    call.cancel()


async def test_only_the_mesh_may_listen(identity: Identity) -> None:
    person = await identity.join()
    call = identity.stub.WatchRevocations(pb.WatchRevocationsRequest(), metadata=person.metadata)
    refused = await refusal(call.read())
    assert refused.code is grpc.StatusCode.PERMISSION_DENIED
    nobody = identity.stub.WatchRevocations(pb.WatchRevocationsRequest())
    assert (await refusal(nobody.read())).reason == "UNAUTHENTICATED"


async def test_a_listener_that_leaves_leaves_nothing_behind(identity: Identity) -> None:
    before = len(asyncio.all_tasks())
    calls = [identity.mesh.WatchRevocations(pb.WatchRevocationsRequest()) for _ in range(10)]
    for call in calls:
        await call.read()
    for call in calls:
        call.cancel()

    async def gone() -> bool:
        return len(asyncio.all_tasks()) <= before + 1

    await until(gone, 2)
    # The readers that the streams used are there for others.
    await asyncio.gather(*(identity.key_ids() for _ in range(10)))


async def test_a_revocation_survives_a_restart(tmp_path: Path) -> None:
    async with serving(tmp_path) as identity:
        person = await identity.join()
        made = await identity.create_key(person.access_token)
        await identity.delete_key(person.access_token, made.api_key.api_key_id)
    async with serving(tmp_path) as identity:
        assert (await refusal(identity.profile(made.token))).reason == "UNAUTHENTICATED"


async def test_a_stop_sends_listeners_elsewhere_rather_than_cut_them(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    async with serving(tmp_path, drain_seconds=8) as identity:
        mesh = MeshSigner(MasterKey.load(tmp_path / "master.key").derive("mesh"))
        # Another process: it does not close its channel when this one stops.
        other = Clients({"identity": f"unix:{identity.served.settings.socket}"}, mesh)
        stub = IdentityServiceStub(other.channel("identity"))
        call = stub.WatchRevocations(pb.WatchRevocationsRequest())
        await call.read()
        began = loop.time()
    assert loop.time() - began < 1
    while await call.read() is not grpc.aio.EOF:
        pass
    assert await call.code() is grpc.StatusCode.OK
    await other.close()


@pytest.mark.asyncio(loop_scope="function")
async def test_a_replica_tells_what_another_revoked(
    database: Database, databases: Databases
) -> None:
    other = databases.again().of("identity")
    changes = RevocationWatch(database, MemoryShared(alone=False).notices).changes()
    assert await anext(changes) == []
    revoked = [Revocation(f"key_{n}", clock.now() + 60 * SECOND) for n in range(5)]

    async def one(revocation: Revocation) -> None:
        async with other.transaction(()) as connection:
            await revocations.add(connection, revocation)

    await asyncio.gather(*(one(each) for each in revoked))
    seen: list[Revocation] = []
    async with asyncio.timeout(2):
        while len(seen) < len(revoked):
            seen += await anext(changes)
    assert sorted(seen, key=lambda each: each.credential_id) == revoked
    await changes.aclose()
    await other.close()


@pytest.mark.asyncio(loop_scope="function")
async def test_a_notice_is_faster_than_the_next_look_and_not_needed(database: Database) -> None:
    loop = asyncio.get_running_loop()
    notices = MemoryShared(alone=True).notices
    changes = RevocationWatch(database, notices).changes()
    assert await anext(changes) == []
    for told, most in ((True, 0.4), (False, 1.0)):
        revoked = Revocation(f"key_{told}", clock.now() + 60 * SECOND)
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0.1)
        began = loop.time()
        async with database.transaction(()) as connection:
            await revocations.add(connection, revoked)
        if told:
            await notices.publish(TOPIC)
        assert await waiting == [revoked]
        assert loop.time() - began < most
    await changes.aclose()
