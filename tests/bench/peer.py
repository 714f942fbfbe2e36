"""The peer: FastAPI on uvicorn with uvloop and httptools, doing the same work.

`python -m tests.bench.peer <socket> <jwks> [<database> <connections> [<model>]]`. It checks
credentials with the class that Plexus uses, cache and all: then neither side has the better one.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import openai
from plexus.options.v1.options_pb2 import Role
from pydantic import BaseModel, ConfigDict, Field

from services.runtime.context import Principal
from services.runtime.credentials import TokenVerifier
from services.runtime.errors import PlexusError
from tests.bench import orm
from tests.bench.trust import FixedTrust

# Installed for measurements alone, so the type checker is not to look for it.
fastapi: Any = importlib.import_module("fastapi")
responses: Any = importlib.import_module("fastapi.responses")
uvicorn: Any = importlib.import_module("uvicorn")
_DELTA = {"text_delta": {"text": "token "}}
_models: list[Any] = []
_verifier = TokenVerifier(FixedTrust(Path(sys.argv[2])))


async def caller(request: Any) -> Principal:
    """Who calls; 401 and 403 as ever."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise fastapi.HTTPException(401)
    try:
        found = await _verifier.verify(token)
    except PlexusError as error:
        raise fastapi.HTTPException(401) from error
    if found.role < Role.ROLE_MEMBER:
        raise fastapi.HTTPException(403)
    return found


caller.__annotations__["request"] = fastapi.Request
Caller = Annotated[Principal, fastapi.Depends(caller)]


class Update(BaseModel):
    """UpdateProfileRequest."""

    display_name: str | None = Field(None, min_length=1, max_length=100)
    etag: str = Field("", max_length=64)


class StrictUpdate(Update):
    """The same; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Input(BaseModel):
    """ProcessRequest, as far as it is used."""

    input: str = Field(min_length=1, max_length=100_000)


class User(BaseModel):
    """A user as the contract has it."""

    user_id: str
    tenant_id: str
    email: str
    display_name: str
    roles: list[str]
    create_time: str
    etag: str


class Updated(BaseModel):
    """UpdateProfileResponse."""

    user: User


async def update(body: Update, who: Caller) -> Updated:
    """UpdateProfile from memory."""
    return _updated(body)


async def update_strictly(body: StrictUpdate, who: Caller) -> Updated:
    """The same, strict."""
    return _updated(body)


def _updated(body: Update) -> Updated:
    user = User(
        user_id="usr_01jd3x0qk4y6x9v2z8w7m5n3p1",
        tenant_id="ten_01jd3x0qk4y6x9v2z8w7m5n3p2",
        email="ada@example.com",
        display_name=body.display_name or "",
        roles=["ROLE_OWNER"],
        create_time="2025-10-09T08:53:20.123456Z",
        etag="7",
    )
    return Updated(user=user)


async def write(body: StrictUpdate, who: Caller) -> Updated:
    """UpdateProfile by the ORM, with its entry in the audit log."""
    account = await orm.rename(who.tenant_id, who.user_id, body.display_name, body.etag)
    if account is None:
        raise fastapi.HTTPException(404)
    user = User(
        user_id=account.user_id,
        tenant_id=account.tenant_id,
        email=account.email,
        display_name=account.display_name,
        roles=[f"ROLE_{name.upper()}" for name in account.roles.split(",")],
        create_time=f"{account.create_time}",
        etag=str(account.version),
    )
    return Updated(user=user)


async def memory(tokens: int, who: Caller) -> Any:
    """Events as a run's, a token each, from memory."""
    return _stream(_event(number, _DELTA) for number in range(1, tokens + 1))


async def stored(run: str, who: Caller) -> Any:
    """Events of a stored run."""
    found = await orm.events(who.tenant_id, run)
    return _stream(_event(each.sequence, {each.kind: each.data}) for each in found)


async def relay(body: Input, who: Caller) -> Any:
    """Tokens of a model as they come, by OpenAI's own client; nothing is stored."""
    if not _models:
        _models.append(openai.AsyncOpenAI(base_url=sys.argv[5], api_key="none"))
    asked = [{"role": "user", "content": body.input}]
    reply = await _models[0].chat.completions.create(model="bench", messages=asked, stream=True)
    return responses.StreamingResponse(_relayed(reply), media_type="text/event-stream")


async def _relayed(reply: Any) -> AsyncIterator[str]:
    number = 0
    async for chunk in reply:
        if chunk.choices and chunk.choices[0].delta.content:
            number += 1
            yield _event(number, {"text_delta": {"text": chunk.choices[0].delta.content}})
    yield _event(number + 1, {"run_completed": {}})


def _stream(events: Iterable[str]) -> Any:
    async def sent() -> AsyncIterator[str]:
        for each in events:
            yield each
        yield _event(0, {"run_completed": {}})

    return responses.StreamingResponse(sent(), media_type="text/event-stream")


def _event(sequence: int, happening: dict[str, Any]) -> str:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    event = {"sequence": str(sequence), "run_id": "run_1", "time": now, **happening}
    return f"data: {json.dumps(event)}\n\n"


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    """Open the database, if there is one, and say that it serves."""
    if len(sys.argv) > 3:
        await orm.connect(Path(sys.argv[3]), int(sys.argv[4]))
    yield


def main() -> None:
    """Serve until told to stop."""
    app = fastapi.FastAPI(lifespan=lifespan)
    app.add_api_route("/peer/update", update, methods=["PUT"])
    app.add_api_route("/peer/strict", update_strictly, methods=["PUT"])
    app.add_api_route("/peer/write", write, methods=["PUT"])
    app.add_api_route("/peer/memory", memory, methods=["GET"])
    app.add_api_route("/peer/stored", stored, methods=["GET"])
    app.add_api_route("/peer/relay", relay, methods=["POST"])
    config = uvicorn.Config(
        app, uds=sys.argv[1], loop="uvloop", http="httptools", log_level="warning", access_log=False
    )
    server = uvicorn.Server(config)
    startup = server.startup

    async def started(sockets: Any = None) -> None:
        await startup(sockets=sockets)
        sys.stdout.write("ready\n")
        sys.stdout.flush()

    server.startup = started
    server.run()


if __name__ == "__main__":
    main()
