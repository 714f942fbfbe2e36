"""History over its contract, through the real interceptors, on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plexus.history.v1 import history_service_pb2 as pb
from plexus.history.v1 import session_pb2
from plexus.history.v1.history_service_pb2_grpc import HistoryServiceStub

from services.history.domain.sessions import Author, Message, title_of
from services.history.window import fit
from services.runtime.context import acting_as, mesh_principal
from services.runtime.errors import InvalidRequest, NotFound, Unauthenticated
from services.runtime.status import remote_errors
from tests.databases import KINDS, Databases
from tests.support import Served, served, settings_in

USER = session_pb2.AUTHOR_ROLE_USER


@pytest.fixture(params=KINDS)
async def mesh(
    request: pytest.FixtureRequest, tmp_path: Path, databases: Databases
) -> AsyncIterator[Served]:
    settings = settings_in(tmp_path, **await databases.settings(request.param))
    async with served(settings, ["history"]) as found:
        yield found


@pytest.fixture
def stub(mesh: Served) -> HistoryServiceStub:
    return HistoryServiceStub(mesh.clients.channel("history"))


async def append(
    stub: HistoryServiceStub,
    session: str,
    message: str,
    text: str = "hello",
    *,
    partial: bool = False,
) -> session_pb2.Message:
    reply = await stub.AppendMessage(
        pb.AppendMessageRequest(
            message=session_pb2.Message(
                message_id=message,
                session_id=session,
                role=session_pb2.AUTHOR_ROLE_USER,
                text=text,
                partial=partial,
            )
        )
    )
    return reply.message


async def texts(stub: HistoryServiceStub, session: str) -> list[str]:
    found, token = [], ""
    while True:
        page = await stub.ListMessages(
            pb.ListMessagesRequest(session_id=session, page_size=3, page_token=token)
        )
        found += [message.text for message in page.messages]
        token = page.next_page_token
        if not token:
            return found


async def test_messages_come_back_in_order_page_by_page(stub: HistoryServiceStub) -> None:
    with acting_as(mesh_principal("ten_order", "usr_1")):
        for n in range(7):
            await append(stub, "ses_order", f"msg_order{n}", f"text {n}")
        assert await texts(stub, "ses_order") == [f"text {n}" for n in range(7)]
        session = (await stub.GetSession(pb.GetSessionRequest(session_id="ses_order"))).session
        assert (session.title, session.message_count, session.user_id) == ("text 0", 7, "usr_1")


async def test_a_page_of_large_messages_ends_early(stub: HistoryServiceStub) -> None:
    with acting_as(mesh_principal("ten_large", "usr_1")):
        for n in range(4):
            await append(stub, "ses_large", f"msg_large{n}", f"{n}" + "語" * 300_000)
        sizes, token = [], ""
        while True:
            page = await stub.ListMessages(
                pb.ListMessagesRequest(session_id="ses_large", page_token=token)
            )
            sizes.append(len(page.messages))
            token = page.next_page_token
            if not token:
                break
        assert sizes == [2, 2]


async def test_appending_again_changes_nothing(stub: HistoryServiceStub) -> None:
    with acting_as(mesh_principal("ten_again", "usr_1")):
        first = await append(stub, "ses_again", "msg_again", "whole")
        second = await append(stub, "ses_again", "msg_again", "other", partial=True)
        assert second == first
        assert await texts(stub, "ses_again") == ["whole"]


async def test_many_at_once_are_each_kept_once(stub: HistoryServiceStub) -> None:
    with acting_as(mesh_principal("ten_many", "usr_1")):
        ids = [f"msg_many{n % 50}" for n in range(150)]
        await asyncio.gather(*(append(stub, "ses_many", each, each) for each in ids))
        assert sorted(await texts(stub, "ses_many")) == sorted(set(ids))


async def test_another_tenants_things_look_absent(stub: HistoryServiceStub) -> None:
    with acting_as(mesh_principal("ten_mine", "usr_1")):
        await append(stub, "ses_mine", "msg_mine")
    with acting_as(mesh_principal("ten_other", "usr_2")):
        errors = []
        for call in (
            stub.GetSession(pb.GetSessionRequest(session_id="ses_mine")),
            stub.GetSession(pb.GetSessionRequest(session_id="ses_absent")),
            stub.ListMessages(pb.ListMessagesRequest(session_id="ses_mine")),
            stub.GetWindow(pb.GetWindowRequest(session_id="ses_mine", max_tokens=10)),
        ):
            with pytest.raises(NotFound) as caught, remote_errors():
                await call
            errors.append((caught.value.message, caught.value.metadata))
        assert len(set(map(str, errors))) == 1
        for message in ("msg_mine", "msg_new"):
            with pytest.raises(NotFound), remote_errors():
                await append(stub, "ses_mine", message)
        assert not (await stub.ListSessions(pb.ListSessionsRequest())).sessions


async def test_sessions_are_listed_newest_first(stub: HistoryServiceStub) -> None:
    with acting_as(mesh_principal("ten_list", "usr_1")):
        for n in range(5):
            await append(stub, f"ses_list{n}", f"msg_list{n}")
        found, token = [], ""
        while True:
            page = await stub.ListSessions(pb.ListSessionsRequest(page_size=2, page_token=token))
            found += [session.session_id for session in page.sessions]
            token = page.next_page_token
            if not token:
                break
        assert found == [f"ses_list{n}" for n in reversed(range(5))]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.AppendMessageRequest(), "message"),
        (
            pb.AppendMessageRequest(message=session_pb2.Message(message_id="m", role=USER)),
            "session_id",
        ),
        (
            pb.AppendMessageRequest(message=session_pb2.Message(session_id="s", role=USER)),
            "message.message_id",
        ),
        (
            pb.AppendMessageRequest(message=session_pb2.Message(message_id="m", session_id="s")),
            "message.role",
        ),
    ],
)
async def test_bad_messages_are_refused_by_field(
    stub: HistoryServiceStub, request_: pb.AppendMessageRequest, field: str
) -> None:
    with acting_as(mesh_principal("ten_bad", "usr_1")):
        with pytest.raises(InvalidRequest) as caught, remote_errors():
            await stub.AppendMessage(request_)
        assert field in caught.value.violations[0].field


async def test_what_is_internal_is_for_the_mesh_alone(mesh: Served) -> None:
    async with grpc.aio.insecure_channel(f"unix:{mesh.settings.socket}") as outside:
        with pytest.raises(Unauthenticated), remote_errors():
            await HistoryServiceStub(outside).AppendMessage(pb.AppendMessageRequest())


async def test_the_window_takes_the_newest_that_fit(stub: HistoryServiceStub) -> None:
    with acting_as(mesh_principal("ten_window", "usr_1")):
        for n in range(10):
            await append(stub, "ses_window", f"msg_window{n}", f"{n} " + "word " * 99)
        everything = await stub.GetWindow(
            pb.GetWindowRequest(session_id="ses_window", max_tokens=100_000)
        )
        assert len(everything.messages) == 10
        assert everything.omitted_count == 0
        some = await stub.GetWindow(pb.GetWindowRequest(session_id="ses_window", max_tokens=350))
        # A hundred words are about a hundred tokens, and five hundred bytes: bytes would fit none.
        assert [message.text[0] for message in some.messages] == ["7", "8", "9"]
        assert some.omitted_count == 7
        one = await stub.GetWindow(pb.GetWindowRequest(session_id="ses_window", max_tokens=1))
        assert [message.text[0] for message in one.messages] == ["9"]


def message(text: str) -> Message:
    return Message("m", "s", Author.USER, text, "", False, 1, 0)


@given(st.lists(st.text(max_size=30), min_size=1), st.integers(1, 100))
def test_fitting_keeps_its_promises(found: list[str], budget: int) -> None:
    newest_first = [message(text) for text in found]
    chosen = fit(newest_first, budget, len)
    assert chosen == newest_first[: len(chosen)][::-1]
    assert chosen
    total = sum(len(each.text) for each in chosen)
    assert total <= budget or len(chosen) == 1
    if len(chosen) < len(newest_first):
        assert total + len(newest_first[len(chosen)].text) > budget


def test_a_title_is_one_short_line() -> None:
    assert title_of("  a\n b  ") == "a b"
    assert len(title_of("x" * 500)) == 80
