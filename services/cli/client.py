"""A channel to one installation, and the credential that goes along with each call."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar

import grpc
from plexus.identity.v1 import identity_service_pb2 as identity
from plexus.identity.v1.identity_service_pb2_grpc import IdentityServiceStub

from services.cli.address import Address
from services.cli.credentials import CredentialsFile, Login
from services.cli.errors import Failure, NoLogin, Problem
from services.cli.settings import CliSettings
from services.runtime.contract import module_methods

T = TypeVar("T")
Metadata = tuple[tuple[str, str], ...]
# A token is renewed when this share of its life has passed.
_RENEW_SHARE = 0.9
# How long Ctrl-C waits for a renewal under way: its refresh token is spent already.
_FINISH_SECONDS = 5.0
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    # An installation that comes back is found within a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A connection that died without a word is found out.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)


def deadlines(module: str) -> dict[str, float]:
    """The deadline of each RPC of a module, in seconds, as the contract has it."""
    return {path.rpartition("/")[2]: each.deadline for path, each in module_methods(module).items()}


class Client:
    """Calls RPCs: sends the user's token, renews it in time, and calls again where it was old."""

    def __init__(self, address: Address, settings: CliSettings) -> None:
        """Prepare a channel; call this where an event loop runs."""
        self.address = address
        self.file = CredentialsFile(settings.config_dir)
        self._token = settings.token
        _wake_at_signals()
        # A proxy has no way to this machine.
        options = (*_OPTIONS, ("grpc.enable_http_proxy", int(not address.local)))
        if address.secure:
            credentials = grpc.ssl_channel_credentials()
            self.channel = grpc.aio.secure_channel(address.target, credentials, options)
        else:
            self.channel = grpc.aio.insecure_channel(address.target, options)
        self._identity = IdentityServiceStub(self.channel)
        self._deadlines = deadlines("identity")

    async def close(self) -> None:
        """Close the channel."""
        await self.channel.close()

    async def unary(self, call: Callable[[Metadata], Awaitable[T]], *, public: bool = False) -> T:
        """Make a call that has one reply.

        Args:
            call: Makes it with the metadata it is given; called again with a renewed token where
                the first one is refused.
            public: Whether it needs no token.

        Raises:
            Failure: There is no login, or it has ended.
            AioRpcError: The call failed.
        """
        if public:
            return await call(())
        token = await self.token()
        try:
            return await call(_bearer(token))
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
                raise
        return await call(_bearer(await self._renew(token)))

    async def stream(
        self, call: Callable[[Metadata], Any], *, public: bool = False
    ) -> AsyncGenerator[Any, None]:
        """Make a call that has any number of replies; as `unary` otherwise."""
        token = "" if public else await self.token()
        for renewed in (public, True):
            replies = call(_bearer(token) if token else ())
            begun = False
            try:
                async for reply in replies:
                    begun = True
                    yield reply
                return
            except grpc.aio.AioRpcError as error:
                refused = error.code() is grpc.StatusCode.UNAUTHENTICATED
                if renewed or begun or not refused:
                    raise
            finally:
                replies.cancel()
            token = await self._renew(token)

    async def token(self) -> str:
        """A token that is good for a while.

        Raises:
            Failure: There is no login, or it has ended.
            AioRpcError: The login could not be renewed now.
        """
        if self._token:
            return self._token
        login = self.file.get(self.address.url)
        if login is None:
            raise self._logged_out()
        return login.access_token if login.fresh else await self._renew(login.access_token)

    async def log_in(self, email: str, password: str) -> str:
        """Trade a password for tokens and keep them; returns the access token.

        Raises:
            Failure: The tokens cannot be kept.
            AioRpcError: The installation refused.
        """
        async with self.file.locked():
            reply = await self._identity.AuthenticateUser(
                identity.AuthenticateUserRequest(email=email, password=password),
                timeout=self._deadlines["AuthenticateUser"],
            )
            return self._keep(email, reply).access_token

    async def log_out(self) -> bool:
        """Forget the login; returns whether there was one."""
        async with self.file.locked():
            return self.file.remove(self.address.url)

    def _keep(
        self,
        email: str,
        reply: identity.AuthenticateUserResponse | identity.RefreshTokenResponse,
    ) -> Login:
        login = Login(
            email=email,
            access_token=reply.access_token,
            refresh_token=reply.refresh_token,
            renew_time=time.time() + reply.expires_in * _RENEW_SHARE,
        )
        self.file.put(self.address.url, login)
        return login

    async def _renew(self, old: str) -> str:
        """Another token than the old one; brought to its end even when Ctrl-C comes between."""
        if self._token:
            raise Failure(
                f"{self.address.url} does not accept the token in PLEXUS_TOKEN: it is expired, "
                "revoked or of another installation. Set another one, or unset it and run "
                "`plexus login`."
            )
        renewing = asyncio.create_task(self._renew_alone(old))
        try:
            return await asyncio.shield(renewing)
        except asyncio.CancelledError:
            await asyncio.wait({renewing}, timeout=_FINISH_SECONDS)
            raise

    async def _renew_alone(self, old: str) -> str:
        async with self.file.locked():
            login = self.file.get(self.address.url)
            if login is None:
                raise self._logged_out()
            if login.access_token != old and login.fresh:
                return login.access_token  # another command was first
            try:
                reply = await self._identity.RefreshToken(
                    identity.RefreshTokenRequest(refresh_token=login.refresh_token),
                    timeout=self._deadlines["RefreshToken"],
                )
            except grpc.aio.AioRpcError as error:
                if Problem.of(error).reason != "BAD_REFRESH_TOKEN":
                    raise
                self.file.remove(self.address.url)
                raise NoLogin(
                    f"Your login at {self.address.url} has ended. Log in again with `plexus login`."
                ) from None
            return self._keep(login.email, reply).access_token

    def _logged_out(self) -> NoLogin:
        return NoLogin(
            f"You are not logged in at {self.address.url}. Run `plexus login` (with --register "
            "if you have no account), or set PLEXUS_TOKEN to an API key."
        )


@asynccontextmanager
async def connect(address: Address, settings: CliSettings) -> AsyncIterator[Client]:
    """A client for as long as the block runs."""
    client = Client(address, settings)
    try:
        yield client
    finally:
        await client.close()


def _wake_at_signals() -> None:
    """Let a Ctrl-C be heard that comes just before the event loop begins to wait.

    The loop is woken by every signal once it handles one, be it one that nobody sends.
    """
    with suppress(NotImplementedError, AttributeError):  # there are none on this system
        asyncio.get_running_loop().add_signal_handler(signal.SIGURG, lambda: None)


def run(url: str, settings: CliSettings, body: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
    """Run a command's body with a client; an RPC's error ends it as a Failure."""
    address = Address.parse(url)

    async def connected() -> T:
        async with connect(address, settings) as client:
            return await body(client)

    with failures(address.url):
        return asyncio.run(connected())


@contextmanager
def failures(url: str) -> Iterator[None]:
    """Turn an RPC's error into a Failure."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise Problem.of(error).failure(url) from None


def _bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)
