"""Tokens of every age in use while the keys that sign them are replaced."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import jwt
from plexus.agents.v1 import agents_service_pb2 as agents
from plexus.agents.v1 import run_pb2
from plexus.identity.v1 import identity_service_pb2 as identity

from services.runtime.errors import PlexusError
from tests.e2e.callers import Grpc
from tests.e2e.conftest import PASSWORD, sign_up
from tests.faults.suite import Suite

_IDENTITY = "identity.v1.IdentityService"
_PAUSE = 0.02


@dataclass
class Rotated:
    """What was seen: keys that signed, calls by what they were, and what went wrong.

    Attributes:
        until: Nobody goes on once a call ended with this reason.
    """

    until: str = ""
    kids: set[str] = field(default_factory=set)
    calls: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether what was waited for was seen."""
        return bool(self.until) and any(self.until in each for each in self.wrong)

    def __str__(self) -> str:
        return f"{len(self.kids)} keys, {dict(self.calls)}, {len(self.wrong)} errors"


class User:
    """Logs in, refreshes, and uses a token for as long as it is good."""

    def __init__(self, suite: Suite, caller: Grpc, made: Rotated, token_seconds: float) -> None:
        self._suite = suite
        self._caller = caller
        self._made = made
        self._good_for = token_seconds
        self._email = ""
        self._refresh = ""
        self._until = 0.0

    async def live(self) -> None:
        """For as long as it may."""
        self._email = (await sign_up(self._caller)).user.email
        loop = asyncio.get_running_loop()
        while not self._made.over:
            # At the end of its life a token is as old as one can be that must still be good.
            if loop.time() > self._until:
                self._until = loop.time() + self._good_for
                await self._try("refresh_token" if self._refresh else "login")
            await self._try(self._suite.chance.choice(("profile", "agents", "run")))
            await asyncio.sleep(_PAUSE)

    async def _try(self, what: str) -> None:
        self._made.calls[what] += 1
        try:
            await getattr(self, f"_{what}")()
        except PlexusError as error:
            kid = jwt.get_unverified_header(self._caller.token)["kid"]
            self._suite.note(what, error=repr(error), kid=kid)
            self._made.wrong.append(f"{what}: {error.reason}")
            self._refresh = "" if what == "refresh_token" else self._refresh

    async def _login(self) -> None:
        request = identity.AuthenticateUserRequest(email=self._email, password=PASSWORD)
        self._take(
            await self._caller.unary(
                f"{_IDENTITY}/AuthenticateUser", request, identity.AuthenticateUserResponse
            )
        )

    async def _refresh_token(self) -> None:
        request = identity.RefreshTokenRequest(refresh_token=self._refresh)
        self._take(
            await self._caller.unary(
                f"{_IDENTITY}/RefreshToken", request, identity.RefreshTokenResponse
            )
        )

    def _take(
        self, reply: identity.AuthenticateUserResponse | identity.RefreshTokenResponse
    ) -> None:
        self._caller.token, self._refresh = reply.access_token, reply.refresh_token
        self._made.kids.add(str(jwt.get_unverified_header(reply.access_token)["kid"]))

    async def _profile(self) -> None:
        await self._caller.unary(
            f"{_IDENTITY}/GetProfile", identity.GetProfileRequest(), identity.GetProfileResponse
        )

    async def _agents(self) -> None:
        await self._caller.unary(
            "agents.v1.AgentsService/ListAgents",
            agents.ListAgentsRequest(),
            agents.ListAgentsResponse,
        )

    async def _run(self) -> None:
        last = None
        async for event in self._caller.stream(
            "agents.v1.AgentsService/Process",
            agents.ProcessRequest(input="Hello"),
            run_pb2.RunEvent,
        ):
            last = event
        if last is None or not last.HasField("run_completed"):
            self._made.wrong.append(f"run: {last}")
