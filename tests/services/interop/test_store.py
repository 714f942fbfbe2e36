"""How responses of models are kept, on each database."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.interop import store, workers
from services.interop.domain.kept import INTERRUPTED, MAX_DEPTH, Kept, Taken
from services.interop.domain.values import Finished, Piece, Started, Text, ToolDelta, Usage
from services.interop.tables import pieces, responses
from services.runtime import clock
from services.runtime.db import EVERYONE, Database
from services.runtime.errors import NotFound
from services.runtime.ids import new_id

PIECES: list[Piece] = [
    Started("", "lab/tiny"),
    Text("Hello"),
    ToolDelta(0, "call_1", "f", ""),
    ToolDelta(0, "", "", '{"a": "\x00ü"}'),
]
DONE = Finished("stop", Usage(3, 2))


def response(tenant: str = "ten_a", **values: object) -> Kept:
    made = Kept(
        response_id=new_id("rsp"),
        tenant_id=tenant,
        user_id="usr_a",
        model="lab/tiny",
        previous_id="",
        items=[{"type": "message", "role": "user", "content": "Hi \x00 ü"}],
        echo={"temperature": 0.5, "store": True},
        depth=1,
        size=10,
        create_time=clock.now(),
    )
    return replace(made, **values)  # type: ignore[arg-type]


async def keep(database: Database, kept: Kept, *said: Piece) -> Kept:
    async with database.transaction((kept.tenant_id,)) as connection:
        await store.insert_response(connection, kept, "me", said)
    return kept


async def test_it_comes_back_as_it_was_kept(database: Database) -> None:
    kept = await keep(database, response(end=DONE), *PIECES)
    async with database.read(("ten_a",)) as connection:
        found = await store.get(connection, "ten_a", kept.response_id)
        said = await store.list_pieces(connection, "ten_a", kept.response_id)
    assert said == [(1, PIECES)]
    assert found.size > kept.size
    assert replace(found, size=kept.size) == kept


async def test_more_comes_in_places_and_once_each(database: Database) -> None:
    kept = await keep(database, response())
    for place, piece in ((1, PIECES[0]), (2, PIECES[1]), (2, Text("again")), (3, PIECES[2])):
        async with database.transaction(("ten_a",)) as connection:
            await store.add(connection, kept, "me", place, [piece])
    async with database.read(("ten_a",)) as connection:
        some = await store.list_pieces(connection, "ten_a", kept.response_id, 1, 1)
        every = await store.list_pieces(connection, "ten_a", kept.response_id)
        assert await store.under_way(connection, "ten_a") == 1
    assert some == [(2, [PIECES[1]])]
    assert every == [(place, [PIECES[place - 1]]) for place in (1, 2, 3)]


async def test_only_its_owner_writes_and_only_until_the_end(database: Database) -> None:
    kept = await keep(database, response())
    async with database.transaction(("ten_a",)) as connection:
        with pytest.raises(Taken):
            await store.add(connection, kept, "another", 1, PIECES)
    async with database.transaction(("ten_a",)) as connection:
        await store.end(connection, kept, "me", INTERRUPTED)
    async with database.transaction(("ten_a",)) as connection:
        with pytest.raises(Taken):
            await store.add(connection, kept, "me", 1, PIECES)
        with pytest.raises(Taken):
            await store.end(connection, kept, "me", DONE)
    async with database.read(("ten_a",)) as connection:
        assert (await store.get(connection, "ten_a", kept.response_id)).end == INTERRUPTED
        assert await store.list_pieces(connection, "ten_a", kept.response_id) == []
        assert await store.under_way(connection, "ten_a") == 0


async def test_a_conversation_is_found_from_its_end(database: Database) -> None:
    previous, ids = "", []
    for number in range(5):
        kept = response(previous_id=previous, depth=number + 1, end=DONE)
        await keep(database, kept, Text(f"answer {number}"))
        previous = kept.response_id
        ids.append(previous)
    branch = await keep(database, response(previous_id=ids[1], end=DONE), Text("branch"))
    async with database.read(("ten_a",)) as connection:
        chain = await store.chain(connection, "ten_a", previous)
        other = await store.chain(connection, "ten_a", branch.response_id)
        assert await store.chain(connection, "ten_b", previous) == []
        assert await store.chain(connection, "ten_a", "rsp_absent") == []
    assert [kept.response_id for kept, _ in chain] == ids
    assert [said for _, said in chain] == [[Text(f"answer {n}")] for n in range(5)]
    assert [kept.response_id for kept, _ in other] == [*ids[:2], branch.response_id]
    async with database.transaction(("ten_a",)) as connection:
        await store.remove(connection, "ten_a", ids[1])
    async with database.read(("ten_a",)) as connection:
        rest = await store.chain(connection, "ten_a", previous)
    assert rest[0][0].previous_id == ids[1]


async def test_a_chain_without_an_end_ends(database: Database) -> None:
    kept = response()
    await keep(database, replace(kept, previous_id=kept.response_id))
    async with database.read(("ten_a",)) as connection:
        chain = await store.chain(connection, "ten_a", kept.response_id)
    assert len(chain) <= MAX_DEPTH


async def test_another_tenants_are_absent(database: Database) -> None:
    kept = await keep(database, response(end=DONE), *PIECES)
    async with database.transaction(("ten_b",)) as connection:
        for change in (store.get, store.remove):
            with pytest.raises(NotFound):
                await change(connection, "ten_b", kept.response_id)
        assert await store.list_pieces(connection, "ten_b", kept.response_id) == []
        await store.ask_cancel(connection, "ten_b", kept.response_id)
        with pytest.raises(Taken):
            await store.add(connection, replace(kept, tenant_id="ten_b"), "me", 2, PIECES)
        for table in (responses, pieces) if database.dialect == "postgresql" else ():
            # There the server shows none, whatever a query forgets to ask for.
            assert (await connection.execute(table.select())).all() == []
    async with database.read(("ten_a",)) as connection:
        assert await store.list_pieces(connection, "ten_a", kept.response_id) == [(1, PIECES)]


async def test_what_is_old_is_forgotten_with_all_it_had(database: Database) -> None:
    day = 24 * 3600 * clock.SECOND
    for _ in range(150):
        await keep(database, response(create_time=clock.now() - 31 * day, end=DONE), *PIECES)
    young = await keep(database, response(create_time=clock.now() - 29 * day, end=DONE), *PIECES)
    await workers.purge(database, 30)
    async with database.read(EVERYONE) as connection:
        for table in (responses, pieces):
            rows = (await connection.execute(table.select())).all()
            assert [row.response_id for row in rows] == [young.response_id]
