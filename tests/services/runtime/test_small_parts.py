"""The pure parts of the floor: ids, page tokens, keys, statuses."""

from __future__ import annotations

import time
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plexus.identity.v1 import identity_service_pb2
from plexus.llm.v1 import generation_pb2, model_pb2

from services.runtime import paging
from services.runtime.context import Principal
from services.runtime.contract import REDACTED, ContractError, module_methods, read_method, redact
from services.runtime.credentials import MeshSigner
from services.runtime.crypto import MasterKey, MasterKeyError
from services.runtime.errors import (
    InvalidRequest,
    NotFound,
    PlexusError,
    ResourceExhausted,
    Unauthenticated,
    Violation,
)
from services.runtime.ids import new_id
from services.runtime.status import from_status, to_status


def test_ids_are_unique_and_sort_by_time() -> None:
    ids = []
    for _ in range(20):
        ids.append(new_id("run"))
        time.sleep(0.002)
    assert ids == sorted(ids)
    assert len(set(ids)) == 20
    assert all(len(each) == 30 and each.startswith("run_") for each in ids)


@given(st.integers(-(2**63) + 1, 2**63 - 1), st.text())
def test_a_page_token_gives_back_its_keys(number: int, text: str) -> None:
    assert paging.decode(paging.encode((number, text)), int, str) == (number, text)


@given(st.text(max_size=100))
def test_a_strange_page_token_is_refused_by_name(token: str) -> None:
    if not token:
        assert paging.decode(token, int) is None
        return
    try:
        keys = paging.decode(token, int)
    except InvalidRequest as error:
        assert error.violations[0].field == "page_token"
    else:
        assert keys is not None
        assert type(keys[0]) is int


@pytest.mark.parametrize("key", ["text", 2**63, True, "\ud800"])
def test_a_page_token_of_another_list_is_refused(key: str | int) -> None:
    with pytest.raises(InvalidRequest):
        paging.decode(paging.encode((key,)), str if key == "\ud800" else int)


def test_the_master_key_is_made_once_and_kept_secret(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    sealed = MasterKey.load(path).seal(b"secret", "a test")
    assert path.stat().st_mode & 0o777 == 0o600
    assert b"secret" not in sealed
    assert MasterKey.load(path).open(sealed, "a test") == b"secret"
    with pytest.raises(MasterKeyError):
        MasterKey.load(path).open(sealed, "another use")
    with pytest.raises(MasterKeyError):
        MasterKey(b"x" * 32).open(sealed, "a test")
    path.chmod(0o644)
    with pytest.raises(MasterKeyError, match="chmod 600"):
        MasterKey.load(path)


def test_an_error_survives_the_wire() -> None:
    errors: list[PlexusError] = [
        NotFound.of("run"),
        InvalidRequest("no", violations=[Violation("a.b[2]", "must be set")]),
        ResourceExhausted("later", retry_after=7, metadata={"limit": "x"}),
    ]
    for error in errors:
        back = from_status(to_status(error))
        assert type(back) is type(error)
        assert (back.reason, back.message, back.metadata) == (
            error.reason,
            error.message,
            error.metadata,
        )
        assert back.violations == error.violations
        assert back.retry_after == error.retry_after


def test_a_status_from_elsewhere_says_nothing_of_it() -> None:
    status = to_status(NotFound.of("run"))
    status.details[0].value = b""
    status.message = "psycopg: password=hunter2"
    assert "hunter2" not in from_status(status).message


def test_a_reason_must_be_of_the_contract() -> None:
    with pytest.raises(ValueError, match="NO_SUCH"):
        NotFound("x", reason="NO_SUCH")


def test_secrets_are_redacted_by_the_contract() -> None:
    request = identity_service_pb2.RegisterUserRequest(email="a@b.c", password="hunter2hunter2")
    assert redact(request) == {"email": "a@b.c", "password": REDACTED}
    nested = generation_pb2.GenerateRequest(messages=[model_pb2.ModelMessage(text="hi")])
    assert redact(nested) == {"messages": [{"text": "hi"}]}


def test_every_module_declares_every_policy() -> None:
    for module in (
        "identity",
        "llm",
        "history",
        "memory",
        "ingest",
        "context",
        "agents",
        "interop",
        "monitor",
    ):
        assert module_methods(module)


def test_an_rpc_without_a_policy_does_not_start() -> None:
    from google.protobuf import descriptor_pb2, descriptor_pool

    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto(name="x.proto", package="x", syntax="proto3")
    file.message_type.add(name="M")
    service = file.service.add(name="S")
    service.method.add(name="R", input_type=".x.M", output_type=".x.M")
    pool.Add(file)
    method = pool.FindServiceByName("x.S").methods[0]
    with pytest.raises(ContractError, match=r"/x\.S/R declares no permission"):
        read_method(method)


def test_an_assertion_is_believed_only_from_this_mesh(monkeypatch: pytest.MonkeyPatch) -> None:
    who = Principal("ten_1", "usr_1", "tok_1", frozenset({2}))
    ours, theirs = MeshSigner(b"a" * 32), MeshSigner(b"b" * 32)
    assertion = ours.sign(who)
    seen = ours.verify(assertion)
    assert (seen.tenant_id, seen.user_id, seen.roles, seen.mesh) == (
        "ten_1",
        "usr_1",
        frozenset({2}),
        True,
    )
    with pytest.raises(Unauthenticated):
        theirs.verify(assertion)
    monkeypatch.setattr("time.time", lambda: 1e12)
    with pytest.raises(Unauthenticated):
        ours.verify(assertion)


def test_every_code_has_a_grpc_status() -> None:
    for code in (NotFound, InvalidRequest, ResourceExhausted):
        assert int(code.code) in {each.value[0] for each in grpc.StatusCode}
